"""Rasters of measurements, brought to the pictures that the archive's thumbnails are: reflectance, backscatter, height.

B bands, H and W pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from copgen_cli.errors import BrokenInputError, MismatchError, UsageError
from copgen_cli.modalities import Modality, Rendering, false_colour, hillshade, true_colour
from copgen_cli.records import Georeferencing

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MOST_PIXELS = 1 << 26
"""A larger raster is refused: its bands would not fit into memory beside the picture."""
SHADED_AT = 30.0
"""Metres per pixel at which the archive shades elevation, whose pictures are then enlarged to the other sources'."""

_METRES_PER_DEGREE = 111_320.0
_NOTHING = -100.0
"""Below this, decibel and metres are marks of missing values such as -9999 and -32768."""


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


def read_measurements(path: Path, modality: Modality, bands: Sequence[int] = ()) -> Measurements:
    """Read the bands that a modality's picture is made of.

    Args:
        path: a GeoTIFF, or a folder with one for each band, called as the archive calls them (`B04.tif`, `vv.tif`).
        modality: what it is.
        bands: numbers of the bands in the file, from 1, in the order red, green, blue or VV, VH. Else their
            descriptions tell, or how many there are.

    Raises:
        BrokenInputError: a file is missing, damaged, no GeoTIFF, or too large.
        MismatchError: the files of a folder have different grids.
        UsageError: nothing tells which bands are the wanted ones.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    wanted = modality.facts.picture.bands
    files = [path / f"{name}.tif" for name in wanted] if path.is_dir() else [path]
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            opened = [stack.enter_context(rasterio.open(file, driver="GTiff")) for file in files]
            for dataset in opened:
                _check_size(dataset)
            if path.is_dir():
                numbers = [(dataset, 1) for dataset in opened]
            else:
                numbers = [(opened[0], band) for band in bands or _choose_bands(opened[0], modality)]
            _check_grids(opened)
            layers = [dataset.read(band, out_dtype="float32", masked=True) for dataset, band in numbers]
        except (RasterioError, OSError, IndexError) as error:
            raise BrokenInputError(
                f"{path} can not be read as a GeoTIFF: {error}", hint="gdalinfo shows what GDAL makes of it."
            ) from error
        first = opened[0]
        place = Georeferencing(first.crs.to_string(), tuple(first.transform)[:6]) if first.crs else None
        values = np.stack([layer.filled(np.nan) for layer in layers])
        return Measurements(values, ~np.isfinite(values).all(axis=0), place, _pixel_size(first))


def render_picture(measured: Measurements, modality: Modality) -> np.ndarray:
    """The picture that a model of thumbnails knows; black where a value is missing.

    Units are told by the values: reflectance from its 10,000-fold, decibel from power. An offset of reflectance that
    the raster holds stays in, as it does in the archive's thumbnails.

    Returns:
        (H, W, 3) uint8; of elevation (H, W), or three times as large a side where the raster has 30 m a pixel.

    Raises:
        BrokenInputError: no pixel has a value.
    """
    if measured.missing.all():
        raise BrokenInputError("No pixel of the raster has a value.", hint="Check its nodata value, and its bands.")
    match modality.facts.picture.rendering:
        case Rendering.HILLSHADE:
            return _render_elevation(measured)
        case Rendering.FALSE_COLOUR:
            return _render_backscatter(measured)
        case Rendering.TRUE_COLOUR:
            return _render_reflectance(measured)


def _render_reflectance(measured: Measurements) -> np.ndarray:
    missing = measured.missing
    values = np.where(missing, np.float32(0), measured.values)
    scale = 1 if np.percentile(values[:, ~missing], 99) < 3 else 10_000
    reflectance = (np.clip(values, 0, None) / scale).astype(np.float32)
    return true_colour(reflectance, missing if missing.any() else None)


def _render_backscatter(measured: Measurements) -> np.ndarray:
    values, missing = measured.values, measured.missing
    if np.median(values[:, ~missing]) < 0:
        missing = missing | (values < _NOTHING).any(axis=0)
        values = np.float32(10) ** (np.where(missing, 0, values) / np.float32(10))
    missing = missing | (values <= 0).any(axis=0)
    values = np.where(missing, np.float32(1), values)
    return false_colour(values[0], values[1], missing if missing.any() else None)


def georeferencing_of_picture(measured: Measurements, picture: np.ndarray) -> Georeferencing | None:
    """Where a picture lies that was rendered of these measurements, enlarged or not."""
    if measured.place is None:
        return None
    a, b, c, d, e, f = measured.place.transform
    rows, columns = (whole / part for whole, part in zip(measured.missing.shape, picture.shape, strict=False))
    return Georeferencing(measured.place.crs, (a * columns, b * rows, c, d * columns, e * rows, f))


def _render_elevation(measured: Measurements) -> np.ndarray:
    """Shade at 30 m a pixel, whatever the raster has, and enlarge to 10 m or to what the raster has."""
    height, missing = measured.values[0], measured.missing | (measured.values[0] < _NOTHING * 10)
    height = np.where(missing, height[~missing].min() if (~missing).any() else 0, height)
    factor = round(SHADED_AT / measured.pixel_size) if measured.pixel_size else 3
    rows, columns = height.shape
    if factor > 1:
        coarse = (math.ceil(columns / factor), math.ceil(rows / factor))
        height = np.asarray(Image.fromarray(height).resize(coarse, Image.Resampling.BICUBIC))
    else:
        rows, columns = 3 * rows, 3 * columns
    if min(height.shape) < 2:
        raise BrokenInputError("The raster has too few pixels to shade.", hint="Give a larger one.")
    picture = Image.fromarray(hillshade(height)).resize((columns, rows), Image.Resampling.BICUBIC)
    gaps = Image.fromarray(missing).resize((columns, rows), Image.Resampling.NEAREST)
    return np.where(np.asarray(gaps), np.uint8(0), np.asarray(picture))


def _choose_bands(dataset: DatasetReader, modality: Modality) -> Sequence[int]:
    names = [(name or "").upper() for name in dataset.descriptions]
    rule = modality.facts.picture
    wanted = [name.upper() for name in rule.bands]
    if set(wanted) <= set(names):
        return [names.index(name) + 1 for name in wanted]
    if dataset.count not in rule.numbers:
        raise UsageError(
            f"{dataset.name} has {dataset.count} bands, and they are not called {', '.join(rule.bands)}.",
            hint=f"Say which of them these are: --bands {','.join(map(str, range(len(wanted), 0, -1)))}",
        )
    return rule.numbers[dataset.count]


def _check_size(dataset: DatasetReader) -> None:
    if dataset.width * dataset.height > MOST_PIXELS:
        raise BrokenInputError(
            f"{dataset.name} is {dataset.width} x {dataset.height} px; up to {MOST_PIXELS:,} are rendered at once.",
            hint="Cut out a part: rio clip, or gdal_translate -srcwin.",
        )


def _check_grids(opened: Sequence[DatasetReader]) -> None:
    first = opened[0]
    for other in opened[1:]:
        if (other.shape, other.crs, other.transform) != (first.shape, first.crs, first.transform):
            raise MismatchError(
                f"{first.name} and {other.name} have different grids.", hint="Bring them to one: rio warp --like"
            )


def _pixel_size(dataset: DatasetReader) -> float | None:
    if dataset.crs is None:
        return None
    unit = _METRES_PER_DEGREE if dataset.crs.is_geographic else float(dataset.crs.linear_units_factor[1])
    return float(math.hypot(dataset.transform.b, dataset.transform.e)) * unit
