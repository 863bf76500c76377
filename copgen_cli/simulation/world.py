"""The simulated Earth: any cell of the Major TOM grid from a seed, as every sensor sees it.

    climate -> terrain -> land cover -> what is true of the place
    truth + a visit (day, sun, clouds, orbit) -> a thumbnail of each modality

The truth depends on the seed and the cell's name alone, a visit also on its number and on the days it may fall on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from copgen_cli.archive import (
    FOOTPRINT_METRES,
    Cell,
    Footprint,
    candidates_in_box,
    footprint,
    is_in_box,
    parse_cell,
)
from copgen_cli.errors import UsageError
from copgen_cli.modalities import Picture, false_colour, hillshade, true_colour
from copgen_cli.simulation.atmosphere import Air, Clouds, at_top_of_atmosphere, clouds_over, sun_at, veiled
from copgen_cli.simulation.bands.spectra import COLOURS
from copgen_cli.simulation.climate import climate_of, land_of, points_of
from copgen_cli.simulation.landcover import LandCover, cover_height, land_cover_of
from copgen_cli.simulation.noise import Float32, Frame, generator_of
from copgen_cli.simulation.optical import OpticalPass, surface_reflectance, through_the_optics
from copgen_cli.simulation.radar import RadarPass, backscatter
from copgen_cli.simulation.terrain import EROSION_PIXEL, Terrain, terrain_of, with_detail

WORLD_VERSION = 1
"""Rises when a seed begins to give another world, so that no archive mixes two of them."""
SIZE = 1068
"""Pixels a side of a radar or optical thumbnail; elevation has a third of them."""
_CELLS_AT_A_TIME = 256  # that are looked at, where some of a kind are sought


@dataclass(frozen=True, slots=True)
class Days:
    """The days that visits are drawn from."""

    first: datetime
    """At midnight."""
    count: int


ALL_DAYS = Days(datetime(2017, 1, 3), 2900)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a cell, whoever looks."""

    cell: Cell
    place: Footprint
    terrain: Terrain
    land: LandCover
    height: Float32
    """(size / 3, size / 3) metres: the ground with trees and houses on it, as Copernicus DEM gives it."""

    @property
    def size(self) -> int:
        return int(self.land.cover.shape[0])

    @property
    def height_pixel(self) -> float:
        """Metres of a pixel of `height`."""
        return FOOTPRINT_METRES / self.height.shape[0]


@dataclass(frozen=True, slots=True)
class OpticalView:
    """A visit of Sentinel-2, both processing levels."""

    visit: OpticalPass
    l1c: Picture
    """(size, size, 3) top of atmosphere."""
    l2a: Picture
    """(size, size, 3) surface."""
    l1c_bands: Float32
    """(bands, size, size) reflectance above the air, in the order of `BANDS`."""
    l2a_bands: Float32
    """(bands, size, size) reflectance below it."""
    clouds: Clouds | None
    beyond: NDArray[np.bool_] | None
    """(size, size) pixels beyond the edge of the swath."""


@dataclass(frozen=True, slots=True)
class RadarView:
    """A visit of Sentinel-1."""

    visit: RadarPass
    picture: Picture
    """(size, size, 3) false colour."""
    vv: Float32
    """(size, size) linear power, speckle included."""
    vh: Float32
    """The same in the other polarisation."""
    beyond: NDArray[np.bool_] | None
    """(size, size) pixels beyond the edge of the swath."""


@dataclass(frozen=True, slots=True)
class SimulatedCell:
    """One cell, a thumbnail per modality, and the truth they share."""

    truth: Truth
    optical: OpticalPass
    radar: RadarPass
    dem: Picture
    """(size / 3, size / 3)."""
    s1_rtc: Picture
    """(size, size, 3)."""
    s2_l1c: Picture
    """(size, size, 3)."""
    s2_l2a: Picture
    """(size, size, 3)."""

    @property
    def cell(self) -> str:
        return self.truth.cell.name


def days_between(first: datetime | None, last: datetime | None) -> Days:
    """All days from the first to the last, both included, in local solar time; None is that of `ALL_DAYS`.

    Raises:
        UsageError: the first comes after the last.
    """
    start = first or ALL_DAYS.first
    end = last or ALL_DAYS.first + timedelta(days=ALL_DAYS.count - 1)
    if start > end:
        raise UsageError(
            f"The visits would begin on {start:%Y-%m-%d}, after they end on {end:%Y-%m-%d}.",
            hint="Give a --start-date that is not after --end-date.",
        )
    return Days(start, (end - start).days + 1)


