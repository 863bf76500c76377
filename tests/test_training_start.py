"""What a run begins with: fresh weights or those of another model, as many samples at a time as fit, and its data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import tiny_autoencoder, tiny_pipeline, tiny_transformer
from tiny_stores import tiny_store

from copgen_cli.errors import MismatchError, UsageError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import PUBLISHED, Modality, Split
from copgen_cli.model.autoencoder import ImageAutoencoder, fingerprint
from copgen_cli.model.autoencoders import Autoencoders
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.diffusion import SCHEDULE, SCHEDULE_ENDING_IN_NOISE, prediction_of, schedule_of
from copgen_cli.model.memory import activation_bytes, choose_micro_batch, shrink_until_it_fits
from copgen_cli.records import LatentSpec, PositionStart, Prediction
from copgen_cli.settings.sections import NetworkSettings, TrainSettings
from copgen_cli.stages.process_group import World
from copgen_cli.training.data_order import DrawnSamples
from copgen_cli.training.loop import train
from copgen_cli.training.new_network import make_network, widen
from copgen_cli.training.preview import Preview
from copgen_cli.training.resumption import changed_settings
from copgen_cli.training.run import find_autoencoders, open_data
from copgen_cli.training.setup import prepare_run, timestep_law
from copgen_cli.training.state import TrainState
from copgen_cli.training.validation import validate

ALL = tuple(PUBLISHED)
SPEC = LatentSpec.alike(ALL, 4, 8, "absent", None, 0.5)
SETTINGS = TrainSettings(
    model=NetworkSettings(patch_size=4, hidden_size=16, depth=2, num_heads=2),
    steps=3, batch_size=4, warmup=0, lr=1e-3, mixed_precision="no", preview_samples=2, preview_steps=2,
)  # fmt: skip


def inputs(*modalities: Modality, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Latents and timesteps that depend on the modality alone, not on its place."""
    latents = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed + m.order)) for m in modalities]
    return latents, [torch.full((2,), 100 * (1 + m.order)) for m in modalities]


@torch.no_grad()
def test_a_model_in_another_order_of_modalities_computes_what_its_source_computes():
    source = tiny_transformer(sample_size=8, patch_size=4, modalities=ALL, mlp_time_embed=True)
    order = (Modality.S2L2A, Modality.DEM, Modality.S2L1C, Modality.S1RTC)

    net = widen(source, order, SPEC, seed=0, name="source").eval()

    expected = dict(zip(ALL, source(*inputs(*ALL)), strict=True))
    for modality, predicted in zip(order, net(*inputs(*order)), strict=True):
        torch.testing.assert_close(predicted, expected[modality], rtol=0, atol=1e-5)


def test_positions_that_start_as_sines_tell_the_same_place_in_another_modality_from_all_others():
    net = make_network(LatentSpec.alike(ALL, 4, 32, "absent", None, 0.5), SETTINGS.model_copy(
        update={"model": NetworkSettings(patch_size=4, hidden_size=64, depth=2, num_heads=2),
                "positions": PositionStart.SINE}))  # fmt: skip
    modalities, patches = len(ALL), net.grids[0][0] ** 2
    of_patches = net.pos_embed[0, modalities:].unflatten(0, (modalities, patches))
    likeness = torch.nn.functional.cosine_similarity(of_patches[0][:, None], of_patches[3][None], dim=2)
    assert torch.equal(likeness.argmax(dim=1), torch.arange(patches))
    assert likeness.diagonal().min() > 0.9
    assert net.pos_embed[0, :modalities].abs().max() < 0.2, "tokens of timesteps have no place"


def test_modalities_that_the_source_does_not_know_start_fresh_and_the_others_as_they_were():
    known = (Modality.S1RTC, Modality.S2L2A)
    source = tiny_transformer(sample_size=8, patch_size=4, modalities=known)

    net = widen(source, ALL, SPEC, seed=0, name="source")

    assert torch.equal(net.mid_block.mlp.fc1.weight, source.mid_block.mlp.fc1.weight)
    for old, modality in enumerate(known):
        assert torch.equal(net.patch_embeds[modality.order].proj.weight, source.patch_embeds[old].proj.weight)
        assert torch.equal(net.decoder_preds[modality.order].bias, source.decoder_preds[old].bias)
    fresh = make_network(SPEC, SETTINGS.model_copy(update={"model": NetworkSettings(
        patch_size=4, hidden_size=32, depth=2, num_heads=2)}))  # fmt: skip
    assert torch.equal(net.decoder_preds[0].weight, fresh.decoder_preds[0].weight)
    assert torch.equal(net.pos_embed[:, 0], fresh.pos_embed[:, 0])


