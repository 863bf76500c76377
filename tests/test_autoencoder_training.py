"""The recipe of the small autoencoder: its loss, its crops, a run that can stop anywhere, and what it leaves behind."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from copgen_cli.app import app
from copgen_cli.autoencoding import export, pictures, recipe as training
from copgen_cli.autoencoding.state import METRICS_NAME, STATE_NAME
from copgen_cli.autoencoding.structural_similarity import structural_loss
from copgen_cli.errors import BrokenInputError, BusyError, MismatchError, NotFiniteError
from copgen_cli.modalities import Modality, Split
from copgen_cli.model.autoencoder import fingerprint, load_autoencoder, read_autoencoder
from copgen_cli.settings.sections import AutoencoderSettings

CPU = torch.device("cpu")


def small(**changed):
    settings = {"steps": 6, "batch_size": 2, "channels": (8, 8), "save_every": 2, "seed": 3}
    return AutoencoderSettings(**settings | changed)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Two patches of two modalities in each split: smooth colours that differ from place to place."""
    folder = tmp_path_factory.mktemp("patches")
    generator = np.random.default_rng(0)
    for split in Split:
        for modality in (Modality.DEM, Modality.S2L2A):
            (folder / split / modality.spec.folder).mkdir(parents=True)
            for k in range(2):
                corners = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                picture = corners.resize((256, 256), Image.Resampling.BICUBIC)
                picture.save(folder / split / modality.spec.folder / f"1U_1R_{k}.png")
    return folder


@pytest.fixture
def images(patches):
    return {m: sorted((patches / "train" / m.spec.folder).glob("*.png")) for m in (Modality.DEM, Modality.S2L2A)}


def train(images, settings, output, **options):
    options = {"device": CPU, "dtype": torch.float32} | options
    return list(training.train_autoencoder(images, settings, output, **options))


@pytest.fixture(autouse=True)
def few_measured(monkeypatch):
    """Four images a modality tell the scale well enough for a test."""
    monkeypatch.setattr(export, "MEASURED", 4)


def saved(output):
    return torch.load(output / STATE_NAME, weights_only=True)


def assert_same_state(one, other):
    for part in ("model", "ema"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    for moments in one["optimizer"]["state"]:
        for name, value in one["optimizer"]["state"][moments].items():
            assert torch.equal(value, other["optimizer"]["state"][moments][name])
    assert one["step"] == other["step"]


def test_flat_pictures_differ_in_brightness_alone_and_only_at_the_coarsest_scale():
    bright, dark = (torch.full((1, 3, 64, 64), value, dtype=torch.float64) for value in (0.8, -0.2))

    c1 = 0.02**2
    similarity = (2 * 0.8 * -0.2 + c1) / (0.8**2 + 0.2**2 + c1)
    assert structural_loss(bright, dark).item() == pytest.approx(1 - (2 + similarity) / 3, rel=1e-4)
    assert structural_loss(bright, bright).item() == pytest.approx(0, abs=1e-6)


def test_structure_is_lost_by_blur_and_noise_and_reversed_by_a_negative():
    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16, generator=generator), scale_factor=8) - 0.5
    noisy = picture + 0.2 * torch.randn(picture.shape, generator=generator)
    much_noisier = picture + 0.6 * torch.randn(picture.shape, generator=generator)

    losses = [structural_loss(picture, other).item() for other in (noisy, much_noisier, -picture)]

    assert 0.05 < losses[0] < losses[1] < 1 < losses[2] < 2


def test_the_structural_loss_has_a_useful_gradient_even_where_the_correlation_is_negative():
    target = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    image = (-target).requires_grad_()
    before = structural_loss(image, target)
    before.backward()

    after = structural_loss(image.detach() - image.grad / image.grad.norm(), target)

    assert after.item() < before.item()


def test_the_learning_rate_warms_up_holds_and_falls_over_the_last_fifth():
    rates = [training.learning_rate(step, steps=1000, peak=2.0) for step in range(1000)]

    assert rates[:2] == pytest.approx([0.02, 0.04])
    assert set(rates[100:801]) == {2.0}
    assert rates[900] == pytest.approx(1.0)
    assert rates[999] == pytest.approx(0.01)


