"""Values of a modality as a picture that people look at, by its own rule."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from copgen_cli.modalities import (
    ModalitySpec,
    Rendering,
    decode_scalar,
    false_colour,
    hillshade,
    true_colour,
)

SCALAR_SIDE = 192
"""Pixels of the picture of a place or a date, where no other is asked for."""
_REFLECTANCE = 10_000.0
_PAPER, _LINES, _POINT, _INK = "#f4f6f8", "#c4ccd4", "#d6336c", "#212529"


def show(values: np.ndarray, spec: ModalitySpec, side: int = SCALAR_SIDE) -> np.ndarray:
    """The picture of some values.

    Args:
        values: of a picture (H, W, 3) uint8; of a raster or classes (B, H, W) in its unit; of a scalar (3,).
        spec: of the modality.
        side: of the picture of a scalar, in pixels.

    Returns:
        (H, W, 3) uint8.
    """
    match spec.picture.rendering:
        case _ if spec.is_picture:
            return values
        case Rendering.TRUE_COLOUR:
            return true_colour(np.clip(_bands(values, spec) / np.float32(_REFLECTANCE), 0, None))
        case Rendering.FALSE_COLOUR:
            power = np.maximum(_bands(values, spec), np.float32(spec.normalisation.least or 1e-6))
            return false_colour(power[0], power[1])
        case Rendering.HILLSHADE:
            return _in_three(hillshade(_bands(values, spec)[0]))
        case Rendering.CLASSES:
            return _coloured(values[0], spec)
        case Rendering.PLACE | Rendering.DATE:
            return _written(values, spec, side)
        case _:
            low, high = spec.picture.low, spec.picture.high
            unit = np.clip((_bands(values, spec) - low) / max(high - low, 1e-12), 0, 1)
            return _in_three(np.nan_to_num(unit * 255).astype(np.uint8))


def _bands(values: np.ndarray, spec: ModalitySpec) -> np.ndarray:
    """(n, H, W) float32 of the bands that the picture is made of."""
    return np.stack([values[spec.bands.index(band)] for band in spec.picture.bands]).astype(np.float32)


def _in_three(grey: np.ndarray) -> np.ndarray:
    """(H, W) or (1 or 3, H, W) to (H, W, 3)."""
    bands = grey if grey.ndim == 3 else grey[None]
    return np.repeat(bands, 3, axis=0).transpose(1, 2, 0) if len(bands) == 1 else bands.transpose(1, 2, 0)


def _coloured(classes: np.ndarray, spec: ModalitySpec) -> np.ndarray:
    picture = np.zeros((*classes.shape, 3), np.uint8)
    for one in spec.classes:
        picture[classes == one.value] = ImageColor.getrgb(one.colour)
    return picture


def _written(numbers: np.ndarray, spec: ModalitySpec, side: int) -> np.ndarray:
    """A date in words, or a point on a map of the world with a line every 30 degrees."""
    facts = decode_scalar(numbers, spec)
    image = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(side // 11, 8))
    if spec.picture.rendering is Rendering.DATE:
        draw.text((side / 2, side / 2), str(facts["date"]), fill=_INK, font=font, anchor="mm")
        return np.asarray(image)
    top, height = side / 4, side / 2
    for k in range(13):
        draw.line((side * k / 12, top, side * k / 12, top + height), fill=_LINES)
    for k in range(7):
        draw.line((0, top + height * k / 6, side, top + height * k / 6), fill=_LINES)
    x, y = side * (facts["longitude"] + 180) / 360, top + height * (90 - facts["latitude"]) / 180
    radius = max(side / 40, 2)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_POINT)
    told = f"{facts['latitude']:.2f}, {facts['longitude']:.2f}"
    draw.text((side / 2, top + height + side / 8), told, fill=_INK, font=font, anchor="mm")
    return np.asarray(image)
