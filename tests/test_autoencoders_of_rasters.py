"""Autoencoders of rasters and classes: bands in and out, losses by kind, resumption, and where `encode` finds them."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from copgen_cli.app import app
from copgen_cli.autoencoding import (
    RasterPatches,
    export,
    export_autoencoder,
    plan_trainings,
    recipe as training,
    reconstruction_quality,
)
from copgen_cli.autoencoding.state import STATE_NAME
from copgen_cli.errors import MismatchError, MissingInputError, UnknownNameError, UsageError
from copgen_cli.latents import read_patch
from copgen_cli.latents.encoders import Encoder, autoencoder_sources
from copgen_cli.layout import autoencoders_beside
from copgen_cli.modalities import Modality, Split, declare, family, normalise, spec_as_dict, to_values
from copgen_cli.model import load_autoencoder, read_autoencoder
from copgen_cli.patches import read_tree
from copgen_cli.rasters import encode_geotiff
from copgen_cli.settings.sections import AutoencoderSettings
from copgen_cli.settings.vocabulary import FamilySettings, ModalitySettings, declare_users

CPU = torch.device("cpu")
SIDE = 32  # pixels
TABLE = [
    {"value": 1, "name": "water", "colour": "#0000ff"},
    {"value": 4, "name": "trees", "colour": "#00ff00"},
    {"value": 9, "name": "snow", "colour": "#ffffff"},
]
MODALITIES = {
    "heat": {"kind": "raster", "bands": ("day", "night"), "unit": "K", "range": (250, 330), "nodata": -9999},
    "ground": {"kind": "classes", "classes": TABLE, "dtype": "uint8"},
    "photo": {"kind": "picture"},
    "named": {"kind": "raster", "bands": ("one",), "range": (0, 1), "autoencoder": "somewhere/else"},
}
FAMILY = ("photo", "heat", "place", "ground", "named")
IN_TOML = f"""
[families.town]
modalities = {list(FAMILY)}
patch_metres = {SIDE * 10}

[modalities.heat]
kind = "raster"
files = "."
bands = ["day", "night"]
unit = "K"
range = [250, 330]
nodata = -9999

[modalities.ground]
kind = "classes"
files = "."
dtype = "uint8"
classes = [
    {{ value = 1, name = "water", colour = "#0000ff" }},
    {{ value = 4, name = "trees", colour = "#00ff00" }},
    {{ value = 9, name = "snow", colour = "#ffffff" }},
]

[modalities.photo]
kind = "picture"
files = "."

[modalities.named]
kind = "raster"
files = "."
bands = ["one"]
range = [0, 1]
autoencoder = "somewhere/else"
"""


@pytest.fixture(autouse=True)
def town(monkeypatch):
    """A user's family with a raster of two bands, three classes, pictures, and the place."""
    monkeypatch.setattr(export, "MEASURED", 4)
    monkeypatch.setattr(training, "_WARM_UP", 5)
    modalities = {name: ModalitySettings(files=".", **values) for name, values in MODALITIES.items()}
    declare_users(modalities, {"town": FamilySettings(modalities=FAMILY, patch_metres=SIDE * 10.0)})
    yield family("town")
    declare([])


