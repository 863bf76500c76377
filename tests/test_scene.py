"""`copgen scene`: rasters and cells of an area go in, maps come out that lie where they belong."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
from killed_runs import Moment, forked_and_killed_at
from numpy.testing import assert_array_equal
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform, transform_geom
from rio_cogeo import cog_validate
from sample_commands import call_copgen, small_model
from tiny_rasters import AT_10_M, write_raster as write
from tiny_subsets import CELLS, write_subset

from copgen_cli.archive.grid import cells_in_box, footprint, parse_cell
from copgen_cli.modalities import PUBLISHED, Modality, as_jpeg
from copgen_cli.model import SCHEDULE_ENDING_IN_NOISE, CopGenTransformer, steps_from_noise
from copgen_cli.patches.georeferencing import georeferencing_of
from copgen_cli.patches.scenes import read_subset
from copgen_cli.places.area import Area, area_of_box, area_of_cell
from copgen_cli.places.grid import Grid, grid_of_area, grid_of_raster
from copgen_cli.places.layers import RasterLayer, open_archive, open_mask, open_raster
from copgen_cli.rasters import read_measurements, read_tags, render_picture
from copgen_cli.records import Georeferencing
from copgen_cli.simulation.archive import write_archive

TILES = ("282D_485L_3_3", "433D_629L_3_1", "637U_59R_1_3")
EXTENSIONS = Path(__file__).parent / "data" / "stac_extensions.json"


def reflectance(height=96, width=128, *, seed=0, dtype="uint16"):
    smooth = np.add.outer(np.linspace(300, 1500, height), np.linspace(0, 900, width))
    noise = np.random.default_rng(seed).integers(0, 200, (3, height, width))
    return (smooth + noise).astype(dtype)


def power(height=96, width=128):
    return np.random.default_rng(1).gamma(4, 0.02, (2, height, width)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def scene(capsys, tmp_path, monkeypatch, model):
    """Draws in a folder of its own, by a small network, in few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    def run(*options, output="out", overlap=16):
        quick = ("--model", model, "--steps", 2, "--device", "cpu", "--overlap", overlap, "--output", output)
        return call_copgen(capsys, "scene", *options, *quick)

    return run


def must_be_good(call):
    assert call.code == 0, call.err
    return call


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- rasters of a user's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", TILES)
def test_a_real_raster_gives_maps_on_exactly_its_grid(shared, scene, tile):
    raster = shared / f"sample_data/tiles/{tile}/S2L2A.tif"

    must_be_good(scene("--input", f"s2_l2a={raster}", "--generate", "dem,s1_rtc"))

    with rasterio.open(raster) as given:
        for name in ("dem", "s1_rtc"):
            with rasterio.open(f"out/{name}.tif") as made:
                assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
            assert cog_validate(f"out/{name}.tif", strict=True, quiet=True)[0]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("modality", "file"), [("s2_l1c", "S2L1C"), ("s2_l2a", "S2L2A"), ("s1_rtc", "S1RTC")])
def test_real_rasters_are_rendered_as_the_archives_thumbnails(shared, tile, modality, file):

    raster = open_raster([shared / f"sample_data/tiles/{tile}/{file}.tif"], Modality(modality))
    grid = grid_of_raster(raster)
    assert grid is not None
    pixels, known = RasterLayer(Modality(modality), raster, grid).read(grid)

    theirs = np.asarray(Image.open(shared / f"sample_data/thumbnails/{tile}/{modality}.png").convert("RGB"), float)
    assert np.abs(pixels - theirs).mean() < 3
    assert known.mean() > 0.99


@pytest.mark.parametrize("tile", TILES)
def test_real_elevation_is_shaded_as_the_archives_thumbnails(shared, tile):

    folder = shared / f"sample_data/tiles/{tile}"
    grid = grid_of_raster(open_raster([folder / "S2L2A.tif"], Modality.S2L2A))
    assert grid is not None
    raster = open_raster([folder / "DEM.tif"], Modality.DEM)
    pixels, _ = RasterLayer(Modality.DEM, raster, grid).read(grid)

    theirs = np.asarray(Image.open(shared / f"sample_data/thumbnails/{tile}/dem.png").convert("L"), float)
    assert theirs.shape == pixels.shape[:2]
    assert np.corrcoef(theirs.ravel(), pixels[..., 0].ravel())[0, 1] > 0.95


def test_a_scene_leaves_maps_catalogue_preview_and_how_to_repeat_it(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())

    call = must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem,s1_rtc", "--n-samples", 2, "--spread"))

    files = {path for path in tree(tmp_path / "out") if path.endswith(".tif")}
    kinds = ("v1", "v2", "mean", "std", "q10", "q50", "q90")
    assert files == {f"{modality}_{kind}.tif" for modality in ("dem", "s1_rtc") for kind in kinds}
    for file in files:
        assert cog_validate(tmp_path / "out" / file, strict=True, quiet=True)[0]
    assert (tmp_path / "out/preview.png").stat().st_size > 10_000
    told = json.loads((tmp_path / "out/scene.json").read_text())
    assert told["synthetic"] is True
    assert told["command"].startswith("copgen scene --input s2_l2a=s2.tif")
    assert told["borders"]["dem_v1"] == {"rows": [32, 64], "columns": [32, 64, 96]}
    assert "preview" in call.out


