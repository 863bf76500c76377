"""Which cells a downloaded subset holds: one product and one thumbnail per source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException

from copgen_cli.archive import parse_cell
from copgen_cli.errors import BrokenInputError, MissingInputError, UsageError
from copgen_cli.layout import NO_PRODUCT, THUMBNAIL_FILE, product_folder, subset_index
from copgen_cli.modalities import Modality, archived
from copgen_cli.patches.georeferencing import georeferencing_of
from copgen_cli.records import Product, Scene
from copgen_cli.storage import reach, readable

_COLUMNS = ("grid_cell", "centre_lon", "centre_lat", "crs", "parquet_url", "parquet_row")


@dataclass(frozen=True, slots=True)
class Subset:
    """What lies in the folder of a subset."""

    modalities: tuple[Modality, ...]
    """Those whose index is there, in index order."""
    scenes: tuple[Scene, ...]
    """Complete cells, sorted by name."""
    incomplete: Mapping[str, str]
    """Cell to reason: some source does not list it."""
    refused: Mapping[str, str]
    """Cell to reason: its name, product or projection can not be right."""


def read_subset(folder: Path, sources: Sequence[Modality] | None = None) -> Subset:
    """Find the cells that every source of a subset lists.

    A cell that an index lists more than once counts once, by its latest product; see `choose`.

    Args:
        folder: of the subset.
        sources: thumbnails of the datasets that count; None is all that were downloaded.

    Raises:
        MissingInputError: no source has been downloaded to `folder`.
        BrokenInputError: an index is not readable, or lacks a column.
    """
    reach(folder)
    modalities = tuple(modality for modality in sources or archived() if subset_index(folder, modality).is_file())
    if not modalities:
        raise MissingInputError("downloaded thumbnails", folder, written_by="download")
    chosen = {modality: choose(read_products(subset_index(folder, modality), modality)) for modality in modalities}
    scenes, incomplete, refused = [], {}, {}
    for cell in sorted(set().union(*chosen.values())):
        lacking = [modality.source.name for modality in modalities if cell not in chosen[modality]]
        products = {modality: chosen[modality][cell] for modality in modalities if cell in chosen[modality]}
        if problem := _problem(products.values()):
            refused[cell] = problem
        elif lacking:
            incomplete[cell] = f"not in {', '.join(lacking)}"
        else:
            thumbnails = {
                m: product_folder(folder, m, cell, p.product_id) / THUMBNAIL_FILE for m, p in products.items()
            }
            scenes.append(Scene(cell, products, thumbnails))
    return Subset(modalities, tuple(scenes), incomplete, refused)


def read_products(index: Path, modality: Modality) -> list[Product]:
    """The rows of one index.

    Raises:
        BrokenInputError: it is no Parquet table, or lacks a column.
    """
    columns = [*_COLUMNS, *(("product_id",) if modality.source.has_product else ())]
    try:
        names = pq.read_schema(readable(index)).names
        lacking = [column for column in columns if column not in names]
        if lacking:
            raise BrokenInputError(
                f"{index} has no column {', '.join(lacking)}; it has {', '.join(names)}.",
                hint="Download the subset again with `copgen download --overwrite`.",
            )
        columns += [column for column in ("timestamp", "cloud_cover") if column in names]
        rows = pq.read_table(readable(index), columns=columns).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        raise BrokenInputError(
            f"{index} is no readable table: {error}",
            hint="Download the subset again with `copgen download --overwrite`.",
        ) from error
    return [_product(row, modality) for row in rows]


def choose(products: Iterable[Product]) -> dict[str, Product]:
    """One product per cell: the latest; of equal times the one whose id, projection and row come last."""
    chosen: dict[str, Product] = {}
    for product in sorted(products, key=lambda p: (p.cell, p.timestamp or "", p.product_id, p.crs, p.part_row)):
        chosen[product.cell] = product
    return chosen


def is_plain_name(name: str) -> bool:
    """Whether a name can be that of a file or folder and nothing else."""
    return name not in {"", ".", ".."} and not set(name) & set("/\\") and name.isprintable() and len(name) <= 200


def _problem(products: Iterable[Product]) -> str | None:
    for product in products:
        if not is_plain_name(product.product_id):
            return f"{product.modality} has the product id {product.product_id!r}, which can not name a folder"
        try:
            parse_cell(product.cell)
            georeferencing_of(product)
        except (UsageError, BrokenInputError) as error:
            return f"{product.modality}: {error}"
    return None


def _product(row: Mapping[str, Any], modality: Modality) -> Product:
    timestamp = row.get("timestamp")
    return Product(
        modality=modality,
        cell=str(row["grid_cell"]),
        product_id=str(row["product_id"]) if modality.source.has_product else NO_PRODUCT,
        timestamp=str(timestamp) if timestamp is not None else None,
        cloud_cover=row.get("cloud_cover"),
        centre_lon=_number(row["centre_lon"]),
        centre_lat=_number(row["centre_lat"]),
        crs="EPSG:" + str(row["crs"]).rpartition(":")[2],  # some rows say EPSG:EPSG:32633
        part_url=str(row["parquet_url"]),
        part_row=int(row["parquet_row"] or 0),
    )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
