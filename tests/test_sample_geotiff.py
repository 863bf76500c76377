"""`copgen sample --save-as geotiff`: pictures that hold their place, and say how they were made."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from sample_commands import call_copgen, one_thread, pixels_of, save_picture, small_model

AT = Affine(10, 0, 500_000, 0, -10, 4_600_000)


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model")


@pytest.fixture
def radar(tmp_path):
    pixels = pixels_of(save_picture(tmp_path / "plain.png", size=(80, 72)))
    with rasterio.open(
        tmp_path / "radar.tif", "w", driver="GTiff", count=3, width=80, height=72, dtype="uint8", crs="EPSG:32633",
        transform=AT, photometric="RGB",
    ) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    return tmp_path / "radar.tif"


def sample(capsys, model, *options):
    with one_thread():
        return call_copgen(
            capsys, "sample", "--model", model, "--generate", "dem,s2_l2a", "--steps", 1, "--device", "cpu", *options
        )


def test_a_geotiff_lies_where_its_condition_does_and_holds_the_pixels_of_the_png(capsys, tmp_path, model, radar):
    for form in ("geotiff", "pngs"):
        call = sample(capsys, model, "--input", f"s1_rtc={radar}", "--save-as", form, "--output", tmp_path / form)
        assert call.code == 0, call.err

    with rasterio.open(tmp_path / "geotiff/s2_l2a/radar_v1.tif") as file:
        assert (file.crs.to_epsg(), file.transform) == (32633, Affine(10, 0, 500_080, 0, -10, 4_599_960))
        assert (file.count, file.dtypes[0], file.shape) == (3, "uint8", (64, 64))
        pixels, tags = file.read().transpose(1, 2, 0), file.tags()
    assert np.array_equal(pixels, pixels_of(tmp_path / "pngs/s2_l2a/radar_v1.png"))
    assert tags["TIFFTAG_IMAGEDESCRIPTION"].startswith("Synthetic: s2_l2a given s1_rtc")
    assert tags["TIFFTAG_SOFTWARE"].startswith("copgen ")
    assert json.loads(tags["copgen"])["synthetic"] is True
    listed = json.loads((tmp_path / "geotiff/samples.json").read_text())["files"]
    assert set(listed) == {"dem/radar_v1.tif", "s2_l2a/radar_v1.tif"}


def test_like_makes_a_geotiff_again(capsys, tmp_path, model, radar):
    sample(capsys, model, "--input", f"s1_rtc={radar}", "--save-as", "geotiff", "--output", tmp_path / "o")
    picture = tmp_path / "o/dem/radar_v1.tif"

    with one_thread():
        call = call_copgen(capsys, "sample", "--like", picture, "--output", tmp_path / "again", "--device", "cpu")

    assert call.code == 0, call.err
    assert (tmp_path / "again/radar_v1.tif").read_bytes() == picture.read_bytes()


def test_without_a_place_a_plain_tiff_is_written_and_a_second_run_does_nothing(capsys, tmp_path, model):
    options = ("--save-as", "geotiff", "--output", tmp_path / "o")
    assert sample(capsys, model, *options).code == 0

    with Image.open(next((tmp_path / "o/dem").glob("*.tif"))) as picture:
        assert picture.size == (64, 64)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "o").rglob("*.tif")}
    again = sample(capsys, model, *options)
    assert again.code == 0
    assert "Nothing to do" in again.err
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "o").rglob("*.tif")} == before


def test_forms_of_other_settings_do_not_mix_in_a_folder(capsys, tmp_path, model):
    assert sample(capsys, model, "--output", tmp_path / "o").code == 0

    call = sample(capsys, model, "--save-as", "geotiff", "--seed", 5, "--output", tmp_path / "o")

    assert call.code == 1
    assert "holds grid of other settings" in call.err


def test_a_tiff_that_does_not_say_how_it_was_made_is_refused(capsys, tmp_path, radar):
    call = call_copgen(capsys, "sample", "--like", radar, "--output", tmp_path / "again")

    assert call.code == 1
    assert "does not say how it was made" in call.err
