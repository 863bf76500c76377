"""The rows that a simulated cell contributes to each source, with the irregularities of the real datasets.

Seen in the Major TOM Core datasets and made here alike: cells that Sentinel-1 or the elevation source lacks, second
dates, the same radar product twice, once with the coordinates of the neighbouring zone, both orbits of one place,
clouds above ten percent, swath edges, dates before 2017, and `EPSG:EPSG:32633`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen_cli.archive import FOOTPRINT_METRES, Footprint, from_utm, to_utm
from copgen_cli.modalities import Modality, Picture, as_jpeg, as_png, elevation_picture, hillshade
from copgen_cli.rasters import encode_geotiff
from copgen_cli.records import Georeferencing
from copgen_cli.simulation.noise import generator_of, resized
from copgen_cli.simulation.optical import OpticalPass
from copgen_cli.simulation.radar import RadarPass
from copgen_cli.simulation.world import (
    ALL_DAYS,
    Days,
    Truth,
    optical_pass_of,
    radar_pass_of,
    truth_of,
    view_optical,
    view_radar,
)

STAND_IN_SIZE = 48
"""Pixels a side of the stand-in for a 10 m band; 20 m and 60 m bands have a half and a sixth."""

_SIXTY_METRES, _TWENTY_METRES = {"B01", "B09", "B10"}, {"B05", "B06", "B07", "B8A", "B11", "B12"}
_OF_COLOURS = {"B01": (0.0, 0.1, 0.9), "B02": (0, 0, 1), "B03": (0, 1, 0), "B04": (1, 0, 0), "B05": (0.7, 0.6, 0)}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one source."""

    source: Modality
    metadata: dict[str, Any]
    """All columns of the metadata table but where the row lies."""
    data: dict[str, str | bytes | None]
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
    cell: str, seed: int, *, size: int, gaps: Gaps | None, bands: bool = False, days: Days = ALL_DAYS
) -> list[Row]:
    """Simulate a cell and describe it as the archive does.

    Args:
        gaps: None for a cell in all four sources, once, with at most a tenth of clouds and no swath edge.
        bands: add small stand-ins for raw bands, and the elevation itself; else their columns are null.
        days: of the visits.
    """
    truth = truth_of(cell, seed, size=size)
    chance = generator_of(seed, "gaps", cell).random(5)
    rows: list[Row] = []
    visits = [optical_pass_of(truth.cell, truth.place, seed, clear=gaps is None, days=days)]
    if gaps and chance[0] < gaps.second_date:
        visits.append(optical_pass_of(truth.cell, truth.place, seed, 1, days=days))
    if gaps and chance[1] < gaps.before_2017:
        visits = [_moved_to_2016(visits[0])]
    for visit in visits:
        rows += _optical_rows(truth, visit, seed, bands)
    if not gaps or chance[2] >= gaps.without_radar:
        first, second = (radar_pass_of(truth.cell, seed, n, clear=gaps is None, days=days) for n in range(2))
        rows += _radar_rows(truth, first, second, seed, chance[3] / gaps.repeated_radar if gaps else 1.0, bands)
    if not gaps or chance[4] >= gaps.without_elevation:
        rows.append(_elevation_row(truth, bands))
    return rows


def _optical_rows(truth: Truth, visit: OpticalPass, seed: int, bands: bool) -> list[Row]:
    view = view_optical(truth, visit, seed)
    rows = []
    for source, picture, level in ((Modality.S2L2A, view.l2a, "L2A"), (Modality.S2L1C, view.l1c, "L1C")):
        product = _optical_product(truth.place, visit, level, seed, truth.cell.name)
        about = _about(truth, truth.place, f"EPSG:{truth.place.epsg}") | {
            "product_id": product,
            "timestamp": _compact(visit.when),
            "cloud_cover": 100 * visit.cloud_cover,
            "nodata": visit.nodata,
            "geometry": _point(truth.place),
        }
        stand_ins: dict[str, str | bytes | None] = (
            {} if not bands else dict(_optical_bands(picture, source.source.columns, truth.place))
        )
        rows.append(
            Row(source, about, _named(truth, product, visit.when) | {"thumbnail": as_jpeg(picture)} | stand_ins)
        )
    return rows


