"""Where an area lies and which pixels it has: a projection in metres, an affine map, a width and a height.

The pixels are those of a raster that is given, where it has 10 m a pixel; else those of the UTM zone of the area's
middle, from multiples of 80 m on, so that areas of one zone have common pixels and common latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from copgen_cli.archive import utm_zone
from copgen_cli.errors import UsageError
from copgen_cli.places.area import Area
from copgen_cli.rasters import RasterBands
from copgen_cli.records import Georeferencing

if TYPE_CHECKING:
    from affine import Affine

PIXEL = 10.0
"""Metres on the ground that a pixel of the model's pictures has."""
SNAP = 80
"""Metres that a grid without a raster begins at multiples of: a latent pixel of the released autoencoders."""
_TOLERANCE = 0.01
"""Share by which a pixel of a raster may be larger or smaller, and still be taken for one of 10 m."""
_DISTORTION = 0.05
"""Share by which a metre of a projection may differ from one on the ground."""
_EARTH_RADIUS = 6_371_000.0
_NORTHMOST, _SOUTHMOST = 84.0, -80.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels on the ground."""

    place: Georeferencing
    width: int
    height: int

    @property
    def affine(self) -> Affine:
        """From (column, row) to (x, y)."""
        from affine import Affine

        return Affine(*self.place.transform)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Least x, least y, most x and most y of the corners, in the grid's projection."""
        corners = [self.place.to_ground(*corner) for corner in self._corners]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def parts(self, side: int) -> Iterator[Grid]:
        """The whole grid in pieces of at most so many pixels a side."""
        for top in range(0, self.height, side):
            for left in range(0, self.width, side):
                yield self.part(top, left, min(side, self.height - top), min(side, self.width - left))

    def part(self, top: int, left: int, height: int, width: int) -> Grid:
        """Some of the pixels, and pixels beyond where that reaches further."""
        a, b, _, d, e, _ = self.place.transform
        x, y = self.place.to_ground(left, top)
        return Grid(Georeferencing(self.place.crs, (a, b, x, d, e, y)), width, height)

    def coarse(self, factor: int) -> Grid:
        """The same ground in pixels of so many a side, the last ones reaching beyond."""
        a, b, c, d, e, f = self.place.transform
        place = Georeferencing(self.place.crs, (a * factor, b * factor, c, d * factor, e * factor, f))
        return Grid(place, -(-self.width // factor), -(-self.height // factor))

    def outline(self, points: int = 4) -> dict[str, Any]:
        """A GeoJSON polygon in longitude and latitude, counter-clockwise, with so many points a side."""
        from rasterio.warp import transform

        steps = np.linspace(0, 1, points, endpoint=False)
        w, h = self.width, self.height
        ring = [(0, s * h) for s in steps] + [(s * w, h) for s in steps]
        ring += [(w, h - s * h) for s in steps] + [(w - s * w, 0) for s in steps]
        xs, ys = zip(*(self.place.to_ground(*corner) for corner in ring), strict=True)
        longitudes, latitudes = transform(self.place.crs, "EPSG:4326", xs, ys)
        corners = [[round(x, 7), round(y, 7)] for x, y in zip(longitudes, latitudes, strict=True)]
        a, b, _, d, e, _ = self.place.transform
        if a * e > b * d:  # a grid with south up, whose corners come clockwise
            corners.reverse()
        return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}

    @property
    def _corners(self) -> list[tuple[int, int]]:
        return [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)]


