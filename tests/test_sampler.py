"""What each role means to the network, and that a sample's noise depends on its seed, id and modality alone."""

from __future__ import annotations

import json

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from small_networks import expected, latents, network, relative_error
from torch.testing import assert_close

from copgen_cli.errors import UnknownNameError
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.diffusion import SCHEDULE, SCHEDULE_ENDING_IN_NOISE
from copgen_cli.model.sampler import SampleNoise, sample_latents, sample_noise
from copgen_cli.records import Ignored, Solver

NAMES = ("m0", "m1", "m2", "m3")
PLACES = SampleNoise(7, ("place 0", "place 1"), NAMES)


def watch(net):
    """What a network is called with: a list that grows by (latents, timesteps), each stacked over modalities."""
    calls = []
    net.register_forward_pre_hook(
        lambda _, inputs: calls.append((torch.stack(list(inputs[0])), torch.stack(list(inputs[1]))))
    )
    return calls


def stacked(drawn, order):
    return torch.stack([drawn[i] for i in order])


@pytest.mark.parametrize(("variant", "heads"), [("m4", 4), ("m2", 3)])
@pytest.mark.parametrize("steps", [50, 20, 10])
def test_the_recorded_joint_samples_come_out(shared, variant, heads, steps):
    net = load_transformer(shared / f"golden/transformer_{variant}.weights.safetensors", num_heads=heads)
    arrays = np.load(shared / f"golden/solver_{variant}.npz", allow_pickle=False)
    every, calls = range(net.num_modalities), watch(net)

    drawn = sample_latents(net, every, noise=torch.from_numpy(arrays["z_init"]), steps=steps)

    assert relative_error(stacked(drawn, every), torch.from_numpy(arrays[f"z_final_{steps}"])) < 1e-4
    shown = torch.stack([t for _, t in calls])  # (calls, M, B)
    wanted = torch.from_numpy(arrays[f"net_t_{steps}"])[:, None, None]
    assert_close(shown, wanted.expand_as(shown), rtol=0, atol=1e-3)


def test_the_recorded_states_after_every_update_come_out(shared):
    net = load_transformer(shared / "golden/transformer_m4.weights.safetensors", num_heads=4)
    arrays = np.load(shared / "golden/solver_m4.npz", allow_pickle=False)
    calls = watch(net)

    drawn = sample_latents(net, range(4), noise=torch.from_numpy(arrays["z_init"]), steps=10)

    states = [calls[call][0] for call in (3, 6, 9)] + [stacked(drawn, range(4))]  # three updates of order 3, one of 1
    for state, wanted in zip(states, torch.from_numpy(arrays["trajectory_10"]), strict=True):
        assert relative_error(state, wanted) < 1e-4


