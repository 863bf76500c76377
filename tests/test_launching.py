"""Knowing that one was launched, and by whom; asking for what there is."""

from __future__ import annotations

import os
import signal

import pytest

from copgen_cli import launching
from copgen_cli.errors import UsageError
from copgen_cli.records import StopReason
from copgen_cli.settings.sections import TrainSettings
from copgen_cli.stages.launch_variables import SHARED_FOLDER, first_host, was_launched

TOLD = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def nobody_launched(monkeypatch):
    for name in (*TOLD, *(name for name in os.environ if name.startswith(("SLURM_", "PMI_", "OMPI_")))):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


def test_a_process_on_its_own_was_not_launched():
    assert not was_launched()


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_torchrun_and_mpi_are_recognised(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert not was_launched()
    monkeypatch.setenv(variable, "2")
    assert was_launched()


def test_tasks_of_srun_are_told_what_torchrun_would_tell_them(monkeypatch):
    for name, value in {
        "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
        "SLURM_STEP_NODELIST": "gpu[007-008]", "SLURM_JOB_ID": "1234567",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    assert was_launched()
    assert [os.environ[name] for name in TOLD] == ["16", "9", "1", "8", "gpu007", "34567"]


def test_a_batch_script_of_slurm_with_many_tasks_is_one_process_nevertheless(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "16")
    monkeypatch.setenv("SLURM_PROCID", "0")

    assert not was_launched()


def test_what_torchrun_has_told_a_task_of_srun_stands(monkeypatch):
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "WORLD_SIZE": "16", "RANK": "9"}.items():
        monkeypatch.setenv(name, value)

    assert was_launched()
    assert os.environ["RANK"] == "9"


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[007-009,012],login", "gpu007"),
        ("rack[3,5]-node", "rack3-node"),
        ("node-12-[1-4]", "node-12-1"),
    ],
)
def test_the_first_host_of_slurms_lists(hosts, first):
    assert first_host(hosts) == first


@pytest.mark.parametrize(
    ("asked", "there", "expected"),
    [
        ({}, 8, 1),
        ({"gpus": 2}, 2, 2),
        ({"gpus": 2, "num_processes": 2}, 2, 2),
        ({"num_processes": 4, "device": "cpu"}, 0, 4),
        ({"gpus": 1}, 1, 1),
    ],
)
def test_as_many_processes_as_asked_for(monkeypatch, asked, there, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)

    assert launching.count_processes(TrainSettings(**asked)) == expected


@pytest.mark.parametrize(
    ("asked", "there", "told"),
    [
        ({"gpus": 2}, 1, "There is one GPU here, 2 were asked for."),
        ({"gpus": 1}, 0, "There is no GPU here, 1 was asked for."),
        ({"num_processes": 8}, 4, "There are 4 GPUs here, 8 were asked for."),
        ({"gpus": 2, "num_processes": 3}, 4, "2 GPUs and 3 processes: a GPU has one process."),
    ],
)
def test_more_gpus_than_there_are_are_refused_with_how_many_there_are(monkeypatch, asked, there, told):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)

    with pytest.raises(UsageError) as caught:
        launching.count_processes(TrainSettings(**asked))

    assert str(caught.value) == told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_request_inside_the_block_only(number):
    before = signal.getsignal(number)
    with launching.stop_requests() as asked_to_stop:
        assert asked_to_stop() is None
        os.kill(os.getpid(), number)
        assert asked_to_stop() is StopReason(number.name)
    assert signal.getsignal(number) is before


def test_a_second_interrupt_interrupts():
    with launching.stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_processes_stop_when_their_launcher_asks_or_is_gone(monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv(SHARED_FOLDER, str(shared))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with launching.stop_requests() as asked_to_stop:
            assert asked_to_stop() is None
            (shared / "SIGUSR1").touch()
            assert asked_to_stop() is StopReason.SIGUSR1
            (shared / "SIGUSR1").unlink()
            shared.rmdir()
            assert asked_to_stop() is StopReason.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_exit_codes_are_those_of_the_contract():
    codes = {str(reason): code for reason, code in launching.EXIT_CODES.items()}

    assert codes == {"finished": 0, "time": 3, "SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 143}


def test_a_process_that_ended_without_a_word_is_named_with_its_signal():
    with pytest.raises(launching.LaunchError, match="Process 3 of the run was killed by SIGKILL"):
        launching._code_of(3, -signal.SIGKILL)
    assert launching._code_of(3, 143) == 143
