"""Fetch the products of a region from a Major TOM archive: thumbnails, and bands where asked for.

Of each Parquet part only the tail and the column chunks of chosen rows are read; see `parquet_ranges`.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from copgen_cli.archive.index import WorldIndex
from copgen_cli.archive.parquet_ranges import PartReader
from copgen_cli.archive.remote import Archive
from copgen_cli.archive.selection import Selection, compact_times, take_selected
from copgen_cli.errors import BrokenInputError, UnknownNameError, UsageError
from copgen_cli.layout import NO_PRODUCT, product_path, subset_index
from copgen_cli.modalities import SOURCES, Modality
from copgen_cli.rasters import check_band, check_thumbnail
from copgen_cli.records import Product
from copgen_cli.stages import Attempt, OncePerProcess, Outcome, Place, Result, Threads, WorkItem, WrittenFile
from copgen_cli.storage import readable

THUMBNAIL = "thumbnail"
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PART_PATH = re.compile(r"/datasets/[\w.-]+/[\w.-]+/resolve/(?P<revision>[\w.-]+)/(?:[\w.-]+/)*[\w.-]+\.parquet")


@dataclass(frozen=True, slots=True)
class Bands:
    """Which bands are written beside the thumbnail."""

    everything: bool
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Bands:
        """Read `none`, `all` or a comma-separated list of columns.

        Raises:
            UnknownNameError: no source has such a column.
        """
        if text in ("none", "all"):
            return cls(text == "all", ())
        known = list(dict.fromkeys(name for source in SOURCES for name in source.columns))
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        for name in names:
            if name not in known:
                raise UnknownNameError("band", name, known=["none", "all", *known])
        if not names:
            raise UsageError("--bands names no band.", hint="Give none, all, or a list such as B04,B03,B02.")
        return cls(False, names)

    def of(self, modality: Modality) -> tuple[str, ...]:
        return tuple(band for band in modality.source.columns if self.everything or band in self.names)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fetched of one product."""

    product: Product
    path: str
    """Of its part below the endpoint."""
    bands: Bands
    kept: tuple[WrittenFile, ...] = ()
    """Files of it that are there already."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The products of a region, and the rows of the index that can not be used."""

    units: tuple[WorkItem[Order], ...]
    refused: Mapping[str, str]
    """Name to reason."""
    tables: Mapping[Modality, pa.Table]
    """The rows chosen of each source's index."""


def plan_orders(indices: Mapping[Modality, WorldIndex], selection: Selection, bands: Bands) -> Plan:
    """Turn the chosen rows into orders, those of one part together."""
    units: list[WorkItem[Order]] = []
    refused: dict[str, str] = {}
    tables = {}
    for modality, table in take_selected({m: index.table for m, index in indices.items()}, selection).items():
        good = []
        for number, (cell, row) in enumerate(zip(selection.cells, _rows_of(table, modality), strict=True)):
            try:
                product = _product(row, modality, cell)
                order = Order(product, part_path(product.part_url, indices[modality].revision), bands)
            except BrokenInputError as error:
                refused[f"{modality.source.name}/{cell}"] = str(error)
            else:
                good.append(number)
                units.append(WorkItem(folder_of(product), order))
        tables[modality] = table.take(pa.array(np.array(good, dtype=np.int64)))
    units.sort(key=lambda unit: (unit.item.product.modality.order, unit.item.path, unit.item.product.part_row))
    return Plan(tuple(units), refused, tables)


def folder_of(product: Product) -> str:
    """Where a product goes, relative to its subset; its key, too."""
    return product_path(product.modality, product.cell, product.product_id)


@functools.cache  # hundreds of products share a part, and so one text in memory
def part_path(url: str, revision: str | None) -> str:
    """The path of a part below any endpoint, pinned to a revision: the index names the public host and `main`.

    Raises:
        BrokenInputError: the index points at something that is no part of a dataset.
    """
    path = unquote(urlsplit(url).path)
    found = _PART_PATH.fullmatch(path)
    if not found or ".." in path.split("/"):
        raise BrokenInputError(f"The index points to {url!r}.", hint="The index is damaged; check --endpoint.")
    start, end = found.span("revision")
    return path[:start] + revision + path[end:] if revision and found["revision"] == "main" else path


