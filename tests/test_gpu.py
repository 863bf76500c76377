"""What only a GPU can show. `COPGEN_TEST_DEVICE=cpu` rehearses these tests without one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from small_networks import latents, network, relative_error, timesteps
from tiny_stores import tiny_store
from torch import nn
from torch.testing import assert_close

from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import Split
from copgen_cli.model import choose_device, choose_dtype, denoising_loss, sample_latents
from copgen_cli.model.sampler import SampleNoise
from copgen_cli.records import LatentSpec, StopReason
from copgen_cli.settings.sections import NetworkSettings, TrainSettings
from copgen_cli.stages.process_group import World
from copgen_cli.training.data_order import TrainBatch
from copgen_cli.training.loop import train, training_step
from copgen_cli.training.setup import prepare_run
from copgen_cli.training.state import TrainState

pytestmark = pytest.mark.gpu

SETTINGS = TrainSettings(
    model=NetworkSettings(patch_size=4, hidden_size=64, depth=2, num_heads=2),
    steps=8, batch_size=4, micro_batch=2, warmup=2, lr=1e-3, ema_decay=0.9, save_every=1000, validate_every=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def device() -> torch.device:
    name = os.environ.get("COPGEN_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    return torch.device(name)


def test_the_gpu_is_chosen_where_there_is_one_and_bfloat16_on_it(device):
    chosen = choose_device("auto")

    assert chosen.type == device.type
    if device.type == "cuda":
        assert choose_dtype("auto", chosen) == torch.bfloat16
        assert choose_device("cuda:0").index == 0


def test_a_forward_pass_in_float32_agrees_with_the_processors(device):
    here = network()(list(latents("x")), list(timesteps()))
    there = network().to(device)(list(latents("x").to(device)), list(timesteps().to(device)))

    assert {tensor.device.type for tensor in there} == {device.type}
    assert relative_error([tensor.cpu() for tensor in there], here) < 1e-3


def test_a_forward_pass_under_bfloat16_autocast_stays_within_two_percent_of_float32(device):
    net, x, t = network().to(device), list(latents("x").to(device)), list(timesteps().to(device))

    with torch.no_grad():
        single = net(x, t)
        with torch.autocast(device.type, torch.bfloat16):
            half = net(x, t)

    assert 0 < relative_error([tensor.float() for tensor in half], single) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_is_drawn_again_bit_for_bit(device, dtype):
    net = nn.Module.to(network(), device, dtype)
    source = SampleNoise(3, ("a_v1", "b_v1"), ("dem", "s1_rtc", "s2_l1c", "s2_l2a"))

    def draw(seed: int) -> dict[int, torch.Tensor]:
        return sample_latents(net, [0, 3], steps=5, solver="dpm++2m", noise_source=replace(source, seed=seed))

    first, again, other = draw(3), draw(3), draw(4)

    assert all(torch.equal(first[i], again[i]) for i in (0, 3))
    assert all(torch.isfinite(first[i]).all() and not torch.equal(first[i], other[i]) for i in (0, 3))


@pytest.mark.parametrize(
    ("precision", "compiled"),
    [("no", False), ("bf16", False), ("fp16", False), ("bf16", True)],
    ids=["float32", "bf16", "fp16", "bf16 compiled"],
)
def test_a_training_step_has_the_loss_of_float32_and_moves_the_weights(device, precision, compiled):
    settings = SETTINGS.model_copy(update={"mixed_precision": precision, "batch_size": 2, "warmup": 0})
    net = network().to(device).train()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    batch = TrainBatch(latents("x"), torch.randn_like(latents("x")), timesteps().round().long())
    with torch.no_grad():
        expected = denoising_loss(network(), list(batch.latents), list(batch.timesteps), list(batch.noise)).mean()
    if compiled:
        net.compile()

    result = training_step(TrainState.begin(net, settings), [batch], settings)

    assert_close(torch.tensor(sum(result.losses)), expected, rtol=0.02, atol=0, check_dtype=False)
    assert any(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_a_run_that_was_stopped_goes_on_to_the_losses_of_one_that_was_not(device, tmp_path):
    store = tiny_store(tmp_path / "store")

    def losses(run: str, *, stop_at: int | None = None) -> list[float]:
        data, test = LatentStore(store / Split.TRAIN), LatentStore(store / Split.TEST)
        settings = SETTINGS.model_copy(update={"device": device.type, "mixed_precision": "no"})
        spec = LatentSpec.alike(data.modalities, 4, 8, "absent", "f" * 64, 0.5)
        prepared = prepare_run(data, test, spec, settings, tmp_path / run / "checkpoints", World(device))
        state = prepared.state
        stop = lambda: StopReason.SIGTERM if state.step == stop_at else None  # noqa: E731
        return [report.loss for report in train(prepared.run, state, stop)]

    whole = losses("whole")
    halves = [*losses("halves", stop_at=3), *losses("halves")]

    assert len(halves) == len(whole) == SETTINGS.steps
    assert_close(halves, whole, rtol=1e-4, atol=0)
