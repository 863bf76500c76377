"""Work on a Dask cluster: the same bytes as on one machine, whoever is lost, and what is said where that can not be."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_work import (
    ask_for_turn,
    die,
    die_once,
    mark_slowly,
    note_opening,
    refuse,
    shout,
    tell_quota,
    use,
    wait_backwards,
)
from copgen_processes import server
from sample_commands import call_copgen, small_model
from tiny_archive import rome_rows, write_archive
from tiny_hub import Quota, TinyHub
from tiny_subsets import tree

from copgen_cli import __version__
from copgen_cli.cluster import ClusterExecutor, OwnRequestBudget, connection
from copgen_cli.cluster.request_budget import share_request_budget
from copgen_cli.errors import CopgenError, UsageError
from copgen_cli.settings import ClusterSettings
from copgen_cli.stages import OncePerProcess, StageRun, WorkItem

pytest.importorskip("distributed")

import dask
from distributed import Client, LocalCluster

SILENT: list[str] = []
HOW_WORKERS_START = "distributed.worker.multiprocessing-method"
WORDS = ("one", "two", "broken", "silent", "three", "four", "five")


def cluster_of(workers: int) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        memory_limit=0,
    )


@pytest.fixture(scope="module", autouse=True)
def forked_workers() -> Iterator[None]:
    """Workers begin with all that commands import, where their server was not started for several threads."""
    alone = os.environ.get("OMP_NUM_THREADS") == "1"
    if alone:
        server()
    with dask.config.set({HOW_WORKERS_START: "forkserver" if alone else "spawn"}):
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers that most of these tests share, as a group shares its cluster."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with cluster_of(2) as cluster:
        yield cluster


@pytest.fixture
def address(cluster) -> str:
    return str(cluster.scheduler_address)


def work_items_of(words: tuple[str, ...]) -> list[WorkItem[str]]:
    return [WorkItem(word, word) for word in words]


def executor_of(address: str, **settings) -> ClusterExecutor:
    return ClusterExecutor(ClusterSettings(scheduler=address, **settings), note=SILENT.append)


def shout_all(output: Path, words: tuple[str, ...], executor: ClusterExecutor | None = None, **options):
    with StageRun("shout", output, settings={"loud": True}, **options) as run:
        todo = run.pending(work_items_of(words))
        outcomes = list(run.run(todo, functools.partial(shout, place=run.place), executor=executor))
        return outcomes, run.finish()


# -- the executor ----------------------------------------------------------------------------------------------------


def test_a_cluster_leaves_the_same_tree_and_nothing_else(tmp_path, address):
    shout_all(tmp_path / "plain", WORDS)
    with executor_of(address) as executor:
        _, summary = shout_all(tmp_path / "cluster", WORDS, executor)

    assert tree(tmp_path / "cluster") == tree(tmp_path / "plain")
    assert (summary.done, len(summary.failed), len(summary.skipped)) == (5, 1, 1)


def test_a_run_that_stopped_is_continued_with_or_without_a_cluster(tmp_path, address):
    shout_all(tmp_path / "plain", WORDS)
    with executor_of(address) as executor, StageRun("shout", tmp_path / "out", settings={"loud": True}) as run:
        todo = run.pending(work_items_of(WORDS))
        next(run.run(todo, functools.partial(shout, place=run.place), executor=executor))

    _, summary = shout_all(tmp_path / "out", WORDS)

    assert summary.already >= 1
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_nothing_to_do_needs_no_cluster(tmp_path):
    shout_all(tmp_path, WORDS[:2])

    with executor_of("tcp://127.0.0.1:1") as executor:
        _, summary = shout_all(tmp_path, WORDS[:2], executor)

    assert summary.already == 2


def test_results_come_in_the_order_of_the_items_where_that_is_asked_for(address):
    with executor_of(address) as executor:
        assert list(executor.map(wait_backwards, range(40), ordered=True)) == [str(number) for number in range(40)]


def test_items_are_taken_only_as_workers_are_ready_for_them(address):
    taken = []

    def items() -> Iterator[int]:
        for number in range(100_000):
            taken.append(number)
            yield number

    with executor_of(address) as executor:
        results = executor.map(str, items())
        next(results)
        results.close()

    assert len(taken) < 2000


def test_an_error_of_the_work_is_raised_here_with_its_hint(address):
    with executor_of(address) as executor, pytest.raises(CopgenError, match="can not be shouted") as caught:
        list(executor.map(refuse, ["word"]))

    assert caught.value.hint == "Say something else."


def test_what_is_opened_once_per_process_is_opened_once_per_worker(address, tmp_path):
    opened = OncePerProcess(note_opening, str(tmp_path))
    with executor_of(address) as executor:
        list(executor.map(functools.partial(use, opened=opened), range(200)))

    assert 1 <= len(list(tmp_path.iterdir())) <= 2


# -- who is lost -----------------------------------------------------------------------------------------------------


def test_work_of_a_killed_worker_is_given_to_another(tmp_path, cluster, address):
    shout_all(tmp_path / "plain", WORDS)
    (tmp_path / "victims").mkdir()
    with executor_of(address) as executor, StageRun("shout", tmp_path / "out", settings={"loud": True}) as run:
        work = functools.partial(die_once, victims=tmp_path / "victims", place=run.place)
        outcomes = list(run.run(run.pending(work_items_of(WORDS)), work, executor=executor))
        run.finish()

    assert (tmp_path / "victims/two").is_file()
    assert sorted(outcome.key for outcome in outcomes) == sorted(WORDS)
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_work_that_kills_every_worker_ends_the_run_in_words():
    with (
        cluster_of(1) as doomed,
        executor_of(str(doomed.scheduler_address), lost_workers=0, wait=3) as executor,
        pytest.raises(CopgenError, match=r"again and again|No worker of the cluster is left"),
    ):
        list(executor.map(die, ["word"]))


def test_a_run_that_is_given_up_leaves_no_task_running(address, tmp_path):
    with executor_of(address) as executor:
        results = executor.map(functools.partial(mark_slowly, folder=tmp_path), range(50))
        next(results)
        results.close()
        with Client(address, set_as_default=False) as client:
            assert not any(client.processing().values())
        before = len(list(tmp_path.iterdir()))
        threading.Event().wait(0.3)

    assert len(list(tmp_path.iterdir())) == before


# -- one budget ------------------------------------------------------------------------------------------------------


def test_a_budget_gives_out_as_many_turns_as_are_left_and_then_has_all_wait():
    now = [0.0]
    budget = OwnRequestBudget(clock=lambda: now[0])
    budget.note_quota("https://hub:443", 2, 30.0)

    assert [budget.take_turn("https://hub:443") for _ in range(3)] == [0, 0, 30]
    assert budget.take_turn("https://other:443") == 0
    now[0] = 30.0
    assert budget.take_turn("https://hub:443") == 0


def test_what_is_under_way_counts_against_what_the_server_says_is_left():
    now = [0.0]
    budget = OwnRequestBudget(clock=lambda: now[0])
    budget.note_quota("https://hub:443", 5, 30.0)
    for _ in range(4):
        budget.take_turn("https://hub:443")
    budget.note_quota("https://hub:443", 4, 29.0)  # an answer from before the other three arrived

    assert [budget.take_turn("https://hub:443") for _ in range(2)] == [0, 29]


def test_what_a_server_tells_one_worker_all_of_them_heed(address):
    with Client(address) as client:
        share_request_budget(client)
        one, other = client.scheduler_info()["workers"]
        client.submit(tell_quota, "https://told:443", 0, 3600.0, workers=[one], pure=False).result()

        assert client.submit(ask_for_turn, "https://told:443", workers=[other], pure=False).result() > 3000
        assert client.submit(ask_for_turn, "https://other:443", workers=[other], pure=False).result() == 0


def test_a_download_by_a_cluster_lives_with_a_quota(tmp_path, monkeypatch, capsys, address):
    monkeypatch.chdir(tmp_path)
    archive = write_archive(tmp_path / "archive", rome_rows(), parts=3)
    with TinyHub(archive.root) as hub:
        hub.quota = Quota(5, 0.4)
        call = call_copgen(capsys, "download", "--endpoint", hub.endpoint, "--workers", 1, "--scheduler", address)

        assert call.code == 0, call.err
        assert hub.count("resolve") > 2 * hub.quota.requests


# -- the commands ----------------------------------------------------------------------------------------------------


def test_every_command_leaves_the_same_tree_bit_for_bit(tmp_path, monkeypatch, capsys, address):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    archive = write_archive(tmp_path / "archive", rome_rows(), size=1068)
    small_model(tmp_path / "model")
    for name, where in (("here", ()), ("there", ("--scheduler", address))):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        Path("copgen.toml").write_text(COMMANDS_SETTINGS.format(archive=archive.root, model=tmp_path / "model"))
        for command in COMMANDS:
            call = call_copgen(capsys, *command, "--data-dir", "data", *where)
            assert call.code == 0, call.err
        for command in COMMANDS:
            again = call_copgen(capsys, *command, "--data-dir", "data", *where)
            assert "Nothing to do" in again.err, again.err

    assert tree(tmp_path / "there") == tree(tmp_path / "here")
    assert not list((tmp_path / "there").rglob(".copgen"))


COMMANDS_SETTINGS = """
[download]
endpoint = "file://{archive}"

