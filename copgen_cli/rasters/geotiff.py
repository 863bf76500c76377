"""Rasters as GeoTIFF files in memory, placed on the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode_geotiff(
    raster: NDArray[np.generic],
    *,
    epsg: int,
    transform: tuple[float, float, float, float, float, float],
    nodata: float | None = None,
) -> bytes:
    """One band, compressed by LZW.

    Args:
        raster: (height, width) of uint8, uint16, int16 or float32.
        epsg: code of the coordinate reference system.
        transform: affine map from (column, row) to (x, y): a, b, c, d, e, f with x = a col + b row + c.
        nodata: the value that marks pixels without data, if any.
    """
    from affine import Affine
    from rasterio.io import MemoryFile

    height, width = raster.shape
    profile = {"driver": "GTiff", "compress": "lzw", "width": width, "height": height, "count": 1}
    with MemoryFile() as file:
        with file.open(
            **profile, dtype=raster.dtype, crs=f"EPSG:{epsg}", transform=Affine(*transform), nodata=nodata
        ) as target:
            target.write(raster, 1)
        return bytes(file.getbuffer())
