"""Whether bytes from an archive are the picture that they should be; looked at, and kept as they are."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from copgen_cli.errors import BrokenInputError
from copgen_cli.rasters.pictures import FORMATS, MOST_PIXELS

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"


def check_thumbnail(data: bytes, name: str) -> None:
    """Decode a JPEG or PNG, whatever its name says.

    Raises:
        BrokenInputError: it is empty, cut short, of another format, has a wrong checksum, or too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise _broken(name, f"has {image.width} x {image.height} pixels")
                image.verify()  # checksums of a PNG's chunks
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken(name, f"is no whole JPEG or PNG: {error}") from None


def check_band(data: bytes, name: str) -> None:
    """Look at the beginning of a band: a TIFF, or the PNG that one source keeps among them.

    Raises:
        BrokenInputError: it is neither.
    """
    if data[:4] not in _TIFF and data[:8] != _PNG:
        raise _broken(name, "is no TIFF")


def _broken(name: str, problem: str) -> BrokenInputError:
    return BrokenInputError(f"{name} {problem}.", hint="Run again to fetch it anew.")
