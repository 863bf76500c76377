"""What covers the ground: water, woods, fields, rock, sand, ice and towns, by height, slope, warmth and moisture.

Each cover has an index, made on the erosion raster of the terrain and the climate; where the index plus a little
grain is positive, the cover wins over those before it. The thresholds are round numbers of ecology: no trees where
the warmest month stays below 10 degrees (Köppen), no closed forest in the dry, no fields on slopes above one in
seven, bare rock above about one in two, ice where even summers stay near freezing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from copgen_cli.simulation.climate import LAPSE_RATE, Climate
from copgen_cli.simulation.noise import (
    Float32,
    Frame,
    fractal_noise,
    generator_of,
    grain,
    key_of,
    resized,
)
from copgen_cli.simulation.parcels import blocks_of, draw_lines, parcels_in, pivots_in, villages_of
from copgen_cli.simulation.terrain import EROSION_PIXEL, Terrain


class Cover(IntEnum):
    """Kinds of ground."""

    WATER = 0
    WETLAND = 1
    CONIFER = 2
    BROADLEAF = 3
    SHRUB = 4
    GRASS = 5
    FIELD = 6
    BARE = 7
    ROCK = 8
    SAND = 9
    ICE = 10
    BUILT = 11
    ROAD = 12
    HEDGE = 13
    STREET = 14
    """Between houses: asphalt and yards to Sentinel-2, corners that throw back the beam to Sentinel-1."""


KINDS = 256
"""Fields and plots come in this many kinds: what grows there and when, what is built there."""
SURFACES = 3 * KINDS
"""Entries of a table of surfaces: covers, then kinds of field, then kinds of building plot."""
FIELDS, PLOTS = slice(KINDS, 2 * KINDS), slice(2 * KINDS, SURFACES)
"""Where in such a table fields and plots are."""


@dataclass(frozen=True, slots=True)
class LandCover:
    """The surface of a cell; (size, size) unless said otherwise."""

    cover: NDArray[np.uint8]
    """A `Cover` each."""
    surface: NDArray[np.uint16]
    """Index into tables of surfaces: the cover, or its kind in `FIELDS` or `PLOTS`."""
    water_depth: Float32
    """Metres, 0 on land."""
    grain: Float32
    """Texture of unit variance, shared by all sensors: tree crowns, tufts, stones."""
    warmth: Float32
    """Mean temperature of the year, degrees Celsius, on the erosion raster."""
    swing: Float32
    """Half the difference of July and January, kelvin, on the erosion raster."""
    moisture: Float32
    """Of the soil, 0 to 1, on the erosion raster."""
    people: float
    """Mean density of settlement, 0 to 1."""


def land_cover_of(frame: Frame, terrain: Terrain, climate: Climate, seed: int, cell: str, zone: str) -> LandCover:
    """Cover the ground of a cell.

    Args:
        frame: the footprint in pixels of the pictures.
        cell: its name: fine texture is the cell's own.
        zone: names the zone and hemisphere whose metres `frame` counts.
    """
    coarse = frame.at_size(terrain.height.shape[0])
    height = np.maximum(terrain.height, 0)
    warmth = (climate.at("warmth", coarse.size) - LAPSE_RATE * height).astype(np.float32)
    swing = climate.at("swing", coarse.size)
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(height, 1.0), EROSION_PIXEL)).astype(np.float32)
    moisture = _soil_moisture(
        coarse, terrain, climate, slope, key_of(seed, "soil", zone), -1 if zone.endswith("S") else 1
    )
    index = _indices(coarse, terrain, climate, slope, warmth, swing, moisture, key_of(seed, "cover", zone))
    texture = grain(frame.size, generator_of(seed, "grain", cell), levels=5)

    def wins(name: str, roughness: float) -> NDArray[np.bool_]:
        wanted = index[name]
        if float(wanted.max()) + 5 * roughness < 0:  # nowhere, whatever the grain
            return np.zeros((frame.size, frame.size), dtype=bool)
        return (resized(wanted, frame.size) + np.float32(roughness) * texture) > 0

    size = frame.size
    cover = np.full((size, size), Cover.GRASS, np.uint8)
    np.copyto(cover, np.uint8(Cover.SHRUB), where=wins("shrub", 0.12))
    np.copyto(cover, np.uint8(Cover.BARE), where=wins("bare", 0.04))
    np.copyto(cover, np.uint8(Cover.SAND), where=wins("sand", 0.02))
    trees = wins("tree", 0.10)
    np.copyto(cover, np.uint8(Cover.BROADLEAF), where=trees)
    np.copyto(cover, np.uint8(Cover.CONIFER), where=trees & wins("conifer", 0.5))
    np.copyto(cover, np.uint8(Cover.ROCK), where=wins("rock", 0.08))
    np.copyto(cover, np.uint8(Cover.ICE), where=wins("ice", 0.08))
    blocks = blocks_of(frame, 1_500, key_of(seed, "blocks", zone))
    villages = villages_of(frame, float(climate.people.mean()), key_of(seed, "villages", zone))
    index["built"] = _town_index(coarse, villages.centres, villages.radius, index["built"], index["ragged"])
    built = wins("built", 0.06)
    fields = wins("field", 0.02) & ~built
    parcel, edge = parcels_in(frame, blocks, built)
    if 0.05 < float(moisture.mean()) < 0.3:
        share = float(np.clip(1.2 * climate.people.mean() - 0.1, 0.0, 0.7))
        irrigated, kind = pivots_in(frame, share, key_of(seed, "pivots", zone))
        irrigated &= (resized(slope, size) < 0.06) & ~built
        fields |= irrigated
        np.copyto(parcel, kind, where=irrigated)
        edge &= ~irrigated
    edge &= frame.pixel < 25  # hedges and streets are narrower than coarser pixels
    np.copyto(cover, np.uint8(Cover.FIELD), where=fields & ~(trees & ((parcel & 31) == 3)))
    np.copyto(cover, np.uint8(Cover.HEDGE), where=fields & edge & ((parcel & 3) == 1))
    np.copyto(cover, np.uint8(Cover.BUILT), where=built)
    np.copyto(cover, np.uint8(Cover.STREET), where=built & edge)
    _draw_roads(cover, frame, blocks.borders, villages.roads, fields | built, resized(index["road"], size) > 0)
    depth = _water(cover, frame, terrain, resized(moisture, size), texture)
    surface = cover.astype(np.uint16)
    np.copyto(surface, parcel + np.uint16(FIELDS.start), where=cover == Cover.FIELD)
    np.copyto(surface, parcel + np.uint16(PLOTS.start), where=cover == Cover.BUILT)
    return LandCover(cover, surface, depth, texture, warmth, swing, moisture, float(climate.people.mean()))


def cover_height(cover: NDArray[np.uint8], kind: NDArray[np.uint16], texture: Float32) -> Float32:
    """Height of trees and houses above the ground, metres: what a surface model such as Copernicus DEM adds."""
    table = np.zeros(SURFACES, np.float32)
    tall = {Cover.CONIFER: 14, Cover.BROADLEAF: 12, Cover.SHRUB: 1, Cover.HEDGE: 1.5, Cover.STREET: 3}
    for which, metres in tall.items():
        table[which] = metres
    table[PLOTS] = 4 + 3 * (np.arange(KINDS) % 37 / 37) ** 2
    return table.take(kind) * (1 + np.float32(0.03) * texture)


def _soil_moisture(
    coarse: Frame, terrain: Terrain, climate: Climate, slope: Float32, key: int, poleward: int
) -> Float32:
    """Rain, what gathers in hollows, and what the sun leaves on slopes that face the pole.

    Hollows by the topographic wetness index of Beven & Kirkby 1979 (doi:10.1080/02626667909491834), scaled; crests
    by their height above the mean of the surroundings: their soil is thin, dry and pale.

    Args:
        poleward: 1 where the pole is north, -1 where it is south.
    """
    wetness = np.log(terrain.drained * 1e6 / EROSION_PIXEL / np.maximum(slope, 0.01)) - 8
    near_river = np.exp(-np.square(terrain.trunk / 700))
    hollow = ndimage.gaussian_filter(np.clip(wetness, -3, 4), 1.2)
    patches = fractal_noise(coarse, 3_000, key, octaves=6, persistence=0.7)
    rain = np.minimum(climate.at("moisture", coarse.size), 0.85) + 0.00009 * np.clip(terrain.height, 0, 1500)
    height = np.maximum(terrain.height, 0)
    above = height - ndimage.gaussian_filter(height, 7, mode="nearest")  # half a kilometre around
    crest = np.clip(above / (above.std() + 0.5), -2, 2)
    shade = np.gradient(ndimage.gaussian_filter(height, 1.0), EROSION_PIXEL)[0] * poleward
    return np.clip(
        rain + 0.03 * hollow - 0.09 * crest + 0.12 * near_river + 0.03 * patches + np.clip(1.1 * shade, -0.25, 0.25),
        0,
        1,
    ).astype(np.float32)


def _indices(
    coarse: Frame,
    terrain: Terrain,
    climate: Climate,
    slope: Float32,
    warmth: Float32,
    swing: Float32,
    moisture: Float32,
    key: int,
) -> dict[str, Float32]:
    """How much each cover wants each pixel of the erosion raster: positive where it wins."""
    patches = fractal_noise(coarse, 2_400, key, octaves=5, persistence=0.65)
    spread = fractal_noise(coarse, 5_000, key + 20, octaves=4, persistence=0.6)
    people = climate.at("people", coarse.size)
    summer, low = warmth + swing, np.maximum(terrain.height, 0)
    farmed = 0.12 + 0.9 * people + 0.35 * spread - 5.5 * slope - 2.2 * np.clip(0.3 - moisture, 0, None)
    farmed = farmed - 0.1 * np.clip(9 - warmth - 0.5 * swing, 0, None)
    trees = 1.9 * (moisture - 0.36) + (0.1 + 0.45 * np.minimum(moisture, 0.5)) * patches
    trees = trees + 0.9 * np.minimum(slope, 0.5) * np.minimum(moisture * 2, 1)
    trees = np.minimum(trees, 0.12 * (summer - 10) + 0.15 * patches) - 0.35 * people
    beach = 1.2 - low / 2.2 + 0.4 * patches
    rain = climate.at("moisture", coarse.size)
    dry = np.minimum(0.17 - moisture + 0.03 * patches, 0.30 - rain)
    return {
        "shrub": (0.45 - np.abs(moisture - 0.38) * 2.2 + 0.35 * spread - 0.1).astype(np.float32),
        "bare": (dry + 0.05).astype(np.float32),
        "sand": np.maximum(dry * 1.2 - 0.35 * slope + 0.06 * spread, 0.08 * beach).astype(np.float32),
        "tree": trees.astype(np.float32),
        "conifer": (0.18 * (9 - warmth) + 0.6 * spread).astype(np.float32),
        "rock": (
            1.6 * (slope - 0.55 + 0.5 * np.clip(0.42 - moisture, 0, 0.4)) + 0.04 * (6 - summer) + 0.1 * patches
        ).astype(np.float32),
        "ice": (0.22 * (2.5 - summer) + 0.1 * patches - 0.5 * np.clip(slope - 0.7, 0, None)).astype(np.float32),
        "built": (people * 1.1 - 0.95 + 0.25 * patches - 3.5 * slope).astype(np.float32),
        "ragged": (0.3 * patches).astype(np.float32),
        "field": farmed.astype(np.float32),
        "road": (0.28 - slope).astype(np.float32),
    }


def _town_index(
    coarse: Frame, centres: NDArray[np.float64], radius: NDArray[np.float64], city: Float32, ragged: Float32
) -> Float32:
    """The index of built land with the villages added: 1 in their middle, 0 at their edge."""
    total = city
    for (east, north), reach in zip(centres, radius, strict=True):
        x, y = (coarse.eastings - east)[None, :], (coarse.northings - north)[:, None]
        near = 1 - np.sqrt(x**2 + y**2) / reach + ragged
        total = np.maximum(total, np.minimum(near, city + 1.35).astype(np.float32))
    return total


def _draw_roads(
    cover: NDArray[np.uint8],
    frame: Frame,
    borders: list[NDArray[np.float64]],
    roads: list[NDArray[np.float64]],
    farmed: NDArray[np.bool_],
    passable: NDArray[np.bool_],
) -> None:
    narrow = max(1, round(10 / frame.pixel))
    tracks = draw_lines(frame.size, borders, [narrow] * len(borders))
    np.copyto(cover, np.uint8(Cover.ROAD), where=tracks & farmed & (cover != Cover.BUILT) & (cover != Cover.STREET))
    wide = draw_lines(frame.size, roads, [max(1, round(18 / frame.pixel))] * len(roads))
    np.copyto(cover, np.uint8(Cover.ROAD), where=wide & passable)


def _water(cover: NDArray[np.uint8], frame: Frame, terrain: Terrain, moisture: Float32, texture: Float32) -> Float32:
    """Put sea, lakes and rivers on the cover, reeds on their shores; returns the depth of water in metres."""
    size = frame.size
    depth = -resized(terrain.height, size, smooth=True) + np.float32(0.5) * np.minimum(texture, 1)
    low = depth > -1000  # reeds don't climb mountains
    if (terrain.lake > 0).any():
        lake = np.where(terrain.lake > 0, terrain.lake * 1.5, -0.6).astype(np.float32)
        np.maximum(depth, resized(lake, size), out=depth)
    if float(terrain.trunk.min()) < 150:
        trunk = (
            np.float32(55)
            - resized(terrain.trunk, size)
            + np.float32(60) * np.clip(moisture - np.float32(0.5), -0.4, 1)
        )
        np.maximum(depth, trunk * np.float32(0.04), out=depth)
    shore = (depth > -0.25) & (moisture > 0.5) & (cover != Cover.BUILT) & low
    np.copyto(cover, np.uint8(Cover.WETLAND), where=shore & (texture > 0.2))
    lines = [line.reshape(2, 2) / frame.pixel for line in terrain.rivers[:, :4].astype(np.float64)]
    widths = [max(1, round(float(width) / frame.pixel)) for width in terrain.rivers[:, 4]]
    depth[draw_lines(size, lines, widths)] = 1.0
    np.copyto(cover, np.uint8(Cover.WATER), where=depth > 0)
    return np.maximum(depth, 0)
