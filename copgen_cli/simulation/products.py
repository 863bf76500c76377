"""The rows that a simulated cell contributes to each source, with the irregularities of the real datasets.

Seen in the Major TOM Core datasets and made here alike: cells that Sentinel-1 or the elevation source lacks, second
dates, the same radar product twice, once with the coordinates of the neighbouring zone, both orbits of one place,
clouds above ten percent, swath edges, dates before 2017, and `EPSG:EPSG:32633`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from copgen_cli.archive import FOOTPRINT_METRES, Footprint, from_utm, to_utm
from copgen_cli.modalities import Modality, as_jpeg, as_png, elevation_picture, hillshade
from copgen_cli.simulation.bands.columns import elevation_column, optical_columns, radar_columns
from copgen_cli.simulation.bands.spectra import BANDS, COLOURS
from copgen_cli.simulation.noise import generator_of
from copgen_cli.simulation.optical import OpticalPass
from copgen_cli.simulation.radar import RadarPass
from copgen_cli.simulation.world import (
    ALL_DAYS,
    Days,
    Truth,
    optical_pass_of,
    radar_pass_of,
    view_optical,
    view_radar,
)

Column = str | bytes | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one source."""

    source: Modality
    metadata: dict[str, Any]
    """All columns of the metadata table but where the row lies."""
    data: dict[str, Column]
    """All columns of the part."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """How often the archive is irregular; shares of cells."""

    without_radar: float = 0.08
    without_elevation: float = 0.05
    second_date: float = 0.15
    repeated_radar: float = 0.18
    before_2017: float = 0.04


REAL_GAPS = Gaps()
"""About as often as in the real archive, where a small region should still meet each of them."""


def rows_of_cell(
    truth: Truth, seed: int, *, gaps: Gaps | None, bands: bool = False, days: Days = ALL_DAYS
) -> Iterator[Row]:
    """Describe a cell as the archive does, row by row.

    Args:
        gaps: None for a cell in all four sources, once, with at most a tenth of clouds and no swath edge.
        bands: fill the columns of raw bands and of the elevation itself; else they are null.
        days: of the visits.
    """
    chance = generator_of(seed, "gaps", truth.cell.name).random(5)
    visits = [optical_pass_of(truth.cell, truth.place, seed, clear=gaps is None, days=days)]
    if gaps and chance[0] < gaps.second_date:
        visits.append(optical_pass_of(truth.cell, truth.place, seed, 1, days=days))
    if gaps and chance[1] < gaps.before_2017:
        visits = [_moved_to_2016(visits[0])]
    for visit in visits:
        yield from _optical_rows(truth, visit, seed, bands)
    if not gaps or chance[2] >= gaps.without_radar:
        first, second = (radar_pass_of(truth.cell, seed, n, clear=gaps is None, days=days) for n in range(2))
        yield from _radar_rows(truth, first, second, seed, chance[3] / gaps.repeated_radar if gaps else 1.0, bands)
    if not gaps or chance[4] >= gaps.without_elevation:
        yield _elevation_row(truth, bands)


def _optical_rows(truth: Truth, visit: OpticalPass, seed: int, bands: bool) -> Iterator[Row]:
    view = view_optical(truth, visit, seed, bands=len(BANDS) if bands else COLOURS)
    for source, picture, level in ((Modality.S2L2A, view.l2a, "L2A"), (Modality.S2L1C, view.l1c, "L1C")):
        product = _optical_product(truth.place, visit, level, seed, truth.cell.name)
        about = _about(truth, truth.place, f"EPSG:{truth.place.epsg}") | {
            "product_id": product,
            "timestamp": _compact(visit.when),
            "cloud_cover": 100 * visit.cloud_cover,
            "nodata": visit.nodata,
            "geometry": _point(truth.place),
        }
        columns: dict[str, Column] = {"thumbnail": as_jpeg(picture)}
        if bands:
            columns |= optical_columns(view, source, truth.place)
        yield Row(source, about, _named(truth, product, visit.when) | columns)


def _radar_rows(
    truth: Truth, first: RadarPass, second: RadarPass, seed: int, repeat: float, bands: bool
) -> Iterator[Row]:
    """One row, or two where `repeat` is below 1: by thirds the same row, the other zone's, the other orbit's."""
    row = _radar_row(truth, first, truth.place, seed, bands)
    yield row
    if repeat < 1 / 3:
        yield row
    elif repeat < 2 / 3:
        yield _radar_row(truth, first, _in_next_zone(truth.place), seed, bands)
    elif repeat < 1:
        yield _radar_row(truth, second, truth.place, seed, bands)


def _radar_row(truth: Truth, visit: RadarPass, place: Footprint, seed: int, bands: bool) -> Row:
    view = view_radar(truth, visit, seed)
    end = visit.when + timedelta(seconds=25)
    orbit = generator_of(seed, "orbit", truth.cell.name, visit.when.isoformat()).integers(10_000, 50_000)
    code = generator_of(seed, "take", truth.cell.name, visit.when.isoformat()).integers(16**6)
    product = f"{visit.satellite}_IW_GRDH_1SDV_{_compact(visit.when)}_{_compact(end)}_{orbit:06}_{code:06X}_rtc"
    about = _about(truth, place, f"EPSG:EPSG:{place.epsg}") | {
        "product_id": product,
        "timestamp": _compact(visit.when),
        "nodata": visit.nodata,
        "orbit_state": "ascending" if visit.ascending else "descending",
    }
    columns: dict[str, Column] = {"thumbnail": as_png(view.picture)}
    if bands:
        columns |= radar_columns(view, place)
    return Row(Modality.S1RTC, about, _named(truth, product, visit.when) | columns)


def _elevation_row(truth: Truth, bands: bool) -> Row:
    about = _about(truth, truth.place, f"EPSG:{truth.place.epsg}") | {
        "nodata": 0.0,
        "max_val": float(truth.height.max()),
        "min_val": float(truth.height.min()),
    }
    data: dict[str, Column] = {
        "grid_cell": truth.cell.name,
        "thumbnail": as_png(hillshade(truth.height)),
        "compressed": as_png(elevation_picture(truth.height)),
        "DEM": elevation_column(truth) if bands else None,
    }
    return Row(Modality.DEM, about, data)


def _about(truth: Truth, place: Footprint, crs: str) -> dict[str, Any]:
    return {
        "grid_cell": truth.cell.name,
        "grid_row_u": truth.cell.row,
        "grid_col_r": truth.cell.col,
        "centre_lat": place.centre_lat,
        "centre_lon": place.centre_lon,
        "crs": crs,
    }


def _named(truth: Truth, product: str, when: datetime) -> dict[str, Column]:
    return {"product_id": product, "grid_cell": truth.cell.name, "product_datetime": _compact(when)}


def _optical_product(place: Footprint, visit: OpticalPass, level: str, seed: int, cell: str) -> str:
    """Such as S2B_MSIL2A_20220727T101628_N0509_R097_T33TTG_20220727T151628; both levels share all but their name."""
    generator = generator_of(seed, "tile", cell, visit.when.isoformat())
    band = "CDEFGHJKLMNPQRSTUVWX"[int(np.clip((place.centre_lat + 80) // 8, 0, 19))]
    square = "".join(generator.choice(list("ABCDEFGHJKLMNPQRSTUV"), 2))
    ready = _compact(visit.when + timedelta(hours=5))
    orbit = generator.integers(1, 144)
    return (
        f"{visit.satellite}_MSI{level}_{_compact(visit.when)}_N0509_R{orbit:03}_T{place.zone:02}{band}{square}_{ready}"
    )


def _moved_to_2016(visit: OpticalPass) -> OpticalPass:
    return replace(visit, when=visit.when.replace(year=2016, day=min(visit.when.day, 28)))


def _in_next_zone(place: Footprint) -> Footprint:
    """The same ground in the coordinates of the zone to its west: products keep their own projection.

    The centre moves a little, as in the real rows, for the square is laid out anew in the other zone's metres.
    """
    zone = (place.zone - 2) % 60 + 1
    lat, lon = np.array(place.centre_lat), np.array(place.centre_lon)
    east, north = to_utm(lat, lon, zone=zone, south=place.south)
    east, north = east + 150.0, north - 350.0
    moved = from_utm(east, north, zone=zone, south=place.south)
    half = FOOTPRINT_METRES / 2
    return Footprint(zone, place.south, float(east) - half, float(north) + half, float(moved[0]), float(moved[1]))


def _compact(when: datetime) -> str:
    return when.strftime("%Y%m%dT%H%M%S")


def _point(place: Footprint) -> bytes:
    """The centre as a little-endian WKB point."""
    return struct.pack("<BIdd", 1, 1, place.centre_lon, place.centre_lat)
