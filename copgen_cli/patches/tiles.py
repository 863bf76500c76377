"""The tile of one cell in every modality of a family, whatever each comes from: bands of the archive, a user's files.

B bands, H and W pixels of the tile in the modality's own resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.layout import product_folder, product_path
from copgen_cli.modalities import PIXEL_METRES, TILE_METRES, Modality, ModalitySpec, Rendering
from copgen_cli.patches.georeferencing import georeferencing_of
from copgen_cli.patches.thumbnails import TOLERANCE, read_thumbnails
from copgen_cli.rasters import (
    RasterBands,
    find_values,
    kinds_of,
    read_colour,
    read_grey,
    read_values,
    require_place,
    warp_measurements,
)
from copgen_cli.records import Georeferencing, Scene
from copgen_cli.stages import hash_file
from copgen_cli.storage import Sizes

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One cell in one modality."""

    values: np.ndarray
    """(B, H, W) in the dtype of the file; a picture is (1 or 3, H, W) uint8."""
    place: Georeferencing
    """Of the whole tile."""
    nodata: float | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[1], self.values.shape[2]


def read_tiles(
    scene: Scene, modalities: Sequence[Modality], subset: Path, files: Mapping[Modality, Path]
) -> dict[Modality, Tile]:
    """The tile of a cell in each modality, all of one grid of Major TOM.

    Args:
        scene: its products, by the thumbnail of their dataset.
        modalities: no scalars.
        subset: the folder with what has been downloaded.
        files: folders of those that come from a user.

    Raises:
        BrokenInputError: a file is missing or damaged, or contradicts what its modality says.
        MismatchError: a user's raster does not say where it lies.
    """
    tiles: dict[Modality, Tile] = {}
    pictures = [m for m in modalities if m.spec.is_picture and m in scene.products]
    if pictures:
        shown = read_thumbnails(Scene(scene.cell, scene.products, {m: scene.thumbnails[m] for m in pictures}))
        for modality, pixels in shown.items():
            place = georeferencing_of(scene.products[modality], (pixels.shape[1], pixels.shape[0]))
            tiles[modality] = Tile(_channels_first(pixels), place, None)
    for modality in modalities:
        if modality.spec.source is not None and not modality.spec.is_picture:
            tiles[modality] = _read_bands(scene, modality, subset)
    tile_metres = _tile_metres(scene.cell, tiles)
    tiles = {modality: _middle(tile, modality.spec, tile_metres) for modality, tile in tiles.items()}
    for modality in modalities:
        if modality in files:
            tiles[modality] = _read_files(scene, modality, files[modality], tile_metres)
    return {modality: tiles[modality] for modality in modalities}


def stamp(scene: Scene, modalities: Sequence[Modality], sizes: Sizes, files: Mapping[Modality, Path]) -> str:
    """Changes when what a cell's rasters are cut from does: by size of what was downloaded, by hash of a user's."""
    found = []
    for modality in modalities:
        spec = modality.spec
        if spec.source is not None and not spec.is_picture:
            source = Modality.of_source(modality.source.name)
            folder = product_path(source, scene.cell, scene.products[source].product_id)
            told = [sizes.of(f"{folder}/{band}.tif") for band in spec.bands]
            found.append(f"{modality} {' '.join('-' if size is None else str(size) for size in told)}")
        elif modality in files:
            own = _file_of(files[modality], scene.cell)
            those = [own] if own is not None else covering(files[modality])
            found.append(f"{modality} {' '.join(_hash(file, file.stat().st_mtime_ns)[:16] for file in those)}")
    return "; ".join(found)


@lru_cache(maxsize=256)
def _hash(file: Path, changed: int) -> str:
    return hash_file(file)


def covering(folder: Path) -> list[Path]:
    """The GeoTIFFs of a folder that are not of one cell alone."""
    return sorted([*folder.glob("*.tif"), *folder.glob("*.tiff")])


def _read_bands(scene: Scene, modality: Modality, subset: Path) -> Tile:
    """The bands of a product, from a file each."""
    spec, source = modality.spec, Modality.of_source(modality.source.name)
    product = scene.products[source]
    folder = product_folder(subset, source, scene.cell, product.product_id)
    lacking = [f"{band}.tif" for band in spec.bands if not (folder / f"{band}.tif").is_file()]
    if lacking:
        raise BrokenInputError(
            f"{folder} has no {', '.join(lacking)}, which {modality} is made of.",
            hint="Download the bands of the family: copgen download --family",
        )
    bands = find_values([folder / f"{band}.tif" for band in spec.bands])
    return _as_told(bands, modality, read_values(bands))


