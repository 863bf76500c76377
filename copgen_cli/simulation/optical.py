"""Sentinel-2: the colour of the ground on a day of the year, in the light of the sun on slopes.

Reflectances are typical of each surface (spectral libraries of ECOSTRESS, Meerdink et al. 2019,
doi:10.1016/j.rse.2019.05.015, rounded by eye on true-colour pictures); `bands.spectra` holds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from copgen_cli.simulation.atmosphere import Air, Sun
from copgen_cli.simulation.bands import spectra
from copgen_cli.simulation.bands.spectra import BANDS, COLOURS
from copgen_cli.simulation.landcover import FIELDS, KINDS, PLOTS, SURFACES, Cover, LandCover
from copgen_cli.simulation.noise import Float32, generator_of, resized

_TEXTURE = {
    Cover.WATER: 0.02,
    Cover.WETLAND: 0.20,
    Cover.CONIFER: 0.26,
    Cover.BROADLEAF: 0.20,
    Cover.SHRUB: 0.17,
    Cover.GRASS: 0.08,
    Cover.BARE: 0.07,
    Cover.ROCK: 0.16,
    Cover.SAND: 0.05,
    Cover.ICE: 0.015,
    Cover.ROAD: 0.06,
    Cover.HEDGE: 0.15,
    Cover.STREET: 0.15,
}


@dataclass(frozen=True, slots=True)
class OpticalPass:
    """One visit of Sentinel-2."""

    when: datetime
    satellite: str
    sun: Sun
    air: Air
    cloud_cover: float
    """Share of the picture, 0 to 1."""
    nodata: float
    """Share of the picture beyond the swath's edge, 0 to 1."""


def surface_reflectance(
    land: LandCover,
    height: Float32,
    pixel: float,
    lat: float,
    when: datetime,
    sun: Sun,
    *words: str | int,
    bands: int = COLOURS,
) -> Float32:
    """What the ground reflects to a nadir view, air and clouds left out.

    Args:
        height: (n, n) surface heights in metres, `pixel` metres apart, over the same ground as `land`.
        words: name the cell: soils, crops and roofs are its own.
        bands: how many of `BANDS`, from the first.

    Returns:
        (bands, size, size) reflectance: red, green, blue, and whatever else is wanted.
    """
    season = year_phase(lat, when)
    size = land.cover.shape[0]
    now = land.warmth + land.swing * np.float32(math.cos(2 * math.pi * (season - 0.55)))
    moist, dry = _tables(float(now.mean()), float(land.moisture.mean()), abs(lat), season, *words)
    thirst = resized((1 / (1 + np.exp(5.5 * land.moisture - 2.3 - 0.04 * (now - 15)))).astype(np.float32), size)
    light = resized(sunlight(height, pixel, sun), size)
    light = light * (1 + _texture_table().take(land.surface) * land.grain)
    murky = np.float32(0.012 + 0.05 * generator_of("murk", when.isoformat(), *words).random() ** 2)
    shallow = np.exp(land.water_depth * np.float32(-0.12)) * (land.water_depth > 0) * murky
    ground = np.empty((bands, size, size), np.float32)
    for band in range(bands):
        wet = moist[band].take(land.surface)
        colour = wet + (dry[band].take(land.surface) - wet) * thirst
        colour *= light
        colour += shallow * np.float32(spectra.SEDIMENT[band])
        ground[band] = colour
    if float(now.min()) < 1.5:
        _snow(ground, land, now, light)
    return np.clip(ground, 0.002, 1.2)


def year_phase(lat: float, when: datetime) -> float:
    """Part of the year since midwinter's new year: 0 in January of the north, in July of the south."""
    phase = when.timetuple().tm_yday / 365
    return phase % 1 if lat >= 0 else (phase + 0.5) % 1


def sunlight(height: Float32, pixel: float, sun: Sun) -> Float32:
    """Light on slopes relative to a plain: direct by the cosine, a seventh diffuse, none direct in cast shadow."""
    down, across = np.gradient(height, pixel)
    east, north, up = sun.direction
    cosine = (up - across * east + down * north) / np.sqrt(1 + across**2 + down**2)
    direct = np.clip(cosine, 0, None) / max(up, 0.25)
    direct *= ~cast_shadow(height, pixel, sun)
    return (0.14 + 0.86 * np.minimum(direct, 2.2)).astype(np.float32)


def cast_shadow(height: Float32, pixel: float, sun: Sun) -> NDArray[np.bool_]:
    """Where higher ground towards the sun hides it, looked for at growing distances up to 90 pixels."""
    east, north, up = sun.direction
    flat = math.hypot(east, north)
    shadow = np.zeros(height.shape, dtype=bool)
    highest = float(height.max() - height.min())
    for step in (2, 4, 7, 11, 16, 23, 32, 45, 64, 90):
        rise = step * pixel * up / flat
        if rise > highest:
            break
        row, col = round(-north / flat * step), round(east / flat * step)
        ahead = _shifted(height, row, col)
        shadow |= ahead - rise > height
    return shadow


def _shifted(height: Float32, row: int, col: int) -> Float32:
    """The height found `row` rows and `col` columns further on; the edge goes on for ever."""
    size = height.shape[0]
    index = np.arange(size)
    return height[np.clip(index + row, 0, size - 1)][:, np.clip(index + col, 0, size - 1)]


