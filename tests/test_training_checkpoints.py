"""A checkpoint is whole or absent, whatever happens while it is written, and the older ones stay."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from copgen_processes import running
from tiny_models import tiny_transformer

from copgen_cli.errors import BrokenInputError, DiskFullError, MismatchError
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.settings.sections import TrainSettings
from copgen_cli.stages.numbered_folders import (
    list_checkpoints,
    newest_whole,
    prune,
    remove_leftovers,
    step_folder,
    why_not_whole,
    write_folder,
)
from copgen_cli.training.export import export_model
from copgen_cli.training.state import Identity, TrainState, load_state, save_state

IDENTITY = Identity({"depth": 2}, {"scale_factor": 0.5})
SETTINGS = TrainSettings(mixed_precision="no")


def some_state(step: int) -> TrainState:
    """A state whose every tensor tells its step."""
    state = TrainState.begin(tiny_transformer(sample_size=8), SETTINGS)
    state.step = step
    with torch.no_grad():
        for parameter, average in zip(state.net.parameters(), state.average.values, strict=True):
            parameter.fill_(step)
            average.fill_(-step)
            moment = torch.full_like(parameter, 0.5 * step)
            state.optimizer.state[parameter] = {"exp_avg": moment, "exp_avg_sq": moment, "step": torch.tensor(1.0)}
    return state


def save(parent: Path, step: int) -> None:
    save_state(step_folder(parent, step), some_state(step), IDENTITY, SETTINGS)
    prune(parent, step, keep_last=2, milestone_every=None)


def assert_newest_is_whole_and_loads(parent: Path, *, at_least: int) -> int:
    folder, _ = newest_whole(parent)
    assert folder is not None
    state = some_state(0)
    load_state(folder, state, IDENTITY)
    assert state.step >= at_least
    for parameter, average in zip(state.net.parameters(), state.average.values, strict=True):
        assert torch.equal(parameter, torch.full_like(parameter, state.step))
        assert torch.equal(average, torch.full_like(average, -state.step))
        assert state.optimizer.state[parameter]["exp_avg"].eq(0.5 * state.step).all()
    return state.step


def save_and_die(parent: Path, at: int) -> None:
    """Save step 3, and be killed at the n-th thing done to the disk on the way."""
    done = 0

    def counting(function):
        def call(*arguments, **options):
            nonlocal done
            done += 1
            if done == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    from copgen_cli.training import state as training_state

    os.fsync, os.rename, shutil.rmtree = counting(os.fsync), counting(os.rename), counting(shutil.rmtree)
    training_state.save_file = counting(training_state.save_file)
    Path.write_text = counting(Path.write_text)  # type: ignore[method-assign]
    save(parent, 3)


@pytest.mark.parametrize("at", range(1, 21))
def test_a_kill_at_any_point_of_saving_leaves_a_whole_checkpoint_and_no_torn_one(tmp_path, at):
    save(tmp_path, 1)
    save(tmp_path, 2)
    with running(save_and_die, tmp_path, at) as process:
        code = process.end()

    assert code in (-signal.SIGKILL, 0), process.said
    assert [why_not_whole(folder) for folder in list_checkpoints(tmp_path)] == [None] * len(list_checkpoints(tmp_path))
    assert_newest_is_whole_and_loads(tmp_path, at_least=2 if code else 3)
    remove_leftovers(tmp_path)
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())


def test_the_points_above_are_all_there_are(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    with running(save_and_die, tmp_path, 21) as process:
        assert process.end() == 0, "there are more points at which a save can be killed than the test above tries"


def save_within(parent: Path, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    save(parent, 3)


@pytest.mark.parametrize("limit", [0, 100, 100_000])
def test_a_file_that_can_not_grow_is_a_clear_error_and_older_checkpoints_stay(tmp_path, limit):
    save(tmp_path, 2)
    with running(save_within, tmp_path, limit) as process:
        assert process.end() == 1
    assert "DiskFullError: No room left on the disk of" in process.said
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000002"]
    assert assert_newest_is_whole_and_loads(tmp_path, at_least=2) == 2


def test_a_full_disk_is_a_clear_error_and_older_checkpoints_stay(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "copgen-test", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        save(tmp_path, 1)
        (tmp_path / "something else").write_bytes(bytes(shutil.disk_usage(tmp_path).free - 500_000))
        with pytest.raises(DiskFullError, match=r"No room left on the disk of .*step-00000002"):
            save_state(step_folder(tmp_path, 2), some_state(2), IDENTITY, SETTINGS)
        assert assert_newest_is_whole_and_loads(tmp_path, at_least=1) == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_while_the_model_is_written_is_a_clear_error_and_leaves_nothing(tmp_path):
    save(tmp_path, 1)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "copgen-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(DiskFullError, match=r"No room left on the disk of .*model"):
            export_model(step_folder(tmp_path, 1), disk / "model", None)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_error_while_it_is_filled_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("of it")
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        write_folder(tmp_path / "step-00000001", fail)

    assert list(tmp_path.iterdir()) == []


def test_a_damaged_folder_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 3)
    (tmp_path / "step-00000003" / "state.json").write_text("{")

    save(tmp_path, 3)

    assert assert_newest_is_whole_and_loads(tmp_path, at_least=3) == 3


@pytest.mark.parametrize("file", ["ema/diffusion_pytorch_model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut short", "one bit", "missing"])
def test_damage_is_found_and_named(tmp_path, file, damage):
    save(tmp_path, 1)
    path = tmp_path / "step-00000001" / file
    data = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(data[:-1])
    elif damage == "one bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.unlink()

    assert file in why_not_whole(tmp_path / "step-00000001")


def test_a_manifest_that_is_not_one_is_damage_too(tmp_path):
    save(tmp_path, 1)
    for text in ("", "[]", '{"files": {"state.json": 3}}', '{"files": null}'):
        (tmp_path / "step-00000001" / "manifest.json").write_text(text)
        assert "not readable" in why_not_whole(tmp_path / "step-00000001")


def test_a_checkpoint_is_a_model_whose_averaged_weights_load(tmp_path):
    save(tmp_path, 4)

    net = load_transformer(tmp_path / "step-00000004")

    assert all(torch.equal(p, torch.full_like(p, -4)) for p in net.parameters())
    assert net.config.num_heads == 2


def test_a_checkpoint_of_other_data_is_refused_with_what_differs(tmp_path):
    save(tmp_path, 1)
    other = Identity({"depth": 2}, {"scale_factor": 0.18215})

    with pytest.raises(MismatchError, match=r"scale_factor 0\.5 there, 0\.18215 here"):
        load_state(tmp_path / "step-00000001", some_state(0), other)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(BrokenInputError, match="no checkpoint of training"):
        load_state(tmp_path, some_state(0), IDENTITY)


def test_a_checkpoint_from_before_velocities_is_one_of_noise(tmp_path):
    save(tmp_path, 1)  # IDENTITY says nothing of what is predicted
    folder = step_folder(tmp_path, 1)

    load_state(folder, some_state(0), Identity({"depth": 2, "prediction_type": "epsilon"}, IDENTITY.data))

    velocities = Identity({"depth": 2, "prediction_type": "v_prediction"}, IDENTITY.data)
    with pytest.raises(MismatchError, match="prediction_type"):
        load_state(folder, some_state(0), velocities)


def test_a_checkpoint_from_before_schedules_that_end_in_noise_goes_on_with_its_own(tmp_path):
    save(tmp_path, 1)
    ordinary = Identity({"depth": 2, "prediction_type": "epsilon", "rescale_betas_zero_snr": False}, IDENTITY.data)

    load_state(step_folder(tmp_path, 1), some_state(0), ordinary)