def test_the_same_command_again_has_nothing_to_do_and_elsewhere_makes_the_same_bytes(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    asked = ("--input", "s2_l2a=s2.tif", "--generate", "dem")
    must_be_good(scene(*asked))
    before = tree(tmp_path / "out")

    again = must_be_good(scene(*asked))
    must_be_good(scene(*asked, output="other"))

    assert "Nothing to do" in again.err
    assert tree(tmp_path / "out") == before
    other = tree(tmp_path / "other")
    told_of_folder = {"scene.json", "dem.tif", "preview.png", "copgen_scene.json", "copgen_scene.jsonl"}
    assert {name for name, data in before.items() if data != other[name]} <= told_of_folder
    with rasterio.open("out/dem.tif") as one, rasterio.open("other/dem.tif") as two:
        assert_array_equal(one.read(), two.read())


def test_other_settings_are_not_mixed_into_a_scene(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem"))

    call = scene("--input", "s2_l2a=s2.tif", "--generate", "dem", "--seed", 5)

    assert call.code == 1
    assert "seed was 0, and is now 5" in call.err


def test_samples_differ_and_their_spread_is_that_of_their_pixels(scene, tmp_path):
    write(tmp_path / "s1.tif", power())
    must_be_good(scene("--input", "s1_rtc=s1.tif", "--generate", "s2_l2a", "--n-samples", 3, "--spread"))

    def read(name):
        with rasterio.open(f"out/s2_l2a_{name}.tif") as file:
            return file.read().astype(np.float64)

    samples = np.stack([read(f"v{number}") for number in (1, 2, 3)])
    assert samples.std(axis=0).mean() > 1
    np.testing.assert_allclose(read("mean"), samples.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(read("std"), samples.std(axis=0, ddof=1), atol=1e-3)
    np.testing.assert_allclose(read("q50"), np.median(samples, axis=0), atol=0.5)


def test_every_file_says_that_it_is_synthetic_and_from_what(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem"))

    tags = read_tags(tmp_path / "out/dem.tif")
    facts = json.loads(tags["copgen"])
    assert tags["Synthetic"] == "true"
    assert "Synthetic: dem given s2_l2a, sample 1." in tags["TIFFTAG_IMAGEDESCRIPTION"]
    assert "Copernicus" in tags["TIFFTAG_COPYRIGHT"]
    assert len(facts["inputs"]["s2_l2a"]["files"]["s2.tif"]) == 64
    assert len(facts["model"]["sha256"]) == 64


def test_the_catalogue_is_valid_and_has_the_rasters_own_transform(scene, tmp_path):
    import jsonschema

    write(tmp_path / "s2.tif", reflectance())
    must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem", "--n-samples", 2))

    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    validator = JsonSchemaSTACValidator()
    for file in ("collection.json", "items/dem_v1/item.json", "items/dem_v2/item.json"):
        values = json.loads((tmp_path / "out" / file).read_text())
        kind = pystac.STACObjectType.COLLECTION if file == "collection.json" else pystac.STACObjectType.ITEM
        validator.validate_core(values, kind, "1.1.0", file)
    extensions = json.loads(EXTENSIONS.read_text())
    item = json.loads((tmp_path / "out/items/dem_v1/item.json").read_text())
    jsonschema.validate(item, extensions)
    with rasterio.open("out/dem_v1.tif") as made:
        assert item["properties"]["proj:transform"] == list(made.transform)
        assert item["properties"]["proj:shape"] == list(made.shape)
    assert item["properties"]["synthetic"] is True
    assert item["assets"]["data"]["roles"] == ["data", "synthetic"]
    collection = pystac.read_file(str(tmp_path / "out/collection.json"))
    assert sorted(one.id for one in collection.get_items()) == ["s2-s2_l2a-to-dem-dem_v1", "s2-s2_l2a-to-dem-dem_v2"]
    for one in collection.get_items():
        assert Path(one.assets["data"].get_absolute_href()).is_file()


def test_a_raster_in_decibel_is_recognised_by_its_values_and_that_is_said(scene, tmp_path):
    linear = power()
    write(tmp_path / "linear.tif", linear)
    write(tmp_path / "decibel.tif", (10 * np.log10(linear)).astype(np.float32))

    must_be_good(scene("--input", "s1_rtc=linear.tif", "--generate", "dem", output="one"))
    call = must_be_good(scene("--input", "s1_rtc=decibel.tif", "--generate", "dem", output="two"))

    assert "decibel" in call.err
    with rasterio.open("one/dem.tif") as one, rasterio.open("two/dem.tif") as two:
        assert np.abs(one.read().astype(int) - two.read()).mean() < 0.5


def test_bands_in_files_of_their_own_are_the_same_as_in_one(scene, tmp_path):
    values = power()
    write(tmp_path / "both.tif", values)
    write(tmp_path / "vv.tif", values[:1])
    write(tmp_path / "vh.tif", values[1:])

    must_be_good(scene("--input", "s1_rtc=both.tif", "--generate", "dem", output="one"))
    must_be_good(scene("--input", "s1_rtc=vv.tif,vh.tif", "--generate", "dem", output="two"))

    with rasterio.open("one/dem.tif") as one, rasterio.open("two/dem.tif") as two:
        assert_array_equal(one.read(), two.read())


def test_a_raster_of_another_grid_is_warped_once_and_that_is_said(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    coarse = np.full((2, 60, 80), 0.05, np.float32)
    write(tmp_path / "s1.tif", coarse, affine=Affine(20, 0, 499_900, 0, -20, 4_600_100))

    call = must_be_good(scene("--input", "s2_l2a=s2.tif", "--input", "s1_rtc=s1.tif", "--generate", "dem"))

    assert "s1.tif has another grid" in call.err
    with rasterio.open("out/dem.tif") as made:
        assert (made.transform, made.shape) == (AT_10_M, (96, 128))


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 12.5, 0, -1e-4, 41.9)),
        ("EPSG:32633", Affine.translation(500_000, 4_600_000) @ Affine.rotation(17) @ Affine.scale(10, -10)),
        ("EPSG:3035", Affine(10, 0, 4_500_000, 0, -10, 2_100_000)),
    ],
)
def test_the_outline_of_a_raster_lies_in_the_map_where_it_had_it(scene, tmp_path, crs, affine):
    values = reflectance()
    values[:, 20:60, 30:90] = 9000
    write(tmp_path / "s2.tif", values, affine=affine, crs=crs)

    must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem"))

    with rasterio.open("out/dem.tif") as made:
        corners = [affine @ corner for corner in ((0, 0), (128, 0), (128, 96), (0, 96))]
        ring = [list(point) for point in (*corners, corners[0])]
        outline = transform_geom(crs, made.crs, {"type": "Polygon", "coordinates": [ring]})["coordinates"][0]
        pixels = np.array([~made.transform @ tuple(point) for point in outline])
        assert pixels[:, 0].min() > -0.5
        assert pixels[:, 1].min() > -0.5
        assert pixels[:, 0].max() < made.width + 0.5
        assert pixels[:, 1].max() < made.height + 0.5
        if crs != "EPSG:4326":
            assert made.transform.almost_equals(affine)
            assert made.crs == rasterio.crs.CRS.from_string(crs)
        else:
            assert pixels[:, 0].min() < 9


def test_what_has_no_value_is_drawn_without_it_or_left_out_as_asked(scene, tmp_path):
    values = power()
    values[:, :, :100] = 0
    write(tmp_path / "s1.tif", values)

    must_be_good(scene("--input", "s1_rtc=s1.tif", "--generate", "dem", output="drawn"))
    must_be_good(scene("--input", "s1_rtc=s1.tif", "--generate", "dem", "--missing", "leave-out", output="left"))

    with rasterio.open("drawn/dem.tif") as drawn, rasterio.open("left/dem.tif") as left:
        assert drawn.dataset_mask().all()
        assert_array_equal(left.dataset_mask() == 255, np.broadcast_to(np.arange(128) >= 100, (96, 128)))


def test_an_8_bit_picture_with_a_place_is_taken_as_it_is(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "s1_rtc", output="first"))

    must_be_good(scene("--input", "s1_rtc=first/s1_rtc.tif", "--generate", "dem", output="second"))

    with rasterio.open("second/dem.tif") as made:
        assert (made.transform, made.shape) == (AT_10_M, (96, 128))


