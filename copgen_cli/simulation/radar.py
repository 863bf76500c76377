"""Sentinel-1: what the ground sends back in VV and VH, on slopes that face the radar or turn away, with speckle.

Backscatter is gamma nought of C-band at mid swath, in decibel, rounded from published statistics (for instance
Ulaby & Dobson 1989, Handbook of Radar Scattering Statistics for Terrain).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
from scipy import special

from copgen_cli.simulation.landcover import FIELDS, KINDS, PLOTS, SURFACES, Cover, LandCover
from copgen_cli.simulation.noise import Float32, generator_of, resized

LOOKS = 5
"""Equivalent number of looks of the speckle: intensity follows a gamma law of shape LOOKS (Ulaby et al. 1986)."""
NOISE_FLOOR = (10 ** (-30 / 10), 10 ** (-34 / 10))
"""Noise-equivalent backscatter in VV and VH, linear, after the subtraction of the mean noise."""

WET_SOIL = 6.0
"""Decibel between dust and soaked soil, where no trees or houses hide it (about 0.2 dB per percent of water)."""

_INCIDENCE = math.radians(38)
_BACKSCATTER = {  # VV, VH in dB
    Cover.WATER: (-20.5, -28.0),
    Cover.WETLAND: (-11.5, -18.0),
    Cover.CONIFER: (-8.4, -13.6),
    Cover.BROADLEAF: (-7.4, -12.6),
    Cover.SHRUB: (-10.0, -16.4),
    Cover.GRASS: (-12.0, -18.8),
    Cover.BARE: (-13.8, -22.0),
    Cover.ROCK: (-9.6, -17.4),
    Cover.SAND: (-18.5, -26.0),
    Cover.ICE: (-15.0, -21.0),
    Cover.ROAD: (-13.0, -20.0),
    Cover.HEDGE: (-9.2, -14.6),
    Cover.STREET: (-7.0, -14.5),
}
_TEXTURE = {
    Cover.CONIFER: 0.7,
    Cover.BROADLEAF: 0.6,
    Cover.SHRUB: 0.7,
    Cover.ROCK: 1.0,
    Cover.WETLAND: 1.0,
    Cover.STREET: 1.8,
}


@dataclass(frozen=True, slots=True)
class RadarPass:
    """One visit of Sentinel-1."""

    when: datetime
    satellite: str
    ascending: bool
    """Flying north and looking east; else flying south and looking west."""
    wind: float
    """Decibel that waves add to open water in VV."""
    nodata: float
    """Share of the picture beyond the swath's edge, 0 to 1."""


def backscatter(
    land: LandCover, height: Float32, pixel: float, visit: RadarPass, *words: str | int
) -> tuple[Float32, Float32]:
    """Linear power in VV and VH, speckle included, each (size, size).

    Args:
        height: (n, n) surface heights in metres, `pixel` metres apart, over the same ground as `land`.
        words: name the cell.
    """
    size = land.cover.shape[0]
    tables = _tables(visit, *words)
    slope = resized(slope_effect(height, pixel, ascending=visit.ascending), size)
    texture = _texture_table().take(land.surface) * land.grain
    generator = generator_of("speckle", visit.when.isoformat(), *words)
    wet = resized((land.moisture - np.float32(0.5)) * np.float32(WET_SOIL), size) * _openness_table().take(land.surface)
    decibel = slope + texture + wet
    power = []
    for channel in range(2):
        level = tables[channel].take(land.surface) + decibel
        linear = np.exp(level * np.float32(math.log(10) / 10)) + np.float32(NOISE_FLOOR[channel])
        linear *= speckle(size, generator)
        power.append(linear)
    _add_point_targets(power[0], power[1], land, generator)
    return power[0], power[1]


