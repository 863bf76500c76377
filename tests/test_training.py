"""One step of training computes what the published optimiser computes; what goes wrong in it changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.data_order import TrainBatch
from copgen_cli.model.optimisation import AveragedWeights, LossScale, learning_rate
from copgen_cli.model.training import training_step
from copgen_cli.model.training_state import TrainState
from copgen_cli.records import LearningRateDecay
from copgen_cli.settings import TrainSettings

PUBLISHED = TrainSettings(preset="base", batch_size=4, warmup=2, mixed_precision="no")


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden"
    return json.loads((folder / "train5.json").read_text()), np.load(folder / "train5.npz"), folder


def published_batches(arrays) -> list[TrainBatch]:
    x0 = torch.from_numpy(arrays["x0"])
    return [TrainBatch(x0, torch.from_numpy(e), torch.from_numpy(n)) for e, n in zip(arrays["eps"], arrays["n"])]


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
