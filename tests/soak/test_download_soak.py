"""Long campaigns of faults against `copgen download`. Not part of the suite: `pytest tests/soak/test_download_soak.py`.

SOAK_SCALE scales the campaigns; 1, the default, is the whole of them.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_archive import Archive, Row, write_archive
from tiny_hub import Fault, Request, TinyHub, status

from copgen_cli.errors import EXIT_PARTLY
from copgen_cli.modalities import PUBLISHED

SCALE = float(os.environ.get("SOAK_SCALE", "1"))
CELLS = [f"{row}U_{column}R" for row in range(464, 470) for column in range(102, 106)]
PRELOAD = ["copgen_cli.app", "copgen_cli.archive.download"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    rows = [Row(cell, modality) for cell in CELLS for modality in PUBLISHED]
    return write_archive(tmp_path_factory.mktemp("archive"), rows, parts=3, checksums=True)


@pytest.fixture
def hub(archive) -> Iterator[TinyHub]:
    with TinyHub(archive.root) as hub:
        yield hub


def download(endpoint: str, data_dir: Path, *options: str, quick: bool = True, stub_lock: bool = False) -> None:
    """The command, to be run in a process of its own."""
    from copgen_cli.app import main
    from copgen_cli.archive import retry_policy

    if quick:
        retry_policy.FIRST_PAUSE = 0.01
    if stub_lock:
        import fcntl

        fcntl.flock = lambda *_: None  # type: ignore[assignment]
    sys.argv = ["copgen", "--quiet", "download", "--json", "--endpoint", endpoint, "--data-dir", str(data_dir)]
    sys.argv += ["--n-samples", "1000", *options]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process lives)
    main()


def start(endpoint: str, data_dir: Path, *options: str, **more: bool) -> multiprocessing.process.BaseProcess:
    """A download in a process that is forked from one which has imported everything, so that a kill hits the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=functools.partial(download, endpoint, data_dir, *options, **more))
    process.start()
    return process


def finish(process: multiprocessing.process.BaseProcess) -> int | None:
    process.join(300)
    return process.exitcode


def tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def in_place(folder: Path) -> dict[Path, tuple[int, int]]:
    """Identity of every thumbnail: a file that is written again is another."""
    found = {}
    for file in folder.rglob("thumbnail.png"):
        facts = file.stat()
        found[file] = (facts.st_ino, facts.st_mtime_ns)
    return found


def test_f1_killed_at_200_random_moments(hub, tmp_path):
    draw = random.Random(1)
    assert finish(start(hub.endpoint, tmp_path / "first")) == 0  # what is imported at first is no part of the work
    hub.faults = lambda request: time.sleep(0.01)
    began = time.monotonic()
    assert finish(start(hub.endpoint, tmp_path / "undisturbed")) == 0
    whole = time.monotonic() - began
    undisturbed = tree(tmp_path / "undisturbed")
    data, kills, rounds, redone, worst, before = tmp_path / "killed", 0, 0, 0, 0, {}
    stopped_with: list[int] = []
    while kills < 200 * SCALE:
        process = start(hub.endpoint, data)
        process.join(draw.uniform(0.15, 0.8) * whole)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            finish(process)
            kills += 1
            stopped_with.append(len(in_place(data)))
        else:
            assert process.exitcode == 0
            assert tree(data) == undisturbed
            rounds += 1
        after = in_place(data)
        again = sum(after.get(file) != identity for file, identity in before.items())
        redone, worst, before = redone + again, max(worst, again), after
        if process.exitcode == 0:
            shutil.rmtree(data)
            before = {}
    assert finish(start(hub.endpoint, data)) == 0

    print(f"{kills} kills with {min(stopped_with)} to {max(stopped_with)} of {4 * len(CELLS)} thumbnails in place")
    print(f"{rounds} rounds finished between them; {redone} units done twice, at most {worst} after a kill")
    assert tree(data) == undisturbed
    assert worst <= 1


