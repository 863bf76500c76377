"""The Major TOM grid: cell names, corners, footprints, and the UTM projection that they lie in.

The grid (Francis & Czerkawski 2024, arXiv:2402.12095) cuts the globe into rows of 10 km, counted from the equator,
and each row into columns of about 10 km, counted from Greenwich. `454U_120R` is row 454 up, column 120 right. A
picture of a cell is a 10 680 m square in the UTM zone of the cell's lower left corner, with a margin of 340 m on
each side. Latitudes and longitudes are WGS 84 degrees; eastings and northings are metres.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copgen_cli.errors import UsageError
from copgen_cli.settings import problem_of_box, spans_of_box

CELL_METRES = 10_000
"""Nominal distance between the corners of neighbouring cells."""
FOOTPRINT_METRES = 10_680
"""Side of a picture on the ground."""

_EARTH_RADIUS_KM = 6378.137
_ROWS = math.ceil(math.pi * _EARTH_RADIUS_KM / (CELL_METRES / 1000))  # 2004, from pole to pole
_NAME = re.compile(r"(\d{1,4})([UD])_(\d{1,4})([LR])")

Metres = NDArray[np.float64]
Degrees = NDArray[np.float64]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One cell; ordered as the archive is: south to north, then west to east."""

    row: int
    """Rows above the equator; negative below."""
    col: int
    """Columns right of Greenwich; negative left of it."""

    @property
    def name(self) -> str:
        return f"{abs(self.row)}{'U' if self.row >= 0 else 'D'}_{abs(self.col)}{'R' if self.col >= 0 else 'L'}"

    @property
    def corner(self) -> tuple[float, float]:
        """Latitude and longitude of the lower left corner.

        Computed step by step as the published grid does, from the date line eastwards, and rounded as there: a corner
        on the edge of a UTM zone lies on the published side of it.
        """
        count = columns_of_row(self.row)
        east_of_date_line = _from_date_line(self.col if self.col >= 0 else self.col + count, count)
        lon = east_of_date_line % 360 - 180 if self.col >= 0 else east_of_date_line - 180
        return self.row * 180 / _ROWS, lon


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where the picture of a cell lies on the ground."""

    zone: int
    """UTM zone, 1 to 60."""
    south: bool
    """On the southern hemisphere, where northings count from 10 000 km below the equator."""
    west: float
    """Easting of the left edge, metres."""
    north: float
    """Northing of the upper edge, metres."""
    centre_lat: float
    centre_lon: float

    @property
    def epsg(self) -> int:
        return (32700 if self.south else 32600) + self.zone


def parse_cell(name: str) -> Cell:
    """Read a name such as `454U_120R`.

    Raises:
        UsageError: it is no name of a cell, or lies beyond a pole or the date line.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise UsageError(f"{name!r} is no Major TOM cell.", hint="A cell is called <row><U|D>_<col><L|R>: 454U_120R.")
    row = int(found[1]) * (1 if found[2] == "U" else -1)
    col = int(found[3]) * (1 if found[4] == "R" else -1)
    if not -_ROWS // 2 <= row < _ROWS // 2 or col not in columns_in_row(row):
        raise UsageError(f"{name!r} lies outside the grid.", hint="Rows end at the poles, columns at the date line.")
    return Cell(row, col)


def columns_of_row(row: int) -> int:
    """How many columns go around the Earth at the lower edge of a row."""
    lat = math.radians(row * 180 / _ROWS)
    return max(1, math.ceil(2 * math.pi * _EARTH_RADIUS_KM * math.cos(lat) / (CELL_METRES / 1000)))


def columns_in_row(row: int) -> range:
    """The columns of a row, west to east. Where their number is even, one begins at the date line: rounding as in the
    published grid, it is the first on the left of all rows but twelve, where it is the last on the right.
    """
    count = columns_of_row(row)
    last = count // 2 if _from_date_line(count // 2, count) < 0 else count // 2 - 1
    return range(last + 1 - count, last + 1)


def _from_date_line(number: int, count: int) -> float:
    """The longitude at which the published grid begins to count, of column `number` of `count`; -180 is the first."""
    return number * (360 / count) - 180


def footprint(cell: Cell) -> Footprint:
    """The ground square of a cell's pictures: its centre is the corner plus 5 km east and north."""
    lat, lon = cell.corner
    zone, south = utm_zone(lat, lon), lat < 0
    east, north = to_utm(np.array(lat), np.array(lon), zone=zone, south=south)
    centre_east, centre_north = float(east) + CELL_METRES / 2, float(north) + CELL_METRES / 2
    centre_lat, centre_lon = from_utm(np.array(centre_east), np.array(centre_north), zone=zone, south=south)
    half = FOOTPRINT_METRES / 2
    return Footprint(zone, south, centre_east - half, centre_north + half, float(centre_lat), float(centre_lon))


def cells_in_box(west: float, south: float, east: float, north: float) -> Iterator[Cell]:
    """All cells whose centre lies in the box, edges included, in the order of the archive.

    Raises:
        UsageError: the box is empty or leaves the globe.
    """
    for row, columns in candidates_in_box(west, south, east, north):
        for col in columns:
            if is_in_box(Cell(row, col), west, south, east, north):
                yield Cell(row, col)


