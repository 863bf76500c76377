"""Which rows of the indices a region consists of: filters on columns, one row per cell, cells that all sources have.

Only columns are read, a row group at a time, and only row numbers are kept, so that the planet's tables
(2.2 million rows per source) take seconds and stay small in memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from copgen_cli.errors import BrokenInputError, CopgenError
from copgen_cli.modalities import Modality
from copgen_cli.settings import RegionSettings, spans_of_box

T = TypeVar("T")

_COLUMNS_PER_ROW = 1 << 16
"""More than there are grid columns either way: cell = row * this + column, in one integer."""
_ALWAYS = (
    "grid_cell",
    "grid_row_u",
    "grid_col_r",
    "nodata",
    "centre_lat",
    "centre_lon",
    "crs",
    "parquet_url",
    "parquet_row",
)
_WITH_PRODUCT = ("product_id", "timestamp")
_REPEATING = ("crs", "parquet_url")
"""Text that many rows share: read as numbers into a list of the few there are, a tenth of the time."""
_TYPES = {
    **dict.fromkeys(("grid_cell", "product_id", "timestamp", "crs", "parquet_url"), pa.string()),
    **dict.fromkeys(("grid_row_u", "grid_col_r", "parquet_row"), pa.int64()),
    **dict.fromkeys(("nodata", "centre_lat", "centre_lon", "cloud_cover"), pa.float64()),
}
COMPACT_TIME = "%Y%m%dT%H%M%S"


class NoCommonCellsError(CopgenError):
    """No cell passes all filters in all sources."""


@dataclass(frozen=True, slots=True)
class SelectionCounts:
    """How many rows of one source are left after each filter."""

    modality: Modality
    rows: int
    in_box: int
    in_dates: int | None
    clear: int | None
    complete: int
    cells: int

    def __str__(self) -> str:
        steps = [f"{self.rows:,} rows", f"{self.in_box:,} in the box"]
        steps += [f"{self.in_dates:,} in the dates"] if self.in_dates is not None else []
        steps += [f"{self.clear:,} with so little cloud"] if self.clear is not None else []
        steps += [f"{self.complete:,} without missing pixels", f"{self.cells:,} cells"]
        return f"{self.modality.source.name}: {', '.join(steps)}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The cells of a region, and where each source's index has them."""

    cells: tuple[str, ...]
    """South to north, then west to east."""
    rows: Mapping[Modality, np.ndarray]
    """(len(cells),) int64: the row of each cell in the index of a source."""
    counts: tuple[SelectionCounts, ...]
    common: int
    """Cells before the draw."""


def select(tables: Mapping[Modality, Path], region: RegionSettings) -> Selection:
    """Choose the cells of a region: in the box, in time, clear, without missing pixels, in every source; then the draw.

    Of a cell's several rows the latest is kept, and of equally late ones the first of the first part. The draw is the
    published one: `random.Random(seed).sample(sorted names, n)`.

    Raises:
        NoCommonCellsError: none is left; the hint says how many each source had after each filter.
        BrokenInputError: a table lacks a column or is not readable.
    """
    found = _side_by_side(lambda modality: _cells_of_source(tables[modality], modality, region), tables)
    counts = tuple(count for _, _, count in found.values())
    common = None
    for cells, _, _ in found.values():
        common = cells if common is None else common[np.isin(common, cells, assume_unique=True, kind="sort")]
    if common is None or not len(common):
        raise NoCommonCellsError(
            "No cell passes all filters in all sources.",
            hint="\n  ".join(
                (*map(str, counts), "Widen the box, the dates or the cloud range, or name fewer --sources.")
            ),
        )
    chosen = _draw(common, region)
    return Selection(
        cells=tuple(_names(chosen)),
        rows={modality: rows[np.searchsorted(cells, chosen)] for modality, (cells, rows, _) in found.items()},
        counts=counts,
        common=len(common),
    )


def take_selected(tables: Mapping[Modality, Path], selection: Selection) -> dict[Modality, pa.Table]:
    """The rows of each source's index that were chosen, in the order of `selection.cells`."""
    return _side_by_side(lambda modality: take_rows(tables[modality], selection.rows[modality]), tables)


def required_columns(modality: Modality) -> tuple[str, ...]:
    """What an index must have for us to select from it."""
    optical = ("cloud_cover",) if modality.source.has_clouds else ()
    return (*_ALWAYS, *(_WITH_PRODUCT if modality.source.has_product else ()), *optical)