def test_crops_are_pieces_of_the_images_turned_or_mirrored_and_depend_on_the_generator_alone(images):
    crops = pictures.draw_crops(images, 6, 128, np.random.default_rng(4))

    again = pictures.draw_crops(images, 6, 128, np.random.default_rng(4))
    assert torch.equal(crops, again)
    assert crops.shape == (6, 3, 128, 128)
    sources = [pictures.read_image(file) for files in images.values() for file in files]
    whole = pictures.draw_crops(images, 8, 256, np.random.default_rng(4)).permute(0, 2, 3, 1).numpy()
    turned = [np.rot90(s[:, ::mirror], k) for s in sources for mirror in (1, -1) for k in range(4)]
    assert all(any(np.array_equal(crop, candidate) for candidate in turned) for crop in whole)
    assert len({crop.tobytes() for crop in whole}) > 4


def test_an_image_that_is_too_small_or_none_is_named(images, tmp_path):
    Image.new("RGB", (200, 300)).save(tmp_path / "small.png")  # a crop fits, a whole patch does not
    (tmp_path / "text.png").write_text("no picture")

    for name, told in (("small.png", "200 x 300 px"), ("text.png", "cannot be read")):
        with pytest.raises(BrokenInputError, match=told):
            pictures.draw_crops({Modality.DEM: [tmp_path / name]}, 1, 128, np.random.default_rng(0))


def test_a_run_that_was_stopped_ends_bitwise_as_one_that_was_not(images, tmp_path):
    settings = small()
    whole = train(images, settings, tmp_path / "whole")

    iterator = training.train_autoencoder(images, settings, tmp_path / "stopped", device=CPU, dtype=torch.float32)
    for _ in range(3):  # the third update is lost: states are saved every two
        next(iterator)
    iterator.close()
    rest = train(images, settings, tmp_path / "stopped")

    assert [update.step for update in rest] == [3, 4, 5, 6]
    assert rest == whole[2:]
    assert_same_state(saved(tmp_path / "whole"), saved(tmp_path / "stopped"))
    lines = (tmp_path / "stopped" / METRICS_NAME).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_run_stops_after_its_time_and_saves_where_it_stands(images, tmp_path):
    assert train(images, small(), tmp_path, asked_to_stop=lambda: True) == []
    assert not (tmp_path / STATE_NAME).exists()

    first = next(training.train_autoencoder(images, small(), tmp_path, device=CPU, dtype=torch.float32))
    assert first.step == 1


def test_a_run_that_is_asked_to_stop_keeps_every_update(images, tmp_path):
    asked = iter([None, None, None, True])

    updates = train(images, small(save_every=100), tmp_path, asked_to_stop=lambda: next(asked))

    assert [update.step for update in updates] == [1, 2, 3]
    assert saved(tmp_path)["step"] == 3


def test_a_run_without_finite_gradients_gives_up_and_saves_none_of_it(images, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "GIVE_UP_AFTER", 3)
    train(images, small(steps=2), tmp_path)
    before = saved(tmp_path)
    monkeypatch.setattr(pictures, "structural_loss", lambda *_: torch.tensor(math.nan))

    with pytest.raises(NotFiniteError, match="3 updates in a row"):
        train(images, small(steps=9, save_every=1), tmp_path)

    assert_same_state(before, saved(tmp_path))


def test_an_update_without_finite_gradients_is_skipped(images, tmp_path, monkeypatch):
    losses = [lambda image, _: math.nan * image.mean(), structural_loss]
    monkeypatch.setattr(pictures, "structural_loss", lambda *pair: losses.pop(0)(*pair))

    updates = train(images, small(steps=2), tmp_path)

    assert [update.is_finite for update in updates] == [False, True]
    assert all(tensor.isfinite().all() for part in ("model", "ema") for tensor in saved(tmp_path)[part].values())


def test_overwriting_leaves_a_run_alone_that_is_at_work(images, tmp_path):
    at_work = training.train_autoencoder(images, small(save_every=1), tmp_path, device=CPU, dtype=torch.float32)
    next(at_work)

    with pytest.raises(BusyError):
        train(images, small(), tmp_path, overwrite=True)

    assert saved(tmp_path)["step"] == 1
    at_work.close()


