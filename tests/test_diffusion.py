"""Noise is added as published, and the loss and its gradients are those of the specification."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from small_networks import expected, latents, network
from torch.testing import assert_close

from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.diffusion import (
    SCHEDULE,
    TimestepLaw,
    add_noise,
    denoising_loss,
    denoising_loss_parts,
    draw_timesteps,
    min_snr_weight,
    noise_from,
    prediction_of,
    what_to_predict,
)
from copgen_cli.model.transformer import PREDICTION_TYPES, CopGenTransformer
from copgen_cli.records import Prediction, TimestepDraw
from copgen_cli.settings.sections import TrainSettings

TINY = {"sample_size": 8, "patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_recorded_schedule_comes_out_in_float64(shared):
    arrays = np.load(shared / "golden/schedule.npz", allow_pickle=False)

    assert_close(SCHEDULE.betas, torch.from_numpy(arrays["betas"]), rtol=1e-12, atol=0)
    assert_close(SCHEDULE.abar, torch.from_numpy(arrays["cum_alphas"]), rtol=1e-12, atol=0)
    assert_close(1 - SCHEDULE.abar, torch.from_numpy(arrays["cum_betas"]), rtol=1e-12, atol=1e-14)


def test_the_recorded_continuous_times_come_out(shared):
    arrays = np.load(shared / "golden/schedule.npz", allow_pickle=False)
    t = torch.from_numpy(arrays["vp_t"]).double()
    alpha, sigma = SCHEDULE.amplitudes(1000 * t, torch.float64)

    for name, got, tolerance in (
        ("log_alpha", SCHEDULE.log_alpha(t), 2e-6),
        ("alpha", alpha, 2e-6),
        ("sigma", sigma, 2e-6),
        ("lambda", (alpha / sigma).log(), 3e-5),
    ):
        assert_close(got, torch.from_numpy(arrays[f"vp_{name}"]).double(), rtol=0, atol=tolerance)


def test_the_recorded_noisy_latents_come_out(shared):
    arrays = np.load(shared / "golden/schedule.npz", allow_pickle=False)
    for i in range(4):
        clean, noise, n = (torch.from_numpy(arrays[f"{name}_{i}"]) for name in ("x0", "eps", "n"))
        assert_close(add_noise(clean, noise, n), torch.from_numpy(arrays[f"xn_{i}"]), rtol=0, atol=1e-6)


def test_the_schedule_is_the_one_that_the_specification_writes_down():
    assert_close(SCHEDULE.abar[[0, 1, 2, 500, 999, 1000]], expected("abar"), rtol=1e-12, atol=0)
    times = torch.tensor([0.0, 0.0005, 0.1234, 0.5, 1.0], dtype=torch.float64)
    assert_close(SCHEDULE.log_alpha(times), expected("log_alpha"), rtol=1e-12, atol=1e-15)


def test_step_zero_keeps_a_latent_clean_and_the_last_step_leaves_almost_only_noise():
    clean, noise = latents("x0")[0], latents("eps")[0]

    noisy = add_noise(clean, noise, torch.tensor([0, 1000]))

    assert_close(noisy[0], clean[0], rtol=0, atol=0)
    assert_close(noisy[1], 0.0682624 * clean[1] + 0.9976674 * noise[1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0, 1))
def test_a_fractional_step_lies_between_its_neighbours_and_a_whole_float_is_that_step(n, part):
    below, between, above = (SCHEDULE.amplitudes(torch.tensor([k]), torch.float64)[0] for k in (n, n + part, n + 1))

    assert above - 1e-12 <= between <= below + 1e-12
    assert_close(SCHEDULE.amplitudes(torch.tensor([float(n)]), torch.float64)[0], below, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [-0.5, 1000.5, math.nan, -1, 1001])
def test_a_step_outside_the_schedule_is_refused(n):
    with pytest.raises(ValueError, match="within 0 to 1000"):
        SCHEDULE.amplitudes(torch.tensor([n]), torch.float32)


def test_there_is_one_step_per_latent():
    with pytest.raises(ValueError, match="one step per latent"):
        add_noise(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8), torch.tensor([3]))


def test_steps_may_be_integers_of_any_kind():
    for kind in (torch.uint8, torch.int16, torch.int32):
        found = SCHEDULE.amplitudes(torch.tensor([0, 7, 120], dtype=kind), torch.float32)
        assert_close(found, SCHEDULE.amplitudes(torch.tensor([0, 7, 120]), torch.float32), rtol=0, atol=0)


def test_drawn_steps_cover_the_schedule_and_differ_by_modality_and_sample():
    drawn = draw_timesteps(20_000, 2, generator=generator())

    assert drawn.shape == (2, 20_000)
    assert (int(drawn.min()), int(drawn.max())) == (1, 1000)
    assert float(drawn.double().mean()) == pytest.approx(500.5, abs=5)
    assert abs(float(torch.corrcoef(drawn.double())[0, 1])) < 0.03
    assert_close(drawn, draw_timesteps(20_000, 2, generator=generator()), rtol=0, atol=0)


def test_logit_normal_steps_prefer_the_middle():
    drawn = draw_timesteps(20_000, 1, law=TimestepLaw(TimestepDraw.LOGIT_NORMAL), generator=generator())
    middle = ((drawn > 250) & (drawn <= 750)).double().mean()  # a standard normal within log 3 of 0

    assert int(drawn.min()) >= 1
    assert int(drawn.max()) <= 1000
    assert float(middle) == pytest.approx(math.erf(math.log(3) / math.sqrt(2)), abs=0.01)


def test_the_min_snr_weight_is_one_below_gamma_and_gamma_over_snr_above():
    n = torch.tensor([1, 100, 500, 1000])
    snr = SCHEDULE.abar[n] / (1 - SCHEDULE.abar[n])

    weight = min_snr_weight(n, gamma=5.0)

    assert_close(weight.double(), torch.minimum(snr, torch.tensor(5.0)) / snr, rtol=1e-5, atol=0)
    assert weight[0] < 0.01
    assert weight[3] == 1


@pytest.mark.parametrize(("variant", "heads"), [("m4", 4), ("m2", 3)])
def test_the_recorded_loss_and_gradients_come_out(shared, variant, heads):
    net = load_transformer(shared / f"golden/transformer_{variant}.weights.safetensors", num_heads=heads).train()
    arrays = np.load(shared / f"golden/loss_{variant}.npz", allow_pickle=False)
    record = json.loads((shared / f"golden/loss_{variant}.json").read_text())
    clean, n, noise = (
        [torch.from_numpy(arrays[f"{name}_{i}"]) for i in range(net.num_modalities)] for name in ("x0", "n", "eps")
    )

    loss = denoising_loss(net, clean, n, noise)
    loss.mean().backward()

    assert_close(loss, torch.from_numpy(arrays["loss_per_sample"]), rtol=1e-5, atol=0)
    assert float(loss.detach().mean()) == pytest.approx(record["loss_mean"], rel=1e-5)
    for name, parameter in net.named_parameters():
        assert float(parameter.grad.double().norm()) == pytest.approx(record["grad"][name]["l2"], rel=1e-4), name
        total, scale = record["grad"][name]["sum"], record["grad"][name]["abs_sum"]
        assert float(parameter.grad.double().sum()) == pytest.approx(total, abs=1e-4 * scale), name


def test_the_loss_of_each_modality_and_its_slope_along_every_tensor_are_those_of_an_independent_calculation():
    net, clean, noise, n = network(), latents("x0"), latents("eps"), expected("loss.n")

    parts = denoising_loss_parts(net, clean, list(n), noise)
    parts.sum(0).mean().backward()

    assert_close(parts.double(), expected("loss.parts"), rtol=1e-5, atol=0)
    assert_close(denoising_loss(net, clean, list(n), noise), parts.sum(0), rtol=0, atol=0)
    slopes = dict(zip(oracle.shapes_of(oracle.CASES["four"]), expected("loss.slopes"), strict=True))
    for name, parameter in net.named_parameters():
        direction = torch.from_numpy(oracle.normal(f"direction {name}", *parameter.shape))
        slope = float((parameter.grad.double() * direction).sum())
        reach = float(parameter.grad.double().norm() * direction.norm())
        assert slope == pytest.approx(float(slopes[name]), abs=1e-5 * reach), name


def test_the_loss_is_float32_whatever_the_network_computes_in():
    clean, noise, n = latents("x0"), latents("eps"), list(expected("loss.n"))
    exact = denoising_loss(network(), clean, n, noise)

    rough = denoising_loss(network().bfloat16(), clean.bfloat16(), n, noise.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = denoising_loss(network(), clean, n, noise)

    assert rough.dtype == mixed.dtype == torch.float32
    assert_close(rough, exact, rtol=2e-2, atol=0)
    assert_close(mixed, exact, rtol=2e-2, atol=0)
    assert not torch.equal(mixed, mixed.bfloat16().float())


def test_steps_and_noise_that_are_not_given_come_from_the_generator():
    net, clean = network(), latents("x0")
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(torch.stack(list(inputs[1]))))

    first, again, other = (denoising_loss(net, clean, generator=generator(seed)) for seed in (1, 1, 2))

    assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert len(seen[0].unique()) == 8  # four modalities of two samples
    assert_close(seen[0], draw_timesteps(2, 4, generator=generator(1)))


def test_min_snr_weighs_each_part_by_its_own_step():
    net, clean, noise, n = network(), latents("x0"), latents("eps"), expected("loss.n")
    plain = denoising_loss_parts(net, clean, list(n), noise)

    weighted = denoising_loss_parts(net, clean, list(n), noise, min_snr_gamma=5.0)

    assert_close(weighted, plain * min_snr_weight(n, 5.0))


def test_a_pure_last_step_shows_the_noise_that_sampling_starts_from_and_nothing_of_the_places():
    seen: list[list[torch.Tensor]] = []

    def net(noisy, timesteps):
        seen.append(noisy)
        return noisy

    clean, noise = torch.randn(2, 4, 2, 3, 8, 8, generator=generator(0))
    steps = torch.tensor([[0, 1000], [1000, 999], [500, 1000], [1000, 1000]])

    for pure in (False, True):
        denoising_loss_parts(net, clean, list(steps), noise, pure_last_step=pure)

    mixed, pure = (torch.stack(list(noisy)) for noisy in seen)
    last = steps == 1000
    assert torch.equal(pure[last], noise[last])
    assert torch.equal(pure[~last], mixed[~last])
    assert (mixed[last] - noise[last]).abs().mean() > 0.03


def test_a_schedule_that_ends_in_noise_shows_nothing_of_the_places_at_its_end_and_as_much_at_its_start():
    seen: list[list[torch.Tensor]] = []

    class Net(torch.nn.Module):
        config = SimpleNamespace(prediction_type="v_prediction", rescale_betas_zero_snr=True)

        def forward(self, noisy, timesteps):
            seen.append(noisy)
            return [-z for z in clean]

    clean, noise = torch.randn(2, 4, 2, 3, 8, 8, generator=generator(0))
    steps = torch.tensor([[1, 1000], [1000, 1], [1, 1000], [1000, 1000]])

    errors = denoising_loss_parts(Net(), clean, list(steps), noise)

    noisy = torch.stack(seen[0])
    assert_close(noisy[steps == 1000], noise[steps == 1000], rtol=0, atol=1e-2)
    assert_close(
        noisy[steps == 1],
        torch.stack([add_noise(z, e, n) for z, e, n in zip(clean, noise, steps, strict=True)])[steps == 1],
    )
    assert (errors[steps == 1000] < 1e-4).all(), "the velocity of noise alone is the clean latents turned round"


def test_noise_that_does_not_match_the_latents_is_refused():
    clean = latents("x0")
    with pytest.raises(ValueError, match="noise of shapes"):
        denoising_loss(network(), clean, noise=clean[:3])


def five_steps(net, clean, steps, noises, warmup=2):
    """The published recipe, AdamW on every parameter with a rate that rises from 0; returns the losses."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=0.03, betas=(0.99, 0.99), eps=1e-8)
    losses = []
    for k, (n, noise) in enumerate(zip(steps, noises, strict=True)):
        optimizer.param_groups[0]["lr"] = 2e-4 * min(k / warmup, 1)
        loss = denoising_loss(net, clean, list(n), list(noise)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_five_recorded_training_steps_come_out(shared):
    record = json.loads((shared / "golden/train5.json").read_text())
    arrays = np.load(shared / "golden/train5.npz", allow_pickle=False)
    net = load_transformer(shared / "golden/train5.initial.safetensors", num_heads=4).train()
    clean, n, noise = (torch.from_numpy(arrays[name]) for name in ("x0", "n", "eps"))

    losses = five_steps(net, clean, n, noise)

    assert losses == pytest.approx(record["losses"], rel=1e-5)
    assert_close(
        dict(net.named_parameters()),
        load_file(shared / "golden/train5.final_model.safetensors"),
        rtol=0,
        atol=1e-6,
    )


def test_five_training_steps_agree_with_adamw_written_out_in_float64():
    clean = latents("x0")
    n = torch.randint(1, 1001, (5, 4, 2), generator=generator(3))
    noise = torch.randn(5, *clean.shape, generator=generator(4))
    net, exact = network().train(), network().double().train()
    first = {name: torch.zeros_like(p) for name, p in exact.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in exact.named_parameters()}
    wanted = []
    for k in range(5):
        rate = 2e-4 * min(k / 2, 1)
        loss = denoising_loss(exact, clean.double(), list(n[k]), list(noise[k].double())).mean()
        gradients = torch.autograd.grad(loss, list(exact.parameters()))
        wanted.append(float(loss.detach()))
        with torch.no_grad():
            for (name, p), g in zip(exact.named_parameters(), gradients, strict=True):
                first[name] = 0.99 * first[name] + 0.01 * g
                second[name] = 0.99 * second[name] + 0.01 * g**2
                unbiased = 1 - 0.99 ** (k + 1)
                p -= rate * (0.03 * p + first[name] / unbiased / ((second[name] / unbiased).sqrt() + 1e-8))

    losses = five_steps(net, clean, n, noise)

    assert losses == pytest.approx(wanted, rel=1e-5)
    assert losses[1] != pytest.approx(wanted[0], rel=1e-3)
    assert_close(
        {name: p.double() for name, p in net.named_parameters()}, dict(exact.named_parameters()), rtol=0, atol=1e-6
    )


def test_roles_ask_every_question_that_sampling_asks_and_conditions_weigh_nothing():
    steps = draw_timesteps(8000, 4, law=TimestepLaw(TimestepDraw.ROLES), generator=generator())
    given, left_out = steps == 0, steps == 1000
    generated = ~given & ~left_out
    asked = generated.any(0)  # all but the rare columns where the step of what is generated is the last one
    assert asked.float().mean() > 0.99
    assert len({tuple(column.tolist()) for column in (given * 1 + left_out * 2)[:, asked].T}) == 3**4 - 2**4
    shares = torch.stack([given, generated, left_out]).float().mean((1, 2))
    assert_close(shares, torch.tensor([25 / 81, 31 / 81, 25 / 81]), rtol=0, atol=0.01)
    for column, mask in zip(steps.T, generated.T, strict=True):
        assert len(column[mask].unique()) <= 1
    assert abs(steps[generated].float().mean() - 500) < 20
    assert min_snr_weight(torch.tensor([0, 1000]), 1.0).tolist() == [0.0, 1.0]


def test_a_share_of_roles_has_exactly_one_modality_given_and_something_to_generate():
    law = TimestepLaw(TimestepDraw.ROLES, one_given=0.6)
    steps = draw_timesteps(8000, 4, law=law, generator=generator())
    given = steps == 0
    one = given.sum(0) == 1

    assert float(one.float().mean()) == pytest.approx(0.6 + 0.4 * 32 / 81, abs=0.02)  # 32 of 81 by equal odds
    assert_close((given & one).float().mean(1), torch.full((4,), float(one.float().mean()) / 4), rtol=0, atol=0.02)
    assert ((steps > 0) & (steps < 1000)).any(0).float().mean() > 0.99


def test_odds_say_how_often_each_modality_is_the_one_given():
    law = TimestepLaw(TimestepDraw.ROLES, one_given=1.0, given_odds=(1.0, 4.0, 1.0, 2.0))
    steps = draw_timesteps(8000, 4, law=law, generator=generator())

    assert_close((steps == 0).float().mean(1), torch.tensor([1, 4, 1, 2]) / 8, rtol=0, atol=0.02)
    assert ((steps == 0).sum(0) == 1).all()


def test_there_is_one_of_the_odds_for_each_modality():
    with pytest.raises(ValueError, match="3 odds for 4 modalities"):
        draw_timesteps(1, 4, law=TimestepLaw(TimestepDraw.ROLES, one_given=1.0, given_odds=(1.0, 4.0, 1.0)))


def test_odds_without_a_share_to_divide_are_refused():
    with pytest.raises(ValueError, match="given_odds divide the share of one_given"):
        TrainSettings(timesteps=TimestepDraw.ROLES, min_snr_gamma=5, given_odds={"s1_rtc": 4})


@pytest.mark.parametrize("distribution", TimestepDraw)
def test_a_shift_moves_steps_towards_noise_by_the_stated_formula(distribution):
    plain = draw_timesteps(500, 4, law=TimestepLaw(distribution), generator=generator())
    moved = draw_timesteps(500, 4, law=TimestepLaw(distribution, shift=3.0), generator=generator())

    t = plain.double() / 1000
    assert_close(moved.double(), 3000 * t / (1 + 2 * t), rtol=0, atol=0.5)


def test_one_given_without_roles_is_refused():
    with pytest.raises(ValueError, match="one_given is for timesteps = roles"):
        TrainSettings(one_given=0.5)


def test_roles_without_min_snr_are_refused_for_a_clean_modality_has_no_noise_to_predict():
    with pytest.raises(ValueError, match="min_snr_gamma"):
        TrainSettings(timesteps=TimestepDraw.ROLES)


@pytest.mark.parametrize("step", [1, 37, 500, 999, 1000, 250.5])
def test_noise_comes_back_from_the_velocity_and_the_clean_latents_too(step):
    clean, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64, generator=generator())
    n = torch.full((3,), step)
    noisy = add_noise(clean, noise, n)

    velocity = what_to_predict(clean, noise, n, Prediction.VELOCITY)

    signal, spread = SCHEDULE.amplitudes(torch.tensor(step), torch.float64)
    assert_close(noise_from(velocity, noisy, step, Prediction.VELOCITY), noise)
    assert_close(signal * noisy - spread * velocity, clean)


