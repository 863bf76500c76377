"""From physical rasters to thumbnails, by the rules of the Major TOM Core datasets."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 90
Picture = NDArray[np.uint8]
Float32 = NDArray[np.float32]

_SUN_AZIMUTH, _SUN_ALTITUDE = np.radians(315.0), np.radians(45.0)
_FILTER_UP = 2  # a row is written as its difference to the row above


def true_colour(reflectance: Float32, nodata: NDArray[np.bool_] | None = None) -> Picture:
    """Sentinel-2: clip(1.3 (DN / 10000)^0.6, 0, 1), DN being 10 000 times the reflectance; black without data.

    Args:
        reflectance: (3, size, size) red, green, blue.

    Returns:
        (size, size, 3).
    """
    curve = _tone_curve()
    picture = np.empty((*reflectance.shape[1:], 3), np.uint8)
    for band in range(3):
        numbers = np.clip(reflectance[band] * np.float32(10_000), 0, len(curve) - 1).astype(np.uint16)
        picture[..., band] = curve.take(numbers)
    if nodata is not None:
        picture[nodata] = 0
    return picture


def decibel_ranges(
    powers: Sequence[tuple[Float32, Float32, NDArray[np.bool_]]],
) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """Least and most logarithm of VV and of VH, and of the sum of both once each is stretched to 0 to 255.

    Args:
        powers: VV, VH and where there is no data, of each part of a picture.
    """
    levels = [(np.log(vv[~nodata]), np.log(vh[~nodata])) for vv, vh, nodata in powers if not nodata.all()]
    if not levels:
        return (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    vv, vh = (
        (min(float(pair[i].min()) for pair in levels), max(float(pair[i].max()) for pair in levels)) for i in (0, 1)
    )
    total = max(float((_stretched(a, vv) + _stretched(b, vh)).max()) for a, b in levels)
    return vv, vh, (0.0, total)


def _stretched(level: Float32, least_and_most: tuple[float, float]) -> Float32:
    low, high = least_and_most
    return (level - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))


def false_colour(
    vv: Float32,
    vh: Float32,
    nodata: NDArray[np.bool_] | None = None,
    ranges: Sequence[tuple[float, float]] = (),
) -> Picture:
    """Sentinel-1: decibel of VV and VH, each stretched from its least to its most, in red and blue; green is their
    sum over its most; black without data.

    Real thumbnails fit green = (red + blue) 255 / max(red + blue) to a third of a grey level.

    Args:
        ranges: of the whole picture that this is a part of, as `decibel_ranges` gives them; none for a whole one.

    Returns:
        (size, size, 3).
    """
    valid = slice(None) if nodata is None else ~nodata
    levels = np.log(vv), np.log(vh)
    vv_range, vh_range = ranges[:2] or [(float(level[valid].min()), float(level[valid].max())) for level in levels]
    red, blue = _stretched(levels[0], vv_range), _stretched(levels[1], vh_range)
    total = red + blue
    most = ranges[2][1] if ranges else float(total[valid].max())
    green = total * np.float32(255 / max(most, 1e-6))
    picture = np.empty((*vv.shape, 3), np.uint8)
    for band, level in enumerate((red, green, blue)):
        picture[..., band] = level if nodata is None and not ranges else np.clip(level, 0, 255)
    if nodata is not None:
        picture[nodata] = 0
    return picture


def hillshade(height: Float32) -> Picture:
    """Elevation: light from the north-west, 45 degrees high, on a surface whose pixels count as one metre wide,
    stretched from the darkest to the brightest.

    Returns:
        (n, n).
    """
    light = light_on(height)
    return stretched_light(light, shade_range([light]))


def light_on(height: Float32, axes: tuple[tuple[float, float], tuple[float, float]] | None = None) -> Float32:
    """How much light each pixel of a surface gets, before it is stretched.

    Gradients are central differences, and slopes that turn away go on getting darker below zero, so that
    a plain is about 205 in a picture with steep slopes.

    Args:
        axes: unit vectors (east, north) of the way along a row, and down a column; None is a picture with north up.
    """
    down, across = np.gradient(height)
    if axes is not None:
        (row_east, row_north), (column_east, column_north) = axes
        across, down = across * row_east + down * column_east, -(across * row_north + down * column_north)
    east = np.sin(_SUN_AZIMUTH) * np.cos(_SUN_ALTITUDE)
    north = np.cos(_SUN_AZIMUTH) * np.cos(_SUN_ALTITUDE)
    light: Float32 = (np.sin(_SUN_ALTITUDE) - across * east + down * north) / np.sqrt(1 + across**2 + down**2)
    return light


def shade_range(lights: Sequence[Float32]) -> tuple[float, float]:
    """The darkest and the brightest of some parts of a picture."""
    return min(float(light.min()) for light in lights), max(float(light.max()) for light in lights)


def stretched_light(light: Float32, darkest_and_brightest: tuple[float, float]) -> Picture:
    """Light to grey levels; left as it is where all of it is alike."""
    low, high = darkest_and_brightest
    if high - low > 1e-6:
        light = (light - low) / (high - low)
    return (np.clip(light, 0, 1) * 255).astype(np.uint8)


def elevation_picture(height: Float32) -> Picture:
    """Elevation itself, from its least to its most: the `compressed` column."""
    low, high = float(height.min()), float(height.max())
    return ((height - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)


def as_jpeg(picture: Picture) -> bytes:
    """A Sentinel-2 thumbnail as the archive holds it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def as_png(picture: Picture) -> bytes:
    """A Sentinel-1 or elevation thumbnail as the archive holds it.

    Written here, after the PNG specification (ISO/IEC 15948), for speckle has neither repeats to search for nor rows
    that want another filter than their neighbours: a third of Pillow's time, and 4 % larger.
    """
    height, width = picture.shape[:2]
    colour_type = 2 if picture.ndim == 3 else 0
    rows = picture.reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)),
        (b"IDAT", squeeze.compress(filtered.tobytes()) + squeeze.flush()),
        (b"IEND", b""),
    )
    framed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@lru_cache(maxsize=1)
def _tone_curve() -> Picture:
    numbers = np.arange(16_000) / 10_000
    return (np.clip(1.3 * numbers**0.6, 0, 1) * 255).astype(np.uint8)
