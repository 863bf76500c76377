"""Training under blows, in full: a hundred kills while it saves, fifty signals at any moment, dead and slow processes.

python -m pytest tests/soak/test_training_soak.py
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from copgen_processes import copgen, ranks, running
from test_training_checkpoints import assert_newest_is_whole_and_loads, save
from tiny_models import tiny_autoencoder
from tiny_stores import tiny_store

from copgen_cli.latents.store_format import AutoencoderFacts
from copgen_cli.model.autoencoder import fingerprint
from copgen_cli.stages.numbered_folders import list_checkpoints, why_not_whole

TINY = ("--verbose", "train", "--preset", "tiny", "--device", "cpu", "--log-every", "1", "--preview-every", "0")
SCALE = float(os.environ.get("SOAK_SCALE", "1"))
LIMIT = 60  # seconds in which whoever is left must end


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    vae = tmp_path_factory.mktemp("vae")
    tiny_autoencoder().save_pretrained(vae)
    facts = AutoencoderFacts(str(vae), fingerprint(tiny_autoencoder()), 0.7)
    return tiny_store(tmp_path_factory.mktemp("data") / "store", autoencoder=facts)


def save_without_end(parent: Path, step: int) -> None:
    while True:
        step += 1
        save(parent, step)
        print(f"saved {step}", flush=True)


def test_a_hundred_kills_spread_over_saving_leave_no_torn_checkpoint_and_never_none(tmp_path):
    save(tmp_path, 1)
    newest, torn = 1, []
    spread = random.Random(0)
    for _ in range(round(100 * SCALE)):
        with running(save_without_end, tmp_path, newest) as process:
            process.wait_for("saved")
            started = time.monotonic()
            process.wait_for("saved")
            time.sleep(spread.random() * (time.monotonic() - started))  # anywhere within the next save
            process.process.kill()
            process.end()
        torn += [reason for reason in map(why_not_whole, list_checkpoints(tmp_path)) if reason]
        newest = assert_newest_is_whole_and_loads(tmp_path, at_least=newest)

    assert torn == []


def final_tensors(run: Path) -> dict:
    checkpoint = max((run / "checkpoints").glob("step-*"))
    files = ("transformer/diffusion_pytorch_model", "ema/diffusion_pytorch_model", "optimizer")
    return {f"{file} {k}": v for file in files for k, v in load_file(checkpoint / f"{file}.safetensors").items()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_run_struck_fifty_times_at_any_moment_ends_bit_for_bit_like_one_left_alone(store, tmp_path, number):
    options = (*TINY, "--data", store, "--steps", 120, "--save-every", 1, "--validate-every", 2, "--preview-every", 5)
    with copgen("--help") as process:  # starts the server that processes are forked from
        process.end()
    with copgen(*options, "--workdir", tmp_path / "alone") as process:
        started = time.monotonic()
        assert process.end() == 0, process.said
        whole = time.monotonic() - started

    run, codes, rounds = tmp_path / "run", [], 0
    spread = random.Random(int(number))
    while len(codes) < 50 * SCALE:
        with copgen(*options, "--workdir", run) as process:
            time.sleep(spread.uniform(0.1, 0.6) * whole)  # in start, step, save, validation, preview or the end
            with suppress(ProcessLookupError):  # it had ended already
                os.kill(process.process.pid, number)
            code = process.end()
        if code:
            codes.append(code)
        else:
            rounds += 1
            assert_ended_like(run, tmp_path / "alone")
            shutil.rmtree(run)
    with copgen(*options, "--workdir", run) as process:
        assert process.end() == 0, process.said

    print(f"{number.name}: exit codes {dict(Counter(codes))}, {rounds} runs ended between them")
    assert set(codes) <= {143, -signal.SIGKILL, -signal.SIGTERM}, codes
    assert_ended_like(run, tmp_path / "alone")


def assert_ended_like(run: Path, alone: Path) -> None:
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 121))
    own, expected = final_tensors(run), final_tensors(alone)
    assert [name for name in expected if not equal(own[name], expected[name])] == []


def test_a_signal_to_one_of_four_processes_stops_all_at_the_same_step(store, tmp_path):
    run = tmp_path / "run"
    options = (*TINY, "--data", store, "--steps", 5000, "--save-every", 1, "--workdir", run)
    with ranks(4, *options) as processes:
        processes[0].wait_for("Step 3: wrote")
        os.kill(processes[2].process.pid, signal.SIGTERM)
        started = time.monotonic()
        assert [process.end() for process in processes] == [143] * 4
        assert time.monotonic() - started < LIMIT
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["stopped"] == "SIGTERM"


@pytest.mark.parametrize("victim", range(3))
def test_when_a_process_is_killed_the_others_end_in_time_with_a_named_cause(store, tmp_path, victim):
    options = (*TINY, "--data", store, "--batch-size", 6, "--steps", 5000, "--save-every", 1)
    with ranks(3, *options, "--workdir", tmp_path / "run") as processes:
        processes[0].wait_for("Step 3: wrote")
        processes.pop(victim).process.kill()
        started = time.monotonic()
        assert [process.end() for process in processes] == [1, 1]
        assert time.monotonic() - started < LIMIT
        assert all("Another process of this run is gone" in process.said for process in processes)


def test_the_command_that_started_the_processes_names_the_one_that_was_killed(store, tmp_path):
    options = (*TINY, "--data", store, "--num-processes", 2, "--steps", 5000, "--save-every", 1)
    with copgen(*options, "--workdir", tmp_path / "run") as process:
        process.wait_for("Step 3: wrote")
        children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
        ranks_of = [int(pid) for pid in children if b"copgen_cli" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(ranks_of[1], signal.SIGKILL)
        started = time.monotonic()
        assert process.end() == 1
        assert time.monotonic() - started < LIMIT
    assert "Process 1 of the run was killed by SIGKILL" in process.said


def train_with_slow_saves(arguments: list[str], seconds: float) -> None:
    """`copgen` whose main process takes long over each checkpoint, while the others wait for it."""
    from copgen_cli.app import main
    from copgen_cli.training import state as training_state

    write = training_state.write_folder

    def slowly(target, fill, claims):
        time.sleep(seconds)
        write(target, fill, claims)

    training_state.write_folder = slowly
    sys.argv = ["copgen", *map(str, arguments)]
    main()


def test_a_main_process_that_takes_90_seconds_to_save_is_waited_for(store, tmp_path):
    from copgen_processes import places

    options = [*TINY, "--data", store, "--steps", 2, "--save-every", 1, "--workdir", tmp_path / "run"]
    first, second = places(2)
    with (
        running(train_with_slow_saves, options, 90, environment=first) as main,
        running(train_with_slow_saves, options, 0, environment=second) as other,
    ):
        assert (main.end(), other.end()) == (0, 0), main.said + other.said
