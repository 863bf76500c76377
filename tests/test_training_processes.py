"""Two processes that meet over gloo compute what one computes, and one command starts them and says how they ended."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from copgen_processes import copgen, places, running
from tiny_stores import tiny_store

STEPS = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("data") / "store")


def take_steps(store: Path, folder: Path) -> None:
    """Train for a few steps in this process, one of several perhaps, and write down samples and losses."""
    import torch

    from copgen_cli.data.store import LatentStore
    from copgen_cli.launching import was_launched
    from copgen_cli.modalities import Split
    from copgen_cli.model.parallel import World, join_world
    from copgen_cli.model.training import train
    from copgen_cli.model.training_setup import prepare_run
    from copgen_cli.records import LatentSpec
    from copgen_cli.settings import NetworkSettings, TrainSettings

    world = join_world(torch.device("cpu")) if was_launched() else World(torch.device("cpu"))
    settings = TrainSettings(
        model=NetworkSettings(patch_size=4, hidden_size=32, depth=2, num_heads=2),
        steps=STEPS, batch_size=4, micro_batch=1, warmup=0, lr=1e-3, ema_decay=0.9, mixed_precision="no", save_every=3,
    )  # fmt: skip
    data = LatentStore(store / Split.TRAIN)
    spec = LatentSpec(data.modalities, 4, 8, "absent", None, 0.5)
    prepared = prepare_run(data, None, spec, settings, folder / "checkpoints", world)
    told = [(r.names, r.loss, r.grad_norm) for r in train(prepared.run, prepared.state, lambda: None)]
    world.leave()
    (folder / f"told-{world.rank}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    with running(take_steps, store, folder) as process:
        assert process.end() == 0, process.said
    return folder


def test_two_processes_see_the_same_samples_and_losses_as_one(store, tmp_path, alone):
    first, second = places(2)
    with (
        running(take_steps, store, tmp_path, environment=first) as one,
        running(take_steps, store, tmp_path, environment=second) as other,
    ):
        assert (one.end(), other.end()) == (0, 0), one.said + other.said

    expected, *told = (
        json.loads((folder / f"told-{rank}.json").read_text())
        for folder, rank in ((alone, 0), (tmp_path, 0), (tmp_path, 1))
    )
    for run in told:
        assert [names for names, _, _ in run] == [names for names, _, _ in expected]
        assert [loss for _, loss, _ in run] == pytest.approx([loss for _, loss, _ in expected], rel=1e-5)
        assert [norm for _, _, norm in run] == pytest.approx([norm for _, _, norm in expected], rel=1e-4)


def test_two_processes_go_on_from_the_checkpoint_of_one(store, tmp_path, alone):
    import shutil

    shutil.copytree(alone / "checkpoints" / "step-00000003", tmp_path / "checkpoints" / "step-00000003")
    first, second = places(2)
    with (
        running(take_steps, store, tmp_path, environment=first) as one,
        running(take_steps, store, tmp_path, environment=second) as other,
    ):
        assert (one.end(), other.end()) == (0, 0), one.said + other.said

    told = json.loads((tmp_path / "told-1.json").read_text())
    expected = json.loads((alone / "told-0.json").read_text())[3:]
    assert [names for names, _, _ in told] == [names for names, _, _ in expected]
    assert [loss for _, loss, _ in told] == pytest.approx([loss for _, loss, _ in expected], rel=1e-5)


def test_one_command_starts_two_processes_which_a_signal_stops_and_it_exits_with_their_code(store, tmp_path):
    run = tmp_path / "run"
    command = ("--verbose", "train", "--data", store, "--preset", "tiny", "--device", "cpu", "--num-processes", 2)
    with copgen(*command, "--steps", 500, "--save-every", 1, "--workdir", run) as process:
        process.wait_for("Step 2: wrote")
        os.kill(process.process.pid, signal.SIGTERM)
        assert process.end() == 143, process.said

    assert "Traceback" not in process.said
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["stopped"] == "SIGTERM"
    assert json.loads((run / "checkpoints" / f"step-{last['step']:08}" / "state.json").read_text())["processes"] == 2
    assert (run / "model" / "transformer").is_dir()
