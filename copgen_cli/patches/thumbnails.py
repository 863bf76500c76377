"""The thumbnails of a cell, aligned: brought to pixels of one size around one middle. uint8 all the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import PIXEL_METRES, TILE_METRES, Modality
from copgen_cli.patches.georeferencing import TILE
from copgen_cli.rasters import read_colour, read_grey
from copgen_cli.records import Scene

TILES = tuple(round(metres / PIXEL_METRES) for metres in TILE_METRES)
"""Sides of Major TOM tiles in pixels of 10 m."""
TOLERANCE = 4
"""Pixels by which a side may differ from its tile: radar of one tile has one pixel more or less a side,
elevation "about" as many as it should, as they are warped from products whose pixel grids differ. What is further off
is no tile."""

Size = tuple[int, int]
"""Width and height in pixels."""


def read_thumbnails(scene: Scene) -> dict[Modality, np.ndarray]:
    """The thumbnails of a cell, aligned: each (H, W, 3) uint8 in pixels of 10 m, around one middle.

    A grey one is enlarged with Pillow's bilinear filter until its shorter side is that of the tile, and is a view with
    three equal channels.

    Raises:
        BrokenInputError: see `cut`.
    """
    read: dict[Modality, np.ndarray] = {}
    for modality, file in scene.thumbnails.items():
        function: Callable[..., np.ndarray] = read_grey if modality.spec.grey else read_colour
        read[modality] = function(file)
    tile = _tile_of({modality: size_of(pixels) for modality, pixels in read.items()}, scene.thumbnails)
    return {modality: _align(pixels, modality, tile) for modality, pixels in read.items()}


def size_of(pixels: np.ndarray) -> Size:
    """Width and height of (H, W) or (H, W, C) pixels."""
    return pixels.shape[1], pixels.shape[0]


def _tile_of(sizes: Mapping[Modality, Size], files: Mapping[Modality, Path]) -> int:
    """Side of the tile that all thumbnails of a cell are of, in pixels of 10 m.

    Raises:
        BrokenInputError: one is of no known tile, or they are of different ones.
    """
    misfits = {tile: {m: _misfit(m, size, tile) for m, size in sizes.items()} for tile in TILES}
    fitting = [tile for tile in TILES if max(misfits[tile].values()) <= TOLERANCE]
    if fitting:
        return min(fitting, key=lambda tile: sum(misfits[tile].values()))
    for modality, (width, height) in sizes.items():
        if all(misfits[tile][modality] > TOLERANCE for tile in TILES):
            known = " or ".join(f"{side} x {side}" for side in (_nominal(modality, tile) for tile in TILES))
            raise BrokenInputError(
                f"{files[modality]} is {width} x {height} px, and no tile: these are {known} px, give or take "
                f"{TOLERANCE}.",
                hint="Leave the cell out, or bring the thumbnail to its tile.",
            )
    told = ", ".join(f"{modality} has {width} x {height} px" for modality, (width, height) in sizes.items())
    raise BrokenInputError(
        f"The thumbnails of {next(iter(files.values())).parent.parent.name} are of different grids and do not lie over "
        f"one another: {told}.",
        hint="Download all sources of the cell from one archive.",
    )


def _nominal(modality: Modality, tile: int) -> int:
    """Side of a modality's thumbnail of a tile."""
    return tile * modality.source.thumbnail_size // TILE


def _misfit(modality: Modality, size: Size, tile: int) -> int:
    return max(abs(side - _nominal(modality, tile)) for side in size)


def _align(pixels: np.ndarray, modality: Modality, tile: int) -> np.ndarray:
    aligned = pixels if modality.source.thumbnail_size == TILE else _enlarge(pixels, tile)
    return aligned if aligned.ndim == 3 else np.broadcast_to(aligned[..., None], (*aligned.shape, 3))


def _enlarge(pixels: np.ndarray, shorter: int) -> np.ndarray:
    """Bring the shorter side to so many pixels."""
    height, width = pixels.shape
    short = min(height, width)
    size = (shorter * width // short, shorter * height // short)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