def _as_told(bands: RasterBands, modality: Modality, values: tuple[np.ndarray, float | None]) -> Tile:
    """A raster as a tile, if it is what its modality says."""
    spec, file = modality.spec, bands.files[0]
    pixels, nodata = values
    place = _place_of(bands)
    a, b, _, d, e, _ = place.transform
    if pixels.dtype != np.dtype(spec.dtype):
        raise BrokenInputError(
            f"{file} is of {pixels.dtype}, and {modality} of {spec.dtype}.", hint=f"Mend the file, or {modality}.dtype."
        )
    if len(pixels) != len(spec.bands):
        raise BrokenInputError(
            f"{file} has {len(pixels)} bands, and {modality} {len(spec.bands)}: {', '.join(spec.bands)}.",
            hint=f"Mend the file, or {modality}.bands.",
        )
    if b or d or not math.isclose(a, spec.pixel_size, rel_tol=1e-3) or not math.isclose(-e, a, rel_tol=1e-3):
        raise BrokenInputError(
            f"{file} has pixels of {a:g} x {-e:g} m, and {modality} of {spec.pixel_size:g} m.",
            hint=f"Warp it (rio warp --res {spec.pixel_size:g}), or mend {modality}.pixel_size.",
        )
    nodata = spec.nodata if nodata is None else nodata
    if spec.classes:
        _require_classes(pixels, modality, nodata, file)
    elif nodata is None and not np.isfinite(pixels).all():
        raise BrokenInputError(
            f"{file} has pixels that are no numbers, and neither it nor {modality} declares a nodata value.",
            hint=f"Declare it: rio edit-info --nodata nan {file.name}, or {modality}.nodata.",
        )
    return Tile(pixels, place, nodata)


def _place_of(bands: RasterBands) -> Georeferencing:
    """Where a raster lies; one cell is set aside for want of it, not all of them."""
    try:
        return require_place(bands)
    except MismatchError as error:
        raise BrokenInputError(str(error), hint=error.hint) from None


def _require_classes(pixels: np.ndarray, modality: Modality, nodata: float | None, file: Path) -> None:
    known = {*modality.spec.class_values, *(() if nodata is None else (nodata,))}
    strange = sorted({int(value) for value in np.unique(pixels)} - known)
    if strange:
        raise BrokenInputError(
            f"{file} holds the values {', '.join(map(str, strange[:5]))}, which are no classes of {modality}.",
            hint=f"Known: {', '.join(map(str, modality.spec.class_values))}.",
        )


def _tile_metres(cell: str, tiles: Mapping[Modality, Tile]) -> float:
    """Side of the tile that all rasters of a cell are of.

    Raises:
        BrokenInputError: one is of no tile, or they are of different ones.
    """
    if not tiles:
        return TILE_METRES[0]
    off = {metres: {m: _misfit(m.spec, t.size, metres) for m, t in tiles.items()} for metres in TILE_METRES}
    fitting = [metres for metres in TILE_METRES if max(off[metres].values()) <= TOLERANCE]
    if fitting:
        return min(fitting, key=lambda metres: sum(off[metres].values()))
    told = ", ".join(f"{m} has {t.size[1]} x {t.size[0]} px" for m, t in tiles.items())
    raise BrokenInputError(
        f"The rasters of {cell} are of no tile of Major TOM, or of different ones: {told}.",
        hint="Download all sources of the cell from one archive.",
    )


def _misfit(spec: ModalitySpec, size: tuple[int, int], metres: float) -> float:
    """Pixels by which a side differs from that of a tile; the longer one of a thumbnail may have been enlarged."""
    nominal = metres / spec.patch_pixel_size
    return max(abs(side - nominal) for side in (sorted(size)[:1] if spec.is_picture else size))