def test_a_hill_is_lit_from_the_north_west_whichever_way_its_raster_lies(tmp_path):
    y, x = np.mgrid[-150:150, -150:150].astype(np.float32)
    hill = (300 * np.exp(-(x**2 + y**2) / 4000)).astype(np.float32)
    north_up = Affine(10, 0, 500_000, 0, -10, 4_600_000)
    south_up = Affine(10, 0, 500_000, 0, 10, 4_597_000)
    shades = []
    for name, values, affine in (("n", hill, north_up), ("s", hill[::-1], south_up)):
        raster = open_raster([write(tmp_path / f"{name}.tif", values[None].copy(), affine=affine)], Modality.DEM)
        grid = grid_of_raster(raster)
        assert grid is not None
        shades.append(RasterLayer(Modality.DEM, raster, grid).read(grid)[0][..., 0].astype(int))

    assert np.abs(shades[0] - shades[1][::-1]).mean() < 2
    assert shades[0][120, 150] > shades[0][180, 150] + 50


def test_a_condition_without_a_value_in_the_area_is_refused(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    write(tmp_path / "far.tif", np.full((3, 60, 60), 90, np.uint8), affine=Affine(10, 0, 600_000, 0, -10, 4_600_000))

    call = scene("--input", "s2_l2a=s2.tif", "--input", "s1_rtc=far.tif", "--generate", "dem")

    assert call.code == 2
    assert "s1_rtc has no value in the area" in call.err


def test_the_area_is_that_of_the_raster_whose_pixels_the_map_has(scene, tmp_path):
    write(
        tmp_path / "s1.tif", np.full((2, 300, 300), 0.05, np.float32), affine=Affine(20, 0, 498_000, 0, -20, 4_602_000)
    )
    write(tmp_path / "s2.tif", reflectance())

    must_be_good(scene("--input", "s1_rtc=s1.tif", "--input", "s2_l2a=s2.tif", "--generate", "dem"))

    told = json.loads((tmp_path / "out/scene.json").read_text())
    assert told["area"]["name"] == "s2"
    assert (told["grid"]["width"], told["grid"]["height"]) == (128, 96)


def test_an_area_beyond_its_raster_is_cut_to_it_and_that_is_said(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())

    call = must_be_good(scene("--input", "s2_l2a=s2.tif", "--bbox", 15, 41.4, 15.1, 41.549, "--generate", "dem"))

    assert "beyond the raster that gives the pixels" in call.err


def test_overwriting_draws_the_blocks_of_a_stopped_run_anew(scene, tmp_path, model):
    write(tmp_path / "s2.tif", reflectance(160, 160))
    output = tmp_path / "stopped"
    asked = in_blocks(tmp_path, model, output)
    assert forked_and_killed_at(Moment.FILE, 3, *asked) == -9
    (kept,) = {file.stat().st_mtime_ns for file in output.rglob("block_000_000/missing.npy")}

    assert forked_and_killed_at(Moment.FILE, 3, *asked, "--overwrite") == -9

    assert {file.stat().st_mtime_ns for file in output.rglob("block_000_000/missing.npy")} != {kept}


def test_a_preview_that_was_deleted_comes_back(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    asked = ("--input", "s2_l2a=s2.tif", "--generate", "dem")
    must_be_good(scene(*asked))
    (tmp_path / "out/preview.png").unlink()

    must_be_good(scene(*asked))

    assert (tmp_path / "out/preview.png").is_file()


# -- areas ------------------------------------------------------------------------------------------------------------


def test_nothing_given_draws_ground_where_it_is_asked_for(scene):
    must_be_good(scene("--bbox", 12.5, 41.9, 12.51, 41.906, "--generate", "dem,s2_l2a", "--crs", "EPSG:3035"))

    with rasterio.open("out/s2_l2a.tif") as made:
        assert made.crs.to_epsg() == 3035
        assert (made.count, made.dtypes[0]) == (3, "uint8")
        assert np.ptp(made.read()) > 5


def test_the_same_ground_is_alike_whatever_area_it_is_asked_in(scene):
    must_be_good(scene("--bbox", 12.5, 41.9, 12.52, 41.91, "--generate", "dem", output="one"))
    must_be_good(scene("--bbox", 12.508, 41.9, 12.52, 41.91, "--generate", "dem", output="two"))

    with rasterio.open("one/dem.tif") as one, rasterio.open("two/dem.tif") as two:
        shift = round((two.transform.c - one.transform.c) / 10)
        down = round((one.transform.f - two.transform.f) / 10)
        a, b = one.read(1).astype(float), two.read(1).astype(float)
        a, b = a[max(down, 0) :, shift:], b[max(-down, 0) :]
        height, width = (min(one, other) for one, other in zip(a.shape, b.shape, strict=True))
        a, b = a[:height, :width], b[:height, :width]
        inner = np.s_[24:-24, 24:-24]
        assert np.corrcoef(a[inner].ravel(), b[inner].ravel())[0, 1] > 0.8


def test_clouds_are_told_by_the_archives_own_masks(scene, subset):
    (cell,) = (one for one in read_subset(subset).scenes if one.cell == CELLS[0])
    place = georeferencing_of(cell.products[Modality.S2L2A])
    grid = Affine(*place.transform)
    (west, south), (east, north) = grid @ (450, 450), grid @ (750, 250)
    xs, ys = transform(place.crs, "EPSG:4326", [west, east], [south, north])
    asked = ("--bbox", xs[0], ys[0], xs[1], ys[1], "--condition", "s1_rtc", "--generate", "s2_l2a", "--mask", "clouds")
    lacking = scene(*asked, overlap=0)
    assert lacking.code == 1
    assert "download --bands cloud_mask" in lacking.err
    thumbnail = next((subset / "Core-S2L2A").rglob(f"{CELLS[0]}/*/thumbnail.png"))
    clouds = np.zeros((1, 1068, 1068), np.uint8)
    clouds[:, 300:400, 500:700] = 1
    write(thumbnail.with_name("cloud_mask.tif"), clouds, affine=grid, crs=place.crs)

    must_be_good(scene(*asked, overlap=0))

    with rasterio.open("out/s2_l2a_synthetic.tif") as drawn:
        assert drawn.read(1).sum() == pytest.approx(100 * 200, rel=0.05)


def test_another_polygon_of_the_same_bounds_is_another_area(scene, tmp_path):
    corners = [[12.5, 41.9], [12.505, 41.9], [12.505, 41.904], [12.5, 41.904]]
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [[*corners, corners[0]]]}))
    must_be_good(scene("--aoi", "area.geojson", "--generate", "dem"))
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [[*corners[:3], corners[0]]]}))

    call = scene("--aoi", "area.geojson", "--generate", "dem")

    assert call.code == 1
    assert "area was" in call.err


