"""A cluster whose workers, scheduler and driver are killed at random moments: nothing is lost, nothing made twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_subsets import tree

pytest.importorskip("distributed")

UNITS = 600
WORKERS = 3
QUIET = os.environ | {"DASK_LOGGING__DISTRIBUTED": "critical", "PYTHONPATH": str(Path(__file__).parents[1])}
DRIVER = """
import functools, sys
from pathlib import Path
from cluster_work import shout_and_tell
from copgen_cli.cluster import open_cluster
from copgen_cli.errors import CopgenError
from copgen_cli.settings import ClusterSettings
from copgen_cli.stages import StageRun, WorkItem

def main():
    output, told, scheduler, units = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    settings = ClusterSettings(scheduler=scheduler if scheduler != "none" else None, wait=40)
    units = [WorkItem(f"word{number:04}", f"word{number:04}") for number in range(units)]
    try:
        with open_cluster(settings, note=print) as cluster, StageRun("shout", output, settings={}) as run:
            work = functools.partial(shout_and_tell, place=run.place, told=told)
            for _ in run.run(run.pending(units), work, executor=cluster):
                pass
            run.finish()
    except CopgenError as error:
        print(f"ended: {error} {error.hint}")
        sys.exit(1)

if __name__ == "__main__":
    main()
"""


@dataclass
class Cluster:
    """A scheduler and workers in processes of their own, as a batch system starts them."""

    folder: Path
    processes: list[subprocess.Popen[bytes]]

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def workers(self) -> list[psutil.Process]:
        """The processes that work; each is a child of its nanny."""
        found = []
        for nanny in self.processes[1:]:
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(nanny.pid).children(recursive=True)
                found += [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    running = Cluster(folder, [])
    base = [sys.executable, "-m"]
    scheduler = [*base, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [
        *base,
        "distributed.cli.dask_worker",
        "--scheduler-file",
        running.file,
        "--nthreads",
        "1",
        "--no-dashboard",
    ]
    try:
        running.processes.append(start([*scheduler, "--scheduler-file", running.file], folder))
        while not running.file.is_file():
            time.sleep(0.05)
        for _ in range(WORKERS):
            running.processes.append(start(worker, folder))
        yield running
    finally:
        everyone = [psutil.Process(process.pid) for process in running.processes if process.poll() is None]
        for process in [child for one in everyone for child in one.children(recursive=True)] + everyone:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in running.processes:
            process.wait()


def start(command: list[object], folder: Path) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    return subprocess.Popen([*map(str, command)], cwd=folder, env=QUIET, stdout=nothing, stderr=nothing)


def run(
    folder: Path, scheduler: object, *, harm: Callable[[subprocess.Popen[str]], None] | None = None
) -> tuple[int, str]:
    """The driver to its end; its exit code and what it said."""
    command = [sys.executable, "-c", DRIVER, folder / "out", folder / "told", scheduler, UNITS]
    (folder / "told").mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [*map(str, command)], env=QUIET, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if harm is not None:
        threading.Thread(target=harm, args=(process,), daemon=True).start()
    said, complained = process.communicate(timeout=300)
    return process.returncode, said + complained


def times_made(folder: Path) -> Counter[str]:
    return Counter(file.name.partition("-")[0] for file in (folder / "told").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("plain")
    assert run(folder, "none")[0] == 0
    return tree(folder / "out")


def must_be_whole(folder: Path, undisturbed: dict[str, bytes], *, twice: int) -> None:
    """The tree is right, all was made, and only so much of it more than once."""
    assert tree(folder / "out") == undisturbed
    made = times_made(folder)
    assert len(made) == UNITS
    assert sum(count - 1 for count in made.values()) <= twice


def under_way() -> int:
    """Items that may be with workers at a moment: two tasks a worker, each of about 0.2 s of work of 10 ms."""
    return 2 * WORKERS * 40


def test_workers_killed_at_twenty_moments(tmp_path, undisturbed):
    draw = random.Random(0)
    kills = []
    with cluster(tmp_path / "cluster") as running:

        def harm(process: subprocess.Popen[str]) -> None:
            while process.poll() is None and len(kills) < 20:
                time.sleep(draw.uniform(0.05, 0.6))
                workers = running.workers()
                if workers and times_made(tmp_path):
                    with contextlib.suppress(psutil.Error):
                        draw.choice(workers).kill()
                        kills.append(time.monotonic())

        for _ in range(10):
            code, said = run(tmp_path, running.file, harm=harm)
            if code == 0 and len(kills) >= 20:
                break
            assert code == 0 or "ended:" in said, said
    print(f"{len(kills)} kills, made {times_made(tmp_path).total()} of {UNITS}")
    must_be_whole(tmp_path, undisturbed, twice=len(kills) * 80)


@pytest.mark.parametrize("number", range(3))
def test_all_workers_at_once(tmp_path, undisturbed, number):
    with cluster(tmp_path / "cluster") as running:

        def harm(process: subprocess.Popen[str]) -> None:
            while len(times_made(tmp_path)) < 60 * (number + 1):
                time.sleep(0.02)
            for worker in running.workers():
                worker.kill()

        code, said = run(tmp_path, running.file, harm=harm)
        if code:
            assert "ended:" in said, said
            assert run(tmp_path, running.file)[0] == 0
    must_be_whole(tmp_path, undisturbed, twice=under_way())


def test_the_scheduler(tmp_path, undisturbed):
    with cluster(tmp_path / "cluster") as running:

        def harm(process: subprocess.Popen[str]) -> None:
            while len(times_made(tmp_path)) < 100:
                time.sleep(0.02)
            running.processes[0].kill()

        code, said = run(tmp_path, running.file, harm=harm)
    assert code == 1
    assert len([line for line in said.splitlines() if line]) <= 2, said  # the cluster's line, and the end
    assert "ended: The scheduler of the cluster no longer answers." in said, said
    with cluster(tmp_path / "other") as running:
        assert run(tmp_path, running.file)[0] == 0
    must_be_whole(tmp_path, undisturbed, twice=under_way())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_driver_of_workers_of_its_own_leaves_no_orphan(tmp_path, undisturbed, how):
    children: list[psutil.Process] = []

    def harm(process: subprocess.Popen[str]) -> None:
        while len(times_made(tmp_path)) < 100:
            time.sleep(0.02)
        children.extend(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(how)

    code, _ = run(tmp_path, "local:2", harm=harm)

    assert code != 0
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert run(tmp_path, "local:2")[0] == 0
    must_be_whole(tmp_path, undisturbed, twice=2 * 2 * 40)
    assert not (tmp_path / "out/.copgen").exists()
    assert json.loads((tmp_path / "out/copgen_shout.json").read_text())["totals"]["done"] == UNITS