@pytest.fixture
def patches(tmp_path):
    """Six patches to learn from and two held out: smooth temperatures, and bands of ground at every height."""
    folder = tmp_path / "data/rome_town_patches"
    generator = np.random.default_rng(0)
    for split, count in ((Split.TRAIN, 6), (Split.TEST, 2)):
        for name in ("heat", "ground", "photo"):
            (folder / split / name).mkdir(parents=True)
        for k in range(count):
            corners = generator.uniform(260, 320, (2, 3, 3)).astype(np.float32)
            bands = [np.asarray(Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for c in corners]
            ground = np.select([bands[0] < 280, bands[0] < 295], [1, 4], 9).astype(np.uint8)
            (folder / split / "heat" / f"{k}.tif").write_bytes(encode_geotiff(np.stack(bands), None))
            (folder / split / "ground" / f"{k}.tif").write_bytes(encode_geotiff(ground, None))
            Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(folder / split / "photo" / f"{k}.png")
    return folder


def small(**changed):
    settings = {
        "steps": 6,
        "batch_size": 4,
        "channels": (8, 8),
        "save_every": 2,
        "seed": 3,
        "raster_latent_channels": 4,
    }
    return AutoencoderSettings(**settings | changed)


def of(patches, name, split=Split.TRAIN):
    return RasterPatches.of(read_tree(patches, None, what="patches", written_by="prepare"), split, Modality(name))


def train(subject, settings, output, **options):
    options = {"device": CPU, "dtype": torch.float32} | options
    return list(training.train_autoencoder(subject, settings, output, **options))


def read(subject, name):
    return read_patch(subject.tree, subject.split, subject.modality, name)


def plan(patches, chosen=None, output=None):
    chosen = None if chosen is None else [Modality(name) for name in chosen]
    return plan_trainings(patches, family("town"), chosen, output=output, pictures=patches.parent / "pictures")


def call(patches, *options):
    return CliRunner().invoke(app, ["train-autoencoder", "--data", str(patches), "--family", "town", *options])


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder to run the command in, whose settings declare the family and make everything small."""
    recipe = 'channels = [8, 8]\nbatch_size = 2\nsave_every = 100\ndevice = "cpu"\nraster_latent_channels = 4\n'
    (tmp_path / "copgen.toml").write_text(f"[autoencoder]\n{recipe}{IN_TOML}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("side", "levels"), [(192, 4), (64, 4), (32, 4), (36, 3), (90, 2), (33, 1)])
def test_an_autoencoder_has_as_many_levels_as_the_side_can_be_halved(town, side, levels):
    heat = ModalitySettings(files=".", side=side, **MODALITIES["heat"])
    declare_users({"heat": heat}, {})

    sizes = RasterPatches(None, Split.TRAIN, Modality("heat"), ()).architecture(AutoencoderSettings())

    assert sizes.widths == (16, 32, 64, 128)[:levels]
    assert (sizes.channels, sizes.latent_channels, sizes.side) == (2, 8, side)


def test_crops_are_pieces_of_patches_turned_or_mirrored_and_depend_on_the_generator_alone(patches):
    heat = of(patches, "heat")

    whole = heat.draw(20, SIDE, small(), np.random.default_rng(4))
    crops = heat.draw(20, 8, small(), np.random.default_rng(4))

    assert torch.equal(crops, heat.draw(20, 8, small(), np.random.default_rng(4)))
    assert (crops.shape, crops.dtype) == ((20, 2, 8, 8), torch.float32)
    every = [read(heat, name) for name in heat.names]
    turned = [np.rot90(v[..., ::m], k, axes=(1, 2)) for v in every for m in (1, -1) for k in range(4)]
    assert all(any(np.array_equal(crop, candidate) for candidate in turned) for crop in whole.numpy())
    assert len({crop.numpy().tobytes() for crop in whole}) > 8
    windows = np.lib.stride_tricks.sliding_window_view(np.stack(turned), (8, 8), axis=(2, 3))
    assert all((windows == crop[:, None, None]).all(axis=(1, 4, 5)).any() for crop in crops.numpy())


def test_crops_are_whole_small_patches_or_as_set_and_must_fit(patches):
    heat = of(patches, "heat")

    assert heat.sides(small()) == (SIDE, SIDE)
    assert heat.sides(small(raster_crop=16)) == (16, SIDE)
    for crop in (15, 34):
        with pytest.raises(UsageError, match=f"Crops of {crop} px do not fit heat"):
            heat.sides(small(raster_crop=crop))
    wide = ModalitySettings(files=".", side=192, **MODALITIES["heat"])
    declare_users({"heat": wide}, {})
    assert of(patches, "heat").sides(AutoencoderSettings()) == (128, 192)


def test_values_are_compared_band_by_band_and_by_their_averages(patches):
    heat = of(patches, "heat")
    target = heat.draw(2, SIDE, small(), np.random.default_rng(0))
    chequers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(SIDE // 2, SIDE // 2)

    errors = heat.errors(target + 0.1 * chequers, target, torch.zeros(2, 4, SIDE // 2, SIDE // 2), small())
    shifted = heat.errors(target + 0.1, target, torch.zeros(2, 4, SIDE // 2, SIDE // 2), small())

    assert errors["absolute"].item() == pytest.approx(0.1, rel=1e-4)
    assert errors["colour"].item() == pytest.approx(0, abs=1e-6)
    assert (shifted["absolute"].item(), shifted["colour"].item()) == pytest.approx((0.1, 0.1), rel=1e-4)
    assert heat.weights(small(colour_weight=3.0))["colour"] == 3


def test_classes_cost_the_cross_entropy_of_the_right_one(patches):
    ground = of(patches, "ground")
    target = ground.draw(2, SIDE, small(), np.random.default_rng(0))

    undecided = ground.errors(torch.zeros(2, 3, SIDE, SIDE), target, torch.zeros(2, 4, 4, 4), small())
    right = ground.errors(10 * target, target, torch.zeros(2, 4, 4, 4), small())
    wrong = ground.errors(-10 * target, target, torch.zeros(2, 4, 4, 4), small())

    assert set(undecided) == {"entropy"}
    assert undecided["entropy"].item() == pytest.approx(np.log(3))
    assert right["entropy"].item() < 1e-6 < 10 < wrong["entropy"].item()


@pytest.mark.parametrize("name", ["heat", "ground"])
def test_a_run_that_was_stopped_ends_with_the_same_bytes_as_one_that_was_not(patches, tmp_path, name):
    subject = of(patches, name)
    whole = train(subject, small(), tmp_path / "whole")

    iterator = training.train_autoencoder(subject, small(), tmp_path / "stopped", device=CPU, dtype=torch.float32)
    for _ in range(3):  # the third update is lost: states are saved every two
        next(iterator)
    iterator.close()
    rest = train(subject, small(), tmp_path / "stopped")

    assert [update.step for update in rest] == [3, 4, 5, 6]
    assert rest == whole[2:]
    for folder in ("whole", "stopped"):
        export_autoencoder(subject, small(), tmp_path / folder, CPU)
    for file in ("diffusion_pytorch_model.safetensors", "config.json", "recipe.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes()


def test_temperatures_come_back_better_than_the_mean_patch(patches, tmp_path):
    seen, held_out = of(patches, "heat"), of(patches, "heat", Split.TEST)
    settings = small(steps=200, lr=1e-2, save_every=200, raster_crop=16)

    updates = train(seen, settings, tmp_path / "vae")
    export_autoencoder(seen, settings, tmp_path / "vae", CPU)
    quality = reconstruction_quality(load_autoencoder(tmp_path / "vae"), held_out)

    assert sum(u.absolute for u in updates[-10:]) < 0.6 * sum(u.absolute for u in updates[:10])
    mean = np.mean([read(seen, name) for name in seen.names], axis=0)
    of_the_mean = [to_values(mean, seen.spec) - to_values(read(held_out, name), seen.spec) for name in held_out.names]
    assert 0 < quality["mae"] < 0.6 * np.abs(of_the_mean).mean()
    assert quality["psnr_db"] > 15


def test_classes_come_back_better_than_the_commonest(patches, tmp_path):
    seen, held_out = of(patches, "ground"), of(patches, "ground", Split.TEST)
    settings = small(steps=200, lr=1e-2, save_every=200, raster_crop=16)

    updates = train(seen, settings, tmp_path / "vae")
    export_autoencoder(seen, settings, tmp_path / "vae", CPU)
    quality = reconstruction_quality(load_autoencoder(tmp_path / "vae"), held_out)

    assert sum(u.entropy for u in updates[-10:]) < 0.5 * sum(u.entropy for u in updates[:10])
    shares = np.mean([read(held_out, name) > 0 for name in held_out.names], axis=(0, 2, 3))
    assert shares.max() + 0.05 < quality["accuracy"] <= 1
    lines = (tmp_path / "vae/metrics.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == {"step", "loss", "entropy", "divergence", "lr", "is_finite", "seconds"}


def test_quality_is_in_the_modalitys_unit_and_in_decibels_of_normalised_values(patches):
    class Warmer:
        """Adds 4 K, which is 0.1 of the normalised range."""

        scale_factor, device = 0.5, CPU

        def encode(self, signed):
            return torch.cat([signed, torch.zeros_like(signed)], dim=1)

        def decode_values(self, latents):
            return latents / 0.5 + 0.1

    quality = reconstruction_quality(Warmer(), of(patches, "heat", Split.TEST))

    assert quality["mae"] == pytest.approx(4, rel=1e-4)
    assert quality["psnr_db"] == pytest.approx(20 * np.log10(2 / 0.1), rel=1e-4)


def test_the_scale_is_one_over_the_deviation_of_drawn_latents_and_the_recipe_names_the_modality(patches, tmp_path):
    subject, settings = of(patches, "heat"), small(steps=20, lr=2e-2, kl_weight=0.0)
    train(subject, settings, tmp_path / "vae")

    scale = export_autoencoder(subject, settings, tmp_path / "vae", CPU)

    autoencoder = load_autoencoder(tmp_path / "vae")
    values = torch.from_numpy(np.stack([read(subject, name) for name in subject.names]))
    mean, log_variance = autoencoder.encode(values).chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    assert (scale * (mean + (log_variance / 2).exp() * noise)).std().item() == pytest.approx(1, abs=0.1)
    assert abs(scale - 1) > 0.2  # so that it is not one of latents that nobody scaled
    made = json.loads((tmp_path / "vae/recipe.json").read_text())
    assert made["recipe"]["modality"] == json.loads(json.dumps(spec_as_dict(subject.spec)))
    assert made["images"] == {"heat": 6}
    assert not {"recoloured", "structure_weight", "linear_weight"} & made["recipe"].keys()


def test_the_scale_of_ones_own_autoencoder_stands_above_that_of_the_published_one(tmp_path):
    published = Modality("dem_m")
    folder = tmp_path / "patches/train/dem_m"
    folder.mkdir(parents=True)
    heights = np.random.default_rng(0).uniform(0, 900, (64, 64)).astype(np.float32)
    (folder / "1.tif").write_bytes(encode_geotiff(heights, None, nodata=-9999))
    subject = of(tmp_path / "patches", "dem_m")
    train(subject, small(steps=1), tmp_path / "vae")
    scale = export_autoencoder(subject, small(steps=1), tmp_path / "vae", CPU)

    def scale_in_encode():
        encoder = Encoder(str(tmp_path / "vae"), spec=published.spec, device=CPU, dtype=torch.float32, known=None)
        return encoder.facts.scale_factor

    assert scale_in_encode() == scale != published.spec.scale_factor
    (tmp_path / "vae/recipe.json").unlink()  # as of one that came from elsewhere
    assert scale_in_encode() == published.spec.scale_factor


def test_another_modality_or_another_range_does_not_go_on_with_a_run(patches, tmp_path):
    train(of(patches, "heat"), small(steps=2), tmp_path / "vae")

    with pytest.raises(MismatchError, match="its name is heat, not ground"):
        train(of(patches, "ground"), small(steps=2), tmp_path / "vae")
    pictures = {Modality("photo"): sorted((patches / "train/photo").glob("*.png"))}
    with pytest.raises(MismatchError, match="it learned heat, now pictures"):
        train(pictures, small(steps=2), tmp_path / "vae")
    with pytest.raises(MismatchError, match="raster_latent_channels 4, now 5"):
        train(of(patches, "heat"), small(steps=2, raster_latent_channels=5), tmp_path / "vae")
    changed = MODALITIES["heat"] | {"range": (200, 330)}
    declare_users({"heat": ModalitySettings(files=".", side=SIDE, **changed)}, {})
    with pytest.raises(MismatchError, match="its normalisation is"):
        train(of(patches, "heat"), small(steps=2), tmp_path / "vae")
    entitled = MODALITIES["heat"] | {"title": "Warmth"}
    declare_users({"heat": ModalitySettings(files=".", side=SIDE, **entitled)}, {})
    assert len(train(of(patches, "heat"), small(steps=3), tmp_path / "vae")) == 1


def test_the_rasters_of_a_family_that_name_no_autoencoder_are_trained_and_others_when_asked_for(patches):
    beside = autoencoders_beside(patches)

    assert [(one.name, one.folder) for one in plan(patches)] == [
        ("heat", beside / "heat"),
        ("ground", beside / "ground"),
    ]
    assert [one.name for one in plan(patches, ["ground", "heat"])] == ["heat", "ground"]
    asked = plan(patches, ["ground", "photo"])
    assert [(one.name, one.folder) for one in asked] == [
        ("pictures", patches.parent / "pictures"),
        ("ground", beside / "ground"),
    ]
    assert {m: len(files) for m, files in asked[0].patches.items()} == {"photo": 6}
    assert plan(patches, ["heat"], output=patches.parent / "own")[0].folder == patches.parent / "own/heat"
    with pytest.raises(UsageError, match="do not go to the same --output"):
        plan(patches, ["heat", "photo"], output=patches.parent / "own")
    shutil.rmtree(patches / "train/heat")
    shutil.rmtree(patches / "test/heat")
    assert [one.name for one in plan(patches)] == ["ground"]


def test_the_published_modalities_can_have_autoencoders_of_ones_own(tmp_path):
    folder = tmp_path / "patches/train/dem_m"
    folder.mkdir(parents=True)
    (folder / "1.tif").write_bytes(encode_geotiff(np.ones((64, 64), np.float32), None))

    one = plan_trainings(tmp_path / "patches", family("copgen-2026"), None, output=None, pictures=tmp_path)

    assert [training.name for training in one] == ["dem_m"]


def test_what_cannot_be_trained_is_told_with_what_to_do(patches, tmp_path):
    with pytest.raises(UsageError, match="place needs no autoencoder"):
        plan(patches, ["place"])
    with pytest.raises(UnknownNameError, match="modality of the family town 'dem'"):
        plan(patches, ["dem"])
    with pytest.raises(MissingInputError, match="No patches of named") as told:
        plan(patches, ["named"])
    assert "copgen prepare --family town" in told.value.hint
    with pytest.raises(MissingInputError, match="No patches of town") as told:
        plan(tmp_path / "nothing")
    assert "copgen prepare --family town" in told.value.hint
    for name in ("heat", "ground"):
        for split in Split:
            shutil.rmtree(patches / split / name)
    with pytest.raises(MissingInputError, match="No patches of town"):
        plan(patches)


def test_the_command_trains_all_and_encode_finds_them_and_a_second_run_does_nothing(patches, at_home):
    first = call(patches, "--steps", "3", "--json")
    beside = autoencoders_beside(patches)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in beside.rglob("*") if file.is_file()}
    second = call(patches, "--steps", "3", "--json")

    assert (first.exit_code, second.exit_code) == (0, 0), (first.exception, second.exception)
    assert {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in beside.rglob("*") if f.is_file()} == before
    assert "Nothing to do" in second.stderr
    assert "Nothing to do" not in first.stderr
    reports = [json.loads(run.stdout)["autoencoders"] for run in (first, second)]
    assert reports[0] == reports[1]
    assert [(one["modality"], one["updates"], one["of"]) for one in reports[0]] == [("heat", 3, 3), ("ground", 3, 3)]
    assert {"mae", "psnr_db"} <= reports[0][0].keys()
    assert "accuracy" in reports[0][1]
    found = autoencoder_sources([Modality("heat"), Modality("ground")], "none", [beside])
    assert found == {"heat": str(beside / "heat"), "ground": str(beside / "ground")}
    for name, channels in (("heat", 2), ("ground", 3)):
        model = read_autoencoder(found[Modality(name)])
        assert (model.config.in_channels, model.config.out_channels, model.config.latent_channels) == (
            channels,
            channels,
            4,
        )
    moments = CliRunner().invoke(app, ["encode", "--path", str(patches), "--family", "town", "--vae", "copgen-sim"])
    assert moments.exit_code == 0, moments.exception
    assert np.load(next(patches.parent.rglob("train/heat/*.npy"))).shape == (8, SIDE // 2, SIDE // 2)


def test_a_stop_counts_for_all_and_the_next_run_goes_on_at_that_modality(patches, at_home, monkeypatch):
    beside = autoencoders_beside(patches)
    call(patches, "--steps", "3", "--output", "whole")
    done = []
    train_once = training._train_once

    def stop_in_the_second(state, subject, *others):
        done.append(subject.modality)
        if done.count("ground") == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return train_once(state, subject, *others)

    monkeypatch.setattr(training, "_train_once", stop_in_the_second)
    stopped = call(patches, "--steps", "3")
    monkeypatch.setattr(training, "_train_once", train_once)

    assert stopped.exit_code == 130, stopped.exception
    assert done == ["heat"] * 3 + ["ground"] * 2
    assert [torch.load(beside / name / STATE_NAME)["step"] for name in ("heat", "ground")] == [3, 2]
    late = call(patches, "--steps", "9", "--max-time", "0.000001", "--json")
    assert late.exit_code == 3
    assert [one["modality"] for one in json.loads(late.stdout)["autoencoders"]] == ["heat"]
    rest = call(patches, "--steps", "3", "--json")
    assert [one["updates"] for one in json.loads(rest.stdout)["autoencoders"]] == [3, 3]
    for name in ("heat", "ground"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        assert (beside / file).read_bytes() == (patches.parents[1] / "whole" / file).read_bytes()


def test_the_command_overwrites_trains_one_and_names_it(patches, at_home):
    call(patches, "--steps", "2", "--modality", "heat")

    changed = call(patches, "--steps", "2", "--modality", "heat", "--seed", "5")
    afresh = call(patches, "--steps", "2", "--modality", "heat", "--seed", "5", "--overwrite")

    assert isinstance(changed.exception, MismatchError)
    assert afresh.exit_code == 0
    assert "modality: heat" in afresh.stdout
    assert [folder.name for folder in autoencoders_beside(patches).iterdir()] == ["heat"]


def test_several_do_not_start_from_one_and_crops_are_checked_before_the_first(patches, at_home, monkeypatch):
    several = call(patches, "--init-from", "somewhere")
    monkeypatch.setenv("COPGEN_AUTOENCODER__RASTER_CROP", "33")
    strange = call(patches)

    assert "can not all start from somewhere" in str(several.exception)
    assert "Crops of 33 px" in str(strange.exception)
    assert not autoencoders_beside(patches).exists()


def test_a_decoders_logits_become_the_class_of_the_largest(patches):
    ground = of(patches, "ground")
    values = normalise(np.array([[[1, 4, 9]]]), ground.spec)

    assert to_values(7 * values - 3, ground.spec).tolist() == [[[1, 4, 9]]]
