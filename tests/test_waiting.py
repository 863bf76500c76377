"""Variables of a launch that was none: a command says for whom it waits, hears signals, and gives up in the end."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from copgen_processes import copgen
from sample_commands import small_model
from tiny_models import tiny_autoencoder
from tiny_stores import tiny_store
from tiny_subsets import write_patches

SETTINGS = """
[{section}]
rendezvous_timeout = "{timeout}"
device = "cpu"
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[str, tuple[object, ...]]:
    folder = tmp_path_factory.mktemp("work")
    tiny_autoencoder().save_pretrained(folder / "vae")
    store = tiny_store(folder / "store", side=8)
    model = small_model(folder / "model")
    patches = write_patches(folder / "patches")
    return {
        "train": ("train", "--data", store, "--preset", "tiny", "--workdir", folder / "run"),
        "sample": ("sample", "--model", model, "--generate", "dem", "--output", folder / "drawn"),
        "encode": ("encode", "--path", patches, "--vae", folder / "vae", "--output-dir", folder / "npy"),
    }


def settings(folder: Path, section: str, timeout: str = "1h") -> Path:
    file = folder / "copgen.toml"
    file.write_text(SETTINGS.format(section=section, timeout=timeout))
    return file


def left_over(starter: str) -> dict[str, str]:
    """What a launch of two processes leaves in the environment of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if starter == "torchrun":
        return {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_JOB_ID": str(port),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "starter", "number", "code"),
    [
        ("train", "torchrun", signal.SIGTERM, 143),
        ("sample", "torchrun", signal.SIGINT, 130),
        ("encode", "torchrun", signal.SIGINT, 130),
        ("train", "Slurm", signal.SIGINT, 130),
        ("sample", "Slurm", signal.SIGTERM, 143),
    ],
)
def test_a_process_that_waits_for_others_says_so_and_stops_on_a_signal(commands, tmp_path, starter, name, number, code):
    variable = "WORLD_SIZE=2" if starter == "torchrun" else "SLURM_STEP_NUM_TASKS=2"
    with copgen("--config", settings(tmp_path, name), *commands[name], environment=left_over(starter)) as process:
        assert variable in process.wait_for("Waiting up to 3600 s for 1 other process")
        os.kill(process.process.pid, number)
        assert process.end() == code, process.said
    assert "Traceback" not in process.said


@pytest.mark.parametrize("name", ["train", "sample", "encode"])
def test_a_process_that_waits_for_others_gives_up_after_the_time_that_a_setting_says(commands, tmp_path, name):
    file = settings(tmp_path, name, timeout="3s")
    with copgen("--config", file, *commands[name], environment=left_over("torchrun")) as process:
        assert process.end() == 1, process.said
    assert "did not come within 3 s" in process.said
    assert "unset WORLD_SIZE" in process.said


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost"}, "RANK is 2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "no"}, "MASTER_PORT"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "none"}, "SLURM_PROCID"),
    ],
)
def test_variables_that_make_no_sense_are_wrong_usage(commands, tmp_path, variables, told):
    with copgen("--config", settings(tmp_path, "sample"), *commands["sample"], environment=variables) as process:
        assert process.end() == 2, process.said
    assert told in process.said
    assert "Traceback" not in process.said


@pytest.mark.parametrize("name", ["train", "sample", "encode"])
def test_a_number_of_processes_that_is_none_is_wrong_usage(commands, tmp_path, name):
    variables, told = {"WORLD_SIZE": "abc"}, "WORLD_SIZE of the environment is 'abc'"
    with copgen("--config", settings(tmp_path, name), *commands[name], environment=variables) as process:
        assert process.end() == 2, process.said
    assert told in process.said
    assert "Traceback" not in process.said
