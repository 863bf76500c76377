"""Cutting: one cell in all modalities of a family into square patches. Nothing is mirrored, no value is changed.

Beta's patches lie side by side around the middle of a tile, k = row * 4 + column; those of a family that covers its
tiles reach to the edges, and the last ones overlap their neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from copgen_cli.layout import patch_file
from copgen_cli.modalities import BETA, PUBLISHED, TILE_METRES, Family, Modality, ModalitySpec, Rule, Split
from copgen_cli.patches.georeferencing import TILE, centre_of
from copgen_cli.patches.thumbnails import Size
from copgen_cli.patches.tiles import Tile, read_tiles
from copgen_cli.rasters import encode_geotiff, encode_png, is_nodata
from copgen_cli.records import Georeferencing, Patch, Scene
from copgen_cli.stages import Place, Result


@dataclass(frozen=True, slots=True)
class Cutting:
    """How cells are cut."""

    family: Family = BETA
    modalities: tuple[Modality, ...] = PUBLISHED
    """Those of the family that there are, in its order."""
    subset: Path = Path()
    """The folder with what has been downloaded."""
    files: Mapping[Modality, Path] = field(default_factory=dict)
    """Folders of those that come from a user."""
    center_crop: bool = False
    """One patch from the middle of a cell instead of all."""
    max_nodata: float = 1.0
    max_clouds: float = 1.0

    @property
    def per_side(self) -> int:
        """Patches along a side of a cell."""
        return self.family.per_side(TILE_METRES[0])

    @property
    def patches(self) -> int:
        """Of a cell."""
        return 1 if self.center_crop else self.per_side**2


@dataclass(frozen=True, slots=True)
class Window:
    """One square of a tile."""

    position: int | None
    """k = row * patches per side + column; None for the centre crop."""
    top: int
    left: int


@cache
def windows(family: Family, size: Size, patch: int, center_crop: bool = False) -> tuple[Window, ...]:
    """The squares that are cut from a tile.

    Args:
        family: says where they lie.
        size: width and height of the tile in pixels.
        patch: side of a square, likewise.
        center_crop: one from the middle.
    """
    width, height = size
    if center_crop:
        return (Window(None, offset(height, patch), offset(width, patch)),)
    per_side = family.per_side(TILE_METRES[0])
    rows, columns = (family.starts(side, patch, per_side) for side in (height, width))
    return tuple(Window(r * per_side + c, rows[r], columns[c]) for r in range(per_side) for c in range(per_side))


def offset(size: int, crop: int) -> int:
    """Where a centre crop begins: half the difference, rounded half to even."""
    return round((size - crop) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class CutCell:
    """What has become of one cell."""

    patches: tuple[Patch, ...]
    sizes: Mapping[Modality, Size]
    """Of tiles that are not of the usual size, and of rasters, whose place the index does not tell to the pixel."""
    grids: Mapping[Modality, Georeferencing]
    """Of rasters: where their tiles lie."""
    left_out: Mapping[str, str]
    """Patches that hold too little, and why."""


def cut(scene: Scene, split: Split, cutting: Cutting | None = None) -> CutCell:
    """Cut one cell.

    Args:
        scene: its products and thumbnails.
        split: that it belongs to.
        cutting: how; None is beta's, of the modalities that the scene has.

    Raises:
        BrokenInputError: a file is unreadable, or not of the size of a tile, or not of the same tile as another.
    """
    how = cutting or Cutting(modalities=tuple(scene.products))
    tiles = read_tiles(scene, [m for m in how.modalities if not m.spec.is_scalar], how.subset, how.files)
    squares = {m: windows(how.family, tile.size[::-1], m.spec.side, how.center_crop) for m, tile in tiles.items()}
    first = next(iter(tiles))
    patches, left_out = [], {}
    for number, window in enumerate(squares[first]):
        place = shift(tiles[first].place, squares[first][number])
        pixels = {m: _crop(tile.values, squares[m][number], m.spec.side) for m, tile in tiles.items()}
        reason = _too_little(pixels, tiles, how)
        patch = Patch(
            cell=scene.cell,
            position=window.position,
            split=split,
            georeferencing=place,
            pixels={m: _as_picture(values) if m.spec.is_picture else values for m, values in pixels.items()},
            nodata={m: tile.nodata for m, tile in tiles.items() if tile.nodata is not None},
            scalars=_scalars(scene, how.modalities, place, first.spec),
        )
        if reason is None:
            patches.append(patch)
        else:
            left_out[patch.name] = reason
    rasters = {m: tile for m, tile in tiles.items() if not (m.spec.is_picture and m in scene.products)}
    sizes = {m: tile.size[::-1] for m, tile in tiles.items() if m in rasters or tile.size != (TILE, TILE)}
    return CutCell(tuple(patches), sizes, {m: tile.place for m, tile in rasters.items()}, left_out)


def shift(whole: Georeferencing, window: Window) -> Georeferencing:
    """Where a window of a tile lies."""
    a, b, c, d, e, f = whole.transform
    x, y = a * window.left + b * window.top + c, d * window.left + e * window.top + f
    return replace(whole, transform=(a, b, x, d, e, y))


def save_patches(scene_and_split: tuple[Scene, Split], *, place: Place, cutting: Cutting) -> Result:
    """Cut one cell and write its patches: the work of `copgen prepare` on one unit."""
    scene, split = scene_and_split
    cell = cut(scene, split, cutting)
    files = [place.write(path, data) for patch in cell.patches for path, data in _files_of(patch, cell, cutting)]
    facts: dict[str, Any] = {"split": split}
    if cell.sizes:
        facts["sizes"] = {str(m): size for m, size in cell.sizes.items()}
    if cell.grids:
        facts["grids"] = {str(m): [grid.crs, *grid.transform] for m, grid in cell.grids.items()}
    if cell.left_out:
        facts["left_out"] = dict(cell.left_out)
    return Result(files=tuple(files), facts=facts)


def _files_of(patch: Patch, cell: CutCell, cutting: Cutting) -> Iterator[tuple[str, bytes]]:
    for modality in cutting.modalities:
        path = patch_file(Path(), patch.split, modality, patch.name, modality.spec.suffix).as_posix()
        if modality.spec.is_scalar:
            yield path, json.dumps(patch.scalars[modality]).encode()
        elif modality.spec.is_picture:
            yield path, encode_png(patch.pixels[modality])
        else:
            yield path, _as_geotiff(patch, modality, cell, cutting)


def _as_geotiff(patch: Patch, modality: Modality, cell: CutCell, cutting: Cutting) -> bytes:
    spec = modality.spec
    squares = windows(cutting.family, cell.sizes[modality], spec.side, cutting.center_crop)
    window = squares[0 if patch.position is None else patch.position]
    return encode_geotiff(
        np.ascontiguousarray(patch.pixels[modality]),
        shift(cell.grids[modality], window),
        nodata=patch.nodata.get(modality),
        descriptions=spec.bands,
        differences=not spec.classes,
        unit="" if spec.classes else spec.unit,
    )


def _crop(values: np.ndarray, window: Window, side: int) -> np.ndarray:
    return values[:, window.top : window.top + side, window.left : window.left + side]


def _as_picture(values: np.ndarray) -> np.ndarray:
    """(1 or 3, H, W) to (H, W, 3), a view."""
    return np.broadcast_to(values.transpose(1, 2, 0), (*values.shape[1:], 3))


def _too_little(pixels: Mapping[Modality, np.ndarray], tiles: Mapping[Modality, Tile], how: Cutting) -> str | None:
    """Why a patch is left out; None where it is not."""
    for modality, values in pixels.items():
        nodata = tiles[modality].nodata
        share = 0.0 if nodata is None else float(is_nodata(values, nodata).any(axis=0).mean())
        if share > how.max_nodata:
            return f"{share:.0%} of {modality} has no value"
        if modality.spec.bands == ("cloud_mask",):
            share = float((values[0] != modality.spec.class_values[0]).mean())
            if share > how.max_clouds:
                return f"{share:.0%} of it is not clear"
    return None


def _scalars(
    scene: Scene, modalities: Sequence[Modality], place: Georeferencing, spec: ModalitySpec
) -> dict[Modality, dict[str, Any]]:
    """Place and time of a patch: its centre, and the mean of the acquisitions of the cell's products."""
    found: dict[Modality, dict[str, Any]] = {}
    for modality in modalities:
        match modality.spec.normalisation.rule:
            case Rule.PLACE:
                longitude, latitude = centre_of(place, spec.side)
                found[modality] = {"latitude": latitude, "longitude": longitude}
            case Rule.TIME:
                used = {m.source.name for m in modalities if m.spec.source is not None}
                told = {p.timestamp for m, p in scene.products.items() if m.source.name in used}
                times = [_instant(timestamp) for timestamp in told if timestamp is not None]  # of both levels once
                mean = sum(times) / len(times) if times else 0.0
                found[modality] = {"date": datetime.fromtimestamp(mean, UTC).date().isoformat()} if times else {}
    return found


def _instant(timestamp: str) -> float:
    time = datetime.fromisoformat(timestamp)
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