def test_training_lowers_the_loss_and_the_average_follows(images, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_WARM_UP", 1)
    updates = train(images, small(steps=30, save_every=30, lr=1e-2, batch_size=1), tmp_path)

    assert sum(u.absolute for u in updates[-5:]) < 0.7 * sum(u.absolute for u in updates[:5])
    ema, model = saved(tmp_path)["ema"], saved(tmp_path)["model"]
    distance = {name: (ema[name] - model[name]).norm() for name in ema}
    assert 0 < sum(distance.values()) < sum(tensor.norm() for tensor in model.values())


def test_another_recipe_does_not_go_on_with_a_run_but_more_updates_do(images, tmp_path):
    train(images, small(steps=2), tmp_path)

    with pytest.raises(MismatchError, match="seed 3, now 4"):
        train(images, small(seed=4), tmp_path)
    assert [update.step for update in train(images, small(steps=3, save_every=1), tmp_path)] == [3]


def test_two_runs_do_not_share_an_output(images, tmp_path):
    (tmp_path / ".copgen").mkdir()
    with FileLock(tmp_path / ".copgen/lock"), pytest.raises(BusyError):
        train(images, small(), tmp_path)


def test_a_state_that_is_none_is_refused_without_running_it(images, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    train(images, small(), tmp_path)
    torch.save({"step": Trap()}, tmp_path / STATE_NAME)

    with pytest.raises(BrokenInputError, match="not a training state"):
        train(images, small(), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_exported_autoencoder_is_the_average_in_float16_with_its_measured_scale(images, tmp_path):
    settings = small()
    train(images, settings, tmp_path)

    scale = export.export_autoencoder(images, settings, tmp_path, CPU)

    loaded, ema = read_autoencoder(tmp_path), saved(tmp_path)["ema"]
    assert all(torch.equal(tensor, ema[name].half().float()) for name, tensor in loaded.state_dict().items())
    loaded.half().save_pretrained(tmp_path / "copy")
    assert fingerprint(read_autoencoder(tmp_path / "copy")) == fingerprint(read_autoencoder(tmp_path))
    autoencoder = load_autoencoder(tmp_path)
    assert autoencoder.scale_factor == scale
    every = torch.stack([torch.from_numpy(pictures.read_image(f).copy()) for files in images.values() for f in files])
    mean, log_variance = autoencoder.moments(every.permute(0, 3, 1, 2)).chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    drawn = scale * (mean + (log_variance / 2).exp() * noise)
    assert drawn.std().item() == pytest.approx(1, abs=0.1)  # crops are turned, which moves it a little


def test_the_quality_is_the_signal_to_noise_ratio_of_bytes(patches):
    class Darker:
        """Takes ten levels off every pixel."""

        scale_factor = 0.5

        def moments(self, images):
            return torch.cat([images.float(), torch.zeros_like(images.float())], dim=1)

        def decode(self, latents):
            return (latents / 0.5 - 10).clamp(0) / 255

    flat = patches / "flat.png"
    Image.new("RGB", (256, 256), (100, 150, 200)).save(flat)

    assert pictures.reconstruction_psnr(Darker(), [flat]) == pytest.approx(20 * math.log10(255 / 10))


def test_the_command_trains_reports_held_out_quality_and_goes_on_when_asked_for_more(patches, tmp_path, monkeypatch):
    monkeypatch.setenv("COPGEN_AUTOENCODER__CHANNELS", "[8, 8]")
    monkeypatch.setenv("COPGEN_AUTOENCODER__DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    base = ["train-autoencoder", "--data", str(patches), "--output", "vae", "--batch-size", "1", "--json"]

    first = CliRunner().invoke(app, [*base, "--steps", "1"])
    second = CliRunner().invoke(app, [*base, "--steps", "2"])
    stopped = CliRunner().invoke(app, [*base, "--steps", "9", "--max-time", "0.000001"])
    afresh = CliRunner().invoke(app, [*base, "--steps", "1", "--seed", "5", "--overwrite"])

    assert (first.exit_code, stopped.exit_code) == (0, 3)
    reports = [json.loads(run.stdout) for run in (first, second, stopped, afresh)]
    assert [report["updates"] for report in reports] == [1, 2, 2, 1]
    made = json.loads((tmp_path / "vae/recipe.json").read_text())
    assert (made["recipe"]["steps"], made["recipe"]["seed"], made["images"]) == (1, 5, {"dem": 2, "s2_l2a": 2})
    assert {"dem_psnr_db", "s2_l2a_psnr_db"} <= reports[0].keys()
    assert load_autoencoder(tmp_path / "vae").scale_factor == reports[3]["scaling_factor"]


def test_the_command_says_who_writes_patches_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["train-autoencoder", "--data", str(tmp_path)])

    assert "No patches" in str(run.exception)
    assert "copgen prepare" in run.exception.hint


def test_recoloured_crops_keep_light_and_shade_but_for_what_white_and_black_cut_off():
    pixels = np.random.default_rng(0).integers(90, 160, (32, 32, 3), dtype=np.uint8)

    changed = [pictures.recolour(pixels, np.random.default_rng(seed)) for seed in range(8)]

    for other in changed:
        assert other.dtype == np.uint8
        assert np.abs(other.mean(-1) - pixels.mean(-1)).mean() < 6
        assert not np.array_equal(other, pixels)
    spreads = [float(other.std(-1).mean()) for other in changed]
    assert min(spreads) < 0.8 * pixels.std(-1).mean() < 1.5 * pixels.std(-1).mean() < max(spreads)


def test_no_crop_or_every_crop_is_recoloured_as_asked(images):
    def draw(share):
        return pictures.draw_crops(images, 6, 64, np.random.default_rng(1), recoloured=share).float()

    (plain, every) = draw(0.0), draw(1.0)

    assert torch.equal(plain, pictures.draw_crops(images, 6, 64, np.random.default_rng(1)).float())
    assert not torch.equal(plain, every)


def test_colours_that_are_a_linear_function_of_the_latents_are_explained_and_others_teach_the_latents():
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mix = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, 0], [0.5, 0, 0, -1]])
    linear = torch.einsum("kc,bchw->bkhw", mix, latents.detach()) + 0.3

    assert float(pictures.unexplained(linear, latents).detach()) < 1e-5
    other = linear.roll(1, 3)
    left = pictures.unexplained(other, latents)
    left.backward()
    closer = latents - 100 * latents.grad
    assert float(pictures.unexplained(other, closer).detach()) < float(left.detach())


