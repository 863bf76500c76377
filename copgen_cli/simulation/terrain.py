"""Terrain: crests of ridged noise, plains and valleys, cut by erosion; rivers, lakes and the sea.

Steps, after the usual order of landscape synthesis (Cordonnier et al. 2016, doi:10.1111/cgf.12820):
1. the trends of the climate give the height of the plain and the height of mountains on it;
2. ridged multifractal noise, warped by a second noise, gives crests, and smooth noise gives hills;
3. a trunk valley follows the zero line of slow noise, so that it meanders on into the neighbouring cells;
4. water is routed and stream-power erosion cuts valleys, in steps, with hillslopes diffusing in between;
5. basins are pressed into flat wet land and flooded to the brim: lakes;
6. what drains enough land is a river.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from copgen_cli.simulation.climate import Climate
from copgen_cli.simulation.drainage import Drainage, drain, erode
from copgen_cli.simulation.noise import (
    Float32,
    Frame,
    fractal_noise,
    key_of,
    lattice_noise,
    resized,
    ridged_noise,
)

EROSION_PIXEL = 60.0
"""Metres of a pixel of the raster on which water is routed."""
_MARGIN = 9  # pixels around the cell that hide the border of the drainage
_WARP = 14  # further pixels that domain warping may reach


@dataclass(frozen=True, slots=True)
class Terrain:
    """The ground of a cell. Rasters of erosion pixels are (178, 178)."""

    height: Float32
    """Erosion pixels: bare ground, and the surface of lakes; the sea bed below 0; metres."""
    lake: Float32
    """Erosion pixels: depth of lake water, metres; 0 on land."""
    drained: Float32
    """Erosion pixels: drained area, square kilometres."""
    trunk: Float32
    """Erosion pixels: distance from the trunk river's centre line, metres."""
    rivers: Float32
    """(segments, 5): x and y of both ends in metres from the upper left corner, and the width in metres."""


def terrain_of(frame: Frame, climate: Climate, seed: int, zone: str) -> Terrain:
    """The terrain of a cell.

    Args:
        frame: the footprint in erosion pixels.
        zone: names the zone and hemisphere whose metres `frame` counts.
    """
    wide = frame.widened(_MARGIN)
    rugged, base, moisture = (
        np.pad(climate.at(name, frame.size), _MARGIN, mode="edge").astype(np.float64)
        for name in ("rugged", "base", "moisture")
    )
    trunk = _trunk_distance(wide, rugged, moisture, key_of(seed, "trunk", zone))
    height = _raw_height(wide, base, rugged, trunk, key_of(seed, "relief", zone))
    height, drainage = _carve(wide, height, rugged, moisture, key_of(seed, "gullies", zone))
    height, lake = _flood_basins(wide, height, rugged, moisture, key_of(seed, "lakes", zone))
    inner = slice(_MARGIN, -_MARGIN)
    area = drainage.area * (EROSION_PIXEL / 1000) ** 2
    return Terrain(
        height=height[inner, inner].astype(np.float32),
        lake=lake[inner, inner].astype(np.float32),
        drained=area[inner, inner].astype(np.float32),
        trunk=trunk[inner, inner].astype(np.float32),
        rivers=_river_segments(drainage, area, height, moisture),
    )


def with_detail(terrain: Terrain, frame: Frame, seed: int, zone: str) -> Float32:
    """Heights on a finer frame, with knolls and gullies too small to route water over; water stays flat."""
    coarse = terrain.height
    steep = np.hypot(*np.gradient(coarse, EROSION_PIXEL))
    height = resized(coarse, frame.size, smooth=True)
    roughness = resized(np.clip(0.05 + 4 * ndimage.uniform_filter(steep, 5), 0, 2.5).astype(np.float32), frame.size)
    detail = fractal_noise(frame, 260, key_of(seed, "detail", zone), octaves=3, persistence=0.62)
    dry = resized(np.where((terrain.lake > 0) | (coarse < 0.3), 0, 1).astype(np.float32), frame.size)
    return height + roughness * detail * dry


def _trunk_distance(
    frame: Frame, rugged: NDArray[np.float64], moisture: NDArray[np.float64], key: int
) -> NDArray[np.float64]:
    """Distance from the line on which slow noise is zero, to first order |n| / |grad n|; far away in deserts."""
    slow = fractal_noise(frame, 26_000, key, octaves=3, persistence=0.3) + 0.05 * lattice_noise(frame, 2_200, key + 9)
    down, across = np.gradient(slow, frame.pixel)
    distance = np.abs(slow) / (np.hypot(down, across) + 2e-5)
    return distance.astype(np.float64) + 4000 * np.clip(0.3 - moisture, 0, None) * 10


