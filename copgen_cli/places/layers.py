"""The pixels of a modality, wherever they are asked for: from a user's raster, or from the cells of a region.

H and W are pixels of the grid that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from copgen_cli.archive import FOOTPRINT_METRES, parse_cell
from copgen_cli.errors import MissingInputError, UsageError
from copgen_cli.modalities import Modality, Rendering
from copgen_cli.patches import Subset, georeferencing_of, neighbours, read_subset, read_thumbnails
from copgen_cli.places.area import Area, area_of_cell
from copgen_cli.places.grid import PIXEL, Grid
from copgen_cli.rasters import (
    Measurements,
    RasterBands,
    Stretch,
    find_bands,
    find_mask,
    find_stretch,
    is_missing,
    render_picture,
    require_place,
    share_pixels,
    warp_measurements,
)
from copgen_cli.records import Product, Scene
from copgen_cli.stages import hash_file

SHADING = 3
"""Pixels of the grid along a side of one at which elevation is shaded."""
FINE = 20.0
"""Metres below which a pixel of elevation is finer than those it is shaded at."""
AROUND = 12
"""Pixels around what is asked for that shading and enlarging look at; a multiple of SHADING."""
LOOKED_AT = 512
"""Side of the squares of a raster by which its stretch is told."""
MOST_LOOKED_AT = 16
PIECE = 2048
"""Pixels along a side that are looked at together where a whole area is."""
FEATHER = 68
"""Pixels over which a cell fades where its neighbours overlap it: 680 m, as far as they do."""
OVERLAP_PIXEL, LEAST_OVERLAP = 4, 100
"""Pixels of 40 m by which the stretches of neighbours are compared, and how few are too few."""
_PRIOR_GAIN, _PRIOR_OFFSET = 2.0, 0.02
"""Weights of gains near 1 and offsets near 0 beside one grey level of difference in an overlap."""
CELLS_KEPT = 9
"""Thumbnails that are kept decoded, for the next block."""


class Layer(Protocol):
    """One modality of an area."""

    def read(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 pictures as the model knows them, and (H, W) bool where there is one."""
        ...

    def reaches(self, grid: Grid) -> bool:
        """Whether it has a value anywhere in a grid."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is read from, as JSON."""
        ...

    @property
    def notes(self) -> list[str]:
        """What was found out about it, for the user."""
        ...


