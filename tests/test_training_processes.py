"""Two processes that meet over gloo compute what one computes, and one command starts them and says how they ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from copgen_processes import copgen, places, running
from safetensors.torch import load_file
from tiny_stores import tiny_store
from torch.testing import assert_close

from copgen_cli.model.weights import WEIGHTS_NAME

STEPS = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("data") / "store")


class Sharding:
    """As accelerate shards a network with `fsdp_version: 2`; it does so on accelerators only, and this on the CPU."""

    distributed_type = "FSDP"

    def prepare(self, net, optimizer):
        import torch
        from torch.distributed.fsdp import fully_shard

        for block in (*net.in_blocks, net.mid_block, *net.out_blocks):
            fully_shard(block)
        fully_shard(net)
        kept = ("lr", "betas", "eps", "weight_decay", "fused", "foreach")
        return net, torch.optim.AdamW(net.parameters(), **{name: optimizer.param_groups[0][name] for name in kept})

    def no_sync(self, model):
        from contextlib import nullcontext

        return nullcontext()  # gradients are summed over micro-batches after they are exchanged: the same sum

    def wait_for_everyone(self):
        import torch

        torch.distributed.barrier()

    def end_training(self):
        import torch

        torch.distributed.destroy_process_group()


def take_steps(store: Path, folder: Path, sharded: bool = False, optimizer: str = "adamw") -> None:
    """Train for a few steps in this process, one of several perhaps, and write down samples and losses."""
    import torch

    from copgen_cli.latents.store import LatentStore
    from copgen_cli.modalities import Split
    from copgen_cli.records import LatentSpec
    from copgen_cli.settings.sections import NetworkSettings, TrainSettings
    from copgen_cli.stages.process_group import join_world
    from copgen_cli.training.loop import train
    from copgen_cli.training.setup import prepare_run

    world = join_world(torch.device("cpu"), 60, print)
    if sharded:
        world = replace(world, accelerator=Sharding())
    settings = TrainSettings(
        model=NetworkSettings(patch_size=4, hidden_size=32, depth=2, num_heads=2),
        steps=STEPS, batch_size=4, micro_batch=1, warmup=0, lr=1e-3, ema_decay=0.9, mixed_precision="no", save_every=3,
        validate_every=2, clip=0.5, optimizer=optimizer, decay="cosine",
    )  # fmt: skip
    data = LatentStore(store / Split.TRAIN)
    spec = LatentSpec.alike(data.modalities, 4, 8, "absent", None, 0.5)
    test = LatentStore(store / Split.TEST)
    prepared = prepare_run(data, test, spec, settings, folder / "checkpoints", world)
    told = [
        (r.names, r.loss, r.validation.loss if r.validation else 0, r.grad_norm)
        for r in train(prepared.run, prepared.state, lambda: None)
    ]
    world.leave()
    (folder / f"told-{world.rank}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    with running(take_steps, store, folder) as process:
        assert process.end() == 0, process.said
    return folder


def take_steps_together(store: Path, folder: Path, *, sharded: bool = False, optimizer: str = "adamw") -> list[list]:
    """What each of two processes wrote down."""
    first, second = places(2)
    with (
        running(take_steps, store, folder, sharded, optimizer, environment=first) as one,
        running(take_steps, store, folder, sharded, optimizer, environment=second) as other,
    ):
        assert (one.end(), other.end()) == (0, 0), one.said + other.said
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(2)]


def assert_same_course(told: list, expected: list) -> None:
    assert [step[0] for step in told] == [step[0] for step in expected]
    for number in (1, 2):  # the loss, and that of the average on the test split
        assert [step[number] for step in told] == pytest.approx([step[number] for step in expected], rel=1e-5)
    assert [step[3] for step in told] == pytest.approx([step[3] for step in expected], rel=1e-4)


@pytest.mark.parametrize("sharded", [False, True], ids=["a copy each", "a shard each"])
def test_two_processes_see_the_same_samples_and_losses_as_one(store, tmp_path, alone, sharded):
    expected = json.loads((alone / "told-0.json").read_text())
    for told in take_steps_together(store, tmp_path, sharded=sharded):
        assert_same_course(told, expected)
    mine, theirs = (folder / "checkpoints" / "step-00000006" for folder in (tmp_path, alone))
    for weights in ("transformer", "ema"):
        assert_close(
            load_file(mine / weights / WEIGHTS_NAME), load_file(theirs / weights / WEIGHTS_NAME), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("sharded", [False, True], ids=["a copy each", "a shard each"])
def test_two_processes_go_on_from_the_checkpoint_of_one(store, tmp_path, alone, sharded):
    shutil.copytree(alone / "checkpoints" / "step-00000003", tmp_path / "checkpoints" / "step-00000003")
    expected = json.loads((alone / "told-0.json").read_text())[3:]

    for told in take_steps_together(store, tmp_path, sharded=sharded):
        assert_same_course(told, expected)


def test_two_processes_of_muon_move_the_weights_as_one_does(store, tmp_path):
    """Its products are of bfloat16, so sums in another order show from the third digit on."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with running(take_steps, store, one, False, "muon") as process:
        assert process.end() == 0, process.said
    take_steps_together(store, two, optimizer="muon")

    first, alone, together = (
        load_file(folder / "checkpoints" / step / "transformer" / WEIGHTS_NAME)["mid_block.mlp.fc1.weight"]
        for folder, step in ((one, "step-00000003"), (one, "step-00000006"), (two, "step-00000006"))
    )
    assert float((together - alone).norm()) < 0.05 * float((alone - first).norm())


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