def _middle(tile: Tile, spec: ModalitySpec, tile_metres: float) -> Tile:
    """A tile without the rows and columns that are beyond its nominal size: radar may have one more."""
    if spec.is_picture:
        return tile
    nominal = round(tile_metres / spec.pixel_size)
    top, left = (max(side - nominal, 0) // 2 for side in tile.size)
    a, b, c, d, e, f = tile.place.transform
    place = Georeferencing(tile.place.crs, (a, b, c + a * left, d, e, f + e * top))
    return Tile(tile.values[..., top : top + nominal, left : left + nominal], place, tile.nodata)


def _read_files(scene: Scene, modality: Modality, folder: Path, tile_metres: float) -> Tile:
    """A tile out of a user's folder, on the cell's grid: the file called like the cell, or all that cover it."""
    spec = modality.spec
    side = round(tile_metres / spec.patch_pixel_size)
    product = next(iter(scene.products.values()))
    whole = georeferencing_of(product, (round(tile_metres / PIXEL_METRES),) * 2)
    _, _, x, _, _, y = whole.transform
    grid = Georeferencing(whole.crs, (spec.patch_pixel_size, 0.0, x, 0.0, -spec.patch_pixel_size, y))
    own = _file_of(folder, scene.cell)
    if (
        own is not None
        and spec.is_picture
        and (own.suffix not in (".tif", ".tiff") or find_values([own]).place is None)
    ):
        return _as_picture(own, spec, side, grid)
    if own is not None and not spec.is_picture and _lies_on(find_values([own]), grid, side):
        bands = find_values([own])
        return _middle(_as_told(bands, modality, read_values(bands)), spec, tile_metres)
    values, missing = None, np.ones((side, side), bool)
    nodata = spec.nodata
    for file in [own] if own is not None else covering(folder):
        bands = find_values([file])
        declared = _check_warpable(bands, modality)
        nodata = declared if nodata is None else nodata
        found = warp_measurements(bands, grid, side, side, categories=spec.picture.rendering is Rendering.CLASSES)
        values = found.values if values is None else np.where(missing, found.values, values)
        missing = missing & found.missing
        if not missing.any():
            break
    if values is None or missing.all():
        raise BrokenInputError(
            f"{folder} has nothing of {scene.cell} for {modality}.",
            hint=f"A file is called like the cell, such as {scene.cell}.tif, or is a GeoTIFF that covers it.",
        )
    return _from_warped(values, missing, modality, nodata, grid, folder)


def _lies_on(bands: RasterBands, grid: Georeferencing, side: int) -> bool:
    """Whether a raster has the pixels of the tile, give or take one a side, within a pixel of where they should be."""
    if bands.place is None or bands.place.crs != grid.crs:
        return False
    if max(abs(bands.width - side), abs(bands.height - side)) > 1:
        return False
    a, b, x, d, e, y = bands.place.transform
    size, _, left, _, _, top = grid.transform
    alike = (b, d) == (0, 0) and math.isclose(a, size, rel_tol=1e-3) and math.isclose(-e, size, rel_tol=1e-3)
    return alike and max(abs(x - left), abs(y - top)) <= size * 1.001


def _file_of(folder: Path, cell: str) -> Path | None:
    """The file of a cell: `<cell>.tif`, or the first that is called so and goes on, such as `<cell>_2020.tif`."""
    for suffix in _SUFFIXES:
        if (folder / f"{cell}{suffix}").is_file():
            return folder / f"{cell}{suffix}"
    longer = sorted(file for file in folder.glob(f"{cell}_*") if file.suffix.lower() in _SUFFIXES)
    return longer[0] if longer else None


def _as_picture(file: Path, spec: ModalitySpec, side: int, grid: Georeferencing) -> Tile:
    pixels = read_grey(file) if spec.grey else read_colour(file)
    if max(abs(pixels.shape[0] - side), abs(pixels.shape[1] - side)) > TOLERANCE:
        raise BrokenInputError(
            f"{file} is {pixels.shape[1]} x {pixels.shape[0]} px; a tile of {spec.name} has {side} x {side} px.",
            hint="Give a GeoTIFF, which is warped to the tile, or a picture of that size.",
        )
    return Tile(_channels_first(pixels), grid, None)


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_warpable(bands: RasterBands, modality: Modality) -> float | None:
    """The nodata value that a raster declares, if it is one of the modality at all."""
    spec, file = modality.spec, bands.files[0]
    _place_of(bands)
    if len(bands.layers) != len(spec.bands):
        raise BrokenInputError(
            f"{file} has {len(bands.layers)} bands, and {modality} {len(spec.bands)}: {', '.join(spec.bands)}.",
            hint=f"Mend the file, or {modality}.bands.",
        )
    kinds, nodata = kinds_of(bands)
    if kinds != (spec.dtype,):
        raise BrokenInputError(
            f"{file} is of {' and '.join(kinds)}, and {modality} of {spec.dtype}.",
            hint=f"Mend the file, or {modality}.dtype.",
        )
    return nodata


def _from_warped(
    values: np.ndarray,
    missing: np.ndarray,
    modality: Modality,
    nodata: float | None,
    grid: Georeferencing,
    folder: Path,
) -> Tile:
    """A tile of (B, H, W) values that were brought to its grid."""
    spec = modality.spec
    if missing.any() and (spec.is_picture or nodata is None):
        raise BrokenInputError(
            f"{folder} covers a part of the tile alone, and {modality} has no nodata value for the rest.",
            hint="Add what covers the rest" + ("." if spec.is_picture else f", or set {modality}.nodata."),
        )
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
        values = np.rint(values)
    filled = np.where(missing, 0 if nodata is None else nodata, np.nan_to_num(values)).astype(spec.dtype)
    if spec.classes:
        _require_classes(filled, modality, nodata, folder)
    return Tile(filled, grid, None if spec.is_picture else nodata)
