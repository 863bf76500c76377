"""Tiny archives in the Major TOM format: the true columns, types and quirks, with pictures of a few pixels.

`write_archive` makes a folder that a `file://` endpoint or `tests/tiny_hub.py` serves. Every product's thumbnail is a
picture of its own, so that a test can tell which one it got.
"""

from __future__ import annotations

import hashlib
import io
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from copgen_cli.modalities import PUBLISHED, Modality

PUBLIC = "https://huggingface.co"
COMMON = [("grid_cell", pa.string()), ("grid_row_u", pa.int64()), ("grid_col_r", pa.int64())]
PRODUCT = [("product_id", pa.string()), ("timestamp", pa.string())]
CLOUDS = [("cloud_cover", pa.float64())]
NODATA = [("nodata", pa.float64())]
ORBIT = [("orbit_state", pa.string())]
HEIGHTS = [("max_val", pa.float64()), ("min_val", pa.float64())]
PLACE = [
    ("centre_lat", pa.float64()),
    ("centre_lon", pa.float64()),
    ("crs", pa.string()),
    ("parquet_url", pa.string()),
    ("parquet_row", pa.int64()),
]
GEOMETRY = [("geometry", pa.binary())]
PANDAS_INDEX = [("__index_level_0__", pa.int64())]
INDEX_COLUMNS = {
    Modality.DEM: [*COMMON, *NODATA, *HEIGHTS, *PLACE, *PANDAS_INDEX],
    Modality.S1RTC: [*COMMON, *PRODUCT, *NODATA, *ORBIT, *PLACE],
    Modality.S2L1C: [*COMMON, *PRODUCT, *CLOUDS, *NODATA, *PLACE, *GEOMETRY],
    Modality.S2L2A: [*COMMON, *PRODUCT, *CLOUDS, *NODATA, *PLACE, *GEOMETRY],
}
IDENTITY = [("product_id", pa.string()), ("grid_cell", pa.string()), ("product_datetime", pa.string())]
OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09")
BANDS = {
    Modality.DEM: ("compressed", "DEM"),
    Modality.S1RTC: ("vv", "vh"),
    Modality.S2L1C: (*OPTICAL, "B10", "B11", "B12", "cloud_mask"),
    Modality.S2L2A: (*OPTICAL, "B11", "B12", "cloud_mask"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One product: a row of the index and of a part. Defaults are those of a product that every filter lets through."""

    cell: str
    modality: Modality
    time: str = "20200615T101010"
    cloud: float = 0.0
    nodata: float = 0.0
    orbit: str = "ascending"
    doubled_crs: bool = False
    product_id: str | None = None
    """Made from cell and time where None."""
    same_picture_as: Row | None = None
    """For rows that the archive lists twice."""

    @property
    def pid(self) -> str:
        if not self.modality.source.has_product:
            return "id"
        if self.product_id is not None:
            return self.product_id
        return f"{self.modality.source.name.removeprefix('Core-')}_{self.time}_{self.cell}"

    @property
    def folder(self) -> str:
        return f"{self.modality.source.name}/{self.cell.partition('_')[0]}/{self.cell}/{self.pid}"


@dataclass(frozen=True, slots=True)
class Archive:
    """A written archive, and what is in it."""

    root: Path
    rows: tuple[Row, ...]
    thumbnails: dict[Row, bytes] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return self.root.as_uri()

    def table(self, modality: Modality) -> Path:
        return self.root / f"datasets/Major-TOM/{modality.source.name}/resolve/main/metadata.parquet"

    def part(self, modality: Modality, number: int = 1) -> Path:
        return self.table(modality).parent / f"images/part_{number:05}.parquet"

    def files_of(self, rows: Iterable[Row]) -> dict[str, str]:
        """Path below the subset to SHA-256, of these rows' thumbnails."""
        return {f"{r.folder}/thumbnail.png": hashlib.sha256(self.thumbnails[r]).hexdigest() for r in rows}


def rome_rows() -> list[Row]:
    """Cells around Rome: three that a right query keeps, one for each reason to drop one, and one outside of the box.

    465U_103R has two dates, two orbits and a doubled CRS; 466U_104R is listed twice in S1, row by row the same.
    """
    rows: list[Row] = []
    for modality in PUBLISHED:
        kept = [Row(cell, modality) for cell in ("464U_102R", "465U_103R", "466U_104R")]
        rows += [*kept, Row("470U_103R", modality)]  # outside
        if modality is not Modality.S1RTC:
            rows.append(Row("467U_103R", modality))  # no S1 row
        if modality.source.has_product:
            rows.append(Row("468U_103R", modality, time="20161231T235959"))  # before the dates
            rows.append(Row("465U_103R", modality, time="20180101T000000", orbit="descending", doubled_crs=True))
        else:
            rows.append(Row("468U_103R", modality))
        if modality.source.has_clouds:
            rows.append(Row("467U_104R", modality, cloud=10.5))
        else:
            rows.append(Row("467U_104R", modality))
        rows.append(Row("468U_104R", modality, nodata=0.01))
    again = next(row for row in rows if row.cell == "466U_104R" and row.modality is Modality.S1RTC)
    rows.append(Row(again.cell, again.modality, doubled_crs=True, same_picture_as=again))
    return rows


def rome_kept() -> list[Row]:
    """Those rows of `rome_rows` that the Rome query ends with."""
    return [Row(cell, modality) for modality in PUBLISHED for cell in ("464U_102R", "465U_103R", "466U_104R")]


def write_archive(
    root: Path,
    rows: Sequence[Row],
    *,
    parts: int = 2,
    size: int = 24,
    band_bytes: int = 200,
    checksums: bool = False,
    drop_columns: Sequence[str] = (),
) -> Archive:
    """Write the four datasets.

    Args:
        size: side of the S1 and S2 thumbnails in pixels; the DEM's have a third of it.
        band_bytes: of each band; it is noise behind a TIFF header.
        checksums: whether pages carry CRCs.
        drop_columns: columns to leave out of the index tables.
    """
    archive = Archive(root, tuple(rows))
    for modality in PUBLISHED:
        own = sorted((row for row in rows if row.modality is modality), key=lambda row: (signed(row.cell), row.time))
        where: list[tuple[str, int]] = []
        for number, chunk in enumerate(np.array_split(np.arange(len(own)), parts), start=1):
            file = archive.part(modality, number)
            file.parent.mkdir(parents=True, exist_ok=True)
            url = f"{PUBLIC}/{file.relative_to(root).as_posix()}"
            values = [part_row(own[i], archive, size=size, band_bytes=band_bytes) for i in chunk]
            write_part(file, modality, values, checksums=checksums)
            where += [(url, i) for i in range(len(chunk))]
        table = index_table(modality, own, where).drop_columns(list(drop_columns) or [])
        pq.write_table(table, archive.table(modality))
    return archive


def write_part(file: Path, modality: Modality, values: Sequence[dict[str, Any]], *, checksums: bool = False) -> None:
    """One row per row group, as the public parts are."""
    identity = IDENTITY if modality.source.has_product else [("grid_cell", pa.string())]
    binary = [(name, pa.binary()) for name in ("thumbnail", *BANDS[modality])]
    schema = pa.schema([*identity, *binary])
    with pq.ParquetWriter(file, schema, write_page_checksum=checksums) as writer:
        for row in values:
            writer.write_table(pa.table({name: [row[name]] for name in schema.names}, schema=schema))


def part_row(row: Row, archive: Archive, *, size: int, band_bytes: int) -> dict[str, Any]:
    noise = random.Random(f"{row.folder}")
    thumbnail = thumbnail_of(row.same_picture_as or row, size)
    archive.thumbnails[row] = thumbnail
    bands = {name: b"II*\0" + noise.randbytes(band_bytes) for name in BANDS[row.modality]}
    return {
        "product_id": row.pid,
        "grid_cell": row.cell,
        "product_datetime": row.time,
        "thumbnail": thumbnail,
        **bands,
    }


def thumbnail_of(row: Row, size: int) -> bytes:
    """JPEG for the optical sources, coloured PNG for radar, grey PNG of a third of the size for elevation."""
    draw = np.random.default_rng(list(f"{row.folder}".encode()))
    side = size // 3 if row.modality.spec.grey else size
    coarse = draw.integers(0, 256, (4, 4) if row.modality.spec.grey else (4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG" if row.modality.source.has_clouds else "PNG")
    return stream.getvalue()


def index_table(modality: Modality, rows: Sequence[Row], where: Sequence[tuple[str, int]]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name, _ in INDEX_COLUMNS[modality]}
    for number, (row, (url, part_row_number)) in enumerate(zip(rows, where, strict=True)):
        north, east = signed(row.cell)
        lat = north * 180 / 2004 + 0.045
        lon = east * 360 / max(1, round(4007 * np.cos(np.radians(north * 180 / 2004)))) + 0.06
        values = {
            "grid_cell": row.cell,
            "grid_row_u": north,
            "grid_col_r": east,
            "product_id": row.pid,
            "timestamp": row.time,
            "cloud_cover": row.cloud,
            "nodata": row.nodata,
            "orbit_state": row.orbit,
            "max_val": 120.0,
            "min_val": 3.0,
            "centre_lat": lat,
            "centre_lon": lon,
            "crs": f"{'EPSG:' * (1 + row.doubled_crs)}32633",
            "parquet_url": url,
            "parquet_row": part_row_number,
            "geometry": struct.pack("<BIdd", 1, 1, lon, lat),
            "__index_level_0__": number,
        }
        for name, column in columns.items():
            column.append(values[name])
    return pa.table(columns, schema=pa.schema(INDEX_COLUMNS[modality]))


def signed(cell: str) -> tuple[int, int]:
    """Row and column of a cell's name, south and west negative; names that are none sort first."""
    row, _, column = cell.partition("_")
    try:
        return int(row[:-1]) * (1 if row[-1] == "U" else -1), int(column[:-1]) * (1 if column[-1] == "R" else -1)
    except (ValueError, IndexError):
        return 464, 102
