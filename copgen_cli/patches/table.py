"""The table of a split: one row per patch, so that what is generated can be put back on the map.

grid_cell, patch                 the cell, and the patch's name: `<grid_cell>_<k>` or `<grid_cell>_center`
patch_num, patch_row, patch_col  k and its place in the cut, from 0; empty for a centre crop
crs, a, b, c, d, e, f            x = a col + b row + c and y = d col + e row + f, in metres of that projection,
                                 for pixel corners of the first modality
centre_lon, centre_lat           the middle of the patch, degrees
<modality>_product_id, <modality>_timestamp   of modalities that come from a product
<modality>_crs, <modality>_c, <modality>_f   the same of that modality, whose image may lie in a neighbouring zone
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from copgen_cli.modalities import Modality
from copgen_cli.patches.cutting import Cutting, Window, shift, windows
from copgen_cli.patches.georeferencing import TILE, centre_of, georeferencing_of
from copgen_cli.patches.thumbnails import Size
from copgen_cli.records import Georeferencing, Product, Scene, patch_name


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What the record of a cell that has been cut says."""

    scene: Scene
    sizes: Mapping[Modality, Size] = field(default_factory=dict)
    """Of those of its tiles that are not of the usual one."""
    grids: Mapping[Modality, Georeferencing] = field(default_factory=dict)
    """Where the tiles of rasters lie."""
    left_out: frozenset[str] = frozenset()
    """Names of patches."""


def patch_table(cells: Sequence[CellFacts], cutting: Cutting) -> bytes:
    """The Parquet file for the patches of these cells; the same bytes for the same cells."""
    modalities = [modality for modality in cutting.modalities if not modality.spec.is_scalar]
    rows = [row for cell in cells for row in _rows(cell, modalities, cutting)]
    schema = _schema(modalities)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()


def _schema(modalities: Sequence[Modality]) -> pa.Schema:
    fields = [("grid_cell", pa.string()), ("patch", pa.string())]
    fields += [(name, pa.int64()) for name in ("patch_num", "patch_row", "patch_col")]
    fields += [("crs", pa.string())]
    fields += [(name, pa.float64()) for name in ("a", "b", "c", "d", "e", "f", "centre_lon", "centre_lat")]
    for m in modalities:
        fields += [(f"{m}_product_id", pa.string()), (f"{m}_timestamp", pa.string()), (f"{m}_crs", pa.string())]
        fields += [(f"{m}_c", pa.float64()), (f"{m}_f", pa.float64())]
    return pa.schema(fields)


def _rows(cell: CellFacts, modalities: Sequence[Modality], cutting: Cutting) -> list[dict[str, Any]]:
    squares: dict[Modality, Sequence[Window]] = {}
    whole: dict[Modality, Georeferencing] = {}
    for modality in modalities:
        size = cell.sizes.get(modality, (TILE, TILE))
        squares[modality] = windows(cutting.family, size, modality.spec.side, cutting.center_crop)
        whole[modality] = cell.grids.get(modality) or georeferencing_of(cell.scene.products[modality], size)
    rows = []
    for number, window in enumerate(squares[modalities[0]]):
        if patch_name(cell.scene.cell, window.position) not in cell.left_out:
            places = {m: shift(whole[m], squares[m][number]) for m in modalities}
            rows.append(_row(cell.scene, places, window.position, cutting.per_side))
    return rows


def _row(scene: Scene, places: Mapping[Modality, Georeferencing], k: int | None, per_side: int) -> dict[str, Any]:
    modality, first = next(iter(places.items()))
    lon, lat = centre_of(first, modality.spec.side)
    row: dict[str, Any] = {
        "grid_cell": scene.cell,
        "patch": patch_name(scene.cell, k),
        "patch_num": k,
        "patch_row": None if k is None else k // per_side,
        "patch_col": None if k is None else k % per_side,
        "crs": first.crs,
        **dict(zip("abcdef", first.transform, strict=True)),
        "centre_lon": lon,
        "centre_lat": lat,
    }
    for modality, place in places.items():
        product = _product_of(scene, modality)
        row |= {
            f"{modality}_product_id": None if product is None else product.product_id,
            f"{modality}_timestamp": None if product is None else product.timestamp,
            f"{modality}_crs": place.crs,
            f"{modality}_c": place.transform[2],
            f"{modality}_f": place.transform[5],
        }
    return row


def _product_of(scene: Scene, modality: Modality) -> Product | None:
    """The product that a modality is made from; None where it comes from a user's files."""
    return None if modality.spec.source is None else scene.products[Modality.of_source(modality.source.name)]
