"""What is the same over tens of kilometres: how high and rugged the land is, how warm and wet, how many live there.

These trends are noise on the globe, so that neighbours share them across zones and the date line. Temperature and
rain follow latitude as they do on Earth; the rest is chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copgen_cli.archive import FOOTPRINT_METRES, Footprint, from_utm
from copgen_cli.simulation.noise import Float32, Float64, key_of, resized, sphere_noise

LAPSE_RATE = 0.0065
"""Fall of temperature with height, K per metre (ICAO standard atmosphere)."""
_POINTS = 6  # a side of the coarse raster on which trends are known


@dataclass(frozen=True, slots=True)
class Climate:
    """Trends over one cell, each (6, 6), to be read through `at`."""

    base: Float32
    """Height of the plain above the sea, metres; negative is a sea bed."""
    rugged: Float32
    """0 in plains, 1 in high mountains."""
    warmth: Float32
    """Mean temperature of the year at sea level, degrees Celsius."""
    swing: Float32
    """Half the difference between July and January, kelvin."""
    moisture: Float32
    """0 in deserts, 1 in rain forests."""
    people: Float32
    """0 in the wild, 1 in the heart of a city."""

    def at(self, name: str, size: int) -> Float32:
        """One trend as a (size, size) raster of the cell."""
        return resized(getattr(self, name), size, smooth=True)


def climate_of(place: Footprint, seed: int) -> Climate:
    """The trends over a footprint."""
    lat, lon = points_of(place)
    base, rugged = land_of(lat, lon, seed)
    sine = np.sin(np.radians(lat)) ** 2
    warmth = 27.5 - 34 * sine + 2.5 * _trend("warmth", lat, lon, seed, 800, 3)
    moisture = _zonal_rain(lat) + 0.21 * _trend("moisture", lat, lon, seed, 400, 4, 0.8)
    people = _trend("people", lat, lon, seed, 150, 4, 0.9) * 0.55 + 0.13
    people = people - 0.7 * np.clip(rugged - 0.5, 0, None) - 0.08 * np.clip(3 - warmth, 0, None)
    fields = (base, rugged, warmth, 2 + 17 * sine, np.clip(moisture, 0, 1), np.clip(people, 0, 1))
    return Climate(*(field.astype(np.float32) for field in fields))


def points_of(place: Footprint) -> tuple[Float64, Float64]:
    """Latitudes and longitudes of the points of the coarse raster, each (6, 6), degrees."""
    steps = (np.arange(_POINTS) + 0.5) * FOOTPRINT_METRES / _POINTS
    east, north = np.meshgrid(place.west + steps, place.north - steps)
    return from_utm(east, north, zone=place.zone, south=place.south)


def land_of(lat: Float64, lon: Float64, seed: int) -> tuple[Float64, Float64]:
    """Height of the plain and ruggedness, as in `Climate`, at any points, those of many cells among them."""
    shelf = _trend("shelf", lat, lon, seed, 700, 5)
    rugged = 1 / (1 + np.exp(-1.9 * (_trend("rugged", lat, lon, seed, 300, 4, 0.8) - 0.05)))
    base = 420 * np.clip(shelf + 1.0, 0, None) ** 1.6 * (0.25 + rugged) + 160 * np.clip(shelf + 1.0, -0.5, 0.06) - 4
    return base, rugged


def _trend(
    word: str, lat: Float64, lon: Float64, seed: int, first_km: float, octaves: int, persistence: float = 0.65
) -> Float64:
    """Noise on the globe, of about unit variance, whose widest waves are as long as said."""
    heights = persistence ** np.arange(octaves)
    layers = [
        height * sphere_noise(lat, lon, first_km * 1000 / 2.3**octave, key_of(seed, word, octave))
        for octave, height in enumerate(heights)
    ]
    return np.sum(layers, axis=0) / np.sqrt(np.sum(heights**2))


def _zonal_rain(lat: Float64) -> Float64:
    """Moisture by latitude: wet at the equator, dry near 26 degrees, moist again near 50, dry at the poles."""
    return np.interp(np.abs(lat), [0, 12, 26, 38, 50, 65, 80, 90], [0.85, 0.62, 0.15, 0.38, 0.62, 0.58, 0.4, 0.3])
