"""Cutting: one cell's thumbnails, aligned, into square patches. uint8 all the way, nothing mirrored.

A thumbnail is 1068 px, or enlarged to it; its central 1024 px make 4 x 4 patches of 256 px, k = row * 4 + column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from copgen_cli.errors import BrokenInputError
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches.georeferencing import footprint_of
from copgen_cli.rasters import encode_png, read_colour, read_grey
from copgen_cli.records import Footprint, Patch, Scene
from copgen_cli.stages import Place, Result

PATCH = 256
"""Side of a patch in pixels."""
PER_SIDE = 4
"""Patches along a side of a cell."""

_ALIGNED = 1068  # side of an aligned thumbnail: a footprint of 10 680 m at 10 m
_TOLERANCE = 4  # pixels by which the side of a 30 m thumbnail may differ from the registry: it is "about 356"


@dataclass(frozen=True, slots=True)
class Window:
    """One square of the aligned thumbnail."""

    position: int | None
    """k = row * 4 + column; None for the centre crop."""
    top: int
    left: int


@cache
def windows(center_crop: bool) -> tuple[Window, ...]:
    """The squares that are cut from an aligned thumbnail."""
    if center_crop:
        middle = offset(_ALIGNED, PATCH)
        return (Window(None, middle, middle),)
    margin = offset(_ALIGNED, PER_SIDE * PATCH)
    places = ((row, col) for row in range(PER_SIDE) for col in range(PER_SIDE))
    return tuple(Window(row * PER_SIDE + col, margin + row * PATCH, margin + col * PATCH) for row, col in places)


def offset(size: int, crop: int) -> int:
    """Where a centre crop begins: half the difference, rounded half to even."""
    return round((size - crop) / 2)


def cut(scene: Scene, split: Split, *, center_crop: bool = False) -> list[Patch]:
    """Cut one cell.

    Returns:
        16 patches, or one for the centre crop, whose footprint is that of the scene's first modality.

    Raises:
        BrokenInputError: a thumbnail is unreadable or of another size.
    """
    images = {modality: read_thumbnail(scene, modality) for modality in scene.thumbnails}
    whole = footprint_of(next(iter(scene.products.values())))
    return [
        Patch(
            cell=scene.cell,
            position=window.position,
            split=split,
            footprint=shift(whole, window),
            pixels={m: _crop(image, window) for m, image in images.items()},
        )
        for window in windows(center_crop)
    ]


def read_thumbnail(scene: Scene, modality: Modality) -> np.ndarray:
    """(1068, 1068, 3) uint8; a grey one, enlarged with Pillow's bilinear filter, as a view with three equal channels.

    Raises:
        BrokenInputError: it is unreadable, or of another size.
    """
    file = scene.thumbnails[modality]
    expected = modality.facts.thumbnail_size
    read: Callable[..., np.ndarray] = read_grey if modality.facts.grey else read_colour
    pixels = read(file)
    height, width = pixels.shape[:2]
    if max(abs(height - expected), abs(width - expected)) > (0 if expected == _ALIGNED else _TOLERANCE):
        raise BrokenInputError(
            f"{file} is {width} x {height} px, not {expected} x {expected}.",
            hint="Fetch it again: `copgen download --verify` repairs what is damaged.",
        )
    aligned = pixels if expected == _ALIGNED else _central(_enlarge(pixels))
    return aligned if aligned.ndim == 3 else np.broadcast_to(aligned[..., None], (*aligned.shape, 3))


def shift(whole: Footprint, window: Window) -> Footprint:
    """The footprint of a window of a thumbnail."""
    a, b, c, d, e, f = whole.transform
    x, y = a * window.left + b * window.top + c, d * window.left + e * window.top + f
    return replace(whole, transform=(a, b, x, d, e, y))


def save_patches(scene_and_split: tuple[Scene, Split], *, place: Place, center_crop: bool) -> Result:
    """Cut one cell and write its patches: the work of `copgen prepare` on one unit."""
    scene, split = scene_and_split
    patches = cut(scene, split, center_crop=center_crop)
    files = [
        place.write(patch_file(Path(), split, modality, patch.name, ".png").as_posix(), encode_png(pixels))
        for patch in patches
        for modality, pixels in patch.pixels.items()
    ]
    return Result(files=tuple(files), facts={"split": split})


def _enlarge(pixels: np.ndarray) -> np.ndarray:
    """Bring the shorter side to 1068 px."""
    height, width = pixels.shape
    short = min(height, width)
    size = (_ALIGNED * width // short, _ALIGNED * height // short)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _central(pixels: np.ndarray) -> np.ndarray:
    top, left = (offset(size, _ALIGNED) for size in pixels.shape)
    return pixels[top : top + _ALIGNED, left : left + _ALIGNED]


def _crop(image: np.ndarray, window: Window) -> np.ndarray:
    return image[window.top : window.top + PATCH, window.left : window.left + PATCH]
