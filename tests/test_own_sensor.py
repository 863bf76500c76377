"""A user's own modalities: tables in copgen.toml and folders of files, no code; and what contradicts itself."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from copgen_processes import running
from PIL import Image
from rasterio.warp import transform_bounds
from tiny_models import tiny_autoencoder
from tiny_subsets import CELLS, write_subset
from way_of_commands import run_in

from copgen_cli.archive.grid import footprint, parse_cell
from copgen_cli.errors import MismatchError, UsageError
from copgen_cli.modalities import (
    Modality,
    carry,
    declare,
    family,
    modalities_in,
    normalise,
    spec_as_dict,
    spec_from_dict,
    to_values,
)
from copgen_cli.patches.georeferencing import georeferencing_of
from copgen_cli.patches.scenes import read_subset
from copgen_cli.settings.loading import load_settings

SETTINGS = """
family = "town"

[modalities.ndvi]
kind = "picture"
title = "Vegetation index"
files = "ndvi"
grey = true

[modalities.heat]
kind = "raster"
title = "Surface temperature"
files = "heat"
bands = ["day", "night"]
dtype = "float32"
nodata = -9999
unit = "K"
pixel_size = 20
range = [250, 330]
render = ["day"]

[families.town]
title = "Towns"
modalities = ["s1_rtc", "s2_l2a", "ndvi", "heat"]
patch_metres = 2560

[prepare]
train_ratio = 0.5
center_crop = true
workers = 1

[encode]
vae = "vae"
vae_dir = "vaes"

[train]
preset = "tiny"
steps = 2
batch_size = 2
validate_every = 0

[sample]
steps = 2
"""


@pytest.fixture(autouse=True)
def vocabulary():
    """What a test declares is forgotten after it."""
    yield
    declare([])


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Three cells with a vegetation index as pictures and temperatures as GeoTIFFs, on the cell's grid or another."""
    folder = tmp_path_factory.mktemp("town")
    (folder / "copgen.toml").write_text(SETTINGS)
    write_subset(folder / "data/majorTOM/rome", modalities=[Modality.S1RTC, Modality.S2L2A])
    draw = np.random.default_rng(0)
    for name in ("ndvi", "heat"):
        (folder / name).mkdir()
    for cell in CELLS:
        Image.fromarray(draw.integers(0, 256, (1068, 1068), dtype=np.uint8)).save(folder / f"ndvi/{cell}.png")
    for cell in CELLS[:2]:
        place = tile_of(folder, cell)
        write_heat(
            folder / f"heat/{cell}_2020.tif", f"EPSG:{place.epsg}", Affine(20, 0, place.west, 0, -20, place.north), 534
        )
    place = tile_of(folder, CELLS[2])
    box = transform_bounds(
        f"EPSG:{place.epsg}", "EPSG:4326", place.west, place.north - 10680, place.west + 10680, place.north
    )
    step = 0.0002
    side = round((max(box[2] - box[0], box[3] - box[1]) + 0.02) / step)
    write_heat(
        folder / "heat/elsewhere.tif", "EPSG:4326", Affine(step, 0, box[0] - 0.01, 0, -step, box[3] + 0.01), side
    )
    tiny_autoencoder(norm_num_groups=8).save_pretrained(folder / "vae")
    tiny_autoencoder(norm_num_groups=8, in_channels=2, out_channels=2).save_pretrained(folder / "vaes/heat")
    asked = ("--condition", "s1_rtc,heat", "--generate", "ndvi,s2_l2a", "--save-as", "geotiff", "--output", "drawn")
    way = [
        ("prepare",),
        ("encode",),
        ("pack",),
        ("train",),
        ("sample", *asked),
        ("sample", "--condition", "ndvi", "--generate", "heat", "--save-as", "geotiff", "--output", "warm"),
        ("sample", "--condition", "heat", "--generate", "ndvi,s2_l2a", "--output", "page"),
    ]
    return folder, [(stage[0], *call(folder, *stage)) for stage in way]


@dataclass(frozen=True)
class Tile:
    west: float
    north: float
    epsg: int


def tile_of(folder: Path, cell: str) -> Tile:
    """Where the pixels of a downloaded cell begin."""
    (scene,) = [one for one in read_subset(folder / "data/majorTOM/rome").scenes if one.cell == cell]
    place = georeferencing_of(scene.products[Modality.S1RTC])
    return Tile(place.transform[2], place.transform[5], int(place.crs.removeprefix("EPSG:")))


