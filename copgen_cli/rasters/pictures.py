"""Pictures on disk: read without trusting them, written fast. Pixels stay uint8 all the way."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from copgen_cli.errors import BrokenInputError

MOST_PIXELS = 1 << 24
"""A picture that claims more is refused before any of it is decoded; a thumbnail has 1.1 million."""
FORMATS = ("PNG", "JPEG")
"""Told from the bytes, never from the name: S2 thumbnails are JPEG in files called thumbnail.png."""

_GREY = frozenset({"L", "LA", "1"})
_COLOUR = frozenset({"RGB", "RGBA", "P", "PA"})
EIGHT_BIT_MODES = _GREY | _COLOUR
"""Of Pillow's pictures, those whose values are the ones that a model knows."""
_UP = 2  # PNG filter: each byte minus the one above it
_GREY_TYPE, _COLOUR_TYPE = 0, 2  # PNG colour types


def read_pixels(file: Path, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """Decode an 8-bit picture. Alpha is dropped, as the published encoder does; palettes become colours.

    Returns:
        (H, W) uint8 of a grey picture, (H, W, 3) uint8 of a coloured one.

    Raises:
        BrokenInputError: the file is missing, empty, cut short, of another format, too large, or not of 8 bits.
    """
    try:
        with Image.open(file, formats=formats) as picture:
            _check_header(file, picture)
            return np.asarray(picture.convert("L" if picture.mode in _GREY else "RGB"))
    except FileNotFoundError:
        raise BrokenInputError(f"{file} is missing.", hint="Run the stage before again.") from None
    except Image.DecompressionBombError as error:
        raise BrokenInputError(f"{file}: {error}", hint=_FETCH_AGAIN) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        # all of these are what Pillow's decoders say of damaged files
        raise BrokenInputError(f"{file} is no readable picture: {error}", hint=_FETCH_AGAIN) from error


def read_grey(file: Path) -> np.ndarray:
    """(H, W) uint8 of a grey picture, also one stored as three equal channels.

    Raises:
        BrokenInputError: as `read_pixels`, or the channels differ.
    """
    pixels = read_pixels(file)
    if pixels.ndim == 2:
        return pixels
    grey = pixels[..., 0]
    if not ((grey == pixels[..., 1]).all() and (grey == pixels[..., 2]).all()):
        raise BrokenInputError(f"{file} is coloured, where one channel is expected.", hint=_FETCH_AGAIN)
    return grey


def read_colour(file: Path, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """(H, W, 3) uint8; a grey picture has three equal channels.

    Raises:
        BrokenInputError: as `read_pixels`.
    """
    pixels = read_pixels(file, formats)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W) or (H, W, 3) uint8.

    One filter for all rows, made by one subtraction, and the fastest compression: half the time of Pillow's fastest on
    satellite pictures, and a few per cent smaller.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    kind = _GREY_TYPE if pixels.ndim == 2 else _COLOUR_TYPE
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


_FETCH_AGAIN = "Fetch it again: `copgen download --verify` repairs what is damaged."


def _check_header(file: Path, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise BrokenInputError(
            f"{file} claims {width:,} x {height:,} pixels, where at most {MOST_PIXELS:,} are read.", hint=_FETCH_AGAIN
        )
    deep = any(
        ";16" in str(tile.args) for tile in getattr(picture, "tile", ())
    )  # Pillow would drop the lower bits of 16-bit colour
    if deep or picture.mode not in EIGHT_BIT_MODES:
        raise BrokenInputError(
            f"{file} does not hold 8-bit grey or colour but {picture.mode}{' of 16 bits' if deep else ''}: "
            "measurements, not a thumbnail.",
            hint=_FETCH_AGAIN,
        )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