@pytest.mark.parametrize("case", ["s1_l2a_from_dem_l1c", "dem_from_rest", "joint_all"])
def test_the_recorded_conditional_samples_come_out_of_the_network_timesteps_that_were_recorded(shared, case):
    record = json.loads((shared / f"golden/conditional_{case}.json").read_text())
    arrays = np.load(shared / f"golden/conditional_{case}.npz", allow_pickle=False)
    net, names = (
        load_transformer(shared / "golden/conditional_weights_4.safetensors", num_heads=4),
        record["modalities"],
    )
    generate = sorted(names.index(name) for name in record["generate"])
    calls = watch(net)

    drawn = sample_latents(
        net,
        generate,
        {names.index(name): torch.from_numpy(arrays[f"z_cond_{name}"]) for name in record["condition"]},
        noise=torch.from_numpy(arrays["x_init"]),
        steps=record["sample_steps"],
    )

    assert relative_error(drawn.values(), [torch.from_numpy(arrays[f"z_final_{names[i]}"]) for i in drawn]) < 1e-4
    assert_close(torch.stack([t[:, 0] for _, t in calls]), torch.from_numpy(arrays["net_t"]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [50, 20, 10])
def test_joint_samples_are_those_of_an_independent_float64_calculation(steps):
    drawn = sample_latents(network(), range(4), noise=latents("start"), steps=steps)

    assert relative_error(stacked(drawn, range(4)), expected(f"joint.{steps}")) < 1e-4


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_guided_samples_are_those_of_an_independent_float64_calculation(scale):
    drawn = sample_latents(
        network(),
        generate=[3, 0],
        condition={1: latents("given")[1]},
        noise=latents("start")[:2],
        steps=10,
        guidance_scale=scale,
        noise_source=PLACES,
    )

    assert relative_error(stacked(drawn, [3, 0]), expected(f"guided.{scale}")) < 1e-4


@pytest.mark.parametrize("solver", list(Solver))
def test_roles_are_held_at_their_timesteps_and_marginalised_noise_is_never_redrawn(solver):
    net, given = network(), latents("given")[1]
    calls = watch(net)

    sample_latents(net, [3, 0], {1: given}, steps=7, solver=solver, noise_source=PLACES)

    assert len(calls) == 7
    for z, t in calls:
        assert_close(z[1], given, rtol=0, atol=0)
        assert_close(z[2], calls[0][0][2], rtol=0, atol=0)
        assert t[1].tolist() == [0, 0]
        assert t[2].tolist() == [1000, 1000]
        assert len(t[[0, 3]].unique()) == 1
    assert_close(calls[0][0][2], PLACES.draw("ignored", 2, (4, 8, 8)), rtol=0, atol=0)
    assert_close(calls[0][0][3], PLACES.draw("start", 3, (4, 8, 8)), rtol=0, atol=0)


def test_the_published_labelling_redraws_ignored_modalities_and_calls_them_clean():
    net = network()
    calls = watch(net)

    first = sample_latents(net, [0], {1: latents("given")[1]}, steps=4, noise_source=PLACES, ignored=Ignored.PUBLISHED)

    redrawn = torch.stack([z[2] for z, _ in calls])
    assert all(t[2].tolist() == [0, 0] for _, t in calls)
    assert len(redrawn.flatten(1).unique(dim=0)) == 4
    again = sample_latents(net, [0], {1: latents("given")[1]}, steps=4, noise_source=PLACES, ignored=Ignored.PUBLISHED)
    assert_close(first, again, rtol=0, atol=0)


def test_guidance_asks_for_both_branches_in_one_call_with_the_stand_in_drawn_once():
    net, given = network(), latents("given")[1]
    calls = watch(net)

    sample_latents(net, [0], {1: given}, steps=4, guidance_scale=2.0, noise_source=PLACES)

    assert len(calls) == 4
    stand_in = PLACES.draw("guidance", 1, (4, 8, 8))
    for z, t in calls:
        assert_close(z[1], torch.cat([given, stand_in]), rtol=0, atol=0)
        assert t[1].tolist() == [0, 0, 1000, 1000]
        for i in (0, 2, 3):  # what is generated or marginalised is the same in both
            assert_close(z[i][:2], z[i][2:], rtol=0, atol=0)
            assert_close(t[i][:2], t[i][2:], rtol=0, atol=0)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.sampled_from(list(Solver)))
def test_a_guidance_of_nearly_nothing_is_nearly_no_guidance_and_zero_costs_nothing(target, steps, solver):
    net, given = network(), {(target + 1) % 4: latents("given")[1]}
    calls = watch(net)

    def draw(scale):
        return sample_latents(
            net, [target], given, steps=steps, solver=solver, guidance_scale=scale, noise_source=PLACES
        )

    plain, off, faint, strong = (draw(scale) for scale in (0.0, -0.0, 1e-9, 2.0))

    assert_close(off, plain, rtol=0, atol=0)
    assert_close(faint, plain, rtol=1e-4, atol=1e-4)
    assert relative_error(strong.values(), plain.values()) > 1e-3
    assert [z.shape[1] for z, _ in calls] == [2] * 2 * steps + [4] * 2 * steps