def write_indices(subset: Path, tables: Mapping[Modality, pa.Table], place: Place) -> None:
    """Write the chosen rows of each source, leaving alone what would not change."""
    for modality, table in tables.items():
        file = subset_index(subset, modality)
        if not (file.is_file() and _holds(file, table)):
            with place.writing(file.relative_to(subset).as_posix()) as beside:
                pq.write_table(table, beside)


def is_fetched(unit: WorkItem[Order], known: Outcome) -> bool:
    """Whether what is recorded of a product is all that is wanted of it now."""
    if unit.item.bands.everything:
        return bool(known.facts.get("all_bands"))
    there = {Path(file.path).stem for file in known.files}
    return {THUMBNAIL, *unit.item.bands.of(unit.item.product.modality)} <= there


def interleave(units: Sequence[WorkItem[Order]], parts: int) -> list[WorkItem[Order]]:
    """An order in which so many parts are read side by side: while the tail of one is on its way, others are used."""
    by_part = [list(group) for _, group in itertools.groupby(units, key=lambda unit: unit.item.path)]
    return [
        unit
        for first in range(0, len(by_part), parts)
        for row in itertools.zip_longest(*by_part[first : first + parts])
        for unit in row
        if unit is not None
    ]


class OpenParts:
    """Parts under way: each opened once, by whichever thread needs it first, and let go after its last product."""

    def __init__(self, archive: Archive, orders: Sequence[Order]) -> None:
        self._archive = archive
        self._left = Counter(order.path for order in orders)
        self._locks = {path: threading.Lock() for path in self._left}
        self._readers: dict[str, PartReader] = {}

    @contextmanager
    def part(self, path: str) -> Iterator[PartReader]:
        """The reader of a part; a part that turns out to be broken is opened anew next time."""
        with self._locks[path]:
            if path not in self._readers:
                self._readers[path] = PartReader(self._archive.open(path), path)
            reader = self._readers[path]
        try:
            yield reader
        except BrokenInputError:
            with self._locks[path]:
                if self._readers.get(path) is reader:
                    del self._readers[path]
            raise

    def done(self, path: str) -> None:
        """One product of this part is finished, one way or another."""
        with self._locks[path]:
            self._left[path] -= 1
            reader = self._readers.pop(path, None) if self._left[path] <= 0 else None
        if reader is not None:
            reader.close()


MOST_TOGETHER = 64
"""Products of one part that a worker elsewhere fetches in one go."""


def group_by_part(units: Sequence[WorkItem[Order]]) -> Iterator[tuple[WorkItem[Order], ...]]:
    """Products of one part together, so that its tail is read by one worker, but not too many at a time."""
    for _, group in itertools.groupby(units, key=lambda unit: unit.item.path):
        while some := tuple(itertools.islice(group, MOST_TOGETHER)):
            yield some


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a worker elsewhere made of some products."""

    outcomes: tuple[Outcome, ...]
    requests: int
    bytes: int
    repeated: int


def fetch_together(
    units: Sequence[WorkItem[Order]], *, archive: OncePerProcess[Archive], place: Place, threads: int, retries: int
) -> Fetched:
    """Fetch products of one part, in a worker elsewhere: files are in place then, and noted by nobody.

    Args:
        units: the products.
        archive: opened once by each worker.
        place: where they go.
        threads: that fetch at a time.
        retries: of a product that seems broken.
    """
    opened = archive.get()
    before = opened.traffic.counts()
    parts = OpenParts(opened, [unit.item for unit in units])
    attempt = Attempt(functools.partial(fetch_product, parts=parts, place=place), None, place.claims, retries)
    outcomes = tuple(Threads(threads).map(attempt, units))
    for unit in units:
        parts.done(unit.item.path)
    return Fetched(outcomes, *(now - then for now, then in zip(opened.traffic.counts(), before, strict=True)))


def fetch_product(order: Order, *, parts: OpenParts, place: Place) -> Result:
    """Fetch what is missing of one product, check it and write it.

    Raises:
        BrokenInputError: the part, the row or a picture in it is not what the index says.
        UnavailableError: the server did not give it.
    """
    product, folder = order.product, folder_of(order.product)
    kept = {Path(file.path).stem: file for file in order.kept}
    with parts.part(order.path) as part:
        columns = _wanted_columns(order, part)
        missing = [column for column in columns if column not in kept]
        identity = [column for column in ("product_id", "grid_cell") if column in part.columns]
        values = part.read_row(product.part_row, [*identity, *missing])
        _must_be(product, values, part.name)
        pictures = {column: _picture(values[column], f"{column} of {folder}") for column in missing}
        for column, data in pictures.items():
            (check_thumbnail if column == THUMBNAIL else check_band)(data, f"The {column} of {folder}")
    files = {
        column: place.write(f"{folder}/{column}{'.png' if column == THUMBNAIL else '.tif'}", data)
        for column, data in pictures.items()
    }
    everything = kept | files
    facts = {"all_bands": True} if set(columns) >= {*_pictures_of(part)} else {}
    return Result(tuple(everything[name] for name in sorted(everything)), facts)


def _wanted_columns(order: Order, part: PartReader) -> list[str]:
    if order.bands.everything:
        return list(dict.fromkeys((THUMBNAIL, *_pictures_of(part))))
    return [THUMBNAIL, *order.bands.of(order.product.modality)]


def _pictures_of(part: PartReader) -> list[str]:
    """Its columns of pictures; a name that is more than a word could leave the product's folder."""
    return [column for column in part.binary_columns if re.fullmatch(r"[A-Za-z0-9_]+", column)]