def test_blocks_without_ground_of_the_area_are_not_drawn(scene, tmp_path):
    far = [{"type": "Point", "coordinates": [12.5 + shift, 41.9]} for shift in (0, 0.5)]
    shapes = {"type": "GeometryCollection", "geometries": far}
    (tmp_path / "two.geojson").write_text(json.dumps(shapes))

    call = must_be_good(scene("--aoi", "two.geojson", "--generate", "dem", "--block", 512, "--dry-run", "--json"))

    told = json.loads(call.out)
    assert told["width"] > 4000
    assert told["blocks"] <= 4


def test_a_file_called_like_a_cell_is_no_cell(subset, tmp_path):
    one, two = (area_of_cell(cell) for cell in CELLS[:2])
    called = Area.of_polygon(two.polygon, name=CELLS[0])

    layer = open_archive(subset, [Modality.S1RTC], called)[Modality.S1RTC]

    assert CELLS[1] in {scene.cell for scene in layer.scenes}
    assert [scene.cell for scene in open_archive(subset, [Modality.S1RTC], one)[Modality.S1RTC].scenes] == [CELLS[0]]


def test_a_cell_beside_those_that_there_are_is_refused(scene, subset):
    row, _, column = CELLS[0].partition("_")
    beside = f"{row}_{int(column[:-1]) + 1}{column[-1]}"

    call = scene("--cell", beside, "--condition", "s1_rtc", "--generate", "dem")

    assert call.code == 2
    assert "no cell" in call.err
    assert CELLS[0] in call.err


