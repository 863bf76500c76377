"""Measurements to the pictures that the archive's thumbnails are: reflectance, backscatter, height.

Backscatter and shading are stretched from the least to the most of a whole raster. Where a raster is rendered piece by
piece, `find_stretch` is asked first, and every piece gets the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import (
    Modality,
    Rendering,
    decibel_ranges,
    false_colour,
    light_on,
    shade_range,
    stretched_light,
    true_colour,
)
from copgen_cli.rasters.measurements import Measurements
from copgen_cli.records import Georeferencing

SHADED_AT = 30.0
"""Metres per pixel at which the archive shades elevation, whose pictures are then enlarged to the other sources'."""
AT_10_M = 3
"""Pixels of 10 m along a side of one at which it is shaded."""

_NOTHING = -100.0
"""Below this, decibel and metres are marks of missing values such as -9999 and -32768."""
_REFLECTANCE_TIMES_10_000 = 3.0
"""A reflectance above this is told in ten thousandths."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What the values of a whole raster say, for the rendering of any part of it."""

    scale: float = 1.0
    """That reflectance is told in: 1 or 10,000."""
    in_decibel: bool = False
    """Whether backscatter is told in decibel, rather than as linear power."""
    ranges: tuple[tuple[float, float], ...] = ()
    """Least and most: of VV, of VH, and of their sum; or of the light on a surface."""


def find_stretch(parts: Sequence[Measurements], modality: Modality) -> Stretch:
    """The stretch of a raster, by some parts of it or by all of it in one.

    Units are told by the values: reflectance from its 10,000-fold, decibel from power.

    Raises:
        BrokenInputError: no pixel has a value.
    """
    parts = [part for part in parts if not part.missing.all()]
    if not parts:
        raise BrokenInputError("No pixel of the raster has a value.", hint="Check its nodata value, and its bands.")
    match modality.spec.picture.rendering:
        case Rendering.TRUE_COLOUR:
            high = max(np.percentile(part.values[:, ~part.missing], 99) for part in parts)
            return Stretch(scale=1.0 if high < _REFLECTANCE_TIMES_10_000 else 10_000.0)
        case Rendering.FALSE_COLOUR:
            middle = np.median(np.concatenate([part.values[:, ~part.missing].ravel() for part in parts]))
            powers = [_powers(part, in_decibel=bool(middle < 0)) for part in parts]
            return Stretch(in_decibel=bool(middle < 0), ranges=decibel_ranges(powers))
        case Rendering.HILLSHADE:
            return Stretch(ranges=(shade_range([_light(part)[0] for part in parts]),))
        case other:
            raise ValueError(f"{modality} is shown by {other}, which no model of thumbnails knows")


def render_picture(measured: Measurements, modality: Modality, stretch: Stretch | None = None) -> np.ndarray:
    """The picture that a model of thumbnails knows; black where a value is missing.

    An offset of reflectance that the raster holds stays in, as it does in the archive's thumbnails.

    Args:
        stretch: of the whole raster; None takes these measurements for it.

    Returns:
        (H, W, 3) uint8; of elevation (H, W), or three times as large a side where the raster has 30 m a pixel.

    Raises:
        BrokenInputError: no pixel has a value, and no stretch is given.
    """
    stretch = stretch or find_stretch([measured], modality)
    match modality.spec.picture.rendering:
        case Rendering.TRUE_COLOUR:
            missing = measured.missing
            reflectance = np.clip(np.where(missing, np.float32(0), measured.values), 0, None) / stretch.scale
            return true_colour(reflectance.astype(np.float32), missing if missing.any() else None)
        case Rendering.FALSE_COLOUR:
            vv, vh, missing = _powers(measured, in_decibel=stretch.in_decibel)
            return false_colour(vv, vh, missing if missing.any() else None, stretch.ranges)
        case Rendering.HILLSHADE:
            return _enlarged(measured, stretch)
        case other:
            raise ValueError(f"{modality} is shown by {other}, which no model of thumbnails knows")


