"""From the pictures of blocks to rasters: blended where blocks overlap, cut to the area, written as COG.

A Cloud-Optimized GeoTIFF is written by GDAL's own driver, which keeps tags of the default domain alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from copgen_cli.modalities import Modality
from copgen_cli.places.area import Area
from copgen_cli.places.canvas import Block, Canvas
from copgen_cli.places.drawing import BlockPictures, fading_of
from copgen_cli.places.grid import Grid
from copgen_cli.stages import put_in_place

QUANTILES = (0.1, 0.5, 0.9)
TILE = 512
"""Side of the tiles of a raster in pixels, and height of the strips that are blended at a time."""
_PICTURE, _DRAWN = "picture_", "drawn_"


@dataclass(frozen=True, slots=True)
class SceneRaster:
    """One raster that a scene leaves."""

    name: str
    """Of the file, without suffix."""
    modality: Modality
    kind: str
    """sample, mean, std, a quantile such as q10, or synthetic: which pixels were drawn."""
    sample: int | None = None

    @property
    def bands(self) -> int:
        return 1 if self.modality.spec.grey or self.kind == "synthetic" else 3

    @property
    def dtype(self) -> str:
        return "float32" if self.kind in ("mean", "std") else "uint8"


def rasters_of(
    generated: Sequence[Modality], n_samples: int, filled: Sequence[Modality], *, spread: bool
) -> list[SceneRaster]:
    """The rasters of a scene, in order."""
    rasters = []
    for modality in generated:
        for sample in range(1, n_samples + 1):
            name = str(modality) if n_samples == 1 else f"{modality}_v{sample}"
            rasters.append(SceneRaster(name, modality, "sample", sample))
        if spread:
            kinds = ["mean", "std", *(f"q{round(100 * quantile)}" for quantile in QUANTILES)]
            rasters += [SceneRaster(f"{modality}_{kind}", modality, kind) for kind in kinds]
        if modality in filled:
            rasters.append(SceneRaster(f"{modality}_synthetic", modality, "synthetic"))
    return rasters


@dataclass(frozen=True, slots=True)
class BlockFiles:
    """The pictures of blocks on disk, a folder of arrays for each, complete or absent.

    They are read as they are needed: of a neighbour, what overlaps.
    """

    folder: Path

    def has(self, block: Block) -> bool:
        return self._of(block).is_dir()

    def save(self, block: Block, pictures: BlockPictures) -> None:
        beside = self._of(block).with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        np.save(beside / "missing.npy", pictures.missing)
        for prefix, arrays in ((_PICTURE, pictures.pictures), (_DRAWN, pictures.drawn)):
            for modality, values in arrays.items():
                np.save(beside / f"{prefix}{modality}.npy", values)
        put_in_place({self._of(block): beside}, None)

    def clear(self) -> None:
        """Forget all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, block: Block) -> BlockPictures:
        def arrays(prefix: str) -> dict[Modality, np.ndarray]:
            files = self._of(block).glob(f"{prefix}*.npy")
            return {Modality(file.stem.removeprefix(prefix)): _mapped(file) for file in files}

        return BlockPictures(arrays(_PICTURE), _mapped(self._of(block) / "missing.npy"), arrays(_DRAWN))

    def _of(self, block: Block) -> Path:
        return self.folder / block.key


def _mapped(file: Path) -> np.ndarray:
    values: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    return values