def test_without_a_condition_guidance_changes_nothing():
    net = network()
    calls = watch(net)

    guided = sample_latents(net, [0, 2], steps=3, guidance_scale=3.0, noise_source=PLACES)

    assert_close(guided, sample_latents(net, [0, 2], steps=3, noise_source=PLACES), rtol=0, atol=0)
    assert {z.shape[1] for z, _ in calls} == {2}


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 3), st.floats(0, 2))
def test_latents_that_are_given_come_back_untouched_and_only_what_is_asked_for_is_returned(order, count, scale):
    generate, given = order[:count], {i: latents("given")[i] for i in order[count:3]}
    before = {i: z.clone() for i, z in given.items()}

    drawn = sample_latents(network(), generate, given, steps=2, guidance_scale=scale, noise_source=PLACES)

    assert_close(given, before, rtol=0, atol=0)
    assert set(drawn) == set(generate)
    assert all(z.shape == (2, 4, 8, 8) and z.dtype == torch.float32 for z in drawn.values())


def test_only_the_heads_of_what_is_generated_are_computed():
    net, computed = network(), set()
    for i, head in enumerate(net.decoder_preds):
        head.register_forward_hook(lambda *_, i=i: computed.add(i))

    sample_latents(net, [2], {0: latents("given")[0]}, steps=2, noise_source=PLACES)

    assert computed == {2}


def test_noise_of_a_sample_is_bitwise_the_same_alone_and_in_any_company_and_order():
    ids = [f"place {i}" for i in range(5)]
    together = sample_noise(3, ids, "dem", (4, 8, 8))

    assert_close(sample_noise(3, ids[::-1], "dem", (4, 8, 8)).flip(0), together, rtol=0, atol=0)
    for i, name in enumerate(ids):
        assert_close(sample_noise(3, [name], "dem", (4, 8, 8))[0], together[i], rtol=0, atol=0)
    others = [
        sample_noise(4, ids, "dem", (4, 8, 8)),
        sample_noise(3, ids, "s1_rtc", (4, 8, 8)),
        sample_noise(3, ids, "dem", (4, 8, 8), purpose="ignored"),
        sample_noise(3, [f"{name}d" for name in ids], "em", (4, 8, 8)),
    ]
    for other in others:
        assert abs(float((other * together).mean())) < 0.1
    many = sample_noise(3, [str(i) for i in range(200)], "dem", (4, 8, 8))
    assert float(many.mean()) == pytest.approx(0, abs=0.02)
    assert float(many.std()) == pytest.approx(1, abs=0.02)


def test_noise_is_that_of_a_written_down_recipe_so_that_other_versions_draw_the_same():
    assert_close(sample_noise(7, ["place 0"], "dem", (2, 3))[0], expected("sample_noise"), rtol=0, atol=0)
    recipe = oracle.sample_noise(-12, "été/0", "s2_l2a", "start", (3,))
    assert_close(sample_noise(-12, ["été/0"], "s2_l2a", (3,))[0], torch.from_numpy(recipe), rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_same_sample_comes_out_alone_and_in_a_batch_of_three(scale):
    net, ids = network(), ("a", "b", "c")
    given = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5))

    def draw(chosen):
        return sample_latents(
            net,
            [0, 3],
            {1: given[chosen]},
            steps=20,
            guidance_scale=scale,
            noise_source=SampleNoise(1, tuple(ids[i] for i in chosen), NAMES),
        )

    together = draw([0, 1, 2])
    for i in range(3):
        assert relative_error(draw([i]).values(), [z[i : i + 1] for z in together.values()]) < 1e-4
    assert relative_error(draw([2, 0, 1]).values(), [z[[2, 0, 1]] for z in together.values()]) < 1e-4


