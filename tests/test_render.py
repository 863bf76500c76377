"""`copgen render`: rasters of measurements become the pictures that the archive's thumbnails are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from sample_commands import call_copgen, pixels_of, small_model
from tiny_rasters import AT_10_M, write_raster as write

TILES = ("282D_485L_3_3", "433D_629L_3_1", "637U_59R_1_3")
FILES = {"s2_l1c": "S2L1C", "s2_l2a": "S2L2A", "s1_rtc": "S1RTC", "dem": "DEM"}


def render(capsys, tmp_path, raster, modality="s2_l2a", *options):
    output = tmp_path / f"{len(list(tmp_path.glob('*.png')))}.png"
    return call_copgen(capsys, "render", "--input", f"{modality}={raster}", "--output", output, *options), output


def reflectance(bands=3, side=40):
    return np.random.default_rng(0).integers(200, 5000, (bands, side, side)).astype(np.uint16)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("modality", FILES)
def test_real_rasters_give_the_thumbnails_of_their_place(shared, capsys, tmp_path, tile, modality):
    raster = shared / f"sample_data/tiles/{tile}/{FILES[modality]}.tif"
    call, output = render(capsys, tmp_path, raster, modality, "--json")

    assert call.code == 0, call.err
    ours = np.asarray(Image.open(output)).astype(float)
    theirs = np.asarray(Image.open(shared / f"sample_data/thumbnails/{tile}/{modality}.png")).astype(float)
    assert ours.shape == theirs.shape
    if modality == "dem":
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    else:
        assert np.abs(ours - theirs).mean() < 3
    with rasterio.open(raster) as before, rasterio.open(output) as after:
        assert (after.crs, after.transform) == (before.crs, before.transform)


def test_what_is_rendered_can_be_sampled_from_and_keeps_its_place(capsys, tmp_path):
    raster = write(tmp_path / "a.tif", reflectance(side=64))
    _, output = render(capsys, tmp_path, raster)
    model = small_model(tmp_path / "model")

    call = call_copgen(
        capsys, "sample", "--model", model, "--input", f"s2_l2a={output}", "--generate", "dem", "--steps", 1,
        "--save-as", "pngs", "--device", "cpu", "--output", tmp_path / "drawn",
    )  # fmt: skip

    assert call.code == 0, call.err
    with rasterio.open(next((tmp_path / "drawn").rglob("*.png"))) as drawn:
        assert (str(drawn.crs), drawn.transform) == ("EPSG:32633", AT_10_M)


def test_a_raster_of_measurements_is_told_apart_with_the_command_for_it(capsys, tmp_path):
    raster = write(tmp_path / "a.tif", reflectance(bands=12))

    call = call_copgen(capsys, "sample", "--model", "copgen-sim", "--input", f"s2_l2a={raster}", "--generate", "dem")

    assert call.code != 0
    assert "12 bands of uint16" in call.err
    assert "copgen render --input" in call.err


def test_units_of_backscatter_and_reflectance_are_told_by_the_values(capsys, tmp_path):
    power = np.random.default_rng(1).uniform(0.001, 0.8, (2, 40, 40)).astype(np.float32)
    linear = render(capsys, tmp_path, write(tmp_path / "p.tif", power), "s1_rtc")[1]
    decibel = render(capsys, tmp_path, write(tmp_path / "d.tif", 10 * np.log10(power)), "s1_rtc")[1]
    assert np.abs(pixels_of(linear).astype(int) - pixels_of(decibel)).max() <= 1

    values = reflectance()
    numbers = render(capsys, tmp_path, write(tmp_path / "n.tif", values))[1]
    fractions = render(capsys, tmp_path, write(tmp_path / "f.tif", (values / 10_000).astype(np.float32)))[1]
    assert np.abs(pixels_of(numbers).astype(int) - pixels_of(fractions)).max() <= 1


@pytest.mark.parametrize(("modality", "count"), [("s2_l2a", 3), ("s1_rtc", 2), ("dem", 1)])
@pytest.mark.parametrize("nothing", [0, -9999.0, np.nan])
def test_pixels_without_a_value_are_black_and_counted(capsys, tmp_path, modality, count, nothing):
    values = np.random.default_rng(2).uniform(0.01, 0.9, (count, 40, 40)).astype(np.float32)
    values[:, :5, :7] = nothing
    raster = write(tmp_path / "a.tif", values, nodata=nothing)

    call, output = render(capsys, tmp_path, raster, modality, "--json")

    assert json.loads(call.out)["missing_pixels"] == 35
    assert not pixels_of(output)[:5, :7].any()
    assert pixels_of(output)[10:, 10:].any()


def test_bands_are_found_by_their_names_by_number_and_in_a_folder(capsys, tmp_path):
    values = reflectance(bands=4)
    plain = pixels_of(render(capsys, tmp_path, write(tmp_path / "rgb.tif", values[[2, 1, 0]]))[1])
    named = write(tmp_path / "named.tif", values, names=["B02", "B03", "B04", "B08"])
    unnamed = write(tmp_path / "unnamed.tif", values)
    for name, band in (("B02", 0), ("B03", 1), ("B04", 2)):
        write(tmp_path / "folder" / f"{name}.tif", values[[band]])

    assert np.array_equal(pixels_of(render(capsys, tmp_path, named)[1]), plain)
    assert np.array_equal(pixels_of(render(capsys, tmp_path, unnamed, "s2_l2a", "--bands", "3,2,1")[1]), plain)
    assert np.array_equal(pixels_of(render(capsys, tmp_path, tmp_path / "folder")[1]), plain)
    call, _ = render(capsys, tmp_path, unnamed)
    assert call.code == 2
    assert "has 4 bands, and they are not called B04, B03, B02" in call.err


def test_elevation_of_30_m_is_enlarged_and_its_corners_stay(capsys, tmp_path):
    height = np.random.default_rng(3).uniform(0, 500, (1, 20, 30)).astype(np.float32)
    raster = write(tmp_path / "dem.tif", height, affine=Affine(30, 0, 500_000, 0, -30, 4_600_000))

    _, output = render(capsys, tmp_path, raster, "dem")

    with rasterio.open(output) as picture:
        assert (picture.width, picture.height) == (90, 60)
        assert picture.transform == AT_10_M


@pytest.mark.parametrize("bands", ["0", "a,b", "9,9,9", "1,,2"])
def test_bands_that_are_none_are_refused(capsys, tmp_path, bands):
    call, output = render(capsys, tmp_path, write(tmp_path / "a.tif", reflectance()), "s2_l2a", "--bands", bands)

    assert call.code in (1, 2)
    assert "error:" in call.err
    assert not output.exists()


def test_what_is_no_geotiff_is_refused_and_what_is_there_already_kept(capsys, tmp_path):
    (tmp_path / "words.tif").write_text("no raster")
    (tmp_path / "vrt.tif").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    for name in ("words.tif", "vrt.tif"):
        call, _ = render(capsys, tmp_path, tmp_path / name)
        assert call.code == 1
        assert "can not be read as a GeoTIFF" in call.err
    empty = write(tmp_path / "empty.tif", np.zeros((3, 40, 40), np.uint16), nodata=0)
    assert "No pixel of the raster has a value" in render(capsys, tmp_path, empty)[0].err

    raster = write(tmp_path / "a.tif", reflectance())
    (tmp_path / "mine.png").write_bytes(b"mine")
    call = call_copgen(capsys, "render", "--input", f"s2_l2a={raster}", "--output", tmp_path / "mine.png")
    assert call.code == 2
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_files_of_a_folder_on_different_grids_are_refused(capsys, tmp_path):
    for name, side in (("vv", 40), ("vh", 41)):
        write(tmp_path / "folder" / f"{name}.tif", np.ones((1, side, side), np.float32))

    call, _ = render(capsys, tmp_path, tmp_path / "folder", "s1_rtc")

    assert call.code == 1
    assert "different grids" in call.err