def take_rows(table: Path, rows: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of an index in the order of `rows`, with the doubled `EPSG:EPSG:` of some mended.

    Args:
        rows: (N,) row numbers, at least one.
        columns: all where None, but for the index that pandas adds to some tables.
    """
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    pieces: list[pa.Table] = []
    with pq.ParquetFile(table, read_dictionary=_repeating_texts(table)) as file:
        chosen = columns or [name for name in file.schema_arrow.names if name != "__index_level_0__"]
        for first, group in _row_groups(file):
            inside = ascending[(ascending >= first) & (ascending < first + file.metadata.row_group(group).num_rows)]
            if len(inside):
                pieces += _take_from_group(file, group, chosen, inside - first)
    taken = pa.concat_tables(pieces).take(pa.array(np.argsort(order, kind="stable"))).replace_schema_metadata(None)
    if "crs" not in taken.column_names:
        return taken
    mended = pc.replace_substring(taken["crs"], "EPSG:EPSG:", "EPSG:")
    return taken.set_column(taken.column_names.index("crs"), "crs", mended)


def plain_types(table: pa.Table) -> pa.Table:
    """An index whose columns have the types of the public one, whatever wrote it.

    pandas 3 and polars write text as large strings, string views or dictionaries, and days as date32; some tools write
    an EPSG code as a number. Columns that we do not read stay as they are.

    Raises:
        BrokenInputError: a column holds something else.
    """
    columns = {}
    for name in table.column_names:
        values = table[name]
        try:
            columns[name] = _plain(name, values)
        except (pa.ArrowException, KeyError) as error:
            raise BrokenInputError(
                f"The column {name} of an index is {values.type}, and can not be read as {_TYPES[name]}: {error}",
                hint="The index was written by a tool that keeps other values there: check --endpoint.",
            ) from None
    return pa.table(columns)


def compact_times(values: Any) -> Any:
    """Acquisition times as text `YYYYMMDDTHHMMSS`, which sorts like time; from text, ISO 8601, dates or timestamps."""
    if pa.types.is_temporal(values.type):
        return pc.strftime(pc.cast(values, pa.timestamp("s"), safe=False), format=COMPACT_TIME)
    lengths = pc.min_max(pc.utf8_length(values)).as_py()
    if lengths["min"] == lengths["max"] == len("20230119T161811"):
        return values
    plain = pc.replace_substring_regex(values, "[-:]", "")
    return pc.utf8_slice_codeunits(pc.replace_substring(plain, " ", "T"), 0, len("20230119T161811"))


def _plain(name: str, values: Any) -> Any:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if name not in _TYPES or values.type == _TYPES[name]:
        return values
    if name == "timestamp" and pa.types.is_temporal(values.type):
        return compact_times(values)
    if name == "crs" and pa.types.is_integer(values.type):
        return pc.binary_join_element_wise("EPSG", values.cast(pa.string()), ":")
    return values.cast(_TYPES[name])


def _side_by_side(work: Callable[[Modality], T], sources: Iterable[Modality]) -> dict[Modality, T]:
    """The same for every source, two at a time: decoding one leaves cores free, and more would take more memory."""
    sources = tuple(sources)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(sources, pool.map(work, sources), strict=True))


def _cells_of_source(
    table: Path, modality: Modality, region: RegionSettings
) -> tuple[np.ndarray, np.ndarray, SelectionCounts]:
    """Cells that pass a source's filters as sorted integers, the row of each, and how many each filter left."""
    try:
        with pq.ParquetFile(table) as file:
            lacking = [name for name in required_columns(modality) if name not in file.schema_arrow.names]
            if lacking:
                raise BrokenInputError(
                    f"The index {table} has no column {', '.join(lacking)}.",
                    hint=f"It has {', '.join(file.schema_arrow.names)}. Check --endpoint and --sources.",
                )
            left = np.zeros(4, dtype=np.int64)
            pieces = []
            for first, group in _row_groups(file):
                piece, counts = _filter_group(file, first, group, modality, region)
                left += counts
                pieces.append(piece)
                pa.default_memory_pool().release_unused()  # columns of a row group are large, and done with
            total = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BrokenInputError(
            f"The index {table} can not be read: {error}", hint="Remove it to fetch it again, or check --endpoint."
        ) from None
    cells, rows = _one_row_per_cell(table, pieces)
    in_dates = int(left[1]) if modality.source.has_product else None
    clear = int(left[2]) if modality.source.has_clouds else None
    return cells, rows, SelectionCounts(modality, total, int(left[0]), in_dates, clear, int(left[3]), len(cells))


@dataclass(frozen=True, slots=True)
class _Piece:
    """The rows of one row group that pass all filters."""

    cells: np.ndarray
    """(N,) int64, as `_COLUMNS_PER_ROW` says."""
    rows: np.ndarray
    """(N,) int64 row numbers in the table."""
    times: Any
    """Text to compare, or None where the source has no times."""


def _filter_group(
    file: pq.ParquetFile, first: int, group: int, modality: Modality, region: RegionSettings
) -> tuple[_Piece, np.ndarray]:
    """The rows of one row group that pass, and how many passed box, dates, cloud and nodata."""
    west, south, east, north = region.bbox
    nothing = _Piece(np.empty(0, np.int64), np.empty(0, np.int64), pa.chunked_array([], pa.string()))
    centres = plain_types(file.read_row_group(group, columns=["centre_lon", "centre_lat"]))
    spans = [_between(centres["centre_lon"], low, high) for low, high in spans_of_box(west, east)]
    inside = np.logical_or.reduce(spans) & _between(centres["centre_lat"], south, north)
    if not inside.any():
        return nothing, np.zeros(4, np.int64)
    times = ["timestamp"] if modality.source.has_product else []
    clouds = ["cloud_cover"] if modality.source.has_clouds else []
    columns = ["grid_row_u", "grid_col_r", "nodata", *times, *clouds]
    values = plain_types(_takable(file.read_row_group(group, columns=columns)).filter(pa.array(inside)))
    rows = first + np.flatnonzero(inside)

    text = compact_times(values["timestamp"]) if times else None
    in_time = _in_dates(text, region) if times else np.ones(len(rows), bool)
    clear = in_time & _between(values["cloud_cover"], *region.cloud_cover) if clouds else in_time
    kept = clear & _between(values["nodata"], 0.0, 0.0)
    counts = np.array([len(rows), in_time.sum(), clear.sum(), kept.sum()], dtype=np.int64)
    cells = _numbers(values["grid_row_u"]) * _COLUMNS_PER_ROW + _numbers(values["grid_col_r"])
    return _Piece(cells[kept], rows[kept], text.filter(pa.array(kept)) if text is not None else None), counts


def _one_row_per_cell(table: Path, pieces: Sequence[_Piece]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted cells without repeats, and the row of each: the latest, then the one whose part and row come first."""
    cells = np.concatenate([piece.cells for piece in pieces]) if pieces else np.empty(0, np.int64)
    rows = np.concatenate([piece.rows for piece in pieces]) if pieces else np.empty(0, np.int64)
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(repeats):
        return ordered, rows[order]
    touched = np.zeros(len(ordered), bool)
    touched[repeats] = touched[repeats + 1] = True
    several = order[touched]
    times = _texts(pieces, several)
    places = take_rows(table, rows[several], ["parquet_url", "parquet_row"]).to_pylist()
    best: dict[int, int] = {}
    for index in sorted(
        range(len(several)),
        key=lambda i: (places[i]["parquet_url"], places[i]["parquet_row"], rows[several[i]]),
        reverse=True,
    ):
        rival = best.get(int(cells[several[index]]))
        if rival is None or times[index] >= times[rival]:
            best[int(cells[several[index]])] = index
    kept = np.concatenate([order[~touched], several[sorted(best.values())]])
    kept = kept[np.argsort(cells[kept], kind="stable")]
    return cells[kept], rows[kept]


def _texts(pieces: Sequence[_Piece], positions: np.ndarray) -> list[str]:
    """The times at some positions of the joined pieces; empty where there are none."""
    if any(piece.times is None for piece in pieces):
        return [""] * len(positions)
    joined = pa.chunked_array([chunk for piece in pieces for chunk in piece.times.chunks], pa.string())
    return [str(text) for text in joined.take(pa.array(positions)).to_pylist()]


def _draw(cells: np.ndarray, region: RegionSettings) -> np.ndarray:
    """All of these sorted cells, or so many of them as the region wants, chosen by name."""
    if region.n_samples is None or region.n_samples >= len(cells):
        return cells
    names = _names(cells)
    by_name = sorted(range(len(names)), key=names.__getitem__)
    drawn = random.Random(region.seed).sample(by_name, region.n_samples)
    return np.sort(cells[drawn])


def _names(cells: np.ndarray) -> list[str]:
    rows = (cells + _COLUMNS_PER_ROW // 2) // _COLUMNS_PER_ROW
    columns = cells - rows * _COLUMNS_PER_ROW
    return [
        f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(column)}{'R' if column >= 0 else 'L'}"
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]


def _row_groups(file: pq.ParquetFile) -> Iterator[tuple[int, int]]:
    """The first row of each row group, and its number."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        yield first, group
        first += file.metadata.row_group(group).num_rows


def _takable(table: pa.Table) -> pa.Table:
    """Without string views, of which Arrow can not yet take rows."""
    fields = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in table.schema]
    return table.cast(pa.schema(fields))


def _repeating_texts(table: Path) -> list[str]:
    schema = pq.read_schema(table)
    return [name for name in _REPEATING if name in schema.names and schema.field(name).type == pa.string()]


def _take_from_group(
    file: pq.ParquetFile, group: int, columns: Sequence[str], wanted: np.ndarray
) -> Iterator[pa.Table]:
    first = 0
    for batch in file.iter_batches(batch_size=1 << 16, row_groups=[group], columns=list(columns)):
        inside = wanted[(wanted >= first) & (wanted < first + batch.num_rows)]
        if len(inside):
            yield plain_types(_takable(pa.Table.from_batches([batch])).take(pa.array(inside - first)))
        first += batch.num_rows
        if first > wanted[-1]:
            return


def _in_dates(times: Any, region: RegionSettings) -> np.ndarray:
    first, last = region.start_date.strftime(COMPACT_TIME), region.end_date.strftime(COMPACT_TIME)
    return _as_mask(pc.and_(pc.greater_equal(times, first), pc.less_equal(times, last)))


def _between(values: Any, low: float, high: float) -> np.ndarray:
    """Inclusive; missing values are not between anything."""
    return _as_mask(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)))


def _as_mask(values: Any) -> np.ndarray:
    return np.asarray(pc.fill_null(values, False).combine_chunks())


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values.combine_chunks()).astype(np.int64, copy=False)
