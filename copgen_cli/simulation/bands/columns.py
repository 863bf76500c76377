"""Columns of raw bands: what sensors measured, as GeoTIFFs over the footprint of a cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from copgen_cli.archive import FOOTPRINT_METRES, Footprint
from copgen_cli.modalities import Modality
from copgen_cli.rasters import encode_geotiff
from copgen_cli.records import Georeferencing
from copgen_cli.simulation.atmosphere import CLOUD_EDGE, Clouds, cirrus_reflectance
from copgen_cli.simulation.bands.spectra import BANDS, CIRRUS_METRES
from copgen_cli.simulation.landcover import Cover
from copgen_cli.simulation.noise import Float32, resized
from copgen_cli.simulation.world import OpticalView, RadarView, Truth

BANDS_VERSION = 2
"""Rises when the columns of bands begin to hold something else, so that no archive mixes two kinds of them."""
NO_REFLECTANCE, NO_POWER, NO_HEIGHT, NO_COVER = 0, -32768, -32767, 0
"""Values of pixels without data."""
CLEAR, THICK, THIN, SHADOW = range(4)
"""Values of `cloud_mask`."""
LAND_COVER = {
    Cover.WATER: 1,
    Cover.CONIFER: 2,
    Cover.BROADLEAF: 2,
    Cover.WETLAND: 4,
    Cover.FIELD: 5,
    Cover.BUILT: 7,
    Cover.ROAD: 7,
    Cover.STREET: 7,
    Cover.BARE: 8,
    Cover.ROCK: 8,
    Cover.SAND: 8,
    Cover.ICE: 9,
    Cover.SHRUB: 11,
    Cover.GRASS: 11,
    Cover.HEDGE: 11,
}
"""Classes of the 10 m maps of land cover by Esri and Impact Observatory: water, trees, flooded vegetation, crops,
built-up, bare ground, ice and snow, rangeland."""

_METRES = 10  # of a pixel of the pictures, when these have their real size
_OPAQUE = 0.6  # opacity from which a cloud hides the ground; cirrus stays below it
_DIMMED = 0.15  # share of sunlight whose loss is a shadow


def optical_columns(view: OpticalView, level: Modality, place: Footprint) -> dict[str, bytes]:
    """Bands and cloud mask of one processing level of Sentinel-2.

    Reflectance is uint16, 10,000 times, at 10, 20 or 60 m, and at least 1 where there is data.

    Args:
        view: with all of `BANDS`.
        level: L1C, which alone has B10, or L2A.
    """
    reflectance = view.l1c_bands if level is Modality.S2L1C else view.l2a_bands
    columns = {
        name: _reflectance(reflectance[number], band.metres, view.beyond, place)
        for number, (name, band) in enumerate(BANDS.items())
    }
    size = reflectance.shape[1]
    if "B10" in level.source.columns:
        columns["B10"] = _reflectance(cirrus_reflectance(size, view.clouds), CIRRUS_METRES, view.beyond, place)
    return columns | {"cloud_mask": _raster(cloud_mask(size, view.clouds, view.beyond), place)}


def cloud_mask(size: int, clouds: Clouds | None, beyond: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """`CLEAR`, `THICK`, `THIN` or `SHADOW` (size, size); clear beyond the edge of the swath."""
    mask = np.full((size, size), CLEAR, np.uint8)
    if clouds is not None:
        mask[clouds.shadow > _DIMMED] = SHADOW
        mask[clouds.opacity >= CLOUD_EDGE] = THIN
        mask[clouds.opacity > _OPAQUE] = THICK
    if beyond is not None:
        mask[beyond] = CLEAR
    return mask


def radar_columns(view: RadarView, place: Footprint) -> dict[str, bytes]:
    """VV and VH of Sentinel-1: linear power as float32."""
    powers = {"vv": view.vv, "vh": view.vh}
    if view.beyond is not None:
        powers = {name: np.where(view.beyond, np.float32(NO_POWER), power) for name, power in powers.items()}
    return {name: _raster(power, place, nodata=NO_POWER) for name, power in powers.items()}


def elevation_column(truth: Truth) -> bytes:
    """Metres as float32, at 30 m."""
    return _raster(truth.height, truth.place, nodata=NO_HEIGHT)


def land_cover_raster(truth: Truth) -> bytes:
    """What covers the ground, in the classes of `LAND_COVER`: uint8 at 10 m, known everywhere."""
    table = np.zeros(len(Cover), np.uint8)
    for cover, value in LAND_COVER.items():
        table[cover] = value
    return _raster(table.take(truth.land.cover), truth.place, nodata=NO_COVER)


def _reflectance(values: Float32, metres: int, beyond: NDArray[np.bool_] | None, place: Footprint) -> bytes:
    size = round(values.shape[0] * _METRES / metres)
    numbers = (resized(values, size) * np.float32(10_000)).clip(1, 65_535).astype(np.uint16)  # as thumbnails take them
    if beyond is not None:
        numbers[resized(beyond.astype(np.float32), size) > 0.5] = NO_REFLECTANCE
    return _raster(numbers, place, nodata=NO_REFLECTANCE)


def _raster(raster: NDArray[np.generic], place: Footprint, nodata: int | None = None) -> bytes:
    """A raster (n, n) over a footprint."""
    pixel = FOOTPRINT_METRES / raster.shape[0]
    transform = (pixel, 0.0, place.west, 0.0, -pixel, place.north)
    return encode_geotiff(raster, Georeferencing(f"EPSG:{place.epsg}", transform), nodata=nodata, differences=True)
