"""Rasters of measurements as people have them: found, read whole, or read on another grid.

B bands, H and W pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from copgen_cli.errors import BrokenInputError, MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.records import Georeferencing
from copgen_cli.storage import readable

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MOST_PIXELS = 1 << 26
"""A larger raster is refused: its bands would not fit into memory beside the picture."""
_METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """What a raster holds of one modality."""

    values: np.ndarray
    """(B, H, W) float32, as they are in the file."""
    missing: np.ndarray
    """(H, W) bool: a band has no value there."""
    place: Georeferencing | None
    pixel_size: float | None
    """Metres; None where the raster does not say."""


@dataclass(frozen=True, slots=True)
class RasterBands:
    """The bands of one modality, in one file or in several of one grid."""

    layers: tuple[tuple[Path, int], ...]
    """File and number of its band, from 1."""
    place: Georeferencing | None
    width: int
    height: int
    pixel_size: float | None
    """Metres; None where the raster does not say."""
    is_picture: bool
    """8 bits: rendered already."""
    by_number: bool = False
    """Measurements of several bands without names, of which those were taken that the archive has at these places."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(file for file, _ in self.layers))


def find_bands(paths: Sequence[Path], modality: Modality, numbers: Sequence[int] = ()) -> RasterBands:
    """The bands that a modality's picture is made of.

    Args:
        paths: a GeoTIFF; or one for each band, in the order red, green, blue or VV, VH; or a folder of such, called as
            the archive calls them (`B04.tif`, `vv.tif`).
        modality: what it is.
        numbers: of the bands in the file, from 1, in that order. Else their descriptions tell, or how many there are.

    Raises:
        BrokenInputError: a file is missing, damaged, or no GeoTIFF.
        MismatchError: the files have different grids.
        UsageError: nothing tells which bands are the wanted ones.
    """
    wanted = modality.spec.picture.bands
    files = [paths[0] / f"{name}.tif" for name in wanted] if len(paths) == 1 and paths[0].is_dir() else list(paths)
    if len(files) not in (1, len(wanted)):
        raise UsageError(
            f"{len(files)} files are given for {modality}.",
            hint=f"Give one with all bands, or one for each of {', '.join(wanted)}.",
        )
    lacking = [file.name for file in files if not file.is_file()]
    if lacking:
        raise BrokenInputError(
            f"{files[0].parent} has no {', '.join(lacking)}.",
            hint=f"A folder holds a file for each of {', '.join(wanted)}.",
        )
    with _opened(files) as datasets:
        _check_grids(datasets)
        first = datasets[0]
        counts = (1, 3, 4) if modality.spec.grey else (3, 4)
        is_picture = len(files) == 1 and not numbers and set(first.dtypes) == {"uint8"} and first.count in counts
        if len(files) > 1:
            layers = [(file, 1) for file in files]
        elif is_picture:
            layers = [(files[0], band) for band in _picture_bands(first)]
        else:
            layers = [(files[0], band) for band in numbers or _choose_bands(first, modality)]
        place = Georeferencing(first.crs.to_string(), tuple(first.transform)[:6]) if first.crs else None
        by_number = not (is_picture or numbers) and len(files) == 1 < first.count and not _names_bands(first, modality)
        return RasterBands(tuple(layers), place, first.width, first.height, _pixel_size(first), is_picture, by_number)


def find_mask(path: Path) -> RasterBands:
    """The first band of a GeoTIFF, whatever it holds.

    Raises:
        BrokenInputError: it is missing, damaged, or no GeoTIFF.
    """
    with _opened([path]) as (dataset,):
        place = Georeferencing(dataset.crs.to_string(), tuple(dataset.transform)[:6]) if dataset.crs else None
        return RasterBands(((path, 1),), place, dataset.width, dataset.height, _pixel_size(dataset), is_picture=False)


def find_values(files: Sequence[Path]) -> RasterBands:
    """All bands of a GeoTIFF, or of several of one grid, in their order.

    Raises:
        BrokenInputError: one is missing, damaged, or no GeoTIFF.
        MismatchError: they have different grids.
    """
    with _opened(files) as datasets:
        _check_grids(datasets)
        first = datasets[0]
        layers = [(file, band) for file, dataset in zip(files, datasets, strict=True) for band in dataset.indexes]
        place = Georeferencing(first.crs.to_string(), tuple(first.transform)[:6]) if first.crs else None
        return RasterBands(tuple(layers), place, first.width, first.height, _pixel_size(first), is_picture=False)