def test_the_order_in_which_modalities_are_asked_for_changes_nothing():
    net, noise = network(), latents("start")[:3]
    one = sample_latents(net, [0, 1, 3], noise=noise, steps=4, noise_source=PLACES)
    other = sample_latents(net, [3, 0, 1], noise=noise[[2, 0, 1]], steps=4, noise_source=PLACES)
    drawn = sample_latents(net, [0, 1, 3], steps=4, noise_source=PLACES)
    drawn_otherwise = sample_latents(net, [1, 3, 0], steps=4, noise_source=PLACES)

    assert_close(other, one, rtol=0, atol=0)
    assert_close(drawn_otherwise, drawn, rtol=0, atol=0)


def test_start_noise_is_given_in_order_or_by_position():
    net, start = network(), latents("x")[:2]

    def draw(noise):
        return sample_latents(net, [2, 0], noise=noise, steps=2, generator=torch.Generator().manual_seed(0))

    in_order, by_position = draw(start), draw({0: start[1], 2: start[0]})

    assert all(torch.equal(in_order[i], by_position[i]) for i in (0, 2))
    with pytest.raises(ValueError, match=r"start noise of \[0, 1\] for the modalities \[2, 0\]"):
        draw({0: start[1], 1: start[0]})


def test_a_generator_repeats_itself_bit_by_bit_and_the_next_draw_differs():
    net = network()

    def draw(generator, **options):
        return sample_latents(net, [0, 2], {1: latents("given")[1]}, steps=3, generator=generator, **options)

    generator = torch.Generator().manual_seed(0)
    first, second = draw(generator), draw(generator)

    assert_close(draw(torch.Generator().manual_seed(0)), first, rtol=0, atol=0)
    assert relative_error(second.values(), first.values()) > 0.1
    start = latents("start")[:2]
    assert (
        relative_error(  # the noise of what is ignored is drawn from it as well
            draw(torch.Generator().manual_seed(1), noise=start).values(),
            draw(torch.Generator().manual_seed(2), noise=start).values(),
        )
        > 1e-4
    )


def test_the_callback_sees_every_call_and_what_the_latents_are_taken_to_be():
    net, seen = network(), []
    calls = watch(net)
    start = latents("start")[:2]

    drawn = sample_latents(
        net, [3, 0], noise=start, steps=5, noise_source=PLACES, callback=lambda *step: seen.append(step)
    )

    assert [(step, total) for step, total, _ in seen] == [(i, 5) for i in range(1, 6)]
    assert all(set(clean) == {0, 3} for _, _, clean in seen)
    z, t = calls[0]
    signal, spread = SCHEDULE.amplitudes(t[0][:1].double(), torch.float64)
    with torch.no_grad():
        noise = net(z, t)
    assert_close(seen[0][2][3], ((start[0] - spread * noise[3]) / signal).float(), rtol=1e-4, atol=1e-4)
    assert drawn[3].shape == seen[-1][2][3].shape