def _radar_rows(truth: Truth, first: RadarPass, second: RadarPass, seed: int, repeat: float, bands: bool) -> list[Row]:
    """One row, or two where `repeat` is below 1: by thirds the same row, the other zone's, the other orbit's."""
    rows = [_radar_row(truth, first, truth.place, seed, bands)]
    if repeat < 1 / 3:
        rows.append(rows[0])
    elif repeat < 2 / 3:
        rows.append(_radar_row(truth, first, _in_next_zone(truth.place), seed, bands))
    elif repeat < 1:
        rows.append(_radar_row(truth, second, truth.place, seed, bands))
    return rows


def _radar_row(truth: Truth, visit: RadarPass, place: Footprint, seed: int, bands: bool) -> Row:
    picture = view_radar(truth, visit, seed).picture
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
    stand_ins: dict[str, str | bytes | None] = {} if not bands else dict(_radar_bands(picture, place))
    return Row(Modality.S1RTC, about, _named(truth, product, visit.when) | {"thumbnail": as_png(picture)} | stand_ins)


def _elevation_row(truth: Truth, bands: bool) -> Row:
    about = _about(truth, truth.place, f"EPSG:{truth.place.epsg}") | {
        "nodata": 0.0,
        "max_val": float(truth.height.max()),
        "min_val": float(truth.height.min()),
    }
    data: dict[str, str | bytes | None] = {
        "grid_cell": truth.cell.name,
        "thumbnail": as_png(hillshade(truth.height)),
        "compressed": as_png(elevation_picture(truth.height)),
        "DEM": _raster(truth.height, truth.place, nodata=-32767) if bands else None,
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


def _named(truth: Truth, product: str, when: datetime) -> dict[str, str | bytes | None]:
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


def _optical_bands(picture: Picture, names: Sequence[str], place: Footprint) -> dict[str, bytes]:
    """Small stand-ins for raw Sentinel-2 bands: numbers behind a true-colour picture, others mixed from them."""
    colours = np.stack([resized(picture[..., band].astype(np.float32), STAND_IN_SIZE) for band in range(3)])
    numbers = 10_000 * (colours / (255 * 1.3)) ** (1 / 0.6)  # the tone curve of the thumbnail, backwards
    bands = {}
    for name in names:
        if name == "cloud_mask":
            bands[name] = _raster((numbers.min(axis=0) > 4_000).astype(np.uint8), place)
            continue
        size = STAND_IN_SIZE // (6 if name in _SIXTY_METRES else 2 if name in _TWENTY_METRES else 1)
        mixed = np.tensordot(np.array(_OF_COLOURS.get(name, (0.3, 2.2, -0.4))), numbers, axes=1)
        shrunk = resized(mixed.astype(np.float32), size)
        bands[name] = _raster(np.clip(shrunk, 0, 65_535).astype(np.uint16), place, nodata=0)
    return bands


def _radar_bands(picture: Picture, place: Footprint) -> dict[str, bytes]:
    """Small stand-ins for VV and VH, linear power, behind a false-colour picture."""
    bands = {}
    for name, channel, low in (("vv", 0, -25.0), ("vh", 2, -32.0)):
        level = resized(picture[..., channel].astype(np.float32), STAND_IN_SIZE) * (35 / 255) + low
        bands[name] = _raster((10 ** (level / 10)).astype(np.float32), place, nodata=-32768)
    return bands


def _raster(raster: NDArray[np.generic], place: Footprint, nodata: int | None = None) -> bytes:
    """A raster (n, n) over a footprint, as a GeoTIFF."""
    pixel = FOOTPRINT_METRES / raster.shape[0]
    transform = (pixel, 0.0, place.west, 0.0, -pixel, place.north)
    return encode_geotiff(raster, Georeferencing(f"EPSG:{place.epsg}", transform), nodata=nodata)