def grid_of_area(area: Area, crs: str | None = None) -> Grid:
    """Pixels of 10 m that cover an area.

    Args:
        crs: a projection in metres; None is UTM, of the zone of the area's middle.

    Raises:
        UsageError: the projection is none in metres, or the area reaches too near a pole.
    """
    west, south, east, north = area.bounds
    if crs is None:
        middle_lon, middle_lat = (west + east) / 2, (south + north) / 2
        if not _SOUTHMOST <= south <= north <= _NORTHMOST:
            raise UsageError(
                f"The area reaches from {south:g} to {north:g} degrees of latitude, where UTM has no zones.",
                hint="Stay between 80 S and 84 N, or name a projection: --crs EPSG:3995",
            )
        crs = f"EPSG:{(32700 if middle_lat < 0 else 32600) + utm_zone(middle_lat, middle_lon)}"
    else:
        crs = check_projection(crs)
    left, bottom, right, top = area.bounds_in(crs)
    for x, y in ((left, bottom), (left, top), (right, bottom), (right, top), ((left + right) / 2, (bottom + top) / 2)):
        scale = ground_scale(crs, x, y)
        if not abs(scale - 1) <= _DISTORTION:
            raise UsageError(
                f"A metre of {crs} is {scale:.2f} m on the ground in a part of the area, and the model's pixels are "
                "10 m wide.",
                hint="Choose a smaller area, or a projection that is true to scale there; UTM is, for some 10 degrees.",
            )
    left, bottom = math.floor(left / SNAP) * SNAP, math.floor(bottom / SNAP) * SNAP
    width, height = (math.ceil((high - low) / SNAP) * SNAP for low, high in ((left, right), (bottom, top)))
    place = Georeferencing(crs, (PIXEL, 0.0, float(left), 0.0, -PIXEL, float(bottom + height)))
    return Grid(place, int(width / PIXEL), int(height / PIXEL))


def grid_of_raster(raster: RasterBands) -> Grid | None:
    """The raster's own pixels; None where these are not 10 m wide in a projection in metres."""
    from rasterio.crs import CRS

    if raster.place is None:
        return None
    crs = CRS.from_user_input(raster.place.crs)
    a, b, _, d, e, _ = raster.place.transform
    sides = math.hypot(a, d), math.hypot(b, e)
    in_metres = crs.is_projected and math.isclose(crs.linear_units_factor[1], 1)
    if not in_metres or any(abs(side - PIXEL) > _TOLERANCE * PIXEL for side in sides):
        return None
    middle = raster.place.to_ground(raster.width / 2, raster.height / 2)
    if abs(ground_scale(raster.place.crs, *middle) - 1) > _DISTORTION:
        return None
    return Grid(raster.place, raster.width, raster.height)


def ground_scale(crs: str, x: float, y: float) -> float:
    """Metres on the ground, northwards, of a metre of a projection at a point: far from 1 in web maps."""
    from rasterio.warp import transform

    longitudes, latitudes = transform(crs, "EPSG:4326", [x, x, x], [y, y + 1000, y - 1000])
    if not all(map(math.isfinite, (*longitudes, *latitudes))):
        return math.inf
    east = math.radians(longitudes[1] - longitudes[2]) * math.cos(math.radians(latitudes[0]))
    return _EARTH_RADIUS * math.hypot(east, math.radians(latitudes[1] - latitudes[2])) / 2000


def extent_of_raster(raster: RasterBands) -> Area:
    """The ground that a raster covers which says where it lies."""
    assert raster.place is not None, "rasters without a place are refused when they are opened"
    grid = Grid(raster.place, raster.width, raster.height)
    return Area.of_polygon(grid.outline(), name=raster.files[0].stem)


def crop_to_area(grid: Grid, area: Area) -> Grid:
    """The pixels of a grid that hold an area, as far as it has them.

    Raises:
        UsageError: the area lies elsewhere.
    """
    corners = [grid.place.to_pixels(*point) for point in area.points_in(grid.place.crs)]
    columns, rows = zip(*corners, strict=True)
    left, right = max(0, math.floor(min(columns))), min(grid.width, math.ceil(max(columns)))
    top, bottom = max(0, math.floor(min(rows))), min(grid.height, math.ceil(max(rows)))
    if right <= left or bottom <= top:
        raise UsageError(
            "The area and the raster that is given have no ground in common.", hint="rio bounds shows where it lies."
        )
    return grid.part(top, left, bottom - top, right - left)


def check_projection(crs: str) -> str:
    """The name of a projection as it stands in files, whatever way it was written.

    Raises:
        UsageError: it is none in metres.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        known = CRS.from_user_input(crs)
    except CRSError as error:
        raise UsageError(f"--crs {crs} is no CRS: {error}", hint="For instance: --crs EPSG:32633") from error
    if not known.is_projected or not math.isclose(known.linear_units_factor[1], 1):
        raise UsageError(
            f"--crs {crs} is no projection in metres, and the model's pixels are 10 m wide.",
            hint="Choose a projected one, such as the UTM zone EPSG:32633.",
        )
    return str(known.to_string())
