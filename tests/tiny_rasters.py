"""GeoTIFFs of measurements, small and placed."""

from __future__ import annotations

import rasterio
from rasterio.transform import Affine

AT_10_M = Affine(10, 0, 500_000, 0, -10, 4_600_000)


def write_raster(path, values, *, affine=AT_10_M, crs="EPSG:32633", nodata=None, names=()):
    """A GeoTIFF of (bands, height, width) values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs=crs,
        transform=affine, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(values)
        for band, name in enumerate(names, start=1):
            dataset.set_band_description(band, name)
    return path
