"""Pictures that a user hands in: which are read, how they are cropped and padded, and which are refused."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps
from sample_commands import pixels_of, save_picture

from copgen_cli.errors import BrokenInputError, CopgenError, UsageError
from copgen_cli.inputs.pictures import Frame, advice_on_scale, read_picture, read_rgb
from copgen_cli.modalities import Modality
from copgen_cli.model.pictures import as_bytes
from copgen_cli.rasters import decode_upright
from copgen_cli.records import Georeferencing

FRAME = Frame(side=64, resolution=64)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_every_supported_format_is_read_as_its_pixels(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    expected = np.full((64, 64, 3), (200, 100, 40), np.uint8)
    Image.fromarray(expected).save(file)

    pixels = read_picture(file, Modality.S1RTC, FRAME)

    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 3  # JPEG and WebP round


def test_a_larger_picture_is_cut_from_its_middle(tmp_path):
    whole = pixels_of(save_picture(tmp_path / "a.png", size=(101, 80)))

    pixels = read_picture(tmp_path / "a.png", Modality.S1RTC, FRAME)

    np.testing.assert_array_equal(pixels, whole[8:72, 18:82])  # half of an odd margin of 37 rounds to even


def test_a_resolution_pads_by_reflection_and_cutting_back_undoes_it(tmp_path):
    whole = pixels_of(save_picture(tmp_path / "a.png", size=(48, 50)))
    frame = Frame(side=64, resolution=47)

    padded = read_picture(tmp_path / "a.png", Modality.S1RTC, frame)

    assert padded.shape == (64, 64, 3)
    np.testing.assert_array_equal(frame.cut_back(padded), whole[2:49, 0:47])
    np.testing.assert_array_equal(padded[8:55, 7], padded[8:55, 9])  # a mirror at the eighth column
    np.testing.assert_array_equal(padded[8:55, 0], padded[8:55, 16])


def test_crop_and_reflection_are_those_of_the_published_script(shared):
    picture = shared / "golden" / "folder_img_input.png"

    cropped = read_picture(picture, Modality.S1RTC, Frame(256, 256))
    padded = read_picture(picture, Modality.S1RTC, Frame(256, 192))

    digests = [hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest() for pixels in (cropped, padded)]
    assert digests == [
        "c6cc5f38cb405a8b014b83352fb13f9e349e84c9953605283c597d7232c0be76",
        "1c9c2fbf671377434c2c76e55ec553c6cb143a170a26e9678b765108e61c7e04",
    ]


def test_grey_becomes_three_equal_channels_and_alpha_is_dropped(tmp_path):
    Image.new("L", (64, 64), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (64, 64), (10, 20, 30, 0)).save(tmp_path / "alpha.png")

    assert (read_picture(tmp_path / "grey.png", Modality.DEM, FRAME) == 77).all()
    assert (read_picture(tmp_path / "alpha.png", Modality.S2L2A, FRAME) == (10, 20, 30)).all()


def test_a_smaller_picture_is_refused_with_the_resolution_that_would_take_it(tmp_path):
    save_picture(tmp_path / "small.png", size=(60, 50))

    with pytest.raises(CopgenError, match=r"60 x 50 px") as refused:
        read_picture(tmp_path / "small.png", Modality.S1RTC, FRAME)

    assert "--resolution 50" in refused.value.hint


@pytest.mark.parametrize(
    ("mode", "suffix"), [("I;16", "png"), ("I;16", "tif"), ("F", "tif"), ("I", "tif")], ids=lambda value: value
)
def test_measurements_of_more_than_eight_bits_are_refused_with_a_word_on_thumbnails(tmp_path, mode, suffix):
    values = np.arange(64 * 64).reshape(64, 64)
    dtype = {"I;16": np.uint16, "F": np.float32, "I": np.int32}[mode]
    Image.fromarray(values.astype(dtype)).save(tmp_path / f"deep.{suffix}")

    with pytest.raises(BrokenInputError, match="measurements, not a thumbnail") as refused:
        read_picture(tmp_path / f"deep.{suffix}", Modality.S1RTC, FRAME)

    assert "Render" in refused.value.hint


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_on_its_side_is_turned_upright_in_every_format(tmp_path, suffix, orientation):
    quarters = np.zeros((80, 64, 3), np.uint8)
    quarters[:40, :32], quarters[:40, 32:], quarters[40:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    stored = Image.fromarray(quarters)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif)
    lying = stored.copy()
    lying.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(lying))

    shown = read_rgb(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        handed_over = decode_upright(opened)

    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright)[8:24, 8:24].max() < 30
    assert np.abs(shown.astype(int) - upright)[-24:-8, -24:-8].max() < 30
    np.testing.assert_array_equal(shown, handed_over)


def test_a_picture_on_its_side_is_turned_when_handed_to_the_pipeline(tmp_path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 200
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)

    with Image.open(tmp_path / "a.png") as picture:
        handed = as_bytes(picture, name="s1_rtc", side=64)

    np.testing.assert_array_equal(handed[0].permute(1, 2, 0).numpy(), pixels[::-1])


def test_a_jpeg_of_four_inks_is_read_in_its_colours(tmp_path):
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "a.jpg")

    assert np.abs(read_picture(tmp_path / "a.jpg", Modality.S2L2A, FRAME).astype(int) - (255, 0, 0)).max() < 5


@pytest.mark.parametrize(
    ("bands", "dtype", "interleave", "said"),
    [
        (3, "uint16", "band", "3 bands of uint16"),
        (3, "uint16", "pixel", "3 bands of uint16"),
        (13, "int16", "pixel", "13 bands of int16"),
        (1, "float32", "band", "1 band of float32"),
        (7, "uint8", "band", "7 bands of uint8"),
    ],
)
def test_a_raster_of_measurements_is_named_with_bands_and_dtype(tmp_path, bands, dtype, interleave, said):
    file = tmp_path / "a.tif"
    with rasterio.open(
        file, "w", driver="GTiff", width=64, height=64, count=bands, dtype=dtype, interleave=interleave,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        photometric="RGB" if bands == 3 else "MINISBLACK",
    ) as target:  # fmt: skip
        target.write(np.full((bands, 64, 64), 120, dtype))

    with pytest.raises(BrokenInputError, match=said) as refused:
        read_picture(file, Modality.S2L2A, FRAME)

    assert "Render" in refused.value.hint


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_the_pipeline_refuses_sixteen_bits_that_pillow_takes_for_eight(tmp_path, interleave):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="uint16", photometric="RGB",
        interleave=interleave, crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as target:  # fmt: skip
        target.write(np.full((3, 64, 64), 3000, "uint16"))

    try:
        picture = Image.open(tmp_path / "a.tif")
    except OSError:
        return  # Pillow does not know it at all
    with picture, pytest.raises(UsageError, match="16 bits"):
        as_bytes(picture, name="s2_l2a", side=64)


def test_sixteen_bit_colour_is_refused_though_pillow_would_drop_its_lower_bits(tmp_path):
    (tmp_path / "deep.png").write_bytes(png_of_16_bit_colour(64, 64))

    with pytest.raises(BrokenInputError, match="measurements, not a thumbnail"):
        read_picture(tmp_path / "deep.png", Modality.S2L2A, FRAME)


def test_a_picture_that_claims_too_many_pixels_is_refused_before_any_is_read(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header_only(20_000, 20_000))

    with pytest.raises(BrokenInputError):
        read_picture(tmp_path / "bomb.png", Modality.S1RTC, FRAME)


@pytest.mark.parametrize("damage", ["cut short", "other format", "empty", "missing"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, damage):
    file = save_picture(tmp_path / "broken.png")
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes({"cut short": data[:2000], "other format": b"GIF89a" + data, "empty": b""}[damage])

    with pytest.raises(BrokenInputError, match=r"broken\.png"):
        read_picture(file, Modality.S1RTC, FRAME)


def test_an_elevation_thumbnail_as_the_archive_holds_it_earns_a_word_on_its_scale(tmp_path):
    raw = save_picture(tmp_path / "raw.png", size=(356, 356), mode="L")
    patch = save_picture(tmp_path / "patch.png", size=(256, 256), mode="L")

    advice = advice_on_scale(raw, Modality.DEM)

    assert advice is not None
    assert "copgen prepare" in advice
    assert "30 m" in advice
    assert advice_on_scale(patch, Modality.DEM) is None
    assert advice_on_scale(raw, Modality.S1RTC) is None
    assert advice_on_scale(tmp_path / "absent.png", Modality.DEM) is None


def test_a_resolution_that_reflection_can_not_fill_is_refused():
    with pytest.raises(UsageError, match="--resolution 21"):
        Frame(side=64, resolution=21)
    with pytest.raises(UsageError, match="--resolution 65"):
        Frame(side=64, resolution=65)


def test_the_part_that_is_picture_lies_further_in_than_the_square():
    whole = Georeferencing("EPSG:32633", (10.0, 0.0, 1000.0, 0.0, -10.0, 5000.0))

    assert Frame(64, 44).georeferencing_of_cut(whole).transform == (10.0, 0.0, 1100.0, 0.0, -10.0, 4900.0)


def png_of_16_bit_colour(width: int, height: int) -> bytes:
    rows = b"".join(b"\0" + bytes(6 * width) for _ in range(height))
    return png_header_only(width, height, depth=16) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_header_only(width: int, height: int, depth: int = 8) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
