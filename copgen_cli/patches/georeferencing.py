"""Where a thumbnail lies on the ground: from the row of the index to an affine map."""

from __future__ import annotations

import numpy as np

from copgen_cli.archive import from_utm, to_utm
from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import PIXEL_METRES, TILE_METRES
from copgen_cli.records import Georeferencing, Product

TILE = round(TILE_METRES[0] / PIXEL_METRES)
"""Side of a tile of the Core datasets in pixels of the optical thumbnails."""

_FIRST_NORTH, _FIRST_SOUTH = 32601, 32701  # EPSG codes of UTM zone 1


def georeferencing_of(product: Product, size: tuple[int, int] = (TILE, TILE)) -> Georeferencing:
    """Where a thumbnail lies: around the centre that the index gives, in the image's projection.

    Args:
        size: width and height in pixels of 10 m.

    Returns:
        The transform is that of the whole thumbnail at 10 m per pixel.

    Raises:
        BrokenInputError: the projection is not UTM, or the centre is nowhere on Earth.
    """
    zone, south = utm_of(product.crs)
    if not (abs(product.centre_lat) <= 90 and abs(product.centre_lon) <= 180):
        raise BrokenInputError(
            f"the centre {product.centre_lon}, {product.centre_lat} lies nowhere on Earth", hint="Download it again."
        )
    east, north = to_utm(np.array(product.centre_lat), np.array(product.centre_lon), zone=zone, south=south)
    west, top = (float(east) - PIXEL_METRES * size[0] / 2, float(north) + PIXEL_METRES * size[1] / 2)
    return Georeferencing(product.crs, (PIXEL_METRES, 0.0, west, 0.0, -PIXEL_METRES, top))


def centre_of(place: Georeferencing, side: int) -> tuple[float, float]:
    """Longitude and latitude of the middle of a patch of so many pixels, in a UTM projection."""
    a, b, c, d, e, f = place.transform
    zone, south = utm_of(place.crs)
    half = side / 2
    x, y = (a + b) * half + c, (d + e) * half + f
    lat, lon = from_utm(np.array(x), np.array(y), zone=zone, south=south)
    return float(lon), float(lat)


def utm_of(crs: str) -> tuple[int, bool]:
    """Zone of a UTM projection, and whether it is the southern one.

    Raises:
        BrokenInputError: it is another projection.
    """
    code = int(crs.removeprefix("EPSG:")) if crs.removeprefix("EPSG:").isdecimal() else 0
    for first, south in ((_FIRST_NORTH, False), (_FIRST_SOUTH, True)):
        if 0 <= code - first < 60:
            return code - first + 1, south
    raise BrokenInputError(f"the projection {crs!r} is not UTM", hint="Download it again.")