def write_heat(file: Path, crs: str, transform: Affine, side: int) -> None:
    """Day and night temperatures in K that are functions of the row and the column."""
    down, right = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    values = np.stack([290 + 20 * np.sin(down / 40), 270 + 10 * np.cos(right / 30)]).astype(np.float32)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 2, "dtype": "float32", "nodata": -9999}
    with rasterio.open(file, "w", crs=crs, transform=transform, **profile) as target:
        target.write(values)
        target.descriptions = ("day", "night")


def call(folder: Path, *arguments: str) -> tuple[int, str]:
    with running(run_in, folder, *arguments, environment=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        return process.end(), process.said


def test_settings_alone_bring_it_all_the_way(town):
    _, said = town
    assert [(name, code) for name, code, _ in said if code] == [], said


def test_a_raster_is_cut_from_the_file_of_its_cell_as_it_is(town):
    folder, _ = town
    for split in ("train", "test"):
        for file in (folder / f"data/majorTOM/rome/rome_town_patches/{split}/heat").glob("*.tif"):
            cell = file.stem.removesuffix("_center")
            with rasterio.open(file) as patch:
                assert (patch.dtypes, patch.nodata, patch.shape) == (("float32", "float32"), -9999, (128, 128))
                assert patch.descriptions == ("day", "night")
                if (folder / f"heat/{cell}_2020.tif").is_file():
                    with rasterio.open(folder / f"heat/{cell}_2020.tif") as whole:
                        np.testing.assert_array_equal(patch.read(), whole.read()[:, 203:331, 203:331])
                else:  # warped from degrees
                    assert patch.crs.to_epsg() == footprint(parse_cell(cell)).epsg
                    assert 265 < patch.read(1).mean() < 315
                    assert patch.read(1).std() > 1


def test_what_is_generated_is_in_its_unit_and_shown_by_its_rule(town):
    folder, _ = town
    files = sorted((folder / "warm/heat").glob("*.tif"))

    assert files
    with rasterio.open(files[0]) as drawn:
        assert (drawn.dtypes, drawn.nodata, drawn.shape) == (("float32", "float32"), -9999, (128, 128))
        assert drawn.descriptions == ("day", "night")
        assert drawn.units == ("K", "K")
        assert drawn.transform.a == 20
    with rasterio.open(next((folder / "drawn/ndvi").glob("*.tif"))) as drawn:
        assert (drawn.dtypes[0], drawn.shape) == ("uint8", (256, 256))
    assert (folder / "page/grid_0001.png").is_file()


def test_a_model_carries_what_its_modalities_are(town, tmp_path):
    """It samples where copgen.toml does not know them, and is refused where it calls something else so."""
    folder, _ = town
    model = folder / "runs/rome-town-tiny/model"
    index = json.loads((model / "model_index.json").read_text())
    assert str(folder) not in json.dumps(index)

    code, said = call(
        tmp_path, "sample", "--model", str(model), "--generate", "heat", "--steps", "1", "--output", "far"
    )
    assert code == 0, said

    other = SETTINGS.replace("range = [250, 330]", "range = [0, 1]").replace('family = "town"', "")
    (tmp_path / "copgen.toml").write_text(other)
    code, said = call(tmp_path, "sample", "--model", str(model), "--generate", "heat", "--output", "other")
    assert code == 1
    assert "another heat" in said
    assert "normalisation" in said


def test_the_list_of_modalities_shows_it(town):
    folder, _ = town
    code, said = call(folder, "modalities", "--family", "town")

    assert code == 0
    assert "Towns" in said
    assert [line.split()[0] for line in said.splitlines()[2:]] == ["s1_rtc", "s2_l2a", "ndvi", "heat"]
    assert "128 of 20 m" in said
    code, said = call(folder, "config", "show")
    assert code == 0
    assert 'modalities.heat.unit = "K"' in " ".join(said.split())


def with_settings(tmp_path: Path, text: str):
    (tmp_path / "copgen.toml").write_text(text)
    return load_settings(tmp_path / "copgen.toml")


RASTER = """
[modalities.heat]
kind = "raster"
files = "heat"
bands = ["day"]
pixel_size = 20
range = [250, 330]
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RASTER.replace('files = "heat"\n', ""), ("modalities.heat", "neither files nor a source")),
        (RASTER.replace("range = [250, 330]", ""), ("modalities.heat", "has a range")),
        (RASTER.replace("[250, 330]", "[330, 250]"), ("modalities.heat", "is empty")),
        (RASTER.replace('["day"]', '["day", "day"]'), ("modalities.heat", "named twice")),
        (RASTER + 'unti = "K"\n', ("modalities.heat.unti", "unit")),
        (RASTER.replace("raster", "rasta"), ("rasta",)),
        (RASTER + 'render = ["night"]\n', ("modalities.heat", "render")),
        (RASTER.replace('files = "heat"', 'source = "Core-S3"'), ("Core-S3",)),
        (RASTER.replace('files = "heat"', 'source = "Core-S2L2A"'), ("day",)),
        (RASTER.replace(".heat", ".dem"), ("modalities.dem", "of the package")),
        (RASTER + '[families.town]\nmodalities = ["heat", "heath"]\n', ("heath", "heat")),
        (RASTER + '[families.town]\nmodalities = ["heat", "s2_l2a"]\npatch_metres = 1920\n', ("s2_l2a", "2560")),
        (RASTER + '[families.beta]\nmodalities = ["heat"]\n', ("families.beta",)),
        (RASTER + '[families.town]\nmodalities = ["heat", "heat"]\n', ("families.town", "twice")),
        (RASTER + '[families.town]\nmodalities = ["heat"]\npatch_metres = 20000\n', ("families.town.patch_metres",)),
        (RASTER + 'dtype = "uint8"\nnodata = -9999\n', ("modalities.heat", "uint8 can not hold -9999")),
        (RASTER + 'normalisation = "log-height"\n', ("modalities.heat", "beyond what log-height")),
        (RASTER.replace(".heat", ".DEM_DEM"), ("DEM_DEM", "of the package")),
        ('[modalities.ndvi]\nkind = "picture"\nfiles = "x"\nunit = "K"\n', ("modalities.ndvi", "no unit")),
        ('family = "town"\n', ("town",)),
    ],
)
def test_a_table_that_contradicts_itself_is_told_by_its_key(tmp_path, text, words):
    with pytest.raises(UsageError) as told:
        with_settings(tmp_path, text)
    for word in words:
        assert word in f"{told.value} {told.value.hint}"


def test_files_that_contradict_the_table_are_told_and_set_aside(town, tmp_path):
    folder, _ = town
    place = tile_of(town[0], CELLS[0])
    (tmp_path / "copgen.toml").write_text(SETTINGS)
    write_subset(tmp_path / "data/majorTOM/rome", CELLS[:1], modalities=[Modality.S1RTC, Modality.S2L2A])
    (tmp_path / "ndvi").mkdir()
    (tmp_path / "ndvi" / f"{CELLS[0]}.png").write_bytes((folder / f"ndvi/{CELLS[0]}.png").read_bytes())
    file = tmp_path / "heat" / f"{CELLS[0]}.tif"
    file.parent.mkdir()
    right = Affine(20, 0, place.west, 0, -20, place.north)
    profile = {"driver": "GTiff", "width": 534, "height": 534, "count": 2, "dtype": "float32"}
    cases = (
        ({"crs": None, "transform": right}, np.ones((2, 534, 534), np.float32), "no CRS"),
        ({"crs": f"EPSG:{place.epsg}", "transform": right, "count": 1}, np.ones((1, 534, 534), np.float32), "1 bands"),
        (
            {"crs": f"EPSG:{place.epsg}", "transform": right, "dtype": "int16"},
            np.ones((2, 534, 534), np.int16),
            "int16",
        ),
    )
    for how, values, word in cases:
        with rasterio.open(file, "w", **profile | how) as target:
            target.write(values)
        code, said = call(tmp_path, "prepare", "--overwrite")
        assert code == 3, (word, said)
        assert word in said
        assert not list((tmp_path / "data/majorTOM/rome/rome_town_patches").rglob("*.tif"))


def test_rasters_lie_where_they_say_and_fill_one_another(town, tmp_path):
    """A file called like the cell that lies elsewhere is warped; of several that cover a part, each gives its own."""
    place = tile_of(town[0], CELLS[0])
    utm = f"EPSG:{place.epsg}"
    (tmp_path / "copgen.toml").write_text(SETTINGS.replace('"ndvi", "heat"]', '"heat"]'))
    write_subset(tmp_path / "data/majorTOM/rome", CELLS[:1], modalities=[Modality.S1RTC, Modality.S2L2A])
    (tmp_path / "heat").mkdir()
    tiles = tmp_path / "data/majorTOM/rome/rome_town_patches"
    own = tmp_path / "heat" / f"{CELLS[0]}.tif"

    write_heat(own, utm, Affine(20, 0, place.west - 4000, 0, -20, place.north + 4000), 934)
    assert call(tmp_path, "prepare")[0] == 0
    (file,) = tiles.rglob("heat/*.tif")
    with rasterio.open(file) as patch, rasterio.open(own) as whole:
        window = patch.read(1)
        np.testing.assert_allclose(window, whole.read(1)[403:531, 403:531], atol=1)
    own.rename(tmp_path / "elsewhere.tif")

    left = Affine(20, 0, place.west - 200, 0, -20, place.north + 200)
    for name, start in (("west", 0), ("east", 280)):
        write_heat(tmp_path / f"heat/{name}.tif", utm, left @ Affine.translation(start, 0), 560)
        with rasterio.open(tmp_path / f"heat/{name}.tif", "r+") as half:
            values = half.read()
            values[:, :, 285:] = -9999 if name == "west" else values[:, :, 285:]
            half.write(values)
    assert call(tmp_path, "prepare")[0] == 0
    (file,) = tiles.rglob("heat/*.tif")
    with rasterio.open(file) as patch:
        assert (patch.read() != -9999).all()


def test_a_raster_of_ones_own_modality_is_a_condition(town):
    folder, _ = town
    file = next((folder / "data/majorTOM/rome/rome_town_patches").glob("*/heat/*.tif"))
    code, said = call(
        folder, "sample", "--input", f"heat={file}", "--generate", "s2_l2a", "--save-as", "geotiff", "--output", "own"
    )

    assert code == 0, said
    with rasterio.open(next((folder / "own/s2_l2a").glob("*.tif"))) as drawn, rasterio.open(file) as given:
        assert drawn.transform.a == 10
        assert drawn.bounds == given.bounds


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"transform": Affine(15, 0, 300_000, 0, -20, 4_600_000)}, "15 x 20 m"),
        ({"crs": "EPSG:4326", "transform": Affine(0.00018, 0, 12, 0, -0.00018, 42)}, "in degrees"),
        ({"fill": -9999}, "No pixel of"),
        ({"count": 1}, "1 bands"),
    ],
)
def test_a_raster_that_is_none_of_the_modality_is_refused(town, how, word):
    folder, _ = town
    profile = {"driver": "GTiff", "width": 140, "height": 140, "count": 2, "dtype": "float32", "nodata": -9999}
    profile |= {"crs": "EPSG:32633", "transform": Affine(20, 0, 300_000, 0, -20, 4_600_000)}
    fill = how.get("fill", 290)
    profile |= {key: value for key, value in how.items() if key != "fill"}
    with rasterio.open(folder / "odd.tif", "w", **profile) as target:
        target.write(np.full((profile["count"], 140, 140), fill, np.float32))

    code, said = call(folder, "sample", "--input", "heat=odd.tif", "--generate", "ndvi", "--output", "odd")

    assert code in (1, 3)
    assert word in said
    assert "Traceback" not in said


def test_a_modality_survives_the_way_through_json(tmp_path):
    with_settings(tmp_path, SETTINGS)
    for modality in modalities_in(family("town")):
        again = spec_from_dict(json.loads(json.dumps(spec_as_dict(modality.spec))))
        carry([again], "a store")
    with pytest.raises(MismatchError, match="a store was made with another heat: its unit is C, not K"):
        carry([spec_from_dict(spec_as_dict(Modality("heat").spec) | {"unit": "C"})], "a store")
    with pytest.raises(ValueError, match="is no modality"):
        spec_from_dict(spec_as_dict(Modality("heat").spec) | {"folder": "../heat"})


def test_values_go_to_the_range_and_back(tmp_path):
    with_settings(tmp_path, SETTINGS)
    spec = Modality("heat").spec
    values = np.array([[[250.0, 290.0, 330.0]], [[250.0, 270.0, 340.0]]], np.float32)

    signed = normalise(values, spec)

    np.testing.assert_allclose(signed, [[[-1, 0, 1]], [[-1, -0.5, 1.25]]], atol=1e-6)
    np.testing.assert_allclose(to_values(signed, spec), values, rtol=1e-6)
