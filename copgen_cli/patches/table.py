"""The table of a split: one row per patch, so that what is generated can be put back on the map.

grid_cell, patch                 the cell, and the patch's name: `<grid_cell>_<k>` or `<grid_cell>_center`
patch_num, patch_row, patch_col  k and its place in the 4 x 4 cut, from 0; empty for a centre crop
crs, a, b, c, d, e, f            x = a col + b row + c and y = d col + e row + f, in metres of that projection,
                                 for pixel corners of the first modality
centre_lon, centre_lat           the middle of the patch, degrees
<modality>_product_id, <modality>_timestamp
<modality>_crs, <modality>_c, <modality>_f   the same of that modality, whose image may lie in a neighbouring zone
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from copgen_cli.archive import from_utm
from copgen_cli.modalities import Modality
from copgen_cli.patches.cutting import PATCH, PER_SIDE, Size, shift, windows
from copgen_cli.patches.georeferencing import TILE, georeferencing_of, utm_of
from copgen_cli.records import Georeferencing, Product, Scene, patch_name

Sizes = Mapping[Modality, Size]


def patch_table(cells: Sequence[tuple[Scene, Sizes]], modalities: Sequence[Modality], *, center_crop: bool) -> bytes:
    """The Parquet file for the patches of these cells; the same bytes for the same cells.

    Args:
        cells: each with the sizes of those of its aligned thumbnails that are not of the usual one.
    """
    rows = [row for scene, sizes in cells for row in _rows(scene, sizes, center_crop)]
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


def _rows(scene: Scene, sizes: Sizes, center_crop: bool) -> list[dict[str, Any]]:
    places = {m: _places(product, sizes.get(m, (TILE, TILE)), center_crop) for m, product in scene.products.items()}
    positions = [window.position for window in windows(center_crop)]
    return [_row(scene, {m: its[i] for m, its in places.items()}, k) for i, k in enumerate(positions)]


def _places(product: Product, size: Size, center_crop: bool) -> list[Georeferencing]:
    whole = georeferencing_of(product, size)
    return [shift(whole, window) for window in windows(center_crop, size)]


def _row(scene: Scene, places: Mapping[Modality, Georeferencing], k: int | None) -> dict[str, Any]:
    first = next(iter(places.values()))
    lon, lat = _centre(first)
    row: dict[str, Any] = {
        "grid_cell": scene.cell,
        "patch": patch_name(scene.cell, k),
        "patch_num": k,
        "patch_row": None if k is None else k // PER_SIDE,
        "patch_col": None if k is None else k % PER_SIDE,
        "crs": first.crs,
        **dict(zip("abcdef", first.transform, strict=True)),
        "centre_lon": lon,
        "centre_lat": lat,
    }
    for modality, place in places.items():
        product = scene.products[modality]
        row |= {
            f"{modality}_product_id": product.product_id,
            f"{modality}_timestamp": product.timestamp,
            f"{modality}_crs": place.crs,
            f"{modality}_c": place.transform[2],
            f"{modality}_f": place.transform[5],
        }
    return row


def _centre(place: Georeferencing) -> tuple[float, float]:
    """Longitude and latitude of the middle of a patch."""
    a, b, c, d, e, f = place.transform
    zone, south = utm_of(place.crs)
    half = PATCH / 2
    x, y = (a + b) * half + c, (d + e) * half + f
    lat, lon = from_utm(np.array(x), np.array(y), zone=zone, south=south)
    return float(lon), float(lat)