@dataclass(frozen=True)
class RasterLayer:
    """A raster that a user hands in, rendered where it is measurements."""

    modality: Modality
    raster: RasterBands
    base: Grid
    """The grid of the whole area, to whose pixels shading keeps."""

    def read(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        if self.raster.is_picture:
            measured = self._warp(grid)
            pixels = np.rint(np.nan_to_num(measured.values)).astype(np.uint8).transpose(1, 2, 0)
            return pixels, ~measured.missing
        if self.modality.spec.picture.rendering is Rendering.HILLSHADE:
            return self._shade(grid)
        measured = self._warp(grid)
        known = ~is_missing(measured, self.modality, self.stretch)
        return render_picture(measured, self.modality, self.stretch), known

    def reaches(self, grid: Grid) -> bool:
        return any(not self._warp(part).missing.all() for part in grid.parts(PIECE))

    @cached_property
    def stretch(self) -> Stretch:
        """Of the whole area, by squares spread over it, or by all of it where it is no larger than these."""
        shaded = self.modality.spec.picture.rendering is Rendering.HILLSHADE
        whole = self._shaded_on(self.base) if shaded else self.base
        return find_stretch([self._warp(part) for part in _squares(whole)], self.modality)

    @property
    def notes(self) -> list[str]:
        name = self.raster.files[0].name
        told = [f"{name} is taken for backscatter in decibel, by its values."] if self._in_decibel else []
        if self.raster.by_number:
            numbers = ", ".join(str(band) for _, band in self.raster.layers)
            wanted = ", ".join(self.modality.spec.picture.bands)
            told.append(f"{name} does not name its bands: {numbers} are taken for {wanted}.")
        if self.raster.place is not None and not share_pixels(self.raster.place, self.base.place):
            told.append(
                f"{name} has another grid: it is resampled to that of the scene, {self.base.place.crs} at 10 m."
            )
        return told

    def describe(self) -> dict[str, Any]:
        return {"files": _hashes(self.raster.files), "bands": [band for _, band in self.raster.layers]}

    @property
    def _in_decibel(self) -> bool:
        return not self.raster.is_picture and self.stretch.in_decibel

    def _shaded_on(self, grid: Grid) -> Grid:
        """The pixels that elevation is read at: the grid's, which are then averaged, or coarser ones like its own."""
        fine = self.raster.pixel_size is not None and self.raster.pixel_size < FINE
        return grid if fine else grid.coarse(SHADING)

    def _warp(self, grid: Grid) -> Measurements:
        return warp_measurements(self.raster, grid.place, grid.width, grid.height)

    def _shade(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Shaded at 30 m, in pixels that begin where those of the whole area do, and enlarged to 10 m."""
        column, row = map(round, self.base.place.to_pixels(grid.place.transform[2], grid.place.transform[5]))
        top, left = (start // SHADING * SHADING - AROUND for start in (row, column))
        height, width = (
            -(-(start + side - first + AROUND) // SHADING) * SHADING
            for start, side, first in ((row, grid.height, top), (column, grid.width, left))
        )
        measured = self._warp(self._shaded_on(self.base.part(top, left, height, width)))
        picture = render_picture(measured, self.modality, self.stretch)
        lacking = is_missing(measured, self.modality, self.stretch)
        known = ~np.kron(lacking, np.ones([height // len(lacking)] * 2, bool))
        asked = np.s_[row - top : row - top + grid.height, column - left : column - left + grid.width]
        return np.repeat(picture[asked][..., None], 3, axis=2), known[asked]


@dataclass(frozen=True)
class ArchiveLayer:
    """The thumbnails of a region's cells, each resampled once, and blended where neighbours overlap."""

    modality: Modality
    scenes: tuple[Scene, ...]
    """Those that lie in the area."""

    def read(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros((grid.height, grid.width, 3), np.float32)
        weights = np.zeros((grid.height, grid.width), np.float32)
        for scene in self.scenes:
            if not _touch(_ground_of(scene, self.modality), grid):
                continue
            tile, thumbnail = _thumbnail(scene, self.modality)
            pixels, weight = _on_grid(thumbnail, tile, grid)
            if scene.cell in self.levels:
                gain, offset = self.levels[scene.cell]
                pixels = np.where(pixels.any(axis=2, keepdims=True), np.clip(pixels * gain + offset, 0, 255), pixels)
            total += weight[..., None] * pixels
            weights += weight
        known = weights > 0
        mean = total / np.where(known, weights, 1)[..., None]
        return np.rint(mean).astype(np.uint8), known

    @cached_property
    def levels(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Gain and offset (3,) of each cell, where the archive stretches every picture for itself."""
        stretched = self.modality.spec.picture.rendering is not Rendering.TRUE_COLOUR
        return _levels(self.scenes, self.modality) if stretched and len(self.scenes) > 1 else {}

    def reaches(self, grid: Grid) -> bool:
        return any(_touch(_ground_of(scene, self.modality), grid) for scene in self.scenes)

    def tile(self, cell: str) -> Grid:
        """The pixels of a cell's picture.

        Raises:
            UsageError: the region does not have it.
        """
        known = {scene.cell: scene for scene in self.scenes}
        if cell not in known:
            raise UsageError(
                f"The region has no cell {cell}.", hint=f"Near it are {', '.join(known)}: --cell {self.scenes[0].cell}"
            )
        return _thumbnail(known[cell], self.modality)[0]

    @property
    def notes(self) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        products = {scene.cell: scene.products[self.modality] for scene in self.scenes}
        files = {
            cell: {
                "product": product.product_id,
                "timestamp": product.timestamp,
                "sha256": _hash(scene.thumbnails[self.modality]),
            }
            for (cell, product), scene in zip(products.items(), self.scenes, strict=True)
        }
        return {"cells": files}


@dataclass(frozen=True)
class Mask:
    """Which pixels are to be drawn: those where the first band of a raster, or of any of several, is not 0."""

    rasters: tuple[RasterBands, ...]

    def read(self, grid: Grid) -> np.ndarray:
        """(H, W) bool."""
        chosen = np.zeros((grid.height, grid.width), bool)
        for raster in self.rasters:
            measured = warp_measurements(raster, grid.place, grid.width, grid.height, categories=True)
            chosen |= ~measured.missing & (measured.values[0] != 0)
        return chosen

    def describe(self) -> dict[str, Any]:
        return {"files": _hashes([file for raster in self.rasters for file in raster.files])}


def open_raster(paths: Sequence[Path], modality: Modality) -> RasterBands:
    """The bands of a raster that a user hands in, which must say where it lies.

    Raises:
        BrokenInputError: it can not be read.
        MismatchError: it has no CRS.
        UsageError: nothing tells which bands are the wanted ones.
    """
    raster = find_bands(paths, modality)
    require_place(raster)
    return raster


def open_mask(path: Path) -> Mask:
    """A raster as a mask.

    Raises:
        BrokenInputError: it can not be read.
        MismatchError: it has no CRS.
    """
    raster = find_mask(path)
    require_place(raster)
    return Mask((raster,))


def open_archive(subset_folder: Path, modalities: Sequence[Modality], area: Area) -> dict[Modality, ArchiveLayer]:
    """The layers that a region has of an area.

    Raises:
        MissingInputError: nothing has been downloaded.
        UsageError: the region has no cell there, or lacks a modality.
    """
    subset = read_subset(subset_folder)
    lacking = [str(modality) for modality in modalities if modality not in subset.modalities]
    if lacking:
        raise MissingInputError(f"{' and '.join(lacking)}", subset_folder, written_by="download")
    scenes = _scenes_in(subset, area)
    if not scenes:
        known = ", ".join(scene.cell for scene in subset.scenes[:3])
        raise UsageError(
            f"{subset_folder} has no cell in the area {area.name}.",
            hint=f"Download the cells there, or choose ground that it has: {known or 'it has none'} and so on.",
        )
    return {modality: ArchiveLayer(modality, scenes) for modality in modalities}


def area_of_first_cell(subset_folder: Path, modalities: Sequence[Modality]) -> Area:
    """The first of a region's cells that has some modalities, where nobody named an area; with a note that says so.

    Raises:
        MissingInputError: nothing has been downloaded, or no cell has them all.
    """
    scenes = [scene for scene in read_subset(subset_folder).scenes if set(modalities) <= set(scene.products)]
    if not scenes:
        raise MissingInputError(f"cell with {' and '.join(modalities)}", subset_folder, written_by="download")
    first = scenes[0].cell
    others = "the only cell" if len(scenes) == 1 else f"the first of {len(scenes):,} cells"
    note = f"No area is named: this is {first}, {others} of {subset_folder.name}. --cell, --bbox or --aoi name another."
    return replace(area_of_cell(first), notes=(note,))


def cloud_masks(layer: ArchiveLayer) -> Mask:
    """The archive's own cloud masks of a layer's cells, which are there where bands were downloaded.

    Raises:
        MissingInputError: a cell has none.
    """
    files = [scene.thumbnails[layer.modality].parent / "cloud_mask.tif" for scene in layer.scenes]
    for file in files:
        if not file.is_file():
            raise MissingInputError("cloud mask", file.parent, written_by="download --bands cloud_mask")
    return Mask(tuple(find_mask(file) for file in files))


def _scenes_in(subset: Subset, area: Area) -> tuple[Scene, ...]:
    west, south, east, north = area.bounds
    chosen = []
    for scene in subset.scenes:
        if scene.cell == area.cell:
            return (scene,)
        outline = _ground_of(scene, next(iter(scene.products))).outline()["coordinates"][0]
        xs, ys = zip(*outline, strict=True)
        if min(xs) < east and max(xs) > west and min(ys) < north and max(ys) > south:
            chosen.append(scene)
    return tuple(chosen)


def _ground_of(scene: Scene, modality: Modality) -> Grid:
    """Where a cell's picture lies by its index, without reading it."""
    side = round(FOOTPRINT_METRES / PIXEL)
    return Grid(georeferencing_of(scene.products[modality]), side, side)


def _hash(file: Path) -> str:
    """SHA-256 of a file, which is told in several places."""
    state = file.stat()
    return _hash_of(file, state.st_size, state.st_mtime_ns)


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    """By name, so that the same files are the same from another folder; by path where names are equal."""
    names = [file.name for file in files]
    return {file.as_posix() if names.count(file.name) > 1 else file.name: _hash(file) for file in files}


@cache
def _hash_of(file: Path, size: int, changed: int) -> str:
    return hash_file(file)


@lru_cache(maxsize=CELLS_KEPT)
def _read_thumbnail(cell: str, modality: Modality, file: Path, product: Product) -> tuple[Grid, np.ndarray]:
    pixels = read_thumbnails(Scene(cell, {modality: product}, {modality: file}))[modality]
    height, width = pixels.shape[:2]
    return Grid(georeferencing_of(product, (width, height)), width, height), np.ascontiguousarray(pixels)


def _thumbnail(scene: Scene, modality: Modality) -> tuple[Grid, np.ndarray]:
    return _read_thumbnail(scene.cell, modality, scene.thumbnails[modality], scene.products[modality])


def _touch(tile: Grid, grid: Grid) -> bool:
    """Whether a cell's picture may have ground in common with a grid, by its outline in the grid's projection."""
    from rasterio.warp import transform_bounds

    west, south, east, north = grid.bounds
    left, bottom, right, top = tile.bounds
    if tile.place.crs != grid.place.crs:
        left, bottom, right, top = transform_bounds(tile.place.crs, grid.place.crs, left, bottom, right, top)
    return bool(left < east and right > west and bottom < north and top > south)


def _on_grid(thumbnail: np.ndarray, tile: Grid, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """A thumbnail on a grid, and how much each of its pixels counts there: 0 where it has none."""
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    height, width = thumbnail.shape[:2]
    fading = np.minimum.outer(_fading(height), _fading(width))
    bands = np.concatenate([thumbnail.transpose(2, 0, 1).astype(np.float32), fading[None]])
    warped = np.full((4, grid.height, grid.width), np.nan, np.float32)
    same = share_pixels(tile.place, grid.place)
    reproject(
        bands,
        warped,
        src_transform=tile.affine,
        src_crs=tile.place.crs,
        dst_transform=grid.affine,
        dst_crs=grid.place.crs,
        dst_nodata=np.nan,
        resampling=Resampling.nearest if same else Resampling.bilinear,
    )
    there = np.isfinite(warped).all(axis=0)
    values = np.where(there, warped, np.float32(0))
    return values[:3].transpose(1, 2, 0), values[3]


def _levels(scenes: Sequence[Scene], modality: Modality) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Gains and offsets with which neighbouring cells show the same ground alike, by least squares of mean and
    deviation where they overlap; as near to 1 and 0 as that allows.
    """
    number = {scene.cell: i for i, scene in enumerate(scenes)}
    beside = ((i, number.get(other.name)) for name, i in number.items() for other in neighbours(parse_cell(name)))
    pairs = sorted({(i, j) for i, j in beside if j is not None and i < j})
    moments = {pair: known for pair in pairs if (known := _moments_of_overlap(scenes, pair, modality)) is not None}
    count = len(scenes)
    solved = np.empty((2 * count, 3))
    prior = sparse.diags_array(np.repeat([_PRIOR_GAIN, _PRIOR_OFFSET], count))
    for channel in range(3):
        alike = sparse.lil_array((2 * len(moments), 2 * count))
        for row, ((i, j), (means, deviations)) in enumerate(moments.items()):
            alike[2 * row, [i, j, count + i, count + j]] = [means[0, channel], -means[1, channel], 1, -1]
            alike[2 * row + 1, [i, j]] = [deviations[0, channel], -deviations[1, channel]]
        equations = sparse.vstack([prior, alike]).tocsr()
        wanted = np.concatenate([np.full(count, _PRIOR_GAIN), np.zeros(count + 2 * len(moments))])
        solved[:, channel] = spsolve((equations.T @ equations).tocsc(), equations.T @ wanted)
    return {scene.cell: (solved[i], solved[count + i]) for i, scene in enumerate(scenes)}


def _moments_of_overlap(
    scenes: Sequence[Scene], pair: tuple[int, int], modality: Modality
) -> tuple[np.ndarray, np.ndarray] | None:
    """Means and deviations (2, 3) of two cells where both have pixels; None where that is next to nowhere."""
    first, second = (_thumbnail(scenes[i], modality) for i in pair)
    grid = first[0].coarse(OVERLAP_PIXEL)
    pixels, weights = zip(*(_on_grid(thumbnail, tile, grid) for tile, thumbnail in (first, second)), strict=True)
    both = (weights[0] > 0) & (weights[1] > 0) & pixels[0].any(axis=2) & pixels[1].any(axis=2)
    if both.sum() < LEAST_OVERLAP:
        return None
    seen = [one[both] for one in pixels]
    return np.stack([one.mean(axis=0) for one in seen]), np.stack([one.std(axis=0) for one in seen])


def _fading(length: int) -> np.ndarray:
    steps = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return np.minimum(1, np.minimum(steps, length - steps) / FEATHER).astype(np.float32)


def _squares(grid: Grid) -> list[Grid]:
    """The whole grid where it is small; else squares spread evenly over it."""
    if grid.width * grid.height <= MOST_LOOKED_AT * LOOKED_AT**2:
        return [grid.part(0, 0, grid.height, grid.width)]
    per_side = int(MOST_LOOKED_AT**0.5)
    tops = np.linspace(0, max(grid.height - LOOKED_AT, 0), per_side).astype(int)
    lefts = np.linspace(0, max(grid.width - LOOKED_AT, 0), per_side).astype(int)
    sides = min(LOOKED_AT, grid.height), min(LOOKED_AT, grid.width)
    return [grid.part(int(top), int(left), *sides) for top in dict.fromkeys(tops) for left in dict.fromkeys(lefts)]