def read_values(bands: RasterBands) -> tuple[np.ndarray, float | None]:
    """(B, H, W) values of a raster as they are in the file, and the value that marks pixels without one, if any.

    Raises:
        BrokenInputError: a file is damaged or too large, or its bands differ in dtype.
    """
    if bands.width * bands.height > MOST_PIXELS:
        raise BrokenInputError(
            f"{bands.files[0]} is {bands.width} x {bands.height} px; up to {MOST_PIXELS:,} are read at once.",
            hint="Cut out a part: rio clip, or gdal_translate -srcwin.",
        )
    with _opened(bands.files) as datasets:
        by_file = dict(zip(bands.files, datasets, strict=True))
        kinds = {kind for dataset in datasets for kind in dataset.dtypes}
        if len(kinds) > 1:
            raise BrokenInputError(
                f"{bands.files[0]} has bands of {' and '.join(sorted(kinds))}.", hint="Bring them to one dtype."
            )
        values = np.stack([by_file[file].read(band) for file, band in bands.layers])
        nodata = datasets[0].nodata
    return values, None if nodata is None else float(nodata)


def is_nodata(values: np.ndarray, nodata: float) -> np.ndarray:
    """Where values are the one that marks a pixel without any, which may be not a number."""
    return np.isnan(values) if math.isnan(nodata) else np.asarray(values == nodata)


def kinds_of(bands: RasterBands) -> tuple[tuple[str, ...], float | None]:
    """Dtypes of a raster's bands, each once, and the value that marks pixels without one, if any."""
    with _opened(bands.files) as datasets:
        kinds = dict.fromkeys(kind for dataset in datasets for kind in dataset.dtypes)
        nodata = datasets[0].nodata
    return tuple(kinds), None if nodata is None else float(nodata)


def read_measurements(bands: RasterBands) -> Measurements:
    """All of a raster.

    Raises:
        BrokenInputError: a file is damaged, or too large.
    """
    if bands.width * bands.height > MOST_PIXELS:
        raise BrokenInputError(
            f"{bands.files[0]} is {bands.width} x {bands.height} px; up to {MOST_PIXELS:,} are rendered at once.",
            hint="Cut out a part: rio clip, or gdal_translate -srcwin.",
        )
    with _opened(bands.files) as datasets:
        by_file = dict(zip(bands.files, datasets, strict=True))
        layers = [by_file[file].read(band, out_dtype="float32", masked=True) for file, band in bands.layers]
    values = np.stack([layer.filled(np.nan) for layer in layers])
    return Measurements(values, ~np.isfinite(values).all(axis=0), bands.place, bands.pixel_size)


def require_place(bands: RasterBands) -> Georeferencing:
    """Where a raster lies.

    Raises:
        MismatchError: it does not say so, or in a CRS that is of no place on Earth.
    """
    if bands.place is None or bands.pixel_size is None:
        lacking = "it has no CRS" if bands.place is None else "its CRS is of no place on Earth"
        raise MismatchError(
            f"{bands.files[0]} does not say where it lies: {lacking}.",
            hint=f"Assign the one that it is in: rio edit-info --crs EPSG:32633 {bands.files[0]}",
        )
    return bands.place


