"""Where a picture in a file lies on the ground: by GeoTIFF tags, a world file, or GDAL's `.aux.xml`."""

from __future__ import annotations

import math
import threading
import warnings
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image

from copgen_cli.records import Georeferencing
from copgen_cli.storage import readable

_DRIVERS = {"TIFF": "GTiff", "PNG": "PNG", "JPEG": "JPEG", "WEBP": "WEBP"}
"""GDAL's readers, of the formats that Pillow tells from the bytes; no other is let loose on a file."""

_ORIENTATION = 0x0112  # tag of EXIF and TIFF 6.0
_STORED_BY_SHOWN = {
    2: ("W", -1, 0, "0", 0, 1),
    3: ("W", -1, 0, "H", 0, -1),
    4: ("0", 1, 0, "H", 0, -1),
    5: ("0", 0, 1, "0", 1, 0),
    6: ("0", 0, 1, "H", -1, 0),
    7: ("W", 0, -1, "H", -1, 0),
    8: ("W", 0, -1, "0", 1, 0),
}
"""By orientation, the stored column and the stored row as functions of shown column and row: offset and factors."""

_WARNINGS = threading.Lock()  # what catches warnings is one for all threads


def orientation_of(picture: Image.Image) -> int:
    """1 to 8 as in EXIF; 1, upright, where nothing or nonsense is said."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises what its first wrong byte happens to hit
        return 1
    return value if value in _STORED_BY_SHOWN else 1


def read_georeferencing(file: Path) -> tuple[Georeferencing, tuple[int, int]] | None:
    """CRS and affine map of a picture, and its width and height, all once it is turned upright; None where the file
    says nothing of its place.

    A world file has a map and no CRS: then `crs` is empty. Ground control points are not taken for a map.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with Image.open(readable(file), formats=tuple(_DRIVERS)) as picture:
                driver, orientation = _DRIVERS[picture.format or ""], orientation_of(picture)
            with rasterio.open(readable(file), driver=driver) as dataset:
                crs = dataset.crs.to_string() if dataset.crs else ""
                transform = tuple(dataset.transform)[:6]
                width, height = dataset.width, dataset.height
                known = crs or not dataset.transform.is_identity
        except (RasterioError, OSError, ValueError):  # what reads the pixels will say what is wrong
            return None
    if not known or not all(map(math.isfinite, transform)):
        return None
    upright = (width, height) if orientation < 5 else (height, width)
    return Georeferencing(crs, _turned(transform, orientation, width, height)), upright


def encode_sidecar(place: Georeferencing) -> bytes:
    """The sidecar `<picture>.aux.xml` by which GDAL, QGIS and rasterio put a PNG on the map."""
    a, b, c, d, e, f = place.transform
    crs = f"  <SRS>{escape(place.crs)}</SRS>\n" if place.crs else ""
    transform = f"  <GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>\n"
    return f"<PAMDataset>\n{crs}{transform}</PAMDataset>\n".encode()


def describe_raster(file: Path) -> str | None:
    """Bands and dtype of a TIFF that Pillow does not take for a picture; None where GDAL does not read it either."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(readable(file), driver="GTiff") as dataset:
                kinds = " and ".join(sorted(set(dataset.dtypes)))
                return f"{dataset.count} band{'s' if dataset.count > 1 else ''} of {kinds}"
        except (RasterioError, OSError, ValueError):
            return None


def _turned(
    transform: tuple[float, ...], orientation: int, width: int, height: int
) -> tuple[float, float, float, float, float, float]:
    """The map from shown pixels, given the one from pixels as stored and their (width, height)."""
    a, b, c, d, e, f = map(float, transform)
    if orientation == 1:
        return a, b, c, d, e, f
    sides = {"0": 0, "W": width, "H": height}
    across, column_x, column_y, down, row_x, row_y = _STORED_BY_SHOWN[orientation]
    column_0, row_0 = sides[across], sides[down]
    return (
        a * column_x + b * row_x,
        a * column_y + b * row_y,
        a * column_0 + b * row_0 + c,
        d * column_x + e * row_x,
        d * column_y + e * row_y,
        d * column_0 + e * row_0 + f,
    )