def georeferencing_of_picture(measured: Measurements, picture: np.ndarray) -> Georeferencing | None:
    """Where a picture lies that was rendered of these measurements, enlarged or not."""
    if measured.place is None:
        return None
    a, b, c, d, e, f = measured.place.transform
    rows, columns = (whole / part for whole, part in zip(measured.missing.shape, picture.shape, strict=False))
    return Georeferencing(measured.place.crs, (a * columns, b * rows, c, d * columns, e * rows, f))


def is_missing(measured: Measurements, modality: Modality, stretch: Stretch) -> np.ndarray:
    """(H, W) bool: pixels whose value is none, or a mark of none such as backscatter of 0 or a height of -9999."""
    match modality.spec.picture.rendering:
        case Rendering.TRUE_COLOUR:
            return np.asarray(measured.missing | (measured.values <= 0).all(axis=0))
        case Rendering.FALSE_COLOUR:
            return _powers(measured, in_decibel=stretch.in_decibel)[2]
        case Rendering.HILLSHADE:
            return _without_height(measured)
        case other:
            raise ValueError(f"{modality} is shown by {other}, which no model of thumbnails knows")


def _powers(measured: Measurements, *, in_decibel: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear power of VV and VH, and where either is missing; there it is 1."""
    values, missing = measured.values, measured.missing
    if in_decibel:
        missing = missing | (values < _NOTHING).any(axis=0)
        values = np.float32(10) ** (np.where(missing, 0, values) / np.float32(10))
    missing = missing | ~(values > 0).all(axis=0)
    values = np.where(missing, np.float32(1), values).astype(np.float32)
    return values[0], values[1], missing


def _without_height(measured: Measurements) -> np.ndarray:
    return np.asarray(measured.missing | ~(measured.values[0] >= _NOTHING * 10))


def _light(measured: Measurements) -> tuple[np.ndarray, int]:
    """Light on the surface at 30 m a pixel, whatever the raster has; and how many of its pixels are one of these."""
    missing = _without_height(measured)
    height = _with_nearest(measured.values[0], missing)
    factor = round(SHADED_AT / measured.pixel_size) if measured.pixel_size else AT_10_M
    if factor > 1:
        coarse = tuple(math.ceil(side / factor) for side in height.shape[::-1])
        height = np.asarray(Image.fromarray(height).resize(coarse, Image.Resampling.BICUBIC))
    if min(height.shape) < 2:
        raise BrokenInputError("The raster has too few pixels to shade.", hint="Give a larger one.")
    return light_on(height, _axes(measured.place)), factor


def _axes(place: Georeferencing | None) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Which way rows and columns go on the ground; None where that is as in most rasters, or not known."""
    if place is None:
        return None
    a, b, _, d, e, _ = place.transform
    if b == d == 0 and a > 0 > e:
        return None
    return (a / math.hypot(a, d), d / math.hypot(a, d)), (b / math.hypot(b, e), e / math.hypot(b, e))


def _with_nearest(height: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Heights with those that are missing taken from the nearest pixel, so that gaps have no cliffs around them."""
    if not missing.any():
        return height.astype(np.float32)
    if missing.all():
        return np.zeros(height.shape, np.float32)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(height[tuple(nearest)], np.float32)


def _enlarged(measured: Measurements, stretch: Stretch) -> np.ndarray:
    """Shaded at 30 m a pixel, and enlarged to 10 m or to what the raster has."""
    light, factor = _light(measured)
    rows, columns = measured.missing.shape
    size = (columns, rows) if factor > 1 else (AT_10_M * columns, AT_10_M * rows)
    shaded = Image.fromarray(stretched_light(light, *stretch.ranges))
    gaps = Image.fromarray(_without_height(measured)).resize(size, Image.Resampling.NEAREST)
    return np.where(np.asarray(gaps), np.uint8(0), np.asarray(shaded.resize(size, Image.Resampling.BICUBIC)))
