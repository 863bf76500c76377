"""One step of training computes what the published optimiser computes; what goes wrong in it changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_transformer
from torch.testing import assert_close

from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.transformer import SHORT, attend
from copgen_cli.records import LearningRateDecay, Optimizer
from copgen_cli.settings.sections import TrainSettings
from copgen_cli.training.data_order import TrainBatch
from copgen_cli.training.loop import LostLoaderError, _take as take, training_step
from copgen_cli.training.optimisers import AveragedWeights, LossScale, ema_decay, learning_rate
from copgen_cli.training.state import TrainState

PUBLISHED = TrainSettings(preset="base", batch_size=4, warmup=2, mixed_precision="no")

STEADY = TrainSettings(batch_size=4, warmup=0, lr=1e-3, mixed_precision="no")


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden"
    return json.loads((folder / "train5.json").read_text()), np.load(folder / "train5.npz"), folder


def published_batches(arrays) -> list[TrainBatch]:
    x0 = torch.from_numpy(arrays["x0"])
    return [
        TrainBatch(x0, torch.from_numpy(e), torch.from_numpy(n))
        for e, n in zip(arrays["eps"], arrays["n"], strict=True)
    ]


@pytest.mark.parametrize("micro_batch", [4, 1, 3])
def test_five_steps_end_where_the_published_trainer_ends(golden, micro_batch):
    facts, arrays, folder = golden
    state = TrainState.begin(load_transformer(folder / "train5.initial.safetensors", num_heads=4), PUBLISHED)

    results = []
    for batch in published_batches(arrays):
        cuts = [
            TrainBatch(*(t.split(micro_batch, dim=1)[i] for t in (batch.latents, batch.noise, batch.timesteps)))
            for i in range(-(-4 // micro_batch))
        ]
        results.append(training_step(state, cuts, PUBLISHED))

    assert_close([sum(r.losses) for r in results], facts["losses"], rtol=1e-5, atol=0)
    assert_close([r.lr for r in results], facts["lr_used_at_step"])
    own = dict(state.net.named_parameters())
    for name, expected in load_file(folder / "train5.final_model.safetensors").items():
        assert_close(own[name].detach(), expected, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    average = dict(zip(own, state.average.values, strict=True))
    for name, expected in load_file(folder / "train5.final_ema.safetensors").items():
        assert_close(average[name], expected, rtol=0, atol=1e-6)


def test_the_average_follows_the_published_formula(shared):
    arrays = np.load(shared / "golden" / "ema.npz")
    for number, rate in enumerate(arrays["rates"]):
        net = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(arrays["dest0"]))])
        average = AveragedWeights(net)
        for source, expected in zip(arrays["src"], arrays[f"dest_after_each_rate{number}"], strict=True):
            net[0].data.copy_(torch.from_numpy(source))
            average.update(float(rate))
            assert_close(average.values[0], torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_the_average_is_in_place_inside_a_block_only_and_the_weights_come_back_bit_for_bit():
    net = tiny_transformer()
    average = AveragedWeights(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    own = {name: parameter.clone() for name, parameter in net.named_parameters()}

    with average.in_place():
        assert all(torch.equal(a, p) for a, p in zip(average.values, net.parameters(), strict=True))

    assert all(torch.equal(own[name], parameter) for name, parameter in net.named_parameters())


def test_the_average_of_a_short_run_forgets_its_start_faster_with_warm_up():
    settings = TrainSettings(ema_decay=0.9999, ema_warmup=True)

    assert [ema_decay(k, settings) for k in (0, 8)] == [0.1, 0.5]
    assert ema_decay(10**6, settings) == 0.9999
    assert ema_decay(0, TrainSettings(ema_decay=0.9999)) == 0.9999


def test_the_first_update_has_rate_zero_and_the_rise_ends_at_the_rate_given(golden):
    facts, _, _ = golden
    assert learning_rate(0, TrainSettings(lr=2e-4, warmup=5000)) == 0
    for k, expected in facts["lr_with_warmup_5000_used_for_update_index"].items():
        assert learning_rate(int(k), TrainSettings(lr=2e-4, warmup=5000)) == pytest.approx(expected, rel=1e-12)


def test_cosine_decay_ends_at_zero():
    settings = TrainSettings(lr=1.0, warmup=10, steps=110, decay=LearningRateDecay.COSINE)

    assert [learning_rate(k, settings) for k in (10, 60, 110)] == pytest.approx([1.0, 0.5, 0.0])


def some_batch(samples: int = 4, seed: int = 0) -> TrainBatch:
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 4, samples, 4, 8, 8, generator=generator)
    return TrainBatch(latents, noise, torch.randint(1, 1001, (4, samples), generator=generator))


def some_state(settings: TrainSettings) -> TrainState:
    return TrainState.begin(tiny_transformer(sample_size=8), settings)


def test_muon_changes_the_matrices_of_blocks_by_one_norm_and_leaves_the_rest_to_adamw():
    plain = STEADY.model_copy(update={"weight_decay": 0.0})
    muon = plain.model_copy(update={"optimizer": Optimizer.MUON})
    start = {name: p.detach().clone() for name, p in some_state(plain).net.named_parameters()}
    after = {}
    for settings in (plain, muon):
        state = some_state(settings)
        training_step(state, [some_batch()], settings)
        after[settings.optimizer] = {name: p.detach() for name, p in state.net.named_parameters()}

    for name, before in start.items():
        update = after[Optimizer.MUON][name] - before
        if "block" in name and before.ndim == 2:
            largest = muon.lr * 0.2 * max(before.shape) ** 0.5  # arXiv:2502.16982, eq. 4
            assert 0.7 < torch.linalg.matrix_norm(update, 2) / largest < 1.3, name
        else:
            assert_close(after[Optimizer.MUON][name], after[Optimizer.ADAMW][name], rtol=0, atol=0)


def everything(state: TrainState) -> dict[str, torch.Tensor]:
    """Weights, average and optimiser, copied."""
    named = list(state.net.named_parameters())
    tensors = {f"weights {name}": parameter for name, parameter in named}
    tensors |= {f"average {name}": value for (name, _), value in zip(named, state.average.values, strict=True)}
    for name, parameter in named:
        tensors |= {f"{kind} {name}": value for kind, value in state.optimizer.state[parameter].items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_a_step_without_finite_loss_or_gradient_changes_nothing_and_is_counted(spoil):
    state = some_state(STEADY)
    training_step(state, [some_batch()], STEADY)
    before = everything(state)
    batch = some_batch()
    if spoil == "loss":
        batch.noise[0, 0, 0, 0, 0] = torch.nan
    else:
        state.net.decoder_preds[0].weight.register_hook(lambda gradient: gradient * torch.inf)

    result = training_step(state, [batch], STEADY)

    assert not result.applied
    assert (state.step, state.position, state.skipped, state.skipped_in_row) == (2, 8, 1, 1)
    assert_same(everything(state), before)


def test_the_step_after_a_skipped_one_counts_from_zero_again():
    state = some_state(STEADY)
    spoilt = some_batch()
    spoilt.latents[:] = torch.inf

    for batch in (spoilt, some_batch()):
        training_step(state, [batch], STEADY)

    assert (state.skipped, state.skipped_in_row) == (1, 0)


def test_in_float16_an_overflow_skips_the_step_and_halves_the_scale_and_the_next_step_trains():
    settings = STEADY.model_copy(update={"mixed_precision": "fp16"})
    state = some_state(settings)
    state.loss_scale = LossScale(value=2.0**40)  # no gradient in float16 survives this
    before = everything(state)

    assert not training_step(state, [some_batch()], settings).applied
    assert_same(everything(state), before)
    assert state.loss_scale.value == 2.0**39

    state.loss_scale = LossScale(value=2.0**10)
    assert training_step(state, [some_batch()], settings).applied


def test_the_scale_doubles_after_a_calm_time_and_never_falls_below_one():
    scale = LossScale(value=2.0, patience=3)
    for _ in range(3):
        scale.update(overflowed=False)
    assert scale.value == 4.0
    for _ in range(5):
        scale.update(overflowed=True)
    assert scale.value == 1.0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_the_gradient_of_float32_roughly_and_keeps_weights_in_float32(precision):
    norms = {}
    for name in ("no", precision):
        settings = STEADY.model_copy(update={"mixed_precision": name})
        state = some_state(settings)
        norms[name] = training_step(state, [some_batch()], settings).grad_norm
        assert {parameter.dtype for parameter in state.net.parameters()} == {torch.float32}

    assert norms[precision] == pytest.approx(norms["no"], rel=0.02)
    assert norms[precision] != norms["no"]


def test_clipping_scales_the_gradient_to_the_norm_given_and_reports_the_norm_before():
    free, clipped = (STEADY.model_copy(update={"clip": clip, "eps": 1e3}) for clip in (None, 0.01))  # eps: sgd-like
    states = [some_state(free), some_state(clipped)]
    begin = everything(states[0])

    norms = [
        training_step(s, [some_batch()], settings).grad_norm
        for s, settings in zip(states, (free, clipped), strict=True)
    ]

    name = "exp_avg pos_embed"
    assert norms[0] == norms[1] > 0.01
    assert_close(everything(states[1])[name], everything(states[0])[name] * 0.01 / norms[0])
    assert not torch.equal(everything(states[1])["weights pos_embed"], begin["weights pos_embed"])


def test_activation_checkpointing_changes_no_number():
    results = []
    for checkpointing in (False, True):
        state = some_state(STEADY)
        if checkpointing:
            state.net.enable_gradient_checkpointing()
        training_step(state, [some_batch()], STEADY)
        results.append(everything(state))

    for name, tensor in results[0].items():
        assert_close(results[1][name], tensor, rtol=0, atol=1e-6)


def test_min_snr_weighs_the_loss_as_its_paper_says():
    batch = some_batch()
    batch.timesteps[:] = 1  # nearly clean: SNR is far above 5
    plain = training_step(some_state(STEADY), [batch], STEADY)
    weighed_settings = STEADY.model_copy(update={"min_snr_gamma": 5.0})

    weighed = training_step(some_state(weighed_settings), [batch], weighed_settings)

    snr = (1 - 0.00085) / 0.00085  # of step 1
    assert sum(weighed.losses) == pytest.approx(sum(plain.losses) * 5 / snr, rel=1e-4)


def test_a_pure_last_step_reaches_the_loss():
    batch = some_batch()
    batch.timesteps[:] = 1000
    pure = STEADY.model_copy(update={"pure_last_step": True})

    plain, asked = (training_step(some_state(settings), [batch], settings) for settings in (STEADY, pure))

    assert sum(asked.losses) != pytest.approx(sum(plain.losses), rel=1e-4)


@pytest.mark.parametrize("tokens", [SHORT, SHORT + 1])
def test_attention_in_bfloat16_is_that_of_float32_to_rounding(tokens):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, tokens, 16, generator=generator)

    half = attend(*(tensor.bfloat16() for tensor in (query, key, value)))

    assert half.dtype == torch.bfloat16
    assert_close(half.float(), attend(query, key, value), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), LostLoaderError),
        (ConnectionResetError(104, "Connection reset by peer"), LostLoaderError),
        (RuntimeError("out of memory"), RuntimeError),
    ],
)
def test_a_loader_that_was_killed_is_told_and_other_errors_are_left_as_they_are(error, told):
    class Loader:
        def __next__(self):
            raise error

    with pytest.raises(told) as caught:
        list(take(Loader(), 1))

    assert isinstance(caught.value, LostLoaderError) is (told is LostLoaderError)