def candidates_in_box(west: float, south: float, east: float, north: float) -> list[tuple[int, range]]:
    """Rows and their columns that hold all cells of a box, and some of its surroundings; cheap for the whole globe.

    Raises:
        UsageError: the box is empty or leaves the globe.
    """
    if problem := problem_of_box(west, south, east, north):
        raise UsageError(
            f"The box {west} {south} {east} {north} {problem}.", hint="Give west south east north in degrees."
        )
    first = max(math.floor(south * _ROWS / 180) - 1, -_ROWS // 2)
    last = min(math.floor(north * _ROWS / 180) + 1, _ROWS // 2 - 1)
    candidates = []
    for row in range(first, last + 1):
        columns = columns_in_row(row)
        for low, high in spans_of_box(west, east):
            begin = max(math.floor(low * len(columns) / 360) - 1, columns.start)
            end = min(math.floor(high * len(columns) / 360) + 2, columns.stop)
            candidates.append((row, range(begin, end)))
    return candidates


def is_in_box(cell: Cell, west: float, south: float, east: float, north: float) -> bool:
    """Whether the centre of a cell lies in a box, edges included."""
    place = footprint(cell)
    inside = any(low <= place.centre_lon <= high for low, high in spans_of_box(west, east))
    return inside and south <= place.centre_lat <= north


def utm_zone(lat: float, lon: float) -> int:
    """Zone of a point, with the wider zones of south-west Norway and of Svalbard."""
    if 56 <= lat < 64 and 3 <= lon < 12:
        return 32
    if 72 <= lat <= 84 and 0 <= lon < 42:
        return 31 + 2 * int((lon + 3) // 12)
    return int((lon + 180) // 6) % 60 + 1


# Transverse Mercator by Krüger's series in the third flattening n, to the order n^4 (Karney 2011,
# doi:10.1007/s00190-011-0445-3, equations 12 and 35 to 36): well under a millimetre within a zone.
_FLATTENING = 1 / 298.257223563
_N = _FLATTENING / (2 - _FLATTENING)
_RECTIFYING_RADIUS = 6378137 / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
_ALPHA = (
    _N / 2 - 2 * _N**2 / 3 + 5 * _N**3 / 16 + 41 * _N**4 / 180,
    13 * _N**2 / 48 - 3 * _N**3 / 5 + 557 * _N**4 / 1440,
    61 * _N**3 / 240 - 103 * _N**4 / 140,
    49561 * _N**4 / 161280,
)
_BETA = (
    _N / 2 - 2 * _N**2 / 3 + 37 * _N**3 / 96 - _N**4 / 360,
    _N**2 / 48 + _N**3 / 15 - 437 * _N**4 / 1440,
    17 * _N**3 / 480 - 37 * _N**4 / 840,
    4397 * _N**4 / 161280,
)
_ECCENTRICITY = math.sqrt(_FLATTENING * (2 - _FLATTENING))
_SCALE, _FALSE_EASTING, _FALSE_NORTHING = 0.9996, 500_000.0, 10_000_000.0


def to_utm(lat: Degrees, lon: Degrees, *, zone: int, south: bool) -> tuple[Metres, Metres]:
    """Eastings and northings of points, in a zone that need not be their own."""
    phi = np.radians(lat)
    lam = np.radians((np.asarray(lon) - central_meridian(zone) + 180) % 360 - 180)
    tau = np.tan(phi)
    sigma = np.sinh(_ECCENTRICITY * np.arctanh(_ECCENTRICITY * np.sin(phi)))
    conformal = tau * np.hypot(1, sigma) - sigma * np.hypot(1, tau)
    xi0 = np.arctan2(conformal, np.cos(lam))
    eta0 = np.arcsinh(np.sin(lam) / np.hypot(conformal, np.cos(lam)))
    xi, eta = xi0.copy(), eta0.copy()
    for order, alpha in enumerate(_ALPHA, start=1):
        xi = xi + alpha * np.sin(2 * order * xi0) * np.cosh(2 * order * eta0)
        eta = eta + alpha * np.cos(2 * order * xi0) * np.sinh(2 * order * eta0)
    radius = _SCALE * _RECTIFYING_RADIUS
    return _FALSE_EASTING + radius * eta, (_FALSE_NORTHING if south else 0.0) + radius * xi


def from_utm(east: Metres, north: Metres, *, zone: int, south: bool) -> tuple[Degrees, Degrees]:
    """Latitudes and longitudes of points of a zone; the inverse of `to_utm`."""
    radius = _SCALE * _RECTIFYING_RADIUS
    xi = (np.asarray(north) - (_FALSE_NORTHING if south else 0.0)) / radius
    eta = (np.asarray(east) - _FALSE_EASTING) / radius
    xi0, eta0 = xi.copy(), eta.copy()
    for order, beta in enumerate(_BETA, start=1):
        xi0 = xi0 - beta * np.sin(2 * order * xi) * np.cosh(2 * order * eta)
        eta0 = eta0 - beta * np.cos(2 * order * xi) * np.sinh(2 * order * eta)
    conformal = np.sin(xi0) / np.hypot(np.sinh(eta0), np.cos(xi0))
    lon = central_meridian(zone) + np.degrees(np.arctan2(np.sinh(eta0), np.cos(xi0)))
    return np.degrees(np.arctan(_geographic_tangent(conformal))), (lon + 180) % 360 - 180


def central_meridian(zone: int) -> float:
    """Longitude in the middle of a zone, degrees."""
    return zone * 6.0 - 183.0


def _geographic_tangent(conformal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tangent of the latitude from that of the conformal latitude, by Newton's method (Karney 2011, equation 19)."""
    tau = conformal
    for _ in range(3):  # quadratic: two steps reach double precision
        sigma = np.sinh(_ECCENTRICITY * np.arctanh(_ECCENTRICITY * tau / np.hypot(1, tau)))
        image = tau * np.hypot(1, sigma) - sigma * np.hypot(1, tau)
        inverse_slope = (1 + (1 - _ECCENTRICITY**2) * tau**2) / (
            (1 - _ECCENTRICITY**2) * np.hypot(1, image) * np.hypot(1, tau)
        )
        tau = tau + (conformal - image) * inverse_slope
    return tau