def test_what_lies_outside_of_a_polygon_is_left_out(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    triangle = [[500_100, 4_599_900], [501_100, 4_599_900], [500_100, 4_599_200], [500_100, 4_599_900]]
    shape = transform_geom("EPSG:32633", "EPSG:4326", {"type": "Polygon", "coordinates": [triangle]}, precision=9)
    (tmp_path / "area.geojson").write_text(json.dumps(shape))

    must_be_good(scene("--input", "s2_l2a=s2.tif", "--aoi", "area.geojson", "--generate", "dem"))

    with rasterio.open("out/dem.tif") as made:
        mask = made.dataset_mask()
        assert abs(made.transform.c - 500_100) <= 10
        assert abs(made.transform.f - 4_599_900) <= 10
        assert abs((mask == 255).sum() * 100 - 1000 * 700 / 2) < 12_000
        assert mask[2, 2] == 255
        assert mask[-3, -3] == 0


@pytest.fixture
def subset(tmp_path):
    write_subset(tmp_path / "data/majorTOM/rome", CELLS[:2])
    return tmp_path / "data/majorTOM/rome"


def test_a_cell_of_a_region_is_drawn_on_its_own_pixels(scene, subset):
    must_be_good(scene("--cell", CELLS[0], "--condition", "s2_l2a", "--generate", "dem", "--steps", 1, overlap=0))

    with rasterio.open("out/dem.tif") as made:
        assert made.shape == (1068, 1068)
        index = pq.read_table(subset / "Core-S2L2A/metadata.parquet").to_pylist()
        (row,) = (row for row in index if row["grid_cell"] == CELLS[0])
        xs, ys = transform("EPSG:4326", made.crs, [row["centre_lon"]], [row["centre_lat"]])
        assert (made.bounds.left + 5340, made.bounds.top - 5340) == pytest.approx((xs[0], ys[0]), abs=0.1)
    told = json.loads(Path("out/scene.json").read_text())
    assert list(told["inputs"]["s2_l2a"]["cells"]) == [CELLS[0]]


def test_without_an_area_the_first_cell_of_the_region_is_drawn_and_that_is_said(scene, subset):
    call = must_be_good(scene("--condition", "s2_l2a", "--generate", "dem", "--dry-run"))

    assert "width: 1,068" in call.out
    assert "the first of 2 cells of rome" in call.err
    assert min(CELLS[:2]) in call.err


def test_a_misspelt_region_is_named_with_the_nearest(scene, subset):
    call = scene("--region", "roma", "--condition", "s2_l2a", "--generate", "dem")

    assert call.code == 2
    assert "Unknown region 'roma'" in call.err
    assert "Did you mean 'rome'?" in call.err


def test_bands_that_are_taken_by_their_place_in_the_file_are_told(shared, scene):
    tile = shared / f"sample_data/tiles/{TILES[0]}"
    call = must_be_good(scene("--input", f"s2_l2a={tile}/S2L2A.tif", "--generate", "dem", "--dry-run"))
    one_band = must_be_good(scene("--input", f"dem={tile}/DEM.tif", "--generate", "s2_l2a", "--dry-run"))

    assert "S2L2A.tif does not name its bands: 4, 3, 2 are taken for B04, B03, B02." in call.err
    assert "does not name its bands" not in one_band.err


def test_an_area_without_cells_is_refused_with_what_there_is(scene, subset):
    call = scene("--bbox", 2, 48, 2.1, 48.1, "--condition", "s1_rtc", "--generate", "dem")

    assert call.code == 2
    assert "has no cell in the area" in call.err
    assert CELLS[0] in call.err


def across_zones() -> tuple[str, str]:
    """Two neighbouring cells, the second in the next zone."""
    cells = list(cells_in_box(11.7, 41.85, 12.3, 41.95))
    one, two = next((a, b) for a, b in itertools.pairwise(cells) if footprint(a).zone != footprint(b).zone)
    return one.name, two.name


def test_a_mosaic_of_cells_in_two_zones_shows_each_where_it_is(tmp_path):
    cells = across_zones()
    folder = write_subset(tmp_path / "subset", cells, modalities=[Modality.S2L2A])
    index = folder / "Core-S2L2A/metadata.parquet"
    places = [footprint(parse_cell(cell)) for cell in cells]
    table = pq.read_table(index)
    for name, values in {
        "crs": [f"EPSG:{place.epsg}" for place in places],
        "centre_lat": [place.centre_lat for place in places],
        "centre_lon": [place.centre_lon for place in places],
    }.items():
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    pq.write_table(table, index)
    one, two = (area_of_cell(cell) for cell in cells)
    edges = [pick(one.bounds[i], two.bounds[i]) for i, pick in enumerate((min, min, max, max))]
    area = area_of_box(*edges)
    layer = open_archive(folder, [Modality.S2L2A], area)[Modality.S2L2A]
    assert {layer.tile(cell).place.crs for cell in cells} == {"EPSG:32632", "EPSG:32633"}

    for crs in ("EPSG:32632", "EPSG:32633"):
        grid = grid_of_area(area, crs)
        pixels, known = layer.read(grid)
        assert known.mean() > 0.7
        for cell in cells:
            tile = layer.tile(cell)
            alone, _ = open_archive(folder, [Modality.S2L2A], area_of_cell(cell))[Modality.S2L2A].read(tile)
            points = [tile.place.to_ground(column, row) for column in (300, 534, 768) for row in (300, 534, 768)]
            xs, ys = transform(tile.place.crs, crs, *zip(*points, strict=True))
            for (x, y), (column, row) in zip(zip(xs, ys, strict=True), points, strict=True):
                there = [int(v) for v in tile.place.to_pixels(column, row)]
                here = [int(v) for v in grid.place.to_pixels(x, y)]
                ours, theirs = (p[r - 20 : r + 20, c - 20 : c + 20] for p, (c, r) in ((pixels, here), (alone, there)))
                assert np.abs(ours.reshape(-1, 3).mean(axis=0) - theirs.reshape(-1, 3).mean(axis=0)).max() < 8


def ground_at(x, y):
    return 110 + 40 * np.sin(x / 700) * np.cos(y / 900) + 25 * np.sin(y / 310)


def test_cells_that_were_stretched_apart_are_brought_to_one_level(tmp_path):
    cells = ("465U_103R", "465U_104R")
    folder = write_subset(tmp_path / "subset", cells, modalities=[Modality.S1RTC])
    table = pq.read_table(folder / "Core-S1RTC/metadata.parquet")
    places = [footprint(parse_cell(cell)) for cell in cells]
    for name in ("centre_lat", "centre_lon"):
        values = [getattr(place, name) for place in places]
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    pq.write_table(table, folder / "Core-S1RTC/metadata.parquet")
    for cell, place, gain, offset in zip(cells, places, (1.0, 0.6), (0, 70), strict=True):
        x = place.west + 10 * np.arange(1068)[None]
        y = place.north - 10 * np.arange(1068)[:, None]
        pixels = np.repeat((gain * ground_at(x, y) + offset).clip(1, 255)[..., None], 3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(next(folder.rglob(f"{cell}/*/thumbnail.png")))
    one, two = (area_of_cell(cell) for cell in cells)
    edges = [pick(one.bounds[i], two.bounds[i]) for i, pick in enumerate((min, min, max, max))]
    area = area_of_box(*edges)

    layer = open_archive(folder, [Modality.S1RTC], area)[Modality.S1RTC]
    grid = grid_of_area(area, "EPSG:32633")
    pixels, known = layer.read(grid)

    x, y = grid.place.to_ground(np.arange(grid.width)[None] + 0.5, np.arange(grid.height)[:, None] + 0.5)
    ground = ground_at(x, y)
    assert np.corrcoef(pixels[known, 0], ground[known])[0, 1] > 0.995
    assert layer.levels[cells[1]][0][0] / layer.levels[cells[0]][0][0] == pytest.approx(1 / 0.6, rel=0.05)


def test_true_size_bands_give_the_thumbnails_of_the_simulated_archive(tmp_path):
    cell = "465U_103R"
    list(write_archive(tmp_path / "earth", [cell], 3, gaps=None, bands=True))
    place = footprint(parse_cell(cell))
    grid = Grid(Georeferencing("EPSG:32633", (10.0, 0.0, place.west, 0.0, -10.0, place.north)), 1068, 1068)

    for modality in PUBLISHED:
        folder = tmp_path / "earth/datasets/Major-TOM" / modality.source.name / "resolve/main/images"
        (product,) = pq.read_table(folder / "part_00001.parquet").to_pylist()
        bands = tmp_path / modality
        bands.mkdir()
        for name in modality.spec.picture.bands:
            (bands / f"{name}.tif").write_bytes(product[name])
        pixels, known = RasterLayer(modality, open_raster([bands], modality), grid).read(grid)
        thumbnail = Image.open(io.BytesIO(product["thumbnail"]))
        if thumbnail.format == "JPEG":
            pixels = np.asarray(Image.open(io.BytesIO(as_jpeg(pixels))))
        enlarged = np.asarray(thumbnail.resize((1068, 1068), Image.Resampling.BILINEAR)).reshape(1068, 1068, -1)
        assert known.all()
        assert np.abs(pixels.astype(float) - enlarged).mean() < 1.5, modality


def test_gdals_own_tool_reads_a_map(scene):
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed")
    must_be_good(scene("--bbox", 12.5, 41.9, 12.504, 41.903, "--generate", "dem"))

    told = subprocess.run(["gdalinfo", "out/dem.tif"], capture_output=True, text=True, check=True).stdout

    assert "LAYOUT=COG" in told
    assert "WGS 84 / UTM zone 33N" in told


# -- blocks, faults ---------------------------------------------------------------------------------------------------


def test_blocks_are_drawn_apart_and_fit(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance(256, 256))
    asked = ("--input", "s2_l2a=s2.tif", "--generate", "dem")
    must_be_good(scene(*asked, output="whole"))
    must_be_good(scene(*asked, "--block", 128, output="blocks"))

    with rasterio.open("whole/dem.tif") as whole, rasterio.open("blocks/dem.tif") as blocks:
        assert np.abs(whole.read().astype(int) - blocks.read()).mean() < 2
    assert json.loads(Path("blocks/scene.json").read_text())["borders"]["dem"]["rows"].count(128) == 1


NEVER = 10**6


def in_blocks(folder, model, output):
    return (
        "scene", "--input", f"s2_l2a={folder}/s2.tif", "--generate", "dem", "--block", 128, "--model", model,
        "--steps", 1, "--device", "cpu", "--overlap", 16, "--output", output,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder / "s2.tif", reflectance(160, 160))
    assert forked_and_killed_at(Moment.FILE, NEVER, *in_blocks(folder, model, folder / "out")) == 0
    return folder


@pytest.mark.parametrize("file", [2, 4, 8])
def test_killed_at_a_block_or_while_writing_it_goes_on_to_the_same_files(
    undisturbed, tmp_path, monkeypatch, model, file
):
    output = tmp_path / "killed"

    assert forked_and_killed_at(Moment.FILE, file, *in_blocks(undisturbed, model, output)) == -9
    assert (output / ".copgen").is_dir()
    assert forked_and_killed_at(Moment.FILE, NEVER, *in_blocks(undisturbed, model, output)) == 0

    with rasterio.open(output / "dem.tif") as one, rasterio.open(undisturbed / "out/dem.tif") as two:
        assert_array_equal(one.read(), two.read())
    assert {path.name for path in output.iterdir()} == {path.name for path in (undisturbed / "out").iterdir()}


def test_a_dry_run_tells_what_is_to_be_done_and_writes_nothing(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance(256, 256))

    call = must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem", "--n-samples", 2, "--dry-run", "--json"))

    told = json.loads(call.out)
    assert (told["blocks"], told["windows"], told["network_calls"]) == (1, 98, 196)
    assert told["bytes"] > 100_000
    assert {"memory", "seconds", "cells"} <= told.keys()
    assert not (tmp_path / "out").exists()


def test_the_memory_that_a_large_area_needs_is_that_of_a_block(scene):
    boxes = ((12.0, 41.6, 12.6, 42.0), (12.0, 41.6, 13.2, 42.5))
    told = [
        json.loads(must_be_good(scene("--bbox", *box, "--generate", "dem", "--block", 1024, "--dry-run", "--json")).out)
        for box in boxes
    ]

    assert told[1]["width"] * told[1]["height"] > 80_000_000
    assert told[1]["network_calls"] > 3 * told[0]["network_calls"]
    assert told[1]["memory"] < 1.3 * told[0]["memory"]


def test_a_scene_that_does_not_fit_the_disk_is_refused_before_it_begins(scene, tmp_path, monkeypatch):
    from copgen_cli.stages import atomic

    write(tmp_path / "s2.tif", reflectance())
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))

    call = scene("--input", "s2_l2a=s2.tif", "--generate", "dem")

    assert call.code == 1
    assert "No room left" in call.err
    assert not list(tmp_path.rglob("*.npy"))


