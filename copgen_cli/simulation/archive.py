"""Write a Major TOM archive of simulated cells, laid out as the public one is served.

    ROOT/datasets/Major-TOM/Core-S2L2A/resolve/main/metadata.parquet
    ROOT/datasets/Major-TOM/Core-S2L2A/resolve/main/images/part_00001.parquet    one row per row group

    ROOT/land_cover/463U_102R.tif                                               with raw bands; no source has it

so that `copgen download --endpoint file://ROOT` reads it as it reads the public host.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from copgen_cli.archive import footprint, parse_cell
from copgen_cli.modalities import Modality
from copgen_cli.simulation.bands.columns import BANDS_VERSION, land_cover_raster
from copgen_cli.simulation.products import REAL_GAPS, Gaps, Row, rows_of_cell
from copgen_cli.simulation.world import ALL_DAYS, SIZE, WORLD_VERSION, Days, highest_sun, truth_of
from copgen_cli.stages import Place, Result, StageRun, Status, WorkItem, WrittenFile, local_executor, units_file

CELLS_PER_PART = 8
STAGE = "simulate"
LAND_COVER_FOLDER = "land_cover"
PUBLIC_HOST = "https://huggingface.co"
"""What `parquet_url` names, as in the real tables: a reader maps it to its endpoint."""

_TEXT, _WHOLE, _REAL, _BYTES = pa.string(), pa.int64(), pa.float64(), pa.binary()
_PLACE: dict[str, pa.DataType] = {
    "centre_lat": _REAL,
    "centre_lon": _REAL,
    "crs": _TEXT,
    "parquet_url": _TEXT,
    "parquet_row": _WHOLE,
}
_CELL: dict[str, pa.DataType] = {"grid_cell": _TEXT, "grid_row_u": _WHOLE, "grid_col_r": _WHOLE}
_PRODUCT: dict[str, pa.DataType] = {"product_id": _TEXT, "timestamp": _TEXT}
_OPTICAL = _CELL | _PRODUCT | {"cloud_cover": _REAL, "nodata": _REAL} | _PLACE | {"geometry": _BYTES}
METADATA_COLUMNS: dict[Modality, dict[str, pa.DataType]] = {
    Modality.DEM: _CELL
    | {"nodata": _REAL, "max_val": _REAL, "min_val": _REAL}
    | _PLACE
    | {"__index_level_0__": _WHOLE},
    Modality.S1RTC: _CELL | _PRODUCT | {"nodata": _REAL, "orbit_state": _TEXT} | _PLACE,
    Modality.S2L1C: _OPTICAL,
    Modality.S2L2A: _OPTICAL,
}
_NAMED: dict[str, pa.DataType] = {
    "product_id": _TEXT,
    "grid_cell": _TEXT,
    "product_datetime": _TEXT,
    "thumbnail": _BYTES,
}
PART_COLUMNS: dict[Modality, dict[str, pa.DataType]] = {
    Modality.DEM: {"grid_cell": _TEXT, "thumbnail": _BYTES, "compressed": _BYTES, "DEM": _BYTES},
    Modality.S1RTC: _NAMED | {"vv": _BYTES, "vh": _BYTES},
    Modality.S2L1C: _NAMED | dict.fromkeys(Modality.S2L1C.source.columns, _BYTES),
    Modality.S2L2A: _NAMED | dict.fromkeys(Modality.S2L2A.source.columns, _BYTES),
}


def write_archive(
    root: Path,
    cells: Sequence[str],
    seed: int,
    *,
    size: int = SIZE,
    gaps: Gaps | None = REAL_GAPS,
    bands: bool = False,
    days: Days = ALL_DAYS,
    cells_per_part: int = CELLS_PER_PART,
    workers: int = 1,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Iterator[str]:
    """Simulate cells into an archive, and yield their names as they get done; done before, they come first.

    The same call continues after an interruption, and what it leaves is byte for byte the same.

    Args:
        root: the folder to hold `datasets/`.
        cells: names; the archive orders them south to north, then west to east.
        gaps: how irregular the archive is; None for cells in all sources, once each, hardly clouded.
        bands: also raw bands, and a map of the land cover of each cell.
        days: of the visits.
        cells_per_part: of each part file.
        workers: processes.
        overwrite: start afresh.
        dry_run: only look: yield the cells that are done, and write nothing.

    Raises:
        MismatchError: the folder holds an archive of other settings, or one that was not simulated.
        UsageError: a name is no cell, or the sun does not rise there on those days.
    """
    ordered = _in_order(cells, days)
    batches = [ordered[first : first + cells_per_part] for first in range(0, len(ordered), cells_per_part)]
    units = [WorkItem(f"{number:05}", (number, batch)) for number, batch in enumerate(batches, start=1)]
    cells_of = {unit.key: unit.item[1] for unit in units}
    with StageRun(
        STAGE,
        root,
        settings=_settings(seed, size, gaps, bands, days),
        inputs={"cells": ordered, "cells_per_part": cells_per_part},
        overwrite=overwrite,
        prune=True,
        beside=[_metadata_path(source) for source in METADATA_COLUMNS],
        unrecorded=_unrecorded_tables,
        dry_run=dry_run,
    ) as run:
        todo = run.pending(units)
        for key in sorted(cells_of.keys() - {unit.key for unit in todo}):
            yield from cells_of[key]
        if dry_run:
            return
        work = functools.partial(write_part, seed=seed, size=size, gaps=gaps, bands=bands, days=days, place=run.place)
        executor = local_executor(min(workers, len(todo) or 1), processes=True)
        for outcome in run.run(todo, work, executor=executor):
            yield from cells_of[outcome.key]
        _write_tables(run, [unit.key for unit in units])
        run.finish()


def _in_order(cells: Iterable[str], days: Days) -> list[str]:
    """Names of cells as the archive orders them; raises where the sun does not rise, before anything is written."""
    named = sorted({parse_cell(cell) for cell in cells})
    for cell in named:
        highest_sun(footprint(cell).centre_lat, days)
    return [cell.name for cell in named]


def _settings(seed: int, size: int, gaps: Gaps | None, bands: bool, days: Days) -> dict[str, Any]:
    """What decides the archive's content, for its manifest."""
    settings: dict[str, Any] = {
        "world": WORLD_VERSION,
        "seed": seed,
        "size": size,
        "gaps": asdict(gaps) if gaps else None,
        "bands": BANDS_VERSION if bands else False,
    }
    return settings if days == ALL_DAYS else settings | {"days": [days.first.date().isoformat(), days.count]}