def warp_measurements(
    bands: RasterBands, place: Georeferencing, width: int, height: int, *, categories: bool = False
) -> Measurements:
    """A raster on another grid, by one bilinear resampling, or none where the pixels are the same ones.

    Args:
        place, width, height: the grid; pixels outside of the raster are missing.
        categories: values are of a kind that has no mean: take the nearest.

    Raises:
        BrokenInputError: a file is damaged.
        MismatchError: the raster does not say where it lies.
    """
    from affine import Affine
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    nearest = categories or share_pixels(require_place(bands), place)
    resampling = Resampling.nearest if nearest else Resampling.bilinear
    grid = {"crs": place.crs, "transform": Affine(*place.transform), "width": width, "height": height}
    with _opened(bands.files) as datasets:
        layers: dict[tuple[Path, int], np.ndarray] = {}
        for file, dataset in zip(bands.files, datasets, strict=True):
            numbers = [band for its, band in bands.layers if its == file]
            with WarpedVRT(dataset, **grid, resampling=resampling, dtype="float32", nodata=np.nan) as warped:
                layers |= {(file, band): warped.read(band) for band in dict.fromkeys(numbers)}
    values = np.stack([layers[layer] for layer in bands.layers]).astype(np.float32)
    missing = np.asarray(~np.isfinite(values).all(axis=0))
    return Measurements(values, missing, place, float(math.hypot(place.transform[1], place.transform[4])))


def share_pixels(one: Georeferencing, other: Georeferencing) -> bool:
    """Whether two grids have the same pixels, as far as both reach."""
    if one.crs != other.crs or not np.allclose(_linear(one), _linear(other), rtol=1e-9, atol=0):
        return False
    column, row = one.to_pixels(other.transform[2], other.transform[5])
    return abs(column - round(column)) < 1e-3 and abs(row - round(row)) < 1e-3


def _linear(place: Georeferencing) -> tuple[float, ...]:
    a, b, _, d, e, _ = place.transform
    return a, b, d, e


@contextmanager
def _opened(files: Sequence[Path]) -> Iterator[list[DatasetReader]]:
    """The files, opened as GeoTIFF and as nothing else: other drivers would follow what a file points to."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            yield [stack.enter_context(rasterio.open(readable(file), driver="GTiff")) for file in files]
        except (RasterioError, OSError, IndexError) as error:
            raise BrokenInputError(
                f"{files[0]} can not be read as a GeoTIFF: {error}",
                hint=f"Give one: `gdal_translate {files[0]} {files[0].stem}.tif` makes it of JPEG 2000, netCDF and the "
                "like. A picture without a place on the ground is for `copgen sample --input`.",
            ) from error


def _picture_bands(dataset: DatasetReader) -> Sequence[int]:
    """Grey thrice, or red, green and blue; an alpha band is left out."""
    return (1, 1, 1) if dataset.count < 3 else (1, 2, 3)


def _band_names(dataset: DatasetReader) -> list[str]:
    return [(name or "").upper() for name in dataset.descriptions]


def _names_bands(dataset: DatasetReader, modality: Modality) -> bool:
    return {name.upper() for name in modality.spec.picture.bands} <= set(_band_names(dataset))


def _choose_bands(dataset: DatasetReader, modality: Modality) -> Sequence[int]:
    rule = modality.spec.picture
    if _names_bands(dataset, modality):
        names = _band_names(dataset)
        return [names.index(name.upper()) + 1 for name in rule.bands]
    if dataset.count not in rule.numbers:
        count = f"{dataset.count} {'band' if dataset.count == 1 else 'bands'}"
        numbers = ",".join(map(str, range(len(rule.bands), 0, -1)))
        raise UsageError(
            f"{dataset.name} has {count}, {'and they are' if dataset.count > 1 else 'and it is'} not called "
            f"{', '.join(rule.bands)}.",
            hint="Name the bands in the file, give a file for each, or say which they are: "
            f"copgen render --bands {numbers}"
            if dataset.count >= len(rule.bands)
            else f"{modality} needs {len(rule.bands)} bands: give a file for each, or name the modality that this is.",
        )
    return rule.numbers[dataset.count]


def _check_grids(opened: Sequence[DatasetReader]) -> None:
    first = opened[0]
    for other in opened[1:]:
        if (other.shape, other.crs, other.transform) != (first.shape, first.crs, first.transform):
            raise MismatchError(
                f"{first.name} and {other.name} have different grids.", hint="Bring them to one: rio warp --like"
            )


def _pixel_size(dataset: DatasetReader) -> float | None:
    if dataset.crs is None or not (dataset.crs.is_geographic or dataset.crs.is_projected):
        return None
    unit = _METRES_PER_DEGREE if dataset.crs.is_geographic else float(dataset.crs.linear_units_factor[1])
    return float(math.hypot(dataset.transform.b, dataset.transform.e)) * unit