def test_only_modalities_that_are_added_start_with_sines(tmp_path):
    known = (Modality.S1RTC, Modality.S2L2A)
    source = tiny_transformer(sample_size=8, patch_size=4, modalities=known)
    source.save_pretrained(tmp_path / "source")
    asked = SETTINGS.model_copy(update={"init_from": str(tmp_path / "source"), "positions": PositionStart.SINE})

    net = make_network(SPEC, asked)

    added, old = net.pos_embed[0, len(ALL) :].unflatten(0, (len(ALL), -1))[::2], source.pos_embed[0, len(known) :]
    torch.testing.assert_close(added[0], added[1], rtol=0, atol=0.2)
    assert added.abs().max() > 0.4
    assert torch.equal(net.pos_embed[0, len(ALL) :].unflatten(0, (len(ALL), -1))[1], old[: len(old) // 2])


def test_a_new_network_tells_what_the_settings_say_and_one_from_other_weights_what_these_told(tmp_path):
    velocities = NetworkSettings(patch_size=4, hidden_size=16, depth=2, num_heads=2, prediction_type="v_prediction")
    net = make_network(SPEC, SETTINGS.model_copy(update={"model": velocities}))
    net.save_pretrained(tmp_path / "source")

    further = make_network(SPEC, SETTINGS.model_copy(update={"init_from": str(tmp_path / "source")}))

    assert prediction_of(make_network(SPEC, SETTINGS)) is Prediction.NOISE
    assert prediction_of(net) is prediction_of(further) is Prediction.VELOCITY


def test_a_trunk_can_learn_to_predict_something_else_with_fresh_heads(tmp_path):
    tiny_transformer(sample_size=8, patch_size=4).save_pretrained(tmp_path / "noise")
    asked = SETTINGS.model_copy(
        update={"init_from": str(tmp_path / "noise"), "model": NetworkSettings(prediction_type="v_prediction")}
    )

    net, source = make_network(SPEC, asked), load_transformer(tmp_path / "noise")

    assert prediction_of(net) is Prediction.VELOCITY
    assert torch.equal(net.mid_block.attn.qkv.weight, source.mid_block.attn.qkv.weight)
    assert not torch.equal(net.decoder_preds[1].weight, source.decoder_preds[1].weight)
    assert not net.decoder_preds[1].bias.any()


def test_the_schedule_of_other_weights_stays_or_ends_in_noise_as_asked(tmp_path):
    tiny_transformer(sample_size=8, patch_size=4, prediction_type="v_prediction").save_pretrained(tmp_path / "source")
    velocities = NetworkSettings(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    asked = SETTINGS.model_copy(update={"init_from": str(tmp_path / "source"), "model": velocities})
    net = make_network(SPEC, asked)
    net.save_pretrained(tmp_path / "ended")

    further = make_network(SPEC, SETTINGS.model_copy(update={"init_from": str(tmp_path / "ended")}))

    assert schedule_of(load_transformer(tmp_path / "source")) is SCHEDULE
    assert schedule_of(net) is schedule_of(further) is SCHEDULE_ENDING_IN_NOISE
    assert torch.equal(net.decoder_preds[1].weight, load_transformer(tmp_path / "source").decoder_preds[1].weight)
    with pytest.raises(ValueError, match="needs prediction_type = v_prediction"):
        NetworkSettings(rescale_betas_zero_snr=True)


def test_weights_of_other_latents_are_refused():
    with pytest.raises(MismatchError, match="is of latents 4 x 16 x 16, the data of 4 x 8 x 8"):
        widen(tiny_transformer(sample_size=16), ALL, SPEC, seed=0, name="source")


def test_a_run_from_another_model_goes_on_without_it(tmp_path):
    store = tiny_store(tmp_path / "store")
    tiny_transformer(sample_size=8, modalities=ALL[:2]).save_pretrained(tmp_path / "source")
    settings = SETTINGS.model_copy(update={"init_from": str(tmp_path / "source"), "validate_every": 0})
    data = LatentStore(store / Split.TRAIN)

    def prepare():
        return prepare_run(data, None, SPEC, settings, tmp_path / "checkpoints", World(torch.device("cpu")))

    first = prepare()
    assert first.state.net.config.hidden_size == 32  # the source's, not the settings'
    list(train(first.run, first.state, lambda: None))
    (tmp_path / "source" / "config.json").unlink()

    assert prepare().state.step == 3


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"modalities": ALL[::-1]}, MismatchError, "was trained on dem, s1_rtc, s2_l1c, s2_l2a, and can not go on"),
        ({"model": NetworkSettings(prediction_type="v_prediction")}, MismatchError, "predicts epsilon, and can not"),
        (
            {"model": NetworkSettings.model_construct({"rescale_betas_zero_snr"}, rescale_betas_zero_snr=True)},
            MismatchError,
            "does not end in noise alone, and can not change",
        ),
        ({"init_from": "copgen-sim"}, UsageError, "began from .*source, and --init-from copgen-sim would change"),
    ],
)
def test_a_run_from_another_model_goes_on_as_what_it_became(tmp_path, changed, error, says):
    store = tiny_store(tmp_path / "store")
    tiny_transformer(sample_size=8, modalities=ALL[:2]).save_pretrained(tmp_path / "source")
    settings = SETTINGS.model_copy(update={"init_from": str(tmp_path / "source"), "validate_every": 0})
    data = LatentStore(store / Split.TRAIN)

    def prepare(asked):
        return prepare_run(data, None, SPEC, asked, tmp_path / "checkpoints", World(torch.device("cpu")))

    first = prepare(settings)
    list(train(first.run, first.state, lambda: None))

    with pytest.raises(error, match=says):
        prepare(settings.model_copy(update=changed))