def _add_point_targets(vv: Float32, vh: Float32, land: LandCover, generator: np.random.Generator) -> None:
    """Pylons, masts, metal roofs: rare corners that outshine everything, and so set the white of the stretch."""
    size = vv.shape[0]
    count = 8 + generator.poisson(150 * land.people)
    rows, cols = generator.integers(1, size - 1, (2, count))
    dry = land.cover[rows, cols] != Cover.WATER
    rows, cols = rows[dry], cols[dry]
    bright = 10 ** generator.uniform(-0.2, 0.95, len(rows))
    for row in (-1, 0, 1):
        for col in (-1, 0, 1):
            spread = 0.35 ** (abs(row) + abs(col))  # of the impulse over neighbouring pixels
            vv[rows + row, cols + col] += (bright * spread).astype(np.float32)
            vh[rows + row, cols + col] += (bright * spread * 0.5).astype(np.float32)


def slope_effect(height: Float32, pixel: float, *, ascending: bool) -> Float32:
    """Decibel that a slope adds: what terrain correction leaves of the local incidence (Small 2011, gamma nought).

    A slope that faces the radar is brighter by the ratio of tangents of the incidence angles, which the product's
    flattening only partly takes back: -8.0 to 4.6 dB, for the angles are capped where layover and shadow would begin.
    """
    heading = math.radians(80 if ascending else 280)  # where the radar looks
    down, across = np.gradient(height, pixel)
    rise = across * math.sin(heading) - down * math.cos(heading)  # along the look: rising ground faces the radar
    local = _INCIDENCE - np.arctan(rise)
    ratio = math.tan(_INCIDENCE) / np.tan(np.clip(local, 0.17, 1.48))
    return np.asarray(7 * np.log10(ratio), dtype=np.float32)


def speckle(size: int, generator: np.random.Generator) -> Float32:
    """Unit-mean gamma speckle of LOOKS looks, correlated over about two pixels as a 20 m resolution on 10 m pixels is.

    Sums over 3 x 3 pixels of gamma variables of shape LOOKS / 9 are gamma of shape LOOKS exactly, and correlate by
    2/3 and 1/3 at one and two pixels' distance, as the real pictures do.
    """
    draws = generator.integers(0, 2**16, (size + 2, size + 2), dtype=np.uint16)
    fine = _gamma_quantiles().take(draws)
    rows = fine[:-2] + fine[1:-1]
    rows += fine[2:]
    total = rows[:, :-2] + rows[:, 1:-1]
    total += rows[:, 2:]
    return total


@lru_cache(maxsize=1)
def _gamma_quantiles() -> Float32:
    """Quantiles of a ninth of the speckle: a table draws gamma variables faster than any rejection."""
    middle = (np.arange(2**16) + 0.5) / 2**16
    return np.asarray(special.gammaincinv(LOOKS / 9, middle) / LOOKS, dtype=np.float32)


def _tables(visit: RadarPass, *words: str | int) -> Float32:
    """Decibel (2, SURFACES) of every surface."""
    generator = generator_of("scatterers", *words)
    table = np.zeros((2, SURFACES))
    for cover, levels in _BACKSCATTER.items():
        table[:, cover] = levels
    table[:, Cover.WATER] += visit.wind, 0.15 * visit.wind
    crop = generator.standard_normal((2, KINDS))
    table[0, FIELDS] = -10.8 + 1.9 * crop[0]
    table[1, FIELDS] = -17.4 + 2.0 * (0.75 * crop[0] + 0.66 * crop[1])
    walls = generator.random(KINDS)  # how squarely walls face the radar: the double bounce
    table[0, PLOTS] = -6.5 + 11 * walls**3
    table[1, PLOTS] = -12.5 + 10 * walls**3
    return table.astype(np.float32)


def _openness_table() -> Float32:
    table = np.zeros(SURFACES, np.float32)
    for cover in (Cover.GRASS, Cover.BARE, Cover.SAND, Cover.SHRUB):
        table[cover] = 1.0
    table[FIELDS] = 1.0
    return table


def _texture_table() -> Float32:
    table = np.zeros(SURFACES, np.float32)
    for cover, amount in _TEXTURE.items():
        table[cover] = amount
    table[FIELDS] = 0.25
    table[PLOTS] = 1.8
    return table
