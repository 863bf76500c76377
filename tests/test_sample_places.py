"""What is generated lies somewhere: by the table of patches, in the listing, and for programs that read maps."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image
from sample_commands import call_copgen, one_thread, save_folder, save_picture, small_model

from copgen_cli.errors import BrokenInputError
from copgen_cli.inputs.pictures import Frame, read_picture, read_place
from copgen_cli.modalities import Modality
from copgen_cli.outputs.georeferencing import read_georeferencing_table
from copgen_cli.rasters import encode_sidecar
from copgen_cli.records import Georeferencing

PLACE = Georeferencing("EPSG:32633", (10.0, 0.0, 300_000.25, 0.0, -10.0, 4_600_000.5))


def write_table(file: Path) -> Path:
    """Two patches; the elevation of the first lies in a neighbouring zone, that of the second is not known apart."""
    columns = {
        "patch": ["a_0", "a_1"],
        "crs": [PLACE.crs, PLACE.crs],
        **{name: [value, value] for name, value in zip("abcdef", PLACE.transform, strict=True)},
        "dem_crs": ["EPSG:32632", None],
        "dem_c": [700_000.0, None],
        "dem_f": [4_500_000.0, None],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def test_a_patch_lies_where_its_modality_does_or_else_where_the_table_says(tmp_path):
    places = read_georeferencing_table(write_table(tmp_path / "test_metadata.parquet"))

    assert places.of("a_1", Modality.DEM) == PLACE
    assert places.of("a_0", Modality.S2L2A) == PLACE
    assert places.of("a_0", Modality.DEM) == Georeferencing(
        "EPSG:32632", (10.0, 0.0, 700_000.0, 0.0, -10.0, 4_500_000.0)
    )
    assert places.of("b_0", Modality.DEM) is None


def test_without_a_table_nothing_is_known_and_a_damaged_one_is_an_error(tmp_path):
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")

    assert read_georeferencing_table(tmp_path / "absent.parquet").of("a_0", Modality.DEM) is None
    for name in ("damaged", "other"):
        with pytest.raises(BrokenInputError, match=name):
            read_georeferencing_table(tmp_path / f"{name}.parquet")


def test_the_sidecar_holds_crs_and_transform_in_the_order_of_gdal():
    note = ElementTree.fromstring(encode_sidecar(PLACE))

    assert note.tag == "PAMDataset"
    assert note.findtext("SRS") == "EPSG:32633"
    numbers = [float(number) for number in (note.findtext("GeoTransform") or "").split(",")]
    assert numbers == [300_000.25, 10.0, 0.0, 4_600_000.5, 0.0, -10.0]


def test_generated_patches_carry_their_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    patches = tmp_path / "data" / "majorTOM" / "rome" / "rome_thumbnail_png"
    save_folder(patches / "test" / Modality.S1RTC.spec.folder, Modality.S1RTC, ["a_0", "x_9"])
    write_table(patches / "test_metadata.parquet")
    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", small_model(tmp_path / "model"), "--condition", "s1_rtc", "--generate", "dem",
            "--steps", 1, "--save-as", "pngs", "--output", "o",
        )  # fmt: skip

    records = json.loads(Path("o/samples.json").read_text())["records"]
    assert call.code == 0, call.err
    assert records["a_0"]["places"]["dem"]["crs"] == "EPSG:32632"
    assert records["x_9"]["places"] == {}
    assert {path.name for path in Path("o/dem").iterdir()} == {"a_0_v1.png", "a_0_v1.png.aux.xml", "x_9_v1.png"}


@pytest.mark.parametrize("given", ["a file of the patches", "the patches"])
def test_a_model_of_smaller_pictures_draws_the_middle_of_a_patch_where_that_lies(tmp_path, monkeypatch, capsys, given):
    monkeypatch.chdir(tmp_path)
    patches = tmp_path / "data" / "majorTOM" / "rome" / "rome_thumbnail_png"
    picture = save_picture(patches / "test" / Modality.S1RTC.spec.folder / "a_1.png", size=(256, 256))
    write_table(patches / "test_metadata.parquet")
    condition = ("--condition", "s1_rtc") if given == "the patches" else ("--input", f"s1_rtc={picture}")

    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", small_model(tmp_path / "model"), *condition, "--generate", "dem",
            "--resolution", 48, "--steps", 1, "--save-as", "geotiff", "--output", "o",
        )  # fmt: skip

    assert call.code == 0, call.err
    with rasterio.open("o/dem/a_1_v1.tif") as drawn:
        assert drawn.crs == PLACE.crs
        assert drawn.shape == (48, 48)
        assert drawn.transform == rasterio.Affine(*PLACE.transform) @ rasterio.Affine.translation(104, 104)


def write_geotiff(file: Path, pixels: np.ndarray, place: Georeferencing = PLACE) -> Path:
    with rasterio.open(
        file, "w", driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=3, dtype=pixels.dtype,
        crs=place.crs, transform=rasterio.Affine(*place.transform), photometric="RGB",
    ) as target:  # fmt: skip
        target.write(pixels.transpose(2, 0, 1))
    return file


def test_a_geotiff_goes_in_and_what_is_generated_lies_where_it_did(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    side = 84
    pixels = np.random.default_rng(3).integers(0, 255, (side, side + 10, 3), np.uint8)
    write_geotiff(tmp_path / "radar.tif", pixels)

    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", small_model(tmp_path / "model"), "--input", "s1_rtc=radar.tif",
            "--generate", "dem", "--steps", 1, "--save-as", "pngs", "--output", "o",
        )  # fmt: skip

    assert call.code == 0, call.err
    with rasterio.open("o/dem/radar_v1.png") as drawn:
        left, top = (side + 10 - drawn.width) // 2, (side - drawn.height) // 2
        assert drawn.crs == PLACE.crs
        assert drawn.xy(0, 0, offset="ul") == (300_000.25 + 10 * left, 4_600_000.5 - 10 * top)
        assert drawn.res == (10, 10)
    assert json.loads(Path("o/samples.json").read_text())["records"]["radar"]["places"]["dem"]["crs"] == PLACE.crs


@pytest.mark.parametrize("form", ["aux", "world", "tags"])
def test_every_form_of_georeferencing_is_read(tmp_path, form):
    picture = save_picture(tmp_path / "a.png", size=(64, 64))
    if form == "aux":
        (tmp_path / "a.png.aux.xml").write_bytes(encode_sidecar(PLACE))
    elif form == "world":
        (tmp_path / "a.pgw").write_text("10\n0\n0\n-10\n300005.25\n4599995.5\n")  # centre of the first pixel
    else:
        picture = write_geotiff(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8))

    place = read_place(picture, Frame(64, 64))

    assert place == Georeferencing("" if form == "world" else PLACE.crs, PLACE.transform)


def test_a_picture_without_a_place_has_none_and_says_nothing(tmp_path, recwarn):
    assert read_place(save_picture(tmp_path / "a.png", size=(64, 64)), Frame(64, 64)) is None
    assert not recwarn.list


def test_the_padded_square_of_a_small_picture_lies_around_it(tmp_path):
    frame = Frame(side=64, resolution=48)
    picture = write_geotiff(tmp_path / "a.tif", np.zeros((48, 48, 3), np.uint8))

    assert frame.georeferencing_of_cut(read_place(picture, frame)) == PLACE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pixel_of_a_turned_geotiff_stays_where_it_is_on_the_ground(tmp_path, orientation):
    pixels = np.zeros((70, 90, 3), np.uint8)
    pixels[30, 50] = 255
    file = write_geotiff(tmp_path / "a.tif", pixels)
    with rasterio.open(file) as stored:
        truth = stored.xy(30, 50)
    with Image.open(file) as picture:
        tags = picture.tag_v2
        tags[274] = orientation
        picture.save(tmp_path / "turned.tif", tiffinfo=tags)

    shown = read_picture(tmp_path / "turned.tif", Modality.S1RTC, Frame(64, 64))
    place = read_place(tmp_path / "turned.tif", Frame(64, 64))

    ((row, column),) = np.argwhere(shown[..., 0] == 255)
    assert rasterio.transform.xy(rasterio.Affine(*place.transform), row, column) == pytest.approx(truth)


def test_a_picture_of_a_prepared_split_lies_where_the_table_says_though_named_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    patches = tmp_path / "mine"
    folder = patches / "test" / Modality.S1RTC.spec.folder
    save_folder(folder, Modality.S1RTC, ["a_1"])
    write_table(patches / "test_metadata.parquet")
    picture = shutil.move(next(folder.iterdir()), folder / "a_1.png")

    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", small_model(tmp_path / "model"), "--input", f"s1_rtc={picture}",
            "--generate", "dem", "--steps", 1, "--save-as", "pngs", "--output", "o",
        )  # fmt: skip

    assert call.code == 0, call.err
    assert json.loads(Path("o/samples.json").read_text())["records"]["a_1"]["places"]["dem"]["crs"] == PLACE.crs