def _snow(ground: Float32, land: LandCover, now: Float32, light: Float32) -> None:
    size = land.cover.shape[0]
    cold = resized((0.5 - now) * np.float32(0.35), size) + np.float32(0.12) * land.grain
    lying = np.clip(cold, 0, 1)
    table = np.ones(SURFACES, np.float32)
    covers = [Cover.CONIFER, Cover.BROADLEAF, Cover.WATER, Cover.HEDGE, Cover.ROAD]
    table[covers] = 0.22, 0.4, 0.0, 0.5, 0.6
    lying *= table.take(land.surface)
    for band, white in enumerate(spectra.SNOW[: len(ground)]):
        ground[band] += (np.float32(white) * np.sqrt(np.maximum(light, 0)) - ground[band]) * lying


def _tables(warmth: float, moisture: float, lat: float, season: float, *words: str | int) -> tuple[Float32, Float32]:
    """Reflectance (bands, SURFACES) of every surface where the soil is moist, and where it is dry."""
    generator = generator_of("surfaces", *words)
    growth = float(np.clip((warmth - 3) / 9, 0, 1))
    soil = _soil(generator, moisture, lat)
    moist = np.zeros((SURFACES, len(BANDS)))
    spectra.fill_in(spectra.MOIST, moist)
    dry = moist.copy()
    spectra.fill_in(spectra.DRY, dry)
    moist[Cover.BROADLEAF] += (1 - growth) * spectra.LEAFLESS
    moist[Cover.GRASS] += (1 - growth) * spectra.WITHERED
    for table in (moist, dry):
        table[[Cover.BARE, Cover.SAND, Cover.ROCK]] *= soil / spectra.USUAL_SOIL * 0.6 + 0.4
    fields = _fields(generator, soil, growth, season, lat)
    moist[FIELDS], dry[FIELDS] = fields, fields * 0.4 + soil * 0.75
    moist[PLOTS] = dry[PLOTS] = _plots(generator, soil, moisture)
    return moist.T.astype(np.float32), dry.T.astype(np.float32)


def _soil(generator: np.random.Generator, moisture: float, lat: float) -> NDArray[np.float64]:
    """Spectrum of bare soil: pale and sandy in the dry, brown in the moist, red in the tropics."""
    pale, brown, red = spectra.PALE_SOIL, spectra.BROWN_SOIL, spectra.RED_SOIL
    soil = pale + (brown - pale) * np.clip(moisture * 1.5, 0, 1)
    redness = np.clip(generator.beta(1.2, 3) + 0.4 * (lat < 28) * generator.random(), 0, 1)
    return np.asarray((soil + (red - soil) * redness) * generator.uniform(0.8, 1.2))


def _fields(
    generator: np.random.Generator, soil: NDArray[np.float64], growth: float, season: float, lat: float
) -> NDArray[np.float64]:
    """Spectra (KINDS, bands) of the kinds of field: bare, green, ripe or grass, each by its own calendar."""
    # parts of the year of the middle and the half width of the green time; a third are meadows, green all year
    middle = np.where(generator.random(KINDS) < 0.5, 0.36, 0.56) + 0.03 * generator.standard_normal(KINDS)
    if lat < 24:
        middle = generator.random(KINDS)
    width = generator.uniform(0.10, 0.2, KINDS)
    away = np.abs((season - middle + 0.5) % 1 - 0.5) / width
    green = np.clip(1.6 - 1.3 * away, 0, 1)
    late = np.clip(1 - np.abs((season - middle - width + 0.5) % 1 - 0.5) / 0.09, 0, 1)
    meadow = generator.random(KINDS) < 0.3
    green = np.where(meadow, 0.55 + 0.4 * growth, green * np.clip(growth + 0.3, 0, 1))
    late = np.where(meadow, 0.15, late)
    ranges = zip(spectra.LEAST_CROP_COLOUR, spectra.MOST_CROP_COLOUR, strict=True)
    leaf = spectra.crop_leaves(np.stack([generator.uniform(least, most, KINDS) for least, most in ranges], axis=1))
    ripe = spectra.RIPE * generator.uniform(0.75, 1.15, (KINDS, 1))
    earth = soil * generator.uniform(0.6, 1.3, (KINDS, 1))
    grown = earth + (leaf - earth) * green[:, None]
    return np.asarray(grown + (ripe - grown) * (late * (1 - 0.6 * green))[:, None])


def _plots(generator: np.random.Generator, soil: NDArray[np.float64], moisture: float) -> NDArray[np.float64]:
    """Spectra (KINDS, bands) of building plots: tiles, concrete, bright metal, dark roofs, gardens."""
    paint = np.concatenate([spectra.ROOFS, soil[None] * 1.05])
    green = 0.32 * min(1.0, moisture * 2)
    share = np.array([0.2, 0.27, 0.08, 0.12, green, 0.38 - green])
    which = generator.choice(len(paint), KINDS, p=share / share.sum())
    return np.asarray(paint[which] * generator.uniform(0.75, 1.25, (KINDS, 1)))


def _texture_table() -> Float32:
    table = np.zeros(SURFACES, np.float32)
    for cover, amount in _TEXTURE.items():
        table[cover] = amount
    table[FIELDS] = 0.08
    table[PLOTS] = 0.3
    return table


def through_the_optics(reflectance: Float32) -> Float32:
    """Blur, in place, by the instrument and its resampling: weights 1 6 1 along rows and columns."""
    for band in reflectance:
        for image in (band, band.T):
            spill = image * np.float32(1 / 8)
            image -= spill * 2
            image[1:] += spill[:-1]
            image[:-1] += spill[1:]
            image[0] += spill[0]
            image[-1] += spill[-1]
    return reflectance
