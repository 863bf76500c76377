"""Cutting: one cell's thumbnails, aligned, into square patches. uint8 all the way, nothing mirrored.

A thumbnail is about as large as its tile, or enlarged to it; its central 1024 px make 4 x 4 patches of 256 px,
k = row * 4 + column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from copgen_cli.errors import BrokenInputError
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches.georeferencing import TILE, georeferencing_of
from copgen_cli.rasters import encode_png, read_colour, read_grey
from copgen_cli.records import Georeferencing, Patch, Scene
from copgen_cli.stages import Place, Result

PATCH = 256
"""Side of a patch in pixels."""
PER_SIDE = 4
"""Patches along a side of a cell."""
TILES = (TILE, 1056)
"""Sides of Major TOM tiles in pixels of 10 m: of the Core datasets, and of the newer grid (products called MT10_)."""
TOLERANCE = 4
"""Pixels by which a side of a thumbnail may differ from its tile: radar of one tile has 1068 or 1069 px a side,
elevation "about 356", as they are warped from products whose pixel grids differ. What is further off is no tile."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class Window:
    """One square of the aligned thumbnail."""

    position: int | None
    """k = row * 4 + column; None for the centre crop."""
    top: int
    left: int


@cache
def windows(center_crop: bool, size: Size = (TILE, TILE)) -> tuple[Window, ...]:
    """The squares that are cut from the middle of an aligned thumbnail of that size."""
    width, height = size
    if center_crop:
        return (Window(None, offset(height, PATCH), offset(width, PATCH)),)
    top, left = (offset(side, PER_SIDE * PATCH) for side in (height, width))
    places = ((row, col) for row in range(PER_SIDE) for col in range(PER_SIDE))
    return tuple(Window(row * PER_SIDE + col, top + row * PATCH, left + col * PATCH) for row, col in places)


def offset(size: int, crop: int) -> int:
    """Where a centre crop begins: half the difference, rounded half to even."""
    return round((size - crop) / 2)


def cut(scene: Scene, split: Split, *, center_crop: bool = False) -> list[Patch]:
    """Cut one cell.

    Returns:
        16 patches, or one for the centre crop, whose georeferencing is that of the scene's first modality.

    Raises:
        BrokenInputError: a thumbnail is unreadable, or not of the size of a tile, or not of the same tile as another.
    """
    return _cut(scene, read_thumbnails(scene), split, center_crop)


def _cut(scene: Scene, images: Mapping[Modality, np.ndarray], split: Split, center_crop: bool) -> list[Patch]:
    squares = {m: windows(center_crop, size_of(image)) for m, image in images.items()}
    first, product = next(iter(scene.products.items()))
    whole = georeferencing_of(product, size_of(images[first]))
    return [
        Patch(
            cell=scene.cell,
            position=window.position,
            split=split,
            georeferencing=shift(whole, window),
            pixels={m: _crop(image, squares[m][number]) for m, image in images.items()},
        )
        for number, window in enumerate(squares[first])
    ]


def read_thumbnails(scene: Scene) -> dict[Modality, np.ndarray]:
    """The thumbnails of a cell, aligned: each (H, W, 3) uint8 in pixels of 10 m, around one middle.

    A grey one is enlarged with Pillow's bilinear filter until its shorter side is that of the tile, and is a view with
    three equal channels.

    Raises:
        BrokenInputError: see `cut`.
    """
    read: dict[Modality, np.ndarray] = {}
    for modality, file in scene.thumbnails.items():
        function: Callable[..., np.ndarray] = read_grey if modality.facts.grey else read_colour
        read[modality] = function(file)
    tile = _tile_of({modality: size_of(pixels) for modality, pixels in read.items()}, scene.thumbnails)
    return {modality: _align(pixels, modality, tile) for modality, pixels in read.items()}


def size_of(pixels: np.ndarray) -> Size:
    """Width and height of (H, W) or (H, W, C) pixels."""
    return pixels.shape[1], pixels.shape[0]


def shift(whole: Georeferencing, window: Window) -> Georeferencing:
    """Where a window of a thumbnail lies."""
    a, b, c, d, e, f = whole.transform
    x, y = a * window.left + b * window.top + c, d * window.left + e * window.top + f
    return replace(whole, transform=(a, b, x, d, e, y))


def save_patches(scene_and_split: tuple[Scene, Split], *, place: Place, center_crop: bool) -> Result:
    """Cut one cell and write its patches: the work of `copgen prepare` on one unit."""
    scene, split = scene_and_split
    images = read_thumbnails(scene)
    patches = _cut(scene, images, split, center_crop)
    files = [
        place.write(patch_file(Path(), split, modality, patch.name, ".png").as_posix(), encode_png(pixels))
        for patch in patches
        for modality, pixels in patch.pixels.items()
    ]
    sizes = {modality: size_of(image) for modality, image in images.items() if size_of(image) != (TILE, TILE)}
    return Result(files=tuple(files), facts={"split": split} | ({"sizes": sizes} if sizes else {}))


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
    return tile * modality.facts.thumbnail_size // TILE


def _misfit(modality: Modality, size: Size, tile: int) -> int:
    return max(abs(side - _nominal(modality, tile)) for side in size)


def _align(pixels: np.ndarray, modality: Modality, tile: int) -> np.ndarray:
    aligned = pixels if modality.facts.thumbnail_size == TILE else _enlarge(pixels, tile)
    return aligned if aligned.ndim == 3 else np.broadcast_to(aligned[..., None], (*aligned.shape, 3))


def _enlarge(pixels: np.ndarray, shorter: int) -> np.ndarray:
    """Bring the shorter side to so many pixels."""
    height, width = pixels.shape
    short = min(height, width)
    size = (shorter * width // short, shorter * height // short)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _crop(image: np.ndarray, window: Window) -> np.ndarray:
    return image[window.top : window.top + PATCH, window.left : window.left + PATCH]
