"""Pictures on disk: what is read, what is refused, and what is written."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from tiny_subsets import picture_bytes

from copgen_cli.errors import BrokenInputError
from copgen_cli.rasters.pictures import MOST_PIXELS, encode_png, read_colour, read_grey, read_pixels

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]

sides = st.integers(1, 40)


@given(st.one_of(arrays(np.uint8, st.tuples(sides, sides)), arrays(np.uint8, st.tuples(sides, sides, st.just(3)))))
def test_a_png_holds_the_pixels_it_was_given(pixels):
    with Image.open(io.BytesIO(encode_png(pixels))) as picture:
        assert picture.mode == ("L" if pixels.ndim == 2 else "RGB")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_a_png_takes_views_and_the_same_pixels_give_the_same_bytes():
    view = np.broadcast_to(GREY[..., None], (5, 7, 3))

    assert encode_png(view[1:4, ::2]) == encode_png(np.ascontiguousarray(view[1:4, ::2]))


def written(folder, data: bytes):
    file = folder / "picture.png"
    file.write_bytes(data)
    return file


def test_jpeg_is_read_whatever_the_file_is_called(tmp_path):
    smooth = np.asarray(Image.fromarray(COLOURS).resize((64, 48), Image.Resampling.BICUBIC))

    read = read_colour(written(tmp_path, picture_bytes(smooth, kind="JPEG")))

    assert read.shape == (48, 64, 3)
    assert np.abs(read.astype(int) - smooth).mean() < 10


def test_alpha_is_dropped_and_palettes_become_colours(tmp_path):
    alpha = np.dstack([COLOURS, np.full(GREY.shape, 7, np.uint8)])
    np.testing.assert_array_equal(read_colour(written(tmp_path, picture_bytes(alpha))), COLOURS)

    few = COLOURS // 128 * 255
    palette = Image.fromarray(few).quantize(8)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    np.testing.assert_array_equal(read_colour(written(tmp_path, stream.getvalue())), np.asarray(palette.convert("RGB")))


def test_grey_is_read_from_one_channel_or_three_equal_ones(tmp_path):
    for data in (picture_bytes(GREY), picture_bytes(GREY, "RGB"), picture_bytes(GREY, "LA")):
        np.testing.assert_array_equal(read_grey(written(tmp_path, data)), GREY)
    np.testing.assert_array_equal(read_colour(written(tmp_path, picture_bytes(GREY)))[..., 2], GREY)
    with pytest.raises(BrokenInputError, match="coloured"):
        read_grey(written(tmp_path, picture_bytes(COLOURS)))


def deep_colour_png() -> bytes:
    """16 bits per channel, which Pillow opens as if it had eight."""
    rows = b"".join(b"\0" + bytes(2 * 3 * 2) for _ in range(2))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb() -> bytes:
    """A PNG of a few bytes that claims ten thousand million pixels."""
    good = bytearray(encode_png(GREY))
    good[16:24] = struct.pack(">II", 100_000, 100_000)
    good[29:33] = struct.pack(">I", zlib.crc32(good[12:29]))
    return bytes(good)


BROKEN = {
    "empty": b"",
    "cut short": picture_bytes(np.random.default_rng(1).integers(0, 256, (99, 99, 3), dtype=np.uint8))[:900],
    "no picture": b"<html>404 not found</html>" * 9,
    "another format": picture_bytes(COLOURS, kind="BMP"),
    "16 bits": picture_bytes(GREY.astype(np.uint16) * 257),
    "16 bits of colour": deep_colour_png(),
    "a bomb": bomb(),
    "float": picture_bytes(GREY.astype(np.float32), kind="TIFF"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_picture_of_eight_bits_is_refused_by_name(tmp_path, data):
    with pytest.raises(BrokenInputError, match=r"picture\.png"):
        read_pixels(written(tmp_path, data))


def test_a_missing_picture_is_broken_input_too(tmp_path):
    with pytest.raises(BrokenInputError, match="missing"):
        read_pixels(tmp_path / "nowhere.png")


def test_size_is_judged_before_pixels_are_decoded(tmp_path):
    side = int(MOST_PIXELS**0.5) + 1
    large = bytearray(encode_png(GREY))
    large[16:24] = struct.pack(">II", side, side)
    large[29:33] = struct.pack(">I", zlib.crc32(large[12:29]))

    with pytest.raises(BrokenInputError, match="claims"):
        read_pixels(written(tmp_path, bytes(large)))


@given(st.data())
def test_damaged_pictures_raise_nothing_else(tmp_path_factory, data):
    good = data.draw(st.sampled_from([picture_bytes(COLOURS), encode_png(GREY), picture_bytes(COLOURS, kind="JPEG")]))
    mutant = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        mutant[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    file = tmp_path_factory.getbasetemp() / "mutant.png"
    file.write_bytes(bytes(mutant[:cut]) if data.draw(st.booleans()) else bytes(mutant))
    try:
        pixels = read_pixels(file)
    except BrokenInputError:
        return
    assert pixels.dtype == np.uint8