def test_at_the_last_step_a_velocity_is_nearly_the_clean_latents_turned_round():
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator())
    velocity = what_to_predict(clean, noise, torch.tensor([1000]), Prediction.VELOCITY)

    assert_close(velocity, -clean, rtol=0, atol=0.35)
    assert float(torch.corrcoef(torch.stack([velocity.flatten(), -clean.flatten()]))[0, 1]) > 0.99


def test_a_network_of_velocities_is_judged_by_them_also_from_within_a_wrapper():
    clean, noise, n = latents("clean"), latents("noise"), torch.tensor([[1, 1000], [40, 700], [500, 2], [999, 333]])
    wanted = [what_to_predict(z, e, t, Prediction.VELOCITY) for z, e, t in zip(clean, noise, n, strict=True)]

    class Exact(torch.nn.Module):
        config = CopGenTransformer(prediction_type="v_prediction", **TINY).config

        def forward(self, noisy, timesteps):
            return wanted

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *inputs):
            return self.module(*inputs)

    for net in (Exact(), Wrapper(Exact())):
        assert prediction_of(net) is Prediction.VELOCITY
        assert_close(denoising_loss(net, clean, list(n), noise), torch.zeros(2), rtol=0, atol=0)


def test_a_network_can_be_told_to_predict_all_that_the_loss_knows():
    assert set(PREDICTION_TYPES) == set(Prediction)
