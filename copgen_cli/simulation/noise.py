"""Seeded noise in world coordinates: the same place gives the same value, whichever cell asks.

Every value depends on a 64-bit key and a position alone, through an integer hash, so neither the order of calls,
the process nor the platform's hash seed can change it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class Frame:
    """A square raster on the ground, in metres of one UTM zone; its first row is the northernmost."""

    west: float
    north: float
    pixel: float
    size: int

    def at_size(self, size: int) -> Frame:
        """The same ground, cut into another number of pixels."""
        return replace(self, pixel=self.pixel * self.size / size, size=size)

    def widened(self, pixels: int) -> Frame:
        """With a margin of that many pixels on each side."""
        margin = pixels * self.pixel
        return replace(self, west=self.west - margin, north=self.north + margin, size=self.size + 2 * pixels)

    @property
    def eastings(self) -> NDArray[np.float64]:
        """Centres of the columns, metres."""
        return np.asarray(self.west + (np.arange(self.size) + 0.5) * self.pixel)

    @property
    def northings(self) -> NDArray[np.float64]:
        """Centres of the rows, metres, falling."""
        return np.asarray(self.north - (np.arange(self.size) + 0.5) * self.pixel)


def key_of(*words: str | int) -> int:
    """A 64-bit key of some words, the same on every machine."""
    text = "\x1f".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator_of(*words: str | int) -> np.random.Generator:
    """A random generator that depends on these words alone."""
    return np.random.Generator(np.random.SFC64(key_of(*words)))


def hashed(*coordinates: NDArray[np.int64] | int, key: int) -> NDArray[np.uint64]:
    """Mix integer coordinates (broadcast against each other) and a key into 64 random bits each.

    The finaliser is that of SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).
    """
    state = np.asarray(np.uint64(key & _MASK))
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        for coordinate in coordinates:
            state = state ^ (np.asarray(coordinate, dtype=np.int64).astype(np.uint64) * np.uint64(_GOLDEN))
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*coordinates: NDArray[np.int64] | int, key: int) -> Float32:
    """Numbers in [0, 1) by hash."""
    return ((hashed(*coordinates, key=key) >> np.uint64(40)) * np.float64(2**-24)).astype(np.float32)


def lattice_noise(frame: Frame, spacing: float, key: int) -> Float32:
    """Smooth noise of about zero mean and unit variance: a cubic B-spline over random values every `spacing` metres.

    The spline is separable, so a whole raster costs two small matrix products.

    Returns:
        (size, size) of `frame`.
    """
    across, first_col = _spline_weights(frame.eastings / spacing)
    down, first_row = _spline_weights(frame.northings / spacing)
    rows = first_row + np.arange(down.shape[1])[:, None]
    cols = first_col + np.arange(across.shape[1])[None, :]
    values = (uniform(rows, cols, key=key) - np.float32(0.5)) * np.float32(7.2)  # the spline keeps 0.23 of the variance
    product: Float32 = down @ values @ across.T
    return product


def fractal_noise(frame: Frame, spacing: float, key: int, *, octaves: int, persistence: float = 0.5) -> Float32:
    """Octaves of `lattice_noise`, each at half the spacing and `persistence` times the height; unit variance."""
    total, power, height = np.zeros((frame.size, frame.size), np.float32), 0.0, 1.0
    for octave in range(octaves):
        total += np.float32(height) * lattice_noise(frame, spacing / 2**octave, key + octave)
        power += height**2
        height *= persistence
    return total / np.float32(power**0.5)


def ridged_noise(frame: Frame, spacing: float, key: int, *, octaves: int) -> Float32:
    """Ridged multifractal in about [0, 1.5]: sharp crests where an octave crosses zero, finer ones on high ground only.

    After Musgrave, in Ebert et al., Texturing and Modeling (3rd ed. 2003), chapter 16.
    """
    total = np.zeros((frame.size, frame.size), np.float32)
    weight = np.ones((), np.float32)
    for octave in range(octaves):
        crest = 1 - np.abs(lattice_noise(frame, spacing / 2**octave, key + octave)) * np.float32(0.55)
        crest = np.square(np.clip(crest, 0, None)) * weight
        total += crest * np.float32(0.55**octave)
        weight = np.clip(crest * 1.4, 0, 1)
    return total / np.float32(1.4)


def sphere_noise(lat: NDArray[np.float64], lon: NDArray[np.float64], spacing: float, key: int) -> NDArray[np.float64]:
    """Noise of about unit variance on the globe, without seams: a lattice in space, `spacing` metres apart."""
    phi, lam = np.radians(lat), np.radians(lon)
    space = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)]) * (6_371_000 / spacing)
    base = np.floor(space).astype(np.int64)
    part = space - base
    part = part * part * (3 - 2 * part)
    total = np.zeros(np.shape(lat))
    for corner in range(8):
        steps = [corner >> axis & 1 for axis in range(3)]
        weight = np.prod([part[axis] if steps[axis] else 1 - part[axis] for axis in range(3)], axis=0)
        value = uniform(*(base[axis] + steps[axis] for axis in range(3)), key=key)
        total += weight * (value - 0.5)
    return total * 5.2  # trilinear mixing keeps about 0.44 of the variance 1/12


def grain(size: int, generator: np.random.Generator, *, levels: int, persistence: float = 1.0) -> Float32:
    """Fine texture of unit variance without world coordinates: an image pyramid of white noise.

    Args:
        size: side of the raster in pixels.
        levels: octaves, the finest of one pixel; each coarser one is `1 / persistence` times as strong.
    """
    total: Float32 | None = None
    for level in range(levels - 1, -1, -1):
        side = -(-size // 2**level)
        layer = generator.standard_normal((side, side), dtype=np.float32)
        total = layer if total is None else layer + resized(total, side) * np.float32(1 / persistence)
    assert total is not None
    return total / np.float32(total.std())


def resized(field: Float32, size: int, *, smooth: bool = False) -> Float32:
    """A square field at another size: bilinear, or bicubic where `smooth`; shrinking averages."""
    if field.shape[0] == size:
        return field
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(field).resize((size, size), method))


def _spline_weights(positions: NDArray[np.float64]) -> tuple[Float32, int]:
    """Weights (positions, lattice points) of the uniform cubic B-spline, and the index of the first lattice point."""
    base = np.floor(positions).astype(np.int64)
    t = positions - base
    taps = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    first = int(base.min()) - 1
    weights = np.zeros((len(positions), int(base.max()) + 3 - first), np.float32)
    for tap in range(4):
        weights[np.arange(len(positions)), base - 1 + tap - first] = taps[:, tap]
    return weights, first