def simulate_cell(cell: str, seed: int, *, size: int = SIZE, days: Days = ALL_DAYS) -> SimulatedCell:
    """Simulate one cell on the first visit of each sensor.

    Args:
        cell: its name, such as `454U_120R`.
        seed: of the world; the same seed gives the same world.
        size: pixels a side of the radar and optical thumbnails over the same ground, a multiple of 3.
        days: of the visits.

    Raises:
        UsageError: no such cell, or no such size.
    """
    truth = truth_of(cell, seed, size=size)
    optical = view_optical(truth, optical_pass_of(truth.cell, truth.place, seed, days=days), seed)
    radar = view_radar(truth, radar_pass_of(truth.cell, seed, days=days), seed)
    return SimulatedCell(
        truth, optical.visit, radar.visit, hillshade(truth.height), radar.picture, optical.l1c, optical.l2a
    )


def truth_of(cell: str, seed: int, *, size: int = SIZE) -> Truth:
    """The ground of a cell; arguments as for `simulate_cell`."""
    if size < 96 or size % 3:
        raise UsageError(f"A thumbnail can't be {size} px wide.", hint="Choose a multiple of 3 from 96; 1068 is real.")
    named = parse_cell(cell)
    place = footprint(named)
    zone = f"{place.zone}{'S' if place.south else 'N'}"
    frame = Frame(place.west, place.north, FOOTPRINT_METRES / size, size)
    climate = climate_of(place, seed)
    terrain = terrain_of(frame.at_size(round(FOOTPRINT_METRES / EROSION_PIXEL)), climate, seed, zone)
    land = land_cover_of(frame, terrain, climate, seed, cell, zone)
    ground = with_detail(terrain, frame.at_size(size // 3), seed, zone)
    objects = cover_height(land.cover, land.surface, land.grain).reshape(size // 3, 3, size // 3, 3).mean(axis=(1, 3))
    surface = ndimage.gaussian_filter(np.maximum(ground, 0) + objects, 0.7)  # radar interferometry rounds off edges
    return Truth(named, place, terrain, land, surface)


def highest_sun(lat: float, days: Days) -> float:
    """How high the sun gets over a latitude when Sentinel-2 passes, radians; looked for on every fifteenth day.

    Raises:
        UsageError: not above the horizon.
    """
    through_the_year = range(0, min(days.count, 365), 15)
    best = max(sun_at(lat, days.first + timedelta(days=d)).elevation for d in through_the_year)
    if best <= 0:
        last = days.first + timedelta(days=days.count - 1)
        raise UsageError(
            f"At latitude {lat:.1f} Sentinel-2 passes in the dark from {days.first:%Y-%m-%d} to {last:%Y-%m-%d}.",
            hint="Choose other days with --start-date and --end-date, or a place nearer to the equator.",
        )
    return best


def optical_pass_of(
    cell: Cell, place: Footprint, seed: int, number: int = 0, *, clear: bool = False, days: Days = ALL_DAYS
) -> OpticalPass:
    """The n-th visit of Sentinel-2 to a cell.

    Args:
        clear: at most a tenth under clouds, and no edge of the swath.
        days: when it may be.

    Raises:
        UsageError: the sun does not rise on those days.
    """
    best = highest_sun(place.centre_lat, days)
    generator = generator_of(seed, "optical", cell.name, number)
    while True:
        day = days.first + timedelta(days=int(generator.integers(days.count)))
        sun = sun_at(place.centre_lat, day)
        if sun.elevation > min(0.38, 0.8 * best):
            break
    hours = 10.5 - place.centre_lon / 15 + generator.uniform(-0.2, 0.2)
    when = day + timedelta(seconds=round(hours * 3600))
    chance = generator.random()  # 54 % of real rows are without clouds, 19 % between 10 and 25 % (all are below)
    amount = 0.0 if chance < 0.54 else generator.uniform(0.1, 0.25) if chance > 0.81 else 0.1 * generator.random() ** 2
    nodata = float(generator.uniform(0.02, 0.4)) if generator.random() < 0.06 else 0.0
    if clear:
        amount, nodata = min(amount, 0.1 * generator.random() ** 2), 0.0
    air = Air(aerosol=float(0.06 + 0.5 * generator.beta(1.3, 5)), angstrom=float(generator.uniform(0.5, 1.4)))
    return OpticalPass(when, str(generator.choice(["S2A", "S2B"])), sun, air, float(amount), nodata)


def radar_pass_of(cell: Cell, seed: int, number: int = 0, *, clear: bool = False, days: Days = ALL_DAYS) -> RadarPass:
    """The n-th visit of Sentinel-1 to a cell; even and odd ones on orbits of opposite direction.

    Most land is looked at from one direction for years; here nine in ten first visits come down from the north.
    """
    first_ascends = bool(generator_of(seed, "radar", cell.name).random() < 0.1)
    generator = generator_of(seed, "radar", cell.name, number)
    day = days.first + timedelta(days=int(generator.integers(days.count)))
    ascending = first_ascends ^ bool(number % 2)
    hours = (18.1 if ascending else 5.9) - cell.corner[1] / 15 + generator.uniform(-0.2, 0.2)
    nodata = float(generator.uniform(0.02, 0.3)) if generator.random() < 0.03 and not clear else 0.0
    wind = float(generator.gamma(2.0, 0.9))
    when = day + timedelta(seconds=round(hours * 3600))
    return RadarPass(when, str(generator.choice(["S1A", "S1B"])), ascending, wind, nodata)


def view_optical(truth: Truth, visit: OpticalPass, seed: int, *, bands: int = COLOURS) -> OpticalView:
    """What Sentinel-2 sees on a visit, in so many of `BANDS` from the first."""
    name, size, lat = truth.cell.name, truth.size, truth.place.centre_lat
    ground = surface_reflectance(
        truth.land, truth.height, truth.height_pixel, lat, visit.when, visit.sun, seed, name, bands=bands
    )
    clouds = clouds_over(
        size, FOOTPRINT_METRES / size, visit.cloud_cover, visit.sun, seed, "clouds", name, visit.when.isoformat()
    )
    seen = veiled(through_the_optics(ground), clouds)
    top = at_top_of_atmosphere(seen, visit.sun, visit.air)
    beyond = beyond_swath(size, visit.nodata, seed, name, visit.when.isoformat())
    l1c, l2a = (true_colour(reflectance[:COLOURS], beyond) for reflectance in (top, seen))
    return OpticalView(visit, l1c, l2a, top, seen, clouds, beyond)


def view_radar(truth: Truth, visit: RadarPass, seed: int) -> RadarView:
    """What Sentinel-1 sees on a visit."""
    vv, vh = backscatter(truth.land, truth.height, truth.height_pixel, visit, seed, truth.cell.name)
    beyond = beyond_swath(truth.size, visit.nodata, seed, truth.cell.name, visit.when.isoformat())
    return RadarView(visit, false_colour(vv, vh, beyond), vv, vh, beyond)


def beyond_swath(size: int, share: float, *words: str | int) -> NDArray[np.bool_] | None:
    """The corner of a picture that a slanting swath edge cuts off; None where it cuts nothing."""
    if share <= 0:
        return None
    generator = generator_of("swath", *words)
    slant = generator.uniform(0.15, 0.35) * generator.choice([-1, 1])
    steps = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    across = steps[None, :] + np.float32(slant) * steps[:, None]
    if generator.random() < 0.5:
        across = -across
    return np.asarray(across < np.quantile(across, share))


def cells_of_region(
    bbox: tuple[float, float, float, float], count: int, seed: int, *, least_rugged: float = 0.0
) -> list[str]:
    """Draw cells whose centres lie in a box, those that are open sea left out, as the archive leaves them out.

    Args:
        bbox: west, south, east, north in degrees.
        count: how many; a box with fewer gives all it has.
        least_rugged: only cells whose climate is as rugged as that on average: 0 is any, 1 none but high mountains.

    Returns:
        Names in the order of the archive.

    Raises:
        UsageError: the box is empty, or holds no cell with land.
    """
    rows = candidates_in_box(*bbox)
    ends = np.cumsum([len(columns) for _, columns in rows])
    chosen: list[Cell] = []
    numbers = generator_of(seed, "region").permutation(int(ends[-1]))
    for first in range(0, len(numbers), _CELLS_AT_A_TIME):
        if len(chosen) >= count:
            break
        cells = []
        for number in numbers[first : first + _CELLS_AT_A_TIME]:
            index = int(np.searchsorted(ends, number, side="right"))
            row, columns = rows[index]
            cells.append(Cell(row, columns[int(number) - int(ends[index])]))  # counted from the end of its row
        chosen += _with_land([cell for cell in cells if is_in_box(cell, *bbox)], seed, least_rugged)
    del chosen[count:]
    if not chosen:
        kind = f"land as rugged as {least_rugged:g}" if least_rugged > 0 else "land"
        raise UsageError(f"The box holds no cell with {kind}.", hint="Choose a larger box or another --seed.")
    return [cell.name for cell in sorted(chosen)]


def _with_land(cells: Sequence[Cell], seed: int, least_rugged: float) -> list[Cell]:
    """Those that are not open sea, and rugged enough."""
    if not cells:
        return []
    lat, lon = (np.stack(points) for points in zip(*(points_of(footprint(cell)) for cell in cells), strict=True))
    base, rugged = (field.astype(np.float32) for field in land_of(lat, lon, seed))
    wanted = (base.max(axis=(1, 2)) > 0) & (rugged.mean(axis=(1, 2)) >= least_rugged)
    return [cell for cell, is_wanted in zip(cells, wanted, strict=True) if is_wanted]
