"""Rasters as GeoTIFF files in memory, placed on the ground."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from copgen_cli.records import Georeferencing
from copgen_cli.storage import readable

NO_TAGS: Mapping[str, str] = MappingProxyType({})
NO_COLOURS: Mapping[int, str] = MappingProxyType({})
STRIP_ROWS = 128
"""Few enough that a window is read without most of the rest."""


def encode_geotiff(
    raster: NDArray[np.generic],
    place: Georeferencing | None,
    *,
    nodata: float | None = None,
    tags: Mapping[str, str] = NO_TAGS,
    descriptions: Sequence[str] = (),
    colours: Mapping[int, str] = NO_COLOURS,
    unit: str = "",
    differences: bool = False,
) -> bytes:
    """A GeoTIFF, compressed by LZW; the same bytes whenever it is made of the same.

    Args:
        raster: (height, width) or (bands, height, width) of uint8, uint16, int16 or float32; three bands of uint8 are
            red, green and blue.
        place: where it lies; None leaves a plain TIFF.
        nodata: the value that marks pixels without data, if any.
        descriptions: of the bands, in their order.
        colours: `#rrggbb` by value, of a raster of classes.
        unit: of the values.
        tags: names and texts of metadata; `TIFFTAG_IMAGEDESCRIPTION` and the like become TIFF's own tags.
        differences: those of neighbours are compressed instead, by the fastest deflate and in strips of more rows:
            for measurements half to two thirds of the size, and faster (benchmarks/patch_files.py).
    """
    from affine import Affine
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    bands = raster if raster.ndim == 3 else raster[None]
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "compress": "lzw", "width": width, "height": height, "count": count}
    if differences:
        predictor = 3 if bands.dtype == np.float32 else 2
        profile |= {"compress": "deflate", "zlevel": 1, "predictor": predictor, "blockysize": min(height, STRIP_ROWS)}
    if count == 3 and bands.dtype == np.uint8:
        profile["photometric"] = "RGB"
    if place is not None:
        profile |= {"crs": place.crs or None, "transform": Affine(*place.transform)}
    with MemoryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(**profile, dtype=bands.dtype, nodata=nodata) as target:
            target.write(bands)
            if tags:
                target.update_tags(**tags)
            if descriptions:
                target.descriptions = tuple(descriptions)
            if unit:
                target.units = (unit,) * count
            if colours:
                target.write_colormap(1, {value: ImageColor.getrgb(colour) for value, colour in colours.items()})
        return bytes(file.getbuffer())


def read_tags(file: Path) -> dict[str, str]:
    """The metadata of a TIFF file; empty where it is none."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(readable(file), driver="GTiff") as dataset:
                return dict(dataset.tags())
        except (RasterioError, OSError, ValueError):
            return {}