[prepare]
center_crop = true
train_ratio = 0.5
workers = 1

[encode]
vae = "{model}/vae"
batch_size = 2
device = "cpu"

[sample]
model = "{model}"
device = "cpu"
steps = 1
"""
COMMANDS = (
    ("download",),
    ("prepare",),
    ("encode",),
    ("encode", "--to", "lmdb", "--output-dir", "straight"),
    ("pack", "--shards", "2", "--dtype", "float16"),
    ("scene", "--bbox", "12.5", "41.9", "12.52", "41.91", "--generate", "dem", "--block", "128", "--output", "scene"),
)


def test_a_cluster_of_this_machine_is_started_and_ended_by_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "archive", rome_rows(), size=1068)
    assert call_copgen(capsys, "download", "--endpoint", f"file://{tmp_path}/archive").code == 0

    with dask.config.set({HOW_WORKERS_START: "spawn"}):
        call = call_copgen(capsys, "prepare", "--scheduler", "local:1", "--center-crop")

    assert call.code == 0, call.err
    assert "Cluster of 1 worker;" in call.err


# -- what bad input gets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["tcp://nowhere", "local:0", "local:many", "missing.json", "http://host:80", ""])
def test_what_names_no_scheduler_is_refused(named):
    with executor_of(named) as executor, pytest.raises(UsageError, match="names no scheduler"):
        list(executor.map(str, [1]))


def test_an_address_where_nobody_answers(tmp_path):
    with (
        executor_of("tcp://127.0.0.1:9", wait=0.5) as executor,
        pytest.raises(CopgenError, match=r"No scheduler answers at tcp://127.0.0.1:9"),
    ):
        shout_all(tmp_path / "out", WORDS, executor)

    assert not (tmp_path / "out").exists()


def test_a_scheduler_file_is_read_and_one_that_is_none_refused(tmp_path, address):
    good, bad = tmp_path / "scheduler.json", tmp_path / "other.json"
    good.write_text(json.dumps({"type": "Scheduler", "address": address}))
    bad.write_text("{}")

    with executor_of(str(good)) as executor:
        assert list(executor.map(str, [1])) == ["1"]
    with executor_of(str(bad)) as executor, pytest.raises(UsageError, match="is no scheduler file"):
        list(executor.map(str, [1]))


def test_a_worker_without_a_gpu_where_one_is_asked_for(address):
    settings = ClusterSettings(scheduler=address)
    with (
        ClusterExecutor(settings, note=SILENT.append, gpu=True) as executor,
        pytest.raises(CopgenError, match="has a GPU"),
    ):
        list(executor.map(str, [1]))


def test_a_folder_that_workers_do_not_see(tmp_path):
    """A worker to which another disk lies where the folder is."""
    folder = tmp_path / "shared"
    folder.mkdir()
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs "{folder}" && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("this user can not mount a disk that others do not see")
    with cluster_of(0) as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-dashboard"]
        worker = subprocess.Popen([*hidden, *command], cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            with (
                executor_of(str(cluster.scheduler_address)) as executor,
                pytest.raises(CopgenError, match=f"can not use {folder}: it is not there"),
            ):
                executor.require(folder)
        finally:
            worker.terminate()
            worker.wait()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("package", "said"), [("", "no copgen"), ('__version__ = "0.0.1"', "copgen 0.0.1")])
def test_a_worker_with_another_copgen_or_none(tmp_path, package, said):
    other = tmp_path / "other/copgen_cli"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(package or "raise ImportError('not here')")
    with cluster_of(0) as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-dashboard"]
        environment = os.environ | {
            "PYTHONPATH": str(other.parent),
            "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
        }
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        try:
            with (
                executor_of(str(cluster.scheduler_address)) as executor,
                pytest.raises(CopgenError, match=f"has {said}, and this machine copgen {__version__}"),
            ):
                list(executor.map(str, [1]))
        finally:
            worker.terminate()
            worker.wait()


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)

    with (
        pytest.raises(CopgenError, match="not installed") as caught,
        connection.connect(ClusterSettings(scheduler="local:1"), gpu=False),
    ):
        pass

    assert "copgen[cluster]" in caught.value.hint