@dataclass(frozen=True, slots=True)
class Mosaic:
    """All rasters of a scene, as far as its blocks are drawn."""

    canvas: Canvas
    area: Area
    files: BlockFiles
    leave_out_missing: bool
    """Pixels in which a condition has no value are left out of what is written."""

    def write(self, rasters: Mapping[SceneRaster, Path], tags: Callable[[SceneRaster], Mapping[str, str]]) -> None:
        """Write some rasters as COG, each to its file; memory is that of a strip of a block."""
        from contextlib import ExitStack

        import rasterio

        grid = self.canvas.grid
        with ExitStack() as stack, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            plain = {raster: file.with_suffix(".plain.tif") for raster, file in rasters.items()}
            for file in plain.values():
                stack.callback(file.unlink, missing_ok=True)
            with ExitStack() as opened:
                targets = {
                    raster: opened.enter_context(rasterio.open(file, "w", **_profile(grid, raster)))
                    for raster, file in plain.items()
                }
                for raster, target in targets.items():
                    target.update_tags(**tags(raster))
                    _name_bands(target, raster)
                for part in self._parts(list(rasters)):
                    for raster, values in part.values.items():
                        targets[raster].write(values, window=part.window)
                        if self.area.cut or self.leave_out_missing:
                            targets[raster].write_mask(part.valid, window=part.window)
            for raster, file in plain.items():
                _copy_as_cog(file, rasters[raster], categorical=raster.kind == "synthetic")

    def _parts(self, rasters: Sequence[SceneRaster]) -> Iterator[_Part]:
        """Block after block, without what overlaps, each blended with its neighbours."""
        drawn = [block for block in self.canvas.blocks if self.files.has(block)]
        for block in drawn:
            near = [other for other in drawn if _are_neighbours(block, other)]
            loaded = {other: self.files.load(other) for other in near}
            for part in _strips(self.canvas, block):
                values = {raster: part.blend(loaded, raster) for raster in rasters}
                missing = part.take(block, loaded[block].missing)
                yield _Part(part.window, values, self._valid(part.grid, missing))

    def _valid(self, grid: Grid, missing: np.ndarray) -> np.ndarray:
        valid = np.ones((grid.height, grid.width), bool)
        if self.area.cut:
            from rasterio.features import geometry_mask

            shape = self.area.polygon_in(grid.place.crs)
            valid = ~geometry_mask([shape], (grid.height, grid.width), grid.affine)
        return valid & ~missing if self.leave_out_missing else valid


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    window: object
    """Of rasterio, in the scene's rasters."""
    values: Mapping[SceneRaster, np.ndarray]
    valid: np.ndarray


def _strips(canvas: Canvas, block: Block) -> Iterator[_Strip]:
    """The pixels of a block that are of no other, as far as they lie in the scene's grid, in strips."""
    f = canvas.reduction
    (top, bottom), (left, right) = (
        (max(span[0] * f, start), min(span[1] * f, start + length))
        for span, start, length in zip(
            (block.rows, block.columns), canvas.offset, (canvas.grid.height, canvas.grid.width), strict=True
        )
    )
    if right > left:
        for row in range(top, bottom, TILE):
            yield _Strip(canvas, row, min(row + TILE, bottom), left, right)