def test_settings_that_are_younger_than_a_run_have_not_changed():
    settings = TrainSettings()
    before = settings.model_dump(mode="json")
    del before["timestep_shift"], before["given_odds"]

    assert changed_settings(before, settings) == {}
    assert changed_settings(before, TrainSettings(timestep_shift=3)) == {"timestep_shift": (1.0, 3.0)}


def test_odds_follow_the_order_of_the_model_and_are_refused_for_what_it_does_not_have():
    asked = TrainSettings(timesteps="roles", min_snr_gamma=5, one_given=0.5, given_odds={"s1_rtc": 4, "s2_l1c": 2})
    dem, radar, *optical = ALL

    assert timestep_law(asked, [*optical, radar, dem]).given_odds == (2, 1, 4, 1)
    assert timestep_law(SETTINGS, ALL).given_odds == ()
    with pytest.raises(UsageError, match="given_odds names s1_rtc, which the run does not train"):
        timestep_law(asked, [dem, *optical])


def test_weights_of_a_pipeline_with_another_autoencoder_are_refused(tmp_path):
    vae = tmp_path / "vae"
    tiny_autoencoder(seed=1).save_pretrained(vae)
    store = tiny_store(
        tmp_path / "store", autoencoder=AutoencoderFacts(str(vae), fingerprint(tiny_autoencoder(seed=1)), 0.7)
    )
    tiny_pipeline(tmp_path / "pipeline", seed=0, sample_size=8)
    data, _, spec = open_data(store)

    assert find_autoencoders(SETTINGS, spec, data, torch.device("cpu")) is not None
    for setting, told in (("init_from", "another autoencoder"), ("vae", "not by")):
        settings = SETTINGS.model_copy(update={setting: str(tmp_path / "pipeline")})
        with pytest.raises(MismatchError, match=told):
            find_autoencoders(settings, spec, data, torch.device("cpu"))


def test_a_pure_last_step_is_refused_for_a_network_that_predicts_noise(tmp_path):
    data = LatentStore(tiny_store(tmp_path / "store") / Split.TRAIN)
    settings = SETTINGS.model_copy(update={"pure_last_step": True, "validate_every": 0})

    with pytest.raises(UsageError, match="pure_last_step needs a network that predicts velocities"):
        prepare_run(data, None, SPEC, settings, tmp_path / "checkpoints", World(torch.device("cpu")))


def test_sizes_that_do_not_fit_are_wrong_usage():
    settings = SETTINGS.model_copy(update={"model": NetworkSettings(patch_size=3)})
    with pytest.raises(UsageError, match="sample_size 8 is not a multiple of patch_size 3"):
        make_network(SPEC, settings)


def test_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    one = make_network(SPEC, SETTINGS).state_dict()
    torch.manual_seed(2)
    other = make_network(SPEC, SETTINGS).state_dict()

    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_micro_batch_halves_until_it_fits():
    tried = []

    def attempt(samples: int) -> None:
        tried.append(samples)
        if samples > 3:
            raise torch.OutOfMemoryError

    assert shrink_until_it_fits(23, attempt) == 3
    assert tried == [23, 12, 6, 3]


