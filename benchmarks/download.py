"""What a download costs: bytes on the wire against the bytes wanted, memory, and the time to select from the planet.

    python benchmarks/download.py wire     a mirror whose bands have their true size, served on this machine
    python benchmarks/download.py select   index tables of 2.2 million rows per source

Both write what they need below a temporary folder, which they remove: 1.6 GB for `wire`, 0.8 GB for `select`.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import peak_bytes
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from tiny_archive import INDEX_COLUMNS, Archive, Row, index_table, part_row, write_part
from tiny_hub import TinyHub

from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.settings.sections import RegionSettings

MEGABYTE = 1_000_000
BAND_BYTES = {Modality.DEM: 230_000, Modality.S1RTC: 4_560_000, Modality.S2L1C: 690_000, Modality.S2L2A: 720_000}
"""Mean size of a band, so that a row has the 0.5 to 10.7 MB of the public archive."""
ROWS_PER_PART = 12
PLANET_ROWS = {
    Modality.DEM: 1_837_843,
    Modality.S1RTC: 1_469_955,
    Modality.S2L1C: 2_245_886,
    Modality.S2L2A: 2_245_886,
}
REPEATS = 7_200
"""Rows whose cell another row has as well."""
WITH_MEMORY = f"""
import atexit, sys
sys.path.insert(0, {str(Path(__file__).resolve().parent)!r})
from measuring import peak_bytes
from copgen_cli.app import main
atexit.register(lambda: print(peak_bytes(), file=sys.stderr))
main()
"""
"""The command, and at its end the most memory it had: what the system tells a parent includes the parent's own."""


# -- the wire ----------------------------------------------------------------------------------------------------------


def measure_wire() -> None:
    """Download cells around Rome from parts with bands of true size, and count what the server sent."""
    with tempfile.TemporaryDirectory() as folder:
        archive, footers = write_true_size_archive(Path(folder) / "archive")
        wanted = [row for row in archive.rows if signed_in_box(row)]
        thumbnails = sum(len(archive.thumbnails[row]) for row in wanted)
        tables = sum(archive.table(modality).stat().st_size for modality in PUBLISHED)
        parts = sum(archive.part(modality).stat().st_size for modality in PUBLISHED)
        with TinyHub(archive.root) as hub:
            program = [sys.executable, "-c", WITH_MEMORY, "--quiet", "download", "--json"]
            program += ["--endpoint", hub.endpoint, "--data-dir", f"{folder}/data", "--n-samples", "1000"]
            started = time.perf_counter()
            ran = subprocess.run(program, check=True, capture_output=True, text=True)
            seconds = time.perf_counter() - started
        memory = int(ran.stderr.split()[-1])
        needed = thumbnails + footers + tables
        print(f"{len(wanted)} thumbnails out of {parts / MEGABYTE:,.0f} MB of parts in {seconds:.1f} s")
        print(f"  thumbnails {thumbnails:,} + footers {footers:,} + index tables {tables:,} = {needed:,} bytes")
        print(f"  sent by the server: {hub.bytes_sent:,} bytes, {hub.bytes_sent / needed:.4f} times that")
        print(f"  whole parts, as the published tool fetches them: {parts / needed:.1f} times")
        resolved = [request.path for request in hub.requests if request.kind == "resolve"]
        print(f"  resolves: {len(resolved)} of {len(set(resolved))} files; {len(hub.requests)} requests in all")
        print(f"  most memory of the download: {memory / MEGABYTE:.0f} MB; done: {json.loads(ran.stdout)['done']}")


def write_true_size_archive(root: Path) -> tuple[Archive, int]:
    """Four sources of one part each, a dozen rows, thumbnails of full size; and the bytes of their footers."""
    cells = [f"{row}U_{column}R" for row in (464, 466, 468) for column in range(102, 106)]
    rows = [Row(cell, modality) for modality in PUBLISHED for cell in cells]
    archive = Archive(root, tuple(rows))
    footers = 0
    for modality in PUBLISHED:
        own = [row for row in rows if row.modality is modality]
        file = archive.part(modality)
        file.parent.mkdir(parents=True)
        values = []
        for row in own:
            value = part_row(row, archive, size=8, band_bytes=BAND_BYTES[modality])
            archive.thumbnails[row] = value["thumbnail"] = full_size_picture(row)
            values.append(value)
        write_part(file, modality, values)
        footers += int.from_bytes(file.read_bytes()[-8:-4], "little") + 8
        url = f"https://huggingface.co/{file.relative_to(root).as_posix()}"
        pq.write_table(index_table(modality, own, [(url, i) for i in range(len(own))]), archive.table(modality))
    return archive, footers


