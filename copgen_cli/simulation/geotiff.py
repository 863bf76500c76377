"""Raw bands as GeoTIFF: enough of the format (OGC 19-008r4) to place a north-up raster in a UTM zone."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from copgen_cli.archive.grid import FOOTPRINT_METRES, Footprint
from copgen_cli.modalities.render import Picture
from copgen_cli.simulation.noise import resized

STAND_IN_SIZE = 48
"""Pixels a side of the stand-in for a 10 m band; 20 m and 60 m bands have a half and a sixth."""

_PIXEL_SCALE, _TIE_POINT, _GEO_KEYS, _NODATA = 33550, 33922, 34735, 42113
_SIXTY_METRES, _TWENTY_METRES = {"B01", "B09", "B10"}, {"B05", "B06", "B07", "B8A", "B11", "B12"}
_OF_COLOURS = {"B01": (0.0, 0.1, 0.9), "B02": (0, 0, 1), "B03": (0, 1, 0), "B04": (1, 0, 0), "B05": (0.7, 0.6, 0)}


def geotiff(raster: NDArray[np.generic], place: Footprint, nodata: int | None = None) -> bytes:
    """A raster (n, n) of uint8, uint16 or float32 over a footprint, compressed by LZW."""
    image = Image.fromarray(np.ascontiguousarray(raster))
    pixel = FOOTPRINT_METRES / raster.shape[0]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_PIXEL_SCALE] = (pixel, pixel, 0.0)
    tags[_TIE_POINT] = (0.0, 0.0, 0.0, place.west, place.north, 0.0)
    # version, then: projected model, pixel is area, projection by EPSG code
    tags[_GEO_KEYS] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, place.epsg)
    for tag, kind in ((_PIXEL_SCALE, 12), (_TIE_POINT, 12), (_GEO_KEYS, 3)):
        tags.tagtype[tag] = kind
    if nodata is not None:
        tags[_NODATA] = str(nodata)
        tags.tagtype[_NODATA] = 2
    file = io.BytesIO()
    image.save(file, "TIFF", tiffinfo=tags, compression="tiff_lzw")
    return file.getvalue()


def optical_bands(picture: Picture, names: Sequence[str], place: Footprint) -> dict[str, bytes]:
    """Small stand-ins for raw Sentinel-2 bands: numbers behind a true-colour picture, others mixed from them."""
    colours = np.stack([resized(picture[..., band].astype(np.float32), STAND_IN_SIZE) for band in range(3)])
    numbers = 10_000 * (colours / (255 * 1.3)) ** (1 / 0.6)  # the tone curve of the thumbnail, backwards
    bands = {}
    for name in names:
        if name == "cloud_mask":
            bands[name] = geotiff((numbers.min(axis=0) > 4_000).astype(np.uint8), place)
            continue
        size = STAND_IN_SIZE // (6 if name in _SIXTY_METRES else 2 if name in _TWENTY_METRES else 1)
        mixed = np.tensordot(np.array(_OF_COLOURS.get(name, (0.3, 2.2, -0.4))), numbers, axes=1)
        shrunk = resized(mixed.astype(np.float32), size)
        bands[name] = geotiff(np.clip(shrunk, 0, 65_535).astype(np.uint16), place, nodata=0)
    return bands


def radar_bands(picture: Picture, place: Footprint) -> dict[str, bytes]:
    """Small stand-ins for VV and VH, linear power, behind a false-colour picture."""
    bands = {}
    for name, channel, low in (("vv", 0, -25.0), ("vh", 2, -32.0)):
        level = resized(picture[..., channel].astype(np.float32), STAND_IN_SIZE) * (35 / 255) + low
        bands[name] = geotiff((10 ** (level / 10)).astype(np.float32), place, nodata=-32768)
    return bands