def _write_tables(run: StageRun, keys: Sequence[str]) -> None:
    """The index of each source, of all parts that are there."""
    done = [run.recorded(key) for key in keys]
    rows = [row for outcome in done if outcome and outcome.status is Status.DONE for row in outcome.facts["rows"]]
    for source in METADATA_COLUMNS:
        _write_metadata(run.place, source, [about for name, about in rows if name == source])


def _unrecorded_tables(root: Path) -> Iterable[Path]:
    """The tables of an archive in which no finished simulation has left its record."""
    return () if units_file(root, STAGE).is_file() else (root / "datasets" / "Major-TOM").rglob("*.parquet")


def write_part(
    item: tuple[int, list[str]], *, seed: int, size: int, gaps: Gaps | None, bands: bool, days: Days, place: Place
) -> Result:
    """Simulate a batch of cells into one part file per source, a row in memory at a time.

    The rows' metadata are facts of the result.
    """
    number, cells = item
    paths = {source: f"{_folder(source)}/images/part_{number:05}.parquet" for source in METADATA_COLUMNS}
    located: dict[Modality, list[dict[str, Any]]] = {source: [] for source in METADATA_COLUMNS}
    covers: list[WrittenFile] = []
    with ExitStack() as parts:
        writers: dict[Modality, pq.ParquetWriter] = {}
        for cell in cells:
            truth = truth_of(cell, seed, size=size)
            for row in rows_of_cell(truth, seed, gaps=gaps, bands=bands, days=days):
                source = row.source
                if source not in writers:
                    writers[source] = parts.enter_context(_part_writer(place, paths[source], source))
                writers[source].write_table(_table_of(row))  # a row group each
                located[source].append(_located(row, paths[source], len(located[source])))
            if bands:
                covers.append(place.write(f"{LAND_COVER_FOLDER}/{cell}.tif", land_cover_raster(truth)))
    files = [place.describe(paths[source]) for source, rows in located.items() if rows]
    facts = [(str(source), about) for source, rows in located.items() for about in rows]
    return Result(files=(*files, *covers), facts={"rows": facts})


def _metadata_path(source: Modality) -> str:
    return f"{_folder(source)}/metadata.parquet"


def _folder(source: Modality) -> str:
    return f"datasets/Major-TOM/{source.source.name}/resolve/main"


@contextmanager
def _part_writer(place: Place, path: str, source: Modality) -> Iterator[pq.ParquetWriter]:
    with place.writing(path) as beside, pq.ParquetWriter(beside, pa.schema(PART_COLUMNS[source].items())) as writer:
        yield writer


def _table_of(row: Row) -> pa.Table:
    columns = PART_COLUMNS[row.source]
    return pa.table({name: [row.data.get(name)] for name in columns}, schema=pa.schema(columns.items()))


def _located(row: Row, path: str, index: int) -> dict[str, Any]:
    """A row's metadata with where it lies, as JSON can hold it."""
    about = row.metadata | {"parquet_url": f"{PUBLIC_HOST}/{path}", "parquet_row": index}
    if "geometry" in about:
        about["geometry"] = base64.b64encode(about["geometry"]).decode()
    return about


def _write_metadata(place: Place, source: Modality, rows: list[dict[str, Any]]) -> None:
    columns = METADATA_COLUMNS[source]
    table: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in columns}
    if "geometry" in columns:
        table["geometry"] = [base64.b64decode(row["geometry"]) for row in rows]
    index = "__index_level_0__" if "__index_level_0__" in columns else None
    if index:  # numbers of a larger table that these rows were taken from: rising, not contiguous
        table[index] = [3 * number + 8 for number in range(len(rows))]
    schema = pa.schema(columns.items(), metadata={"pandas": json.dumps(_pandas_note(columns, index))})
    with place.writing(_metadata_path(source)) as beside:
        pq.write_table(pa.table(table, schema=schema), beside)


def _pandas_note(columns: dict[str, pa.DataType], index: str | None) -> dict[str, Any]:
    """What pandas leaves in a file so that it reads it back alike; the real tables were written by it."""
    names = {_TEXT: ("unicode", "object"), _WHOLE: ("int64", "int64"), _REAL: ("float64", "float64")}

    def note(name: str | None, field: str, kind: pa.DataType) -> dict[str, Any]:
        pandas_type, numpy_type = names.get(kind, ("bytes", "object"))
        return {
            "name": name,
            "field_name": field,
            "pandas_type": pandas_type,
            "numpy_type": numpy_type,
            "metadata": None,
        }

    return {
        "index_columns": [index] if index else [],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [note(None if name == index else name, name, kind) for name, kind in columns.items()],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.3",
    }