def test_f2_a_hub_that_limits_fails_cuts_and_forgets(hub, archive, tmp_path):
    draw, stated = random.Random(2), 1.0
    refused: list[tuple[Request, float]] = []

    def faults(request: Request) -> Fault | None:
        if request.kind == "resolve":
            if draw.random() < 0.3:
                refused.append((request, stated))
                return status(429, {"RateLimit": f'"resolvers";r=0;t={stated:.0f}'})
            return None
        dice = draw.random()
        if dice < 0.05:
            return status(503)
        if dice < 0.07:
            return Fault(reset=True)
        if dice < 0.08:
            return Fault(cut=draw.random())
        if dice < 0.085:
            return status(416)
        if dice < 0.09:
            return Fault(ignore_range=True)
        if dice < 0.10:
            hub.expire()
        return None

    finish(start(hub.endpoint, tmp_path / "ideal"))
    ideal, asked, rounds = len(hub.requests), 0, max(1, round(5 * SCALE))
    hub.faults = faults
    for number in range(rounds):
        hub.requests.clear()
        assert finish(start(hub.endpoint, tmp_path / f"{number}")) == 0
        asked += len(hub.requests)
        assert tree(tmp_path / f"{number}") == tree(tmp_path / "ideal")
        resolves = [request.time for request in hub.requests if request.kind == "resolve"]
        for request, wait in refused:
            early = [t for t in resolves if request.time < t < request.time + wait]
            # requests that were on their way when the refusal came are not repetitions
            assert all(t < request.time + 0.1 for t in early)
        refused.clear()
    print(f"{asked / rounds:.0f} requests a run, ideally {ideal}: {asked / rounds / ideal:.2f} times")
    assert asked / rounds <= 1.4 * ideal


def test_f3_a_flipped_bit_in_one_of_a_thousand_answers(archive, tmp_path):
    """Pages of this archive carry checksums; a JPEG without one can change unseen, where TLS does not protect it."""
    draw, flips, runs = random.Random(3), 0, 0
    with TinyHub(archive.root) as hub:
        finish(start(hub.endpoint, tmp_path / "right"))
        right = tree(tmp_path / "right/rome")

        def faults(request: Request) -> Fault | None:
            nonlocal flips
            if request.kind == "cdn" and draw.random() < 0.2:
                flips += 1
                return Fault(flip=draw.randrange(1 << 30))
            return None

        hub.faults = faults
        while flips < 1000 * SCALE:
            runs += 1
            assert finish(start(hub.endpoint, tmp_path / "flipped")) in (0, EXIT_PARTLY)  # three flips in one product
            got = tree(tmp_path / "flipped/rome")
            assert {name for name, data in got.items() if data != right.get(name) and "copgen_" not in name} == set()
            shutil.rmtree(tmp_path / "flipped/rome")
    print(f"{flips} flipped bits in {runs} runs, none of them stored")


def test_f4_a_disk_that_is_full_at_any_point(archive, small_disk, tmp_path):
    """The check before the work is switched off, so that writes fail where the disk happens to end."""
    finish(start(archive.endpoint, tmp_path / "right"))
    right = tree(tmp_path / "right")
    data = small_disk.folder / "data"
    program = [sys.executable, "-c", WITHOUT_LOOKING_AHEAD, archive.endpoint, str(data)]
    full = 0
    for room in range(0, 500_000, max(4096, int(20_000 / SCALE))):
        full += small_disk.run_with_room(room, program)
        assert all(right.get(name) == got for name, got in tree(data).items() if "thumb" in name)
        assert subprocess.run(program, capture_output=True).returncode == 0
        assert tree(data) == right
        shutil.rmtree(data)
    print(f"full {full} times, continued as often")
    assert full


WITHOUT_LOOKING_AHEAD = """
import sys
from copgen_cli.app import main
from copgen_cli.stages import atomic
from copgen_cli.archive import download
from copgen_cli.archive import http as http_archive
atomic.require_free_space = download.require_free_space = http_archive.require_free_space = lambda *_: None
endpoint, data = sys.argv[1:]
sys.argv = ["copgen", "download", "--endpoint", endpoint, "--data-dir", data, "--n-samples", "1000"]
main()
"""


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("stub_lock", [False, True])
def test_f5_several_processes_on_one_output(hub, tmp_path, processes, stub_lock):
    finish(start(hub.endpoint, tmp_path / "alone"))
    alone = tree(tmp_path / "alone")
    for number in range(max(1, round(10 * SCALE))):
        running = [start(hub.endpoint, tmp_path / "shared", stub_lock=stub_lock) for _ in range(processes)]
        codes = [finish(process) for process in running]
        assert 0 in codes
        assert set(codes) <= {0, 1}  # 1: another is writing
        if stub_lock:
            assert set(codes) == {0}
        got = tree(tmp_path / "shared")
        assert got == alone, (number, set(got) ^ set(alone))
        shutil.rmtree(tmp_path / "shared")