def full_size_picture(row: Row) -> bytes:
    """As many pixels as a thumbnail of this source has, with about as much detail."""
    draw = np.random.default_rng(list(row.folder.encode()))
    side, grey = row.modality.source.thumbnail_size, row.modality.spec.grey
    coarse = draw.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse[..., 0] if grey else coarse).resize((side, side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG" if row.modality.source.has_clouds else "PNG")
    return stream.getvalue()


def signed_in_box(row: Row) -> bool:
    return row.cell.startswith(("464U", "466U", "468U"))


# -- the planet --------------------------------------------------------------------------------------------------------


def measure_selection(keep: Path | None) -> None:
    """Select from tables as large as the public ones, each query in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tables: dict[Modality, Path] = {}
        for modality, rows in PLANET_ROWS.items():
            tables[modality] = (keep or Path(folder)) / f"{modality}.parquet"
            if not tables[modality].is_file():
                write_planet_table(tables[modality], modality, rows)
            print(f"{modality.source.name}: {rows:,} rows, {tables[modality].stat().st_size / MEGABYTE:.0f} MB")
        regions = {
            "rome": RegionSettings(bbox=(12.2, 41.6, 13.0, 42.2), n_samples=10),
            "europe": RegionSettings(bbox=(-10.0, 36.0, 30.0, 70.0)),
            "planet, 1000 cells drawn": RegionSettings(bbox=(-180.0, -90.0, 180.0, 90.0), n_samples=1000),
            "planet": RegionSettings(bbox=(-180.0, -90.0, 180.0, 90.0)),
        }
        for name, region in regions.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                cells, common, seconds, busy, memory = pool.apply(select_in_a_process, (tables, region))
            print(
                f"{name}: {cells:,} of {common:,} common cells in {seconds:.2f} s ({busy:.2f} s of processor time); "
                f"most memory of the process {memory / MEGABYTE:.0f} MB"
            )


def select_in_a_process(tables: dict[Modality, Path], region: RegionSettings) -> tuple[int, int, float, float, int]:
    """Cells chosen, cells common to all, seconds by the clock and of processors, and peak memory in bytes.

    The rows of what is chosen are read as well, but for the whole planet.
    """
    from copgen_cli.archive.selection import select, take_selected

    started, busy = time.perf_counter(), time.process_time()
    selection = select(tables, region)
    if len(selection.cells) <= 1000:
        take_selected(tables, selection)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return len(selection.cells), selection.common, seconds, busy, peak_bytes()


def planet_cells() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells that have pictures, south to north and west to east; the same in each call."""
    rows = np.repeat(np.arange(-900, 900), columns_across(np.arange(-900, 900)))
    starts = np.concatenate([[0], np.cumsum(columns_across(np.arange(-900, 900)))[:-1]])
    columns = np.arange(len(rows)) - starts[rows + 900] - columns_across(rows) // 2
    kept = np.sort(np.random.default_rng(0).permutation(len(rows))[: PLANET_ROWS[Modality.S2L2A] - REPEATS])
    return rows[kept], columns[kept]


def columns_across(rows: np.ndarray) -> np.ndarray:
    return np.maximum(1, np.ceil(4007.5 * np.cos(np.radians(rows * 180 / 2004)))).astype(np.int64)


def write_planet_table(file: Path, modality: Modality, rows: int) -> None:
    """An index in the archive's own order, south to north and west to east, with repeats, clouds and missing pixels."""
    draw = np.random.default_rng(modality.order)
    all_rows, all_cols = planet_cells()
    once = np.sort(draw.permutation(len(all_rows))[: rows - REPEATS])
    chosen = np.sort(np.concatenate([once, draw.choice(once, REPEATS)]))
    grid_row, grid_col = all_rows[chosen], all_cols[chosen]
    across = columns_across(grid_row)
    cells = [
        f"{abs(r)}{'U' if r >= 0 else 'D'}_{abs(c)}{'R' if c >= 0 else 'L'}"
        for r, c in zip(grid_row.tolist(), grid_col.tolist(), strict=True)
    ]
    first_day = datetime(2016, 1, 1, tzinfo=UTC)
    days = [(first_day + timedelta(days=day)).strftime("%Y%m%d") for day in range(3300)]
    times = [f"{days[d]}T{s // 60:02}{s % 60:02}11" for d, s in draw.integers(0, (3300, 1440), (rows, 2)).tolist()]
    part, part_row_number = np.divmod(np.arange(rows), 500)
    source = f"https://huggingface.co/datasets/Major-TOM/{modality.source.name}/resolve/main/images"
    lat, lon = grid_row * 180 / 2004 + 0.045, grid_col * 360 / across + 0.05
    values = {
        "grid_cell": cells,
        "grid_row_u": grid_row,
        "grid_col_r": grid_col,
        "product_id": [f"{source[-30:-20]}_{time}_N0509_R122_T33TVF_{time}" for time in times],
        "timestamp": times,
        "cloud_cover": np.where(draw.random(rows) < 0.54, 0.0, draw.random(rows) * 25),
        "nodata": np.where(draw.random(rows) < 0.97, 0.0, draw.random(rows)),
        "orbit_state": ["ascending"] * rows,
        "max_val": draw.random(rows),
        "min_val": draw.random(rows),
        "centre_lat": lat,
        "centre_lon": lon,
        "crs": [f"EPSG:{32601 + int(zone)}" for zone in np.clip((lon + 180) // 6, 0, 59)],
        "parquet_url": [f"{source}/part_{number + 1:05}.parquet" for number in part],
        "parquet_row": part_row_number,
        "geometry": [b"\x01\x01\x00\x00\x00" + point for point in map(bytes, np.stack([lon, lat], 1))],
        "__index_level_0__": np.arange(rows),
    }
    schema = pa.schema(INDEX_COLUMNS[modality])
    pq.write_table(pa.table({name: values[name] for name in schema.names}, schema=schema), file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("wire", "select"))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the index tables stay for another run")
    given = parser.parse_args()
    if given.what == "wire":
        measure_wire()
    else:
        measure_selection(given.keep)