def test_a_network_without_the_option_heads_and_a_compiled_one_sample_alike():
    class Plain(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.config, self.device = net, net.config, net.device

        def forward(self, latents, timesteps):
            return self.net(latents, timesteps)

    net = network()
    options = {"steps": 3, "noise_source": PLACES}
    wanted = sample_latents(net, [0, 2], {1: latents("given")[1]}, **options)

    for other in (Plain(net), torch.compile(net, backend="eager", fullgraph=True)):
        drawn = sample_latents(other, [0, 2], {1: latents("given")[1]}, **options)
        assert relative_error(drawn.values(), wanted.values()) < 1e-5


def test_a_bfloat16_network_is_sampled_in_float32_and_stays_close():
    net = network().bfloat16()
    exact = sample_latents(network(), [0], {1: latents("given")[1]}, steps=10, noise_source=PLACES)

    rough = sample_latents(net, [0], {1: latents("given")[1]}, steps=10, noise_source=PLACES)

    assert rough[0].dtype == torch.float32
    assert relative_error(rough.values(), exact.values()) < 5e-2


def test_batch_and_size_are_read_off_whatever_is_given():
    net = network()
    seeded = torch.Generator().manual_seed(0)

    assert sample_latents(net, [0], steps=1, generator=seeded)[0].shape == (1, 4, 8, 8)
    assert sample_latents(net, [0], steps=1, batch_size=3, generator=seeded)[0].shape == (3, 4, 8, 8)
    wide = torch.zeros(1, 4, 8, 12)
    with pytest.raises(ValueError, match="interpolate_positions"):
        sample_latents(net, [0], {1: wide}, steps=1, generator=seeded)
    assert sample_latents(net, [0], {1: wide}, steps=1, interpolate_positions=True)[0].shape == (1, 4, 8, 12)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"generate": []}, "at least one to generate"),
        ({"generate": [0, 0]}, "none twice"),
        ({"generate": [4]}, "within 0 to 3"),
        ({"generate": [0], "condition": {0: torch.zeros(2, 4, 8, 8)}}, "none twice"),
        ({"generate": [0], "condition": {1: torch.zeros(3, 4, 8, 8)}, "noise_source": PLACES}, "for .2, 3. samples"),
        ({"generate": [0, 1], "noise": torch.zeros(1, 2, 4, 8, 8)}, "1 start noises for 2 modalities"),
        ({"generate": [0], "condition": {1: torch.zeros(4, 8, 8)}}, "expected all .batch, C, H, W"),
        ({"generate": [0], "ignored": "guess"}, "guess"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        sample_latents(network(), **request_)


def test_an_unknown_solver_is_refused_before_the_network_is_called():
    with pytest.raises(UnknownNameError, match="Unknown solver 'euler'"):
        sample_latents(network(), [0], solver="euler")


@pytest.mark.parametrize("solver", ["reference", "dpm++2m", "unipc", "ddim"])
@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_a_network_of_velocities_draws_what_one_of_the_same_noise_draws(solver, scale):
    noise_net = network().double()

    class Velocity(torch.nn.Module):
        config = type("Config", (), {**dict(noise_net.config), "prediction_type": "v_prediction"})
        device = noise_net.device

        def forward(self, noisy, timesteps, heads=None):
            told = noise_net(noisy, timesteps, heads=heads)
            velocities = []
            for i, noise in zip(heads, told, strict=True):
                signal, spread = (a[:, None, None, None] for a in SCHEDULE.amplitudes(timesteps[i], torch.float64))
                velocities.append((noise - spread * noisy[i]) / signal)
            return velocities

    start, given = latents("start")[:2].double(), {1: latents("given")[1].double()}
    drawn = [
        sample_latents(
            net, [0, 3], given, noise=start, steps=5, solver=solver, guidance_scale=scale, noise_source=PLACES
        )
        for net in (noise_net, Velocity())
    ]

    assert relative_error(drawn[1].values(), drawn[0].values()) < 1e-6


@pytest.mark.parametrize("solver", ["reference", "dpm++2m", "unipc", "ddim"])
def test_from_a_schedule_that_ends_in_noise_comes_what_a_network_knows_for_sure(solver):
    known = latents("given")[1]

    class Sure(torch.nn.Module):
        """Tells the velocity of one place, whatever it is shown."""

        config = type(
            "Config", (), {**dict(network().config), "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        )
        device = torch.device("cpu")

        def forward(self, noisy, timesteps, heads=None):
            n = timesteps[heads[0]]
            signal, spread = (a[:, None, None, None] for a in SCHEDULE_ENDING_IN_NOISE.amplitudes(n, torch.float32))
            return [(signal * noisy[i] - known) / spread for i in heads]

    drawn = sample_latents(Sure(), [0], batch_size=len(known), steps=4, solver=solver, noise_source=None)

    clean = SCHEDULE_ENDING_IN_NOISE.amplitudes(torch.tensor(1.0), torch.float32)[0] if solver == "reference" else 1.0
    assert (drawn[0] - clean * known).abs().mean() < (0.05 if solver == "reference" else 0.002)