def test_a_map_of_another_origin_is_refused_before_anything_is_drawn(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    mine = write(tmp_path / "out/dem.tif", reflectance()).read_bytes()

    call = scene("--input", "s2_l2a=s2.tif", "--generate", "dem", "--overwrite")

    assert call.code == 1
    assert "no earlier run is known to have left there" in call.err
    assert "Drawing" not in call.err
    assert (tmp_path / "out/dem.tif").read_bytes() == mine
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/dem.tif"]


# -- gaps -------------------------------------------------------------------------------------------------------------


def test_gaps_are_filled_and_all_else_stays_bit_for_bit(scene, tmp_path):
    values = reflectance(128, 128)
    write(tmp_path / "s2.tif", values)
    write(tmp_path / "s1.tif", power(128, 128))
    gap = np.zeros((1, 128, 128), np.uint8)
    gap[:, 50:80, 40:90] = 3
    write(tmp_path / "clouds.tif", gap)

    must_be_good(
        scene("--input", "s2_l2a=s2.tif", "--input", "s1_rtc=s1.tif", "--mask", "clouds.tif", "--generate", "s2_l2a")
    )

    picture = render_picture(read_measurements(open_raster([tmp_path / "s2.tif"], Modality.S2L2A)), Modality.S2L2A)
    with rasterio.open("out/s2_l2a.tif") as made, rasterio.open("out/s2_l2a_synthetic.tif") as drawn:
        filled = made.read().transpose(1, 2, 0)
        assert_array_equal(drawn.read(1) == 1, gap[0] == 3)
        assert_array_equal(filled[gap[0] == 0], picture[gap[0] == 0])
        assert np.abs(filled.astype(int) - picture)[gap[0] == 3].mean() > 0


def test_gaps_are_filled_at_the_steps_that_a_student_knows(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "distilled_steps": 3}
    model = small_model(tmp_path / "model", **student)
    write(tmp_path / "s2.tif", reflectance(64, 64))
    write(tmp_path / "clouds.tif", np.pad(np.ones((1, 20, 20), np.uint8), ((0, 0), (20, 24), (20, 24))))
    called, forward = set(), CopGenTransformer.forward

    def noted(net, latents, timesteps, **options):
        called.update(float(n) for n in timesteps[Modality.S2L2A.order])
        return forward(net, latents, timesteps, **options)

    monkeypatch.setattr(CopGenTransformer, "forward", noted)
    asked = ("--input", "s2_l2a=s2.tif", "--mask", "clouds.tif", "--generate", "s2_l2a")

    call = must_be_good(call_copgen(capsys, "scene", *asked, "--model", model, "--device", "cpu", "--output", "out"))

    assert called == set(steps_from_noise(SCHEDULE_ENDING_IN_NOISE, 3))
    assert "distilled" not in call.err
    assert json.loads(Path("out/scene.json").read_text())["steps"] == 3


def test_any_value_but_0_of_a_mask_marks_a_pixel(tmp_path):
    values = np.zeros((1, 200, 1600), np.float32)
    values[0, 50, 700], values[0, 90, 30] = 0.3, -1
    grid = Grid(Georeferencing("EPSG:32633", tuple(AT_10_M)[:6]), 1600, 200)

    mask = open_mask(write(tmp_path / "mask.tif", values))

    assert mask.read(grid).sum() == 2


def test_filling_gaps_with_nothing_else_given_is_warned_of(scene, tmp_path):
    write(tmp_path / "s2.tif", reflectance())
    write(tmp_path / "clouds.tif", np.ones((1, 20, 30), np.uint8), affine=Affine(20, 0, 500_200, 0, -20, 4_599_800))

    call = must_be_good(scene("--input", "s2_l2a=s2.tif", "--mask", "clouds.tif", "--generate", "s2_l2a"))

    assert "warning: nothing else is given" in call.err
    assert "clouds.tif has another grid" in call.err


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--generate", "dem"), "No area is named"),
        (("--bbox", 12, 41, 12.1, 41.1), "Nothing to generate"),
        (("--bbox", 12, 41, 12.1, 41.1, "--cell", "465U_103R", "--generate", "dem"), "each name an area"),
        (("--input", "s2_l2a=none.tif", "--generate", "dem"), "There is no raster or folder none.tif"),
        (("--input", "s2_l2a", "--generate", "dem"), "is not MODALITY=RASTER"),
        (("--input", "s2=s2.tif", "--generate", "dem"), "Unknown modality"),
        (("--input", "s2_l2a=no_crs.tif", "--generate", "dem"), "has no CRS"),
        (("--input", "s2_l2a=text.tif", "--generate", "dem"), "can not be read as a GeoTIFF"),
        (("--input", "s2_l2a=text.tif", "--generate", "dem"), "gdal_translate text.tif"),
        (("--input", "s2_l2a=two.tif", "--generate", "dem"), "s2_l2a needs 3 bands"),
        (("--input", "s2_l2a=s2.tif", "--generate", "dem", "--spread"), "--spread of one sample"),
        (("--input", "s2_l2a=s2.tif", "--generate", "dem", "--mask", "s2.tif"), "are any pixels known"),
        (("--input", "s2_l2a=s2.tif", "--generate", "dem", "--missing", "black"), "--missing black is none of"),
        (("--input", "s2_l2a=s2.tif", "--generate", "dem", "--crs", "EPSG:4326"), "no projection in metres"),
        (("--input", "s2_l2a=s2.tif", "--generate", "dem", "--bbox", 1, 41, 1.1, 41.1), "no ground in common"),
        (("--cell", "465U_103R", "--condition", "s1_rtc", "--generate", "dem"), "copgen download"),
        (("--input", "s2_l2a=s2.tif", "--generate", "s2_l2a"), "it has a value everywhere"),
        (("--input", "s2_l2a=s2.tif", "--generate", "dem", "--crs", "EPSG:3857"), "0.75 m on the ground"),
        (("--aoi", "utm.geojson", "--generate", "dem"), "coordinates that are no degrees"),
        (("--aoi", "none.geojson", "--generate", "dem"), "There is no file none.geojson"),
        (("--bbox", 179.9, 0, -179.9, 0.1, "--generate", "dem"), "antimeridian"),
    ],
)
def test_wrong_input_is_answered_in_a_line_with_what_to_do(scene, tmp_path, options, says):
    write(tmp_path / "s2.tif", reflectance())
    write(tmp_path / "no_crs.tif", reflectance(), crs=None)
    write(tmp_path / "two.tif", reflectance()[:2])
    (tmp_path / "text.tif").write_text("no raster")
    ring = [[500_000, 4_600_000], [500_900, 4_600_000], [500_900, 4_600_900], [500_000, 4_600_000]]
    (tmp_path / "utm.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))

    call = scene(*options)

    assert call.code in (1, 2), call.out
    assert says in call.err
    assert "Traceback" not in call.err
    assert not (tmp_path / "out").exists()


def test_a_map_is_no_picture_to_repeat_and_that_is_said(scene, tmp_path, capsys):
    write(tmp_path / "s2.tif", reflectance())
    must_be_good(scene("--input", "s2_l2a=s2.tif", "--generate", "dem"))

    call = call_copgen(capsys, "sample", "--like", tmp_path / "out/dem.tif")

    assert call.code == 1
    assert "copgen scene" in call.err


def test_a_missing_extra_is_told_before_the_model_is_looked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pystac", None)

    call = call_copgen(capsys, "scene", "--cell", "465U_103R", "--generate", "dem", "--model", "nowhere")

    assert call.code == 1
    assert "pip install 'copgen[scene]'" in call.err