@dataclass(frozen=True, slots=True)
class _Strip:
    """Some pixels of a canvas, whose edges are counted from its first."""

    _canvas: Canvas
    _top: int
    _bottom: int
    _left: int
    _right: int

    @property
    def shape(self) -> tuple[int, int]:
        return self._bottom - self._top, self._right - self._left

    @property
    def window(self) -> object:
        from rasterio.windows import Window

        top, left = self._canvas.offset
        return Window(self._left - left, self._top - top, *self.shape[::-1])

    @property
    def grid(self) -> Grid:
        top, left = self._canvas.offset
        return self._canvas.grid.part(self._top - top, self._left - left, *self.shape)

    def take(self, block: Block, values: np.ndarray) -> np.ndarray:
        """Of (..., H, W) or (..., H, W, 3) pixels of what was drawn of a block, those that lie here; the rest is 0."""
        height_axis = values.ndim - 3 if values.ndim > 2 and values.shape[-1] == 3 else values.ndim - 2
        shape = list(values.shape)
        shape[height_axis : height_axis + 2] = self.shape
        taken = np.zeros(shape, values.dtype)
        f = self._canvas.reduction
        top, left = block.drawn_rows[0] * f - self._top, block.drawn_columns[0] * f - self._left
        height, width = values.shape[height_axis : height_axis + 2]
        rows = max(top, 0), min(top + height, self.shape[0])
        columns = max(left, 0), min(left + width, self.shape[1])
        if rows[1] <= rows[0] or columns[1] <= columns[0]:
            return taken
        lead = (slice(None),) * height_axis
        there = (*lead, slice(*rows), slice(*columns))
        taken[there] = values[(*lead, slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))]
        return taken

    def blend(self, loaded: Mapping[Block, BlockPictures], raster: SceneRaster) -> np.ndarray:
        """(bands, H, W) of a raster."""
        if raster.kind == "synthetic":
            drawn = [self.take(block, pictures.drawn[raster.modality]) for block, pictures in loaded.items()]
            return np.logical_or.reduce(drawn).astype(np.uint8)[None]
        chosen = slice(None) if raster.sample is None else slice(raster.sample - 1, raster.sample)
        total: np.ndarray | float = 0.0
        weights = np.zeros(self.shape, np.float32)
        for block, pictures in loaded.items():
            weight = self._weight(block)
            if weight is not None:
                total = total + weight[None, ..., None] * self.take(block, pictures.pictures[raster.modality][chosen])
                weights += weight
        samples = np.rint(total / weights[..., None])  # 1, but where a neighbour holds nothing of the area
        if raster.bands == 1:
            samples = np.rint(samples.mean(axis=-1, keepdims=True))
        values = _summary(samples, raster.kind)
        values = values if raster.dtype == "float32" else np.rint(values)
        return np.ascontiguousarray(values.transpose(2, 0, 1).astype(raster.dtype))

    def _weight(self, block: Block) -> np.ndarray | None:
        """(H, W): how much a block counts here; None where it does not reach."""
        f = self._canvas.reduction
        edges = []
        for fading, drawn, first, last in (
            (fading_of(block.rows, block.drawn_rows, f), block.drawn_rows, self._top, self._bottom),
            (fading_of(block.columns, block.drawn_columns, f), block.drawn_columns, self._left, self._right),
        ):
            start, end = max(drawn[0] * f, first), min(drawn[1] * f, last)
            if end <= start:
                return None
            edge = np.zeros(last - first, np.float32)
            edge[start - first : end - first] = fading[start - drawn[0] * f : end - drawn[0] * f]
            edges.append(edge)
        return np.outer(*edges)


def _summary(samples: np.ndarray, kind: str) -> np.ndarray:
    """(H, W, 3) of (samples, H, W, 3)."""
    if kind == "std":
        return np.asarray(samples.std(axis=0, ddof=1))
    if kind.startswith("q"):
        return np.asarray(np.quantile(samples, int(kind[1:]) / 100, axis=0))
    return np.asarray(samples.mean(axis=0))


def _are_neighbours(one: Block, other: Block) -> bool:
    return abs(one.row - other.row) <= 1 and abs(one.column - other.column) <= 1


def _profile(grid: Grid, raster: SceneRaster) -> dict[str, object]:
    profile: dict[str, object] = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": raster.bands,
        "dtype": raster.dtype,
        "crs": grid.place.crs,
        "transform": grid.affine,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "BIGTIFF": "IF_SAFER",
    }
    return profile | ({"photometric": "RGB"} if raster.bands == 3 and raster.dtype == "uint8" else {})


def _name_bands(target: object, raster: SceneRaster) -> None:
    names = ("red", "green", "blue") if raster.bands == 3 else (raster.kind if raster.kind != "sample" else "grey",)
    for number, name in enumerate(names, start=1):
        target.set_band_description(number, name)  # type: ignore[attr-defined]


def _copy_as_cog(source: Path, target: Path, *, categorical: bool) -> None:
    from rasterio.shutil import copy

    resampling = "NEAREST" if categorical else "AVERAGE"
    copy(
        source,
        target,
        driver="COG",
        COMPRESS="DEFLATE",
        PREDICTOR="YES",
        BLOCKSIZE=TILE,
        OVERVIEW_RESAMPLING=resampling,
        BIGTIFF="IF_SAFER",
        NUM_THREADS="1",
    )