def test_a_run_starts_from_another_autoencoder_and_refuses_one_of_another_architecture(images, tmp_path):
    train(images, small(steps=2), tmp_path / "first")
    export.export_autoencoder(images, small(steps=2), tmp_path / "first", CPU)
    start = str(tmp_path / "first")

    train(images, small(steps=1, lr=1e-12, init_from=start), tmp_path / "second")

    first, second = (torch.load(tmp_path / name / STATE_NAME, weights_only=True)["ema"] for name in ("first", "second"))
    for name, tensor in second.items():
        torch.testing.assert_close(tensor, first[name], rtol=2e-3, atol=1e-4)  # it was written in float16
    with pytest.raises(MismatchError, match="architecture"):
        train(images, small(channels=(8, 16), init_from=start), tmp_path / "third")


def test_a_frozen_encoder_keeps_latents_and_their_scale_while_the_decoder_learns(images, tmp_path):
    train(images, small(steps=2), tmp_path / "first")
    scale = export.export_autoencoder(images, small(steps=2), tmp_path / "first", CPU)
    settings = small(steps=3, lr=1e-2, init_from=str(tmp_path / "first"), frozen_encoder=True)

    train(images, settings, tmp_path / "second")

    assert export.export_autoencoder(images, settings, tmp_path / "second", CPU) == scale
    first, second = (load_autoencoder(tmp_path / name) for name in ("first", "second"))
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moments = first.moments(image)
    assert torch.equal(moments, second.moments(image))
    assert not torch.equal(first.decode(moments[:, :4]), second.decode(moments[:, :4]))


def test_a_frozen_encoder_without_an_autoencoder_to_start_from_is_refused():
    with pytest.raises(ValueError, match="init_from"):
        small(frozen_encoder=True)


@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors", "recipe.json", "metrics.jsonl"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_another_origin_are_neither_replaced_nor_removed(images, tmp_path, name, overwrite):
    (tmp_path / name).write_text("mine")

    with pytest.raises(MismatchError, match=f"{name} was not written by copgen"):
        train(images, small(), tmp_path, overwrite=overwrite)

    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_of_a_version_that_kept_no_names_of_its_files_is_known_for_ours(images, tmp_path):
    train(images, small(steps=1), tmp_path)
    export.export_autoencoder(images, small(steps=1), tmp_path, CPU)
    shutil.rmtree(tmp_path / ".copgen")

    assert [update.step for update in train(images, small(steps=2), tmp_path)] == [2]
    export.export_autoencoder(images, small(steps=2), tmp_path, CPU)
    assert [update.step for update in train(images, small(steps=1), tmp_path, overwrite=True)] == [1]