def _raw_height(
    frame: Frame, base: NDArray[np.float64], rugged: NDArray[np.float64], trunk: NDArray[np.float64], key: int
) -> NDArray[np.float64]:
    wide = frame.widened(_WARP)
    warp = [fractal_noise(frame, 3_500, key + 50 + axis, octaves=2) * np.float32(5.0) for axis in range(2)]
    index = np.arange(frame.size, dtype=np.float32) + _WARP
    where = np.stack([index[:, None] + warp[0], index[None, :] + warp[1]])
    ridges = ndimage.map_coordinates(ridged_noise(wide, 7_000, key, octaves=5), where, order=1, mode="nearest")
    hills = fractal_noise(frame, 4_200, key + 20, octaves=7, persistence=0.43)
    mountains = 1250 * np.clip(rugged - 0.2, 0, None) ** 1.4
    relief = 3 + 290 * rugged**1.7
    height = base + mountains * 1.8 * (ridges - 0.35) + relief * hills
    valley = np.exp(-((trunk / (700 + 900 * (1 - rugged))) ** 2))
    floor = np.minimum(height, base - 6 - 10 * rugged)
    return height + 0.9 * valley * (floor - height)


def _carve(
    frame: Frame, height: NDArray[np.float64], rugged: NDArray[np.float64], moisture: NDArray[np.float64], key: int
) -> tuple[NDArray[np.float64], Drainage]:
    """Alternate routing, incision and diffusion; returns the eroded land and its last drainage.

    Unevenness in proportion to the slope keeps water from running in parallel lines down smooth slopes.
    """
    steep = np.hypot(*np.gradient(height, EROSION_PIXEL))
    height = height + (0.1 + 25 * steep) * lattice_noise(frame, 140, key)
    rain = 0.3 + moisture
    border = np.ones_like(height, dtype=bool)
    border[1:-1, 1:-1] = False
    for step in range(2):
        drainage = drain(height, border | (height < 0), rain)
        square_km = drainage.area * (EROSION_PIXEL / 1000) ** 2
        eroded = erode(drainage, (0.5 + 0.8 * rugged) * 1.7 * np.sqrt(np.maximum(square_km - 0.06, 0)))
        land = np.where(height < 0, height, np.maximum(eroded, 0.1))
        height = land if step == 1 else ndimage.gaussian_filter(land, 0.8)
    return ndimage.gaussian_filter(height, 0.6), drainage


def _flood_basins(
    frame: Frame, height: NDArray[np.float64], rugged: NDArray[np.float64], moisture: NDArray[np.float64], key: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Press basins into wet, gentle land and fill them to the brim: heights with flat lakes, and their depth."""
    basin = fractal_noise(frame, 3_000, key, octaves=4, persistence=0.55)
    steep = ndimage.uniform_filter(np.hypot(*np.gradient(height, EROSION_PIXEL)), 15)
    likely = 0.9 - moisture + 9 * steep + 0.9 * (1 - np.clip(fractal_noise(frame, 20_000, key + 9, octaves=2), -1, 1))
    press = 9 * np.clip(basin - likely - 0.3, 0, 1.2) * (height > 0.5)
    pressed = height - press
    border = np.ones_like(height, dtype=bool)
    border[1:-1, 1:-1] = False
    filled = drain(pressed, border | (pressed < 0), np.ones_like(height), diagonals=False).filled
    depth = filled - pressed
    depth[(depth < 0.25) | (ndimage.uniform_filter(press, 9) < 0.2)] = 0  # puddles along valleys are no lakes
    return np.where(depth > 0, filled, pressed), depth


def _river_segments(
    drainage: Drainage, area: NDArray[np.float64], height: NDArray[np.float64], moisture: NDArray[np.float64]
) -> Float32:
    """Stretches of river between the centres of pixels, smoothed along the tree so that they don't show its corners."""
    size = area.shape[0]
    discharge = area * np.clip(moisture - 0.12, 0, None) * 2
    flows = np.append((discharge.ravel() > 1.6) & (height.ravel() > 0.05), False)
    pixels = np.flatnonzero(flows)
    receiver = drainage.receiver
    x = np.append(np.tile(np.arange(size) + 0.5, size), 0.0)
    y = np.append(np.repeat(np.arange(size) + 0.5, size), 0.0)
    donors = np.zeros(size * size + 1, np.intp)
    order = pixels[np.argsort(area.ravel()[pixels])]
    donors[receiver[order]] = order  # the last one written, the largest, is the main donor
    inner = pixels[(receiver[pixels] != size * size) & (donors[pixels] > 0)]
    for _ in range(3):
        for axis in (x, y):
            axis[inner] = (axis[receiver[inner]] + 2 * axis[inner] + axis[donors[inner]]) / 4
    ends = pixels[receiver[pixels] != size * size]
    below = receiver[ends]
    width = np.clip(3.2 * np.sqrt(discharge.ravel()[ends]), 5, 60)
    points = (np.stack([x[ends], y[ends], x[below], y[below]], axis=1) - _MARGIN) * EROSION_PIXEL
    return np.concatenate([points, width[:, None]], axis=1).astype(np.float32)
