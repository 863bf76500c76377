"""What a user calls an area: a file of polygons, a box, or a cell of the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from copgen_cli.archive import FOOTPRINT_METRES, footprint, parse_cell
from copgen_cli.errors import BrokenInputError, CopgenError, UsageError

DEGREES = "EPSG:4326"
AROUND_A_POINT = 1280.0
"""Metres on each side of a point or line, which have no area of their own: together one window of the model."""
_METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class Area:
    """A polygon on the ground."""

    polygon: dict[str, Any]
    """GeoJSON, in longitude and latitude."""
    bounds: tuple[float, float, float, float]
    """West, south, east and north in degrees."""
    name: str
    cell: str | None = None
    """The cell of the grid that it is, if it is one."""
    cut: bool = False
    """Whether pixels outside of the polygon are left out, and not only those outside of its bounds."""
    notes: tuple[str, ...] = ()
    """What was mended, for the user."""

    @classmethod
    def of_polygon(
        cls,
        polygon: dict[str, Any],
        *,
        name: str,
        cell: str | None = None,
        cut: bool = False,
        notes: tuple[str, ...] = (),
    ) -> Area:
        """Raises UsageError where it crosses the antimeridian."""
        longitudes, latitudes = zip(*_points_of(polygon), strict=True)
        west, east = min(longitudes), max(longitudes)
        strange = [*(x for x in longitudes if abs(x) > 360), *(y for y in latitudes if abs(y) > 90)]
        if strange:
            raise UsageError(
                f"The area {name} has coordinates that are no degrees, such as {strange[0]:g}.",
                hint="GeoJSON is in longitude and latitude (RFC 7946); a GeoPackage says in which CRS it is.",
            )
        if east - west > 180 or west < -180 or east > 180:
            raise UsageError(
                f"The area {name} crosses the antimeridian, or is wider than half the Earth.",
                hint="Cut it at 180 degrees, and draw each half for itself.",
            )
        return cls(polygon, (west, min(latitudes), east, max(latitudes)), name, cell, cut, notes)

    def points_in(self, crs: str) -> list[tuple[float, float]]:
        """The corners of the polygon in a projection, with points between them: straight lines become curves.

        Raises:
            UsageError: the projection does not reach there.
        """
        from rasterio._err import CPLE_BaseError  # which its public errors leave out
        from rasterio.errors import RasterioError
        from rasterio.warp import transform

        points = _points_of(_densified(self.polygon))
        try:
            xs, ys = transform(DEGREES, crs, *zip(*points, strict=True))
        except (CPLE_BaseError, RasterioError, ValueError):
            xs = ys = [math.inf]
        if not all(map(math.isfinite, (*xs, *ys))):
            raise UsageError(
                f"The projection {crs} does not reach the area {self.name}.",
                hint="Choose a smaller area, or leave --crs out for the UTM zone of its middle.",
            )
        return list(zip(xs, ys, strict=True))

    def bounds_in(self, crs: str) -> tuple[float, float, float, float]:
        """Least x, least y, most x and most y in a projection."""
        xs, ys = zip(*self.points_in(crs), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def polygon_in(self, crs: str) -> dict[str, Any]:
        """The polygon in a projection."""
        from rasterio.warp import transform_geom

        shape: dict[str, Any] = transform_geom(DEGREES, crs, _densified(self.polygon))
        return shape


def area_of_box(west: float, south: float, east: float, north: float) -> Area:
    """Raises UsageError where it is empty, leaves the globe or crosses the antimeridian."""
    if west > east:
        raise UsageError(
            f"The box {west:g} {south:g} {east:g} {north:g} crosses the antimeridian.",
            hint="Cut it at 180 degrees, and draw each half for itself; or its west and east are swapped.",
        )
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise UsageError(
            f"The box {west:g} {south:g} {east:g} {north:g} is empty, or leaves the globe.",
            hint="Give west south east north in degrees: --bbox 12.40 41.80 12.55 41.95",
        )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    name = "_".join(f"{edge:g}" for edge in (west, south, east, north))
    return Area.of_polygon({"type": "Polygon", "coordinates": [ring]}, name=name)


def area_of_cell(name: str) -> Area:
    """The ground of a cell's pictures.

    Raises:
        UsageError: it is no name of a cell.
    """
    from rasterio.warp import transform

    place = footprint(parse_cell(name))
    east, south = place.west + FOOTPRINT_METRES, place.north - FOOTPRINT_METRES
    corners = ((place.west, south), (east, south), (east, place.north), (place.west, place.north), (place.west, south))
    xs, ys = zip(*corners, strict=True)
    longitudes, latitudes = transform(f"EPSG:{place.epsg}", DEGREES, xs, ys)
    ring = [[lon, lat] for lon, lat in zip(longitudes, latitudes, strict=True)]
    return Area.of_polygon({"type": "Polygon", "coordinates": [ring]}, name=name, cell=name)


def read_area(file: Path) -> Area:
    """All shapes of a file of vectors as one area: GeoJSON, GeoPackage, or what else pyogrio reads.

    What crosses itself is repaired by shapely; points and lines get 1280 m of ground around them.

    Raises:
        BrokenInputError: the file can not be read, or holds no shape.
        UsageError: it does not say in which CRS it is, or crosses the antimeridian.
        CopgenError: the packages for it are not installed.
    """
    shapely, pyogrio = require_shapes()
    if not file.exists():
        raise UsageError(f"There is no file {file}.", hint="Check the path after --aoi.")
    shapes: list[Any] = []
    mended = False
    try:
        for layer, _ in pyogrio.list_layers(file):
            meta, _, wkb, _ = pyogrio.raw.read(file, layer=layer, columns=[])
            found = [shape for shape in shapely.from_wkb(wkb) if shape is not None] if wkb is not None else []
            if found and meta["crs"] is None:
                raise UsageError(
                    f"{file} does not say in which CRS it is.",
                    hint="Assign it: ogr2ogr -a_srs EPSG:32633 with.gpkg without.shp",
                )
            mended |= not all(shape.is_valid for shape in found)
            placed = [_in_degrees(_valid(shape), meta["crs"]) for shape in found if not shape.is_empty]
            shapes += [_with_ground(part) for shape in placed for part in shapely.get_parts(shape)]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, shapely.errors.ShapelyError) as error:
        raise BrokenInputError(
            f"{file} can not be read as a file of shapes: {error}", hint="ogrinfo shows what GDAL makes of it."
        ) from error
    if not shapes:
        raise BrokenInputError(f"{file} holds no shape.", hint="Draw the area again, and save it as GeoJSON.")
    notes = (f"{file} has a shape that crosses itself; it was repaired.",) if mended else ()
    whole = shapely.union_all(shapes).buffer(0)  # what was repaired may have left lines behind
    return Area.of_polygon(shapely.geometry.mapping(whole), name=file.stem, cut=True, notes=notes)


def require_shapes() -> tuple[Any, Any]:
    """shapely and pyogrio.

    Raises:
        CopgenError: they are not installed.
    """
    try:
        import pyogrio
        import pyogrio.raw
        import shapely
        import shapely.geometry
    except ImportError:
        raise CopgenError(
            "Files of shapes are read with pyogrio and shapely, which are not installed.",
            hint="Install them with `pip install 'copgen[scene]'`, or give --bbox.",
        ) from None
    return shapely, pyogrio


def _with_ground(shape: Any) -> Any:
    """A shape in degrees; of a point or line, a box around it."""
    import shapely

    flat = shapely.force_2d(shape)
    if flat.area:
        return flat
    half = AROUND_A_POINT / _METRES_PER_DEGREE
    narrow = half / max(0.05, math.cos(math.radians(flat.centroid.y)))
    west, south, east, north = flat.bounds
    return shapely.box(west - narrow, south - half, east + narrow, north + half)


def _valid(shape: Any) -> Any:
    import shapely

    return shape if shape.is_valid else shapely.make_valid(shape)


def _in_degrees(shape: Any, crs: str) -> Any:
    import shapely.geometry
    from rasterio.warp import transform_geom

    return shapely.geometry.shape(transform_geom(crs, DEGREES, shapely.geometry.mapping(shape)))


def _points_of(shape: dict[str, Any]) -> list[tuple[float, float]]:
    """All corners of a GeoJSON geometry."""
    points: list[tuple[float, float]] = []

    def walk(nested: Any) -> None:
        if nested and isinstance(nested[0], (int, float)):
            points.append((float(nested[0]), float(nested[1])))
            return
        for inner in nested:
            walk(inner)

    for part in shape.get("geometries", [shape]):
        walk(part["coordinates"])
    return points


def _densified(shape: dict[str, Any], pieces: int = 16) -> dict[str, Any]:
    """A polygon, or several, with so many pieces for each of its edges."""

    def ring(corners: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        points = []
        for (x0, y0, *_), (x1, y1, *_) in pairwise(corners):
            points += [(x0 + (x1 - x0) * i / pieces, y0 + (y1 - y0) * i / pieces) for i in range(pieces)]
        return [*points, (corners[-1][0], corners[-1][1])]

    if shape["type"] == "Polygon":
        return {"type": "Polygon", "coordinates": [ring(part) for part in shape["coordinates"]]}
    polygons = [[ring(part) for part in polygon] for polygon in shape["coordinates"]]
    return {"type": "MultiPolygon", "coordinates": polygons}