def test_when_not_even_one_sample_fits_the_device_says_so():
    def attempt(samples: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        shrink_until_it_fits(4, attempt)


def test_a_micro_batch_is_an_even_part_of_the_share_that_fits_the_memory(monkeypatch):
    net = make_network(SPEC, SETTINGS)
    for share, fitting, expected in ((8, 100, 8), (8, 7, 4), (9, 4, 3), (5, 0, 1)):
        room = (fitting + 0.5) * activation_bytes(net, SETTINGS) / 0.6
        weights = 20 * sum(parameter.numel() for parameter in net.parameters())
        monkeypatch.setattr("copgen_cli.model.memory.free_bytes", lambda device, free=room + weights: free)
        assert choose_micro_batch(net, SETTINGS, share, torch.device("cpu")) == expected


def held_out(store: Path) -> DrawnSamples:
    return DrawnSamples(LatentStore(store / Split.TEST), (0.5,) * len(ALL), seed=0)


def test_validation_is_of_the_averaged_weights_and_the_same_however_often_and_in_whatever_batches(
    tmp_path, monkeypatch
):
    samples = held_out(tiny_store(tmp_path / "store", test=9))
    seen = DrawnSamples(LatentStore(tmp_path / "store" / Split.TRAIN), (0.5,) * len(ALL), seed=0)
    state = TrainState.begin(make_network(SPEC, SETTINGS), SETTINGS)

    def look():
        return validate(state, samples, seen, 9, ALL, lambda: torch.autocast("cpu", enabled=False))

    first = look()
    with torch.no_grad():
        state.net.norm.weight.fill_(7.0)
    monkeypatch.setattr("copgen_cli.training.validation.BATCH", 2)
    again = look()

    assert again.loss == pytest.approx(first.loss, rel=1e-5)
    assert again.train_loss == pytest.approx(first.train_loss, rel=1e-5)
    assert first.train_loss != first.loss
    assert first.loss == pytest.approx(sum(first.by_modality.values()), rel=1e-5)
    assert list(first.by_timesteps) == ["1-250", "251-500", "501-750", "751-1000"]
    state.average.values[-1].fill_(7.0)
    assert look().loss != first.loss


def test_an_interrupted_validation_or_preview_gives_nothing_and_leaves_the_weights_alone(tmp_path):
    samples = held_out(tiny_store(tmp_path / "store"))
    state = TrainState.begin(make_network(SPEC, SETTINGS), SETTINGS)
    before = [parameter.clone() for parameter in state.net.parameters()]
    autoencoder = Autoencoders(dict.fromkeys(ALL, ImageAutoencoder(tiny_autoencoder())))
    preview = Preview(tmp_path, samples, samples.moments.names, ALL, autoencoder, SETTINGS, title="run")

    still = torch.autocast("cpu", enabled=False)
    assert validate(state, samples, samples, 3, ALL, lambda: still, lambda: True) is None
    assert preview(state, lambda: True) is None
    assert all(torch.equal(a, b) for a, b in zip(before, state.net.parameters(), strict=True))
    assert state.net.training


def test_a_preview_shows_every_place_from_nothing_and_from_each_modality_and_says_that_it_is_synthetic(tmp_path):
    samples = held_out(tiny_store(tmp_path / "store"))
    state = TrainState.begin(make_network(SPEC, SETTINGS), SETTINGS)
    autoencoder = Autoencoders(dict.fromkeys(ALL, ImageAutoencoder(tiny_autoencoder())))
    preview = Preview(tmp_path, samples, samples.moments.names, ALL, autoencoder, SETTINGS, title="run")

    file = preview(state, lambda: False)
    pixels = Image.open(file).convert("RGB").tobytes()

    assert file == tmp_path / "step-00000000.png"
    with Image.open(file) as page:
        assert page.text["Synthetic"] == "true"
        assert "trainedAlgorithmicMedia" in page.text["XML:com.adobe.xmp"]
        assert '"conditions": [[], ["dem"], ["s1_rtc"], ["s2_l1c"], ["s2_l2a"]]' in page.text["copgen"]
        assert page.width > 2 * 4 * 128  # two places of four modalities
        assert page.height > 6 * 128  # truth, from nothing, and from each of four
    assert Image.open(preview(state, lambda: False)).convert("RGB").tobytes() == pixels


def test_a_run_writes_a_model_that_loads_also_where_the_autoencoder_can_not_be_had(tmp_path):
    from copgen_cli.training.export import export_model

    store = tiny_store(tmp_path / "store")
    run = prepare_run(
        LatentStore(store / Split.TRAIN), None, SPEC, SETTINGS, tmp_path / "c", World(torch.device("cpu"))
    )
    *_, last = train(run.run, run.state, lambda: None)

    export_model(last.checkpoint, tmp_path / "model", None)
    export_model(last.checkpoint, tmp_path / "model", None)  # over the first

    net = load_transformer(tmp_path / "model")
    average = dict(zip(dict(run.state.net.named_parameters()), run.state.average.values, strict=True))
    assert all(torch.equal(parameter, average[name]) for name, parameter in net.named_parameters())
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert written == {"copgen_export.json", "scheduler", "transformer"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_model_that_a_killed_export_had_put_aside_is_back_when_the_run_starts_again(tmp_path):
    from copgen_cli.training.export import put_right

    aside, unfinished = tmp_path / ".copgen/model/old", tmp_path / ".copgen/model/new"
    for folder in (aside, unfinished):
        folder.mkdir(parents=True)
    (aside / "weights").write_bytes(b"whole")

    put_right(tmp_path / "model")

    assert (tmp_path / "model" / "weights").read_bytes() == b"whole"
    assert not unfinished.exists()
