"""The native way, offline: from simulated bands to reflectance, classes, places and dates, judged in their units."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from copgen_processes import running
from way_of_commands import run_in

from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import COPGEN_2026, Modality, decode_scalar, modalities_in

SETTINGS = """
family = "copgen-2026"

[prepare]
train_ratio = 0.5
center_crop = true
workers = 1

[autoencoder]
channels = [8, 8, 8, 8]
steps = 1
batch_size = 1
raster_crop = 32

[train]
preset = "tiny"
steps = 4
save_every = 2
validate_every = 0
batch_size = 2

[sample]
steps = 2
"""
ALL = modalities_in(COPGEN_2026)
SENTINEL_2 = ("s2_l2a_10m", "s2_l2a_20m", "s2_l2a_60m")
GIVEN = ("--condition", "s1_db", "--given", "place=41.9,12.5", "--given", "time=2020-07-01")
WAY = (
    ("simulate", "--cells", "3", "--no-gaps", "--bands", "--seed", "5", "--output", "earth"),
    ("download", "--endpoint", "file://earth"),
    ("prepare", "--files", "land_cover=earth/land_cover"),
    ("train-autoencoder",),
    ("encode",),
    ("pack",),
    ("train",),
    ("sample", *GIVEN, "--generate", ",".join(SENTINEL_2), "--save-as", "geotiff", "--output", "drawn"),
    ("evaluate", "--pairs", "s1_db+dem_m:s2_l2a_10m+land_cover+place+time", "--limit", "2", "--output", "report"),
)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """A folder in which simulated cells have gone all the way, and what each command said."""
    folder = tmp_path_factory.mktemp("native")
    (folder / "copgen.toml").write_text(SETTINGS)
    said = [(stage[0], *call(folder, *stage)) for stage in WAY]
    return folder, said


def call(folder: Path, *arguments: str) -> tuple[int, str]:
    with running(run_in, folder, *arguments, environment=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        return process.end(), process.said


def patches(folder: Path) -> Path:
    return folder / "data/majorTOM/rome/rome_copgen-2026_patches"


def test_every_command_goes_through(native):
    _, said = native
    assert [(name, code) for name, code, _ in said] == [(stage[0], 0) for stage in WAY], said[-1]


def test_patches_hold_the_very_values_of_the_archive(native):
    folder, _ = native
    file = next((patches(folder) / "train/s2_l2a_20m").glob("*.tif"))
    cell = file.stem.removesuffix("_center")
    (product,) = (folder / "data/majorTOM/rome/Core-S2L2A").glob(f"*/{cell}/*")

    with rasterio.open(file) as patch, rasterio.open(product / "B11.tif") as whole:
        assert patch.descriptions == Modality("s2_l2a_20m").spec.bands
        assert (patch.dtypes[0], patch.nodata, patch.shape) == ("uint16", whole.nodata, (96, 96))
        np.testing.assert_array_equal(patch.read(5), whole.read(1)[219:315, 219:315])
        assert patch.crs == whole.crs
        assert patch.transform @ (0, 0) == pytest.approx(whole.transform @ (219, 219))


def test_the_store_holds_every_modality_in_its_own_shape(native):
    folder, _ = native
    store = LatentStore(folder / "data/majorTOM/rome/rome_copgen-2026_npy_lmdb/train")

    assert store.modalities == ALL
    shapes = dict(zip(store.modalities, store.shapes, strict=True))
    assert {shapes[name] for name in ("place", "time")} == {(2, 1, 3)}
    assert (shapes["s2_l2a_10m"], shapes["s2_l2a_60m"]) == ((16, 24, 24), (16, 4, 4))
    batch = store.select(["time", "s2_l2a_60m"]).__getitems__([0])
    assert [tuple(part.shape) for part in batch.by_modality()] == [(1, 2, 1, 3), (1, 16, 4, 4)]
    whole = store.__getitems__([0]).by_modality()
    assert torch.equal(batch.by_modality()[1], whole[ALL.index("s2_l2a_60m")])


def test_place_and_time_are_those_of_the_patch_and_its_products(native):
    folder, _ = native
    store = LatentStore(folder / "data/majorTOM/rome/rome_copgen-2026_npy_lmdb/train").select(["place", "time"])
    table = pq.read_table(patches(folder) / "train_metadata.parquet").to_pylist()[0]
    place, time = store[store.names[:].block.tolist().index(table["patch"].encode())][1].split([6, 6])

    told = decode_scalar(place[:3].numpy(), Modality("place").spec)
    assert told["latitude"] == pytest.approx(table["centre_lat"], abs=1e-3)
    assert told["longitude"] == pytest.approx(table["centre_lon"], abs=1e-3)
    told = {table[f"{m}_timestamp"] for m in ("s1_db", "s2_l1c_10m", "s2_l2a_10m")}  # both levels are of one pass
    stamps = [np.datetime64(datetime.fromisoformat(stamp)) for stamp in sorted(told)]
    mean = (stamps[0] + np.mean([stamp - stamps[0] for stamp in stamps])).astype("datetime64[D]")
    drawn = np.datetime64(decode_scalar(time[:3].numpy(), Modality("time").spec)["date"])
    assert abs(drawn - mean) <= np.timedelta64(1, "D")


@pytest.mark.parametrize("name", SENTINEL_2)
def test_what_is_generated_is_a_raster_in_its_unit_at_its_place(native, name):
    folder, _ = native
    spec = Modality(name).spec
    files = sorted((folder / "drawn" / name).glob("*_v1.tif"))
    true = patches(folder) / "test" / name / f"{files[0].stem.removesuffix('_v1')}.tif"

    with rasterio.open(files[0]) as drawn, rasterio.open(true) as truth:
        assert drawn.crs == truth.crs
        assert drawn.transform.almost_equals(truth.transform, 1e-6)
        assert (drawn.shape, drawn.dtypes, drawn.nodata) == (truth.shape, truth.dtypes, 65535)
        assert drawn.descriptions == spec.bands
        assert set(drawn.units) == {"reflectance x 10000"}
        assert drawn.tags()["Synthetic"] == "true"


def test_a_raster_is_made_again_exactly_from_what_it_says_of_itself(native):
    folder, _ = native
    picture = next((folder / "drawn/s2_l2a_20m").glob("*.tif"))

    code, said = call(folder, "sample", "--like", str(picture), "--output", "again")

    assert code == 0, said
    assert (folder / "again" / picture.name).read_bytes() == picture.read_bytes()


def test_places_and_dates_are_generated_as_numbers(native):
    folder, _ = native
    asked = ("--condition", "s2_l2a_10m", "--generate", "place,time,land_cover", "--limit", "1", "--save-as", "pngs")
    code, said = call(folder, "sample", *asked, "--output", "where")

    assert code == 0, said
    (record,) = json.loads((folder / "where/samples.json").read_text())["records"].values()
    (sample,) = record["samples"]
    assert -90 <= sample["place"]["latitude"] <= 90
    assert np.datetime64(sample["time"]["date"])
    assert sorted(path.name for path in (folder / "where").iterdir() if path.is_dir()) == ["land_cover"]


def test_a_raster_of_ones_own_is_a_condition(native):
    folder, _ = native
    file = next((patches(folder) / "test/s1_db").glob("*.tif"))
    with rasterio.open(file) as source:
        profile, values = source.profile, source.read()
    decibel = folder / "decibel" / file.name  # noise depends on the name of what is given
    decibel.parent.mkdir()
    with rasterio.open(decibel, "w", **profile | {"nodata": None}) as target:
        target.write(10 * np.log10(values))

    both = [
        call(folder, "sample", "--input", f"s1_db={name}", "--generate", "s2_l2a_60m", "--save-as", "geotiff",
             "--output", output)
        for name, output in ((str(file), "linear"), (str(decibel), "in_decibel"))
    ]  # fmt: skip

    assert [code for code, _ in both] == [0, 0], both
    drawn = [rasterio.open(next((folder / output).glob("*/*.tif"))).read() for output in ("linear", "in_decibel")]
    np.testing.assert_allclose(drawn[0].astype(float), drawn[1], atol=2)


def test_training_goes_on_exactly_where_it_stopped(native):
    folder, _ = native
    for steps in ("2", "4"):
        code, said = call(folder, "train", "--steps", steps, "--workdir", "in_two")
        assert code == 0, said
    whole = folder / "runs/rome-copgen-2026-tiny/model/transformer/diffusion_pytorch_model.safetensors"

    assert (folder / "in_two/model/transformer" / whole.name).read_bytes() == whole.read_bytes()


def test_an_evaluation_is_in_units(native):
    folder, _ = native
    scores = json.loads((folder / "report/metrics.json").read_text())["scores"]
    units = {(score["target"], score["metric"]): score["unit"] for score in scores}

    assert units["s2_l2a_10m", "mae"] == units["s2_l2a_10m B08", "rmse"] == "reflectance x 10000"
    assert units["s2_l2a_10m", "spectral_angle"] == "°"
    assert units["place", "distance"] == "km"
    assert {"accuracy", "mean_iou", "macro_f1"} <= {key for target, key in units if target == "land_cover"}
    assert {("time", "time"), ("time", "season"), ("s2_l2a_10m B04", "psnr")} <= units.keys()
    assert "B08" in (folder / "report/report.html").read_text()


def test_folders_of_rasters_are_judged_in_units(native):
    folder, _ = native
    both = ("--real", str(patches(folder) / "test"), "--generated", "drawn")
    code, said = call(folder, "evaluate", *both, "--json")

    assert code == 0, said
    scores = json.loads(said[said.index("{") :])["scores"]
    mine = [one for one in scores if (one["target"], one["metric"]) == ("s2_l2a_60m B09", "mae")]
    errors = []
    for truth in (patches(folder) / "test/s2_l2a_60m").glob("*.tif"):
        true, drawn = (
            rasterio.open(file).read(2).astype(float)
            for file in (truth, folder / f"drawn/s2_l2a_60m/{truth.stem}_v1.tif")
        )
        errors.append(np.abs(true - drawn).mean())
    assert mine[0]["value"] == pytest.approx(np.mean(errors))
    assert mine[0]["unit"] == "reflectance x 10000"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--given", "place=95,12"), "latitude 95"),
        (("--given", "time=2020-02-30"), "2020-02-30"),
        (("--given", "time=1850-01-01"), "1950 to 2050"),
        (("--given", "s1_db=3"), "is no place and no date"),
        (("--given", "place=1,2", "--given", "place=1,2"), "twice"),
    ],
)
def test_what_is_no_place_or_date_is_told_in_a_line(native, arguments, word):
    folder, _ = native
    code, said = call(folder, "sample", *arguments, "--generate", "s2_l2a_60m")

    assert code == 2
    assert word in said
    assert "Traceback" not in said