def _must_be(product: Product, values: Mapping[str, Any], part: str) -> None:
    """The row must be the one that the index promised."""
    expected = {"grid_cell": product.cell, "product_id": product.product_id}
    for column, wanted in expected.items():
        if column in values and values[column] != wanted:
            raise BrokenInputError(
                f"Row {product.part_row} of {part} is {column} {values[column]!r}, and the index says {wanted!r}.",
                hint="The index is of another revision; run again, which refreshes it.",
            )


def _picture(value: Any, name: str) -> bytes:
    if not isinstance(value, bytes) or not value:
        raise BrokenInputError(f"The {name} is empty.", hint="The archive has none; other products are not affected.")
    return value


def _rows_of(table: pa.Table, modality: Modality) -> Iterator[dict[str, Any]]:
    columns = ["grid_cell", "centre_lon", "centre_lat", "crs", "parquet_url", "parquet_row"]
    columns += ["product_id"] if modality.source.has_product else []
    columns += ["cloud_cover"] if modality.source.has_clouds else []
    chosen = table.select(columns)
    if modality.source.has_product:
        chosen = chosen.append_column("timestamp", compact_times(table["timestamp"]))
    for batch in chosen.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _product(row: Mapping[str, Any], modality: Modality, cell: str) -> Product:
    """The product of a row, whose cell must be called as its grid row and column say."""
    if row["grid_cell"] != cell:
        raise _bad_row(modality, f"is called {row['grid_cell']!r}, but lies in {cell}")
    product_id = row.get("product_id", NO_PRODUCT)
    if not (isinstance(product_id, str) and _FOLDER_NAME.fullmatch(product_id)):
        raise _bad_row(modality, f"has the product id {product_id!r}, which can not be the name of a folder")
    if not (isinstance(row["crs"], str) and isinstance(row["parquet_url"], str)):
        raise _bad_row(modality, "has no projection or no address")
    if not (isinstance(row["parquet_row"], int) and row["parquet_row"] >= 0):
        raise _bad_row(modality, f"is in row {row['parquet_row']!r} of its part")
    time = row.get("timestamp")
    return Product(
        modality=modality,
        cell=cell,
        product_id=product_id,
        timestamp=f"{time[:4]}-{time[4:6]}-{time[6:8]}T{time[9:11]}:{time[11:13]}:{time[13:15]}Z" if time else None,
        cloud_cover=row.get("cloud_cover"),
        centre_lon=row["centre_lon"],
        centre_lat=row["centre_lat"],
        crs=sys.intern(row["crs"]),
        part_url=sys.intern(row["parquet_url"]),
        part_row=row["parquet_row"],
    )


def _bad_row(modality: Modality, problem: str) -> BrokenInputError:
    return BrokenInputError(
        f"A row of the index of {modality.source.name} {problem}.", hint="The index is damaged or hostile."
    )


def _holds(file: Path, table: pa.Table) -> bool:
    try:
        return bool(pq.read_table(readable(file)).equals(table))
    except (pa.ArrowException, OSError):
        return False
