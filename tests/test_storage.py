"""Files in object stores: the way from an archive to pictures on `memory://`, and an S3 server on a loopback port."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from copgen_processes import copgen, running
from tiny_archive import rome_rows, write_archive
from tiny_models import tiny_autoencoder
from tiny_s3 import TinyS3
from tiny_subsets import tree

from copgen_cli.app import main
from copgen_cli.errors import BusyError, CopgenError, MismatchError
from copgen_cli.stages import Outcome, Result, StageRun, Status, WorkItem
from copgen_cli.storage import ObjectLock, as_path, is_remote

SETTINGS = """
[prepare]
train_ratio = 0.5
center_crop = true
workers = 1

[encode]
vae = "{folder}/vae"

[train]
preset = "tiny"
device = "cpu"
steps = 2
save_every = 1
keep_last = 1
preview_every = 0
trackers = []

[sample]
device = "cpu"
steps = 1
"""
WAY = (
    "download --endpoint file://{folder}/archive",
    "prepare",
    "encode",
    "pack",
    "train",
    "sample --condition s1_rtc --generate dem --output {place}/drawn",
)
MORE = (
    "sample --condition s1_rtc --generate dem --save-as pngs --output {place}/pngs",
    "evaluate --real {place}/pngs --generated {place}/pngs --metrics psnr --output {place}/report",
    "scene --bbox 12.5 41.9 12.504 41.903 --generate dem --output {place}/map",
)
OF_A_KIND = ("metrics.jsonl", "samples.json", "copgen_sample_grid.json", "copgen_sample_grid.jsonl", "grid_0001.png")
"""Files that tell seconds, or where their model and data lie."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    write_archive(folder / "archive", rome_rows(), size=1068)
    tiny_autoencoder().save_pretrained(folder / "vae")
    (folder / "copgen.toml").write_text(SETTINGS.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where copies of what is mapped go, instead of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def go(folder: Path, place: str, line: str) -> None:
    """One command in this process, in which `memory://` lives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COPGEN_DATA_DIR", f"{place}/data")
        patch.setenv("COPGEN_RUNS_DIR", f"{place}/runs")
        code = None
        try:
            main(shlex.split(line.format(folder=folder, place=place)))
        except SystemExit as end:
            code = end.code
        assert not code, line


def objects(place: str) -> dict[str, bytes]:
    """Name and content of all that lies below a remote folder."""
    root = as_path(place)
    names = root.fs.find(root.path)
    return {name.removeprefix(f"{root.path.rstrip('/')}/"): root.fs.cat_file(name) for name in names}


@pytest.fixture(scope="module")
def way(workplace, cache):
    """The whole way on a disk, and on `memory://`; what lies there in the end."""
    for place in (str(workplace / "local"), "memory://way"):
        for line in WAY:
            go(workplace, place, line)
    return tree(workplace / "local"), objects("memory://way")


def test_the_way_through_an_object_store_leaves_the_tree_that_a_disk_has(way):
    local, remote = way

    assert remote.keys() == local.keys()
    assert [name for name in local if remote[name] != local[name] and Path(name).name not in OF_A_KIND] == [
        "runs/rome-tiny/.copgen/files"  # in the order in which names were claimed
    ] * (remote["runs/rome-tiny/.copgen/files"] != local["runs/rome-tiny/.copgen/files"])
    assert {"data/rome/copgen_download.json", "runs/rome-tiny/model/model_index.json"} <= remote.keys()
    assert not [name for name in remote if ".copgen" in name and not name.endswith(".copgen/files")]


def test_a_second_time_nothing_is_done_and_nothing_written(way, workplace, capsys):
    root = as_path("memory://way")
    before = {name: root.fs.info(name)["created"] for name in root.fs.find(root.path)}
    for line in WAY:
        capsys.readouterr()
        go(workplace, "memory://way", line)
        assert "Nothing to do" in capsys.readouterr().err, line

    after = {name: root.fs.info(name)["created"] for name in root.fs.find(root.path)}
    log = {name for name in before if name.endswith("metrics.jsonl")}
    assert {name: time for name, time in after.items() if name not in log} == {
        name: time for name, time in before.items() if name not in log
    }


def test_pictures_reports_and_maps_go_to_a_store_whole(way, workplace):
    place = str(workplace / "local")
    for line in MORE:
        go(workplace, place, line)
        go(workplace, "memory://way", line)

    local, remote = tree(Path(place)), objects("memory://way")
    made = {name for name in local if name.split("/")[0] in ("pngs", "report", "map")}
    assert made == {name for name in remote if name.split("/")[0] in ("pngs", "report", "map")}
    assert {"map/dem.tif", "map/collection.json", "report/report.html", "pngs/samples.json"} <= made
    with (
        rasterio.open(io.BytesIO(remote["map/dem.tif"])) as mine,
        rasterio.open(workplace / "local/map/dem.tif") as its,
    ):
        assert (mine.read() == its.read()).all()


def test_a_run_goes_on_from_the_checkpoint_in_the_store_with_nothing_on_this_machine(way, workplace, capsys, tmp_path):
    place, root = "memory://elsewhere", as_path("memory://way")
    root.fs.copy(root.path, as_path(place).path, recursive=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))  # another machine
        go(workplace, place, "train --steps 3")

    assert "Going on from memory://elsewhere/runs/rome-tiny/checkpoints/step-00000002" in capsys.readouterr().err
    checkpoints = {name.split("/")[3] for name in objects(place) if name.startswith("runs/rome-tiny/checkpoints/")}
    assert checkpoints == {"step-00000003"}  # of which the newest is kept, here as there
    assert not list(tmp_path.rglob("checkpoints"))


# -- locks, claims, journals -----------------------------------------------------------------------------------------


def lock_of(output: Path, **facts: object) -> None:
    owner = {"stage": "pack", "pid": os.getpid(), "host": socket.gethostname(), "since": "noon", "seen": 0.0}
    (output / ".copgen/lock").write_bytes(json.dumps({**owner, "token": "another", **facts}).encode())


def test_an_output_that_another_process_holds_is_left_alone_and_the_message_says_who(cache):
    output = as_path("memory://held")
    lock_of(output)

    with pytest.raises(BusyError, match=f"pack, process {os.getpid()} on {socket.gethostname()}, since noon"):
        StageRun("stage", output, settings={}).__enter__()
    assert list(objects("memory://held")) == [".copgen/lock"]


def test_a_lock_whose_process_is_gone_is_taken_over_and_given_back(cache):
    output = as_path("memory://gone")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock_of(output, pid=dead.pid)

    with StageRun("stage", output, settings={}) as run:
        owner = json.loads((output / ".copgen/lock").read_bytes())
        run.finish()

    assert owner["pid"] == os.getpid()
    assert objects("memory://gone").keys() == {"copgen_stage.json", "copgen_stage.jsonl"}


@pytest.mark.parametrize(("silent", "free"), [(60, False), (600, True)])
def test_a_lock_of_another_machine_counts_until_it_has_been_silent_for_minutes(silent, free):
    import time

    output = as_path(f"memory://silent{silent}")
    lock_of(output, host="another", pid=1, seen=time.time() - silent)
    lock = ObjectLock(output / ".copgen/lock", "stage")
    if not free:
        with pytest.raises(Exception, match="on another"):
            lock.acquire()
        return
    lock.acquire()
    assert json.loads((output / ".copgen/lock").read_bytes())["host"] == socket.gethostname()
    lock.release()
    assert not (output / ".copgen/lock").exists()


def test_what_copgen_did_not_write_is_not_replaced(cache):
    output = as_path("memory://foreign")
    (output / "a").write_bytes(b"mine")

    with StageRun("stage", output, settings={}) as run, pytest.raises(MismatchError, match="not written by copgen"):
        run.place.write("a", b"theirs")
    assert (output / "a").read_bytes() == b"mine"


def write(name: str, *, place, fail: str = "") -> Result:
    if name == fail:
        raise KeyError(name)
    return Result((place.write(name, name.encode()),))


def test_what_was_put_in_place_before_a_stop_is_ours_when_the_run_goes_on(cache):
    from functools import partial

    output = as_path("memory://stopped")
    units = [WorkItem(name, name) for name in "abc"]

    def stop() -> None:
        with StageRun("stage", output, settings={}) as run:
            run.place.write("c", b"put, and never noted")  # as a kill leaves it
            list(run.run(run.pending(units), partial(write, place=run.place, fail="b")))

    with pytest.raises(KeyError):
        stop()
    with StageRun("stage", output, settings={}) as run:
        todo = run.pending(units)
        list(run.run(todo, partial(write, place=run.place)))
        run.finish()

    assert [unit.key for unit in todo] == ["b", "c"]  # what was noted is not made again
    assert {name: data for name, data in objects("memory://stopped").items() if len(name) == 1} == {
        "a": b"a",
        "b": b"b",
        "c": b"c",
    }


def test_a_journal_of_many_units_is_few_objects_and_all_of_them_are_read(cache):
    output = as_path("memory://many")
    with StageRun("stage", output, settings={}) as run:
        for number in range(450):
            run.record(Outcome(f"{number:03}", Status.DONE))
        journals = [name for name in objects("memory://many") if name.endswith(".journal")]
        assert len(journals) == 3  # the beginning, and two full ones
    with StageRun("stage", output, settings={}) as run:
        assert run.recorded("449") is not None


# -- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    with TinyS3() as server:
        yield server


@pytest.fixture
def environment(s3, tmp_path):
    return s3.environment | {"XDG_CACHE_HOME": str(tmp_path)}


def call(folder: Path, environment: dict[str, str], line: str, kill_at: int | None = None) -> tuple[int, str]:
    with running(_run, str(folder), kill_at, line.format(folder=folder), environment=environment) as process:
        return process.end(), process.said


def _run(folder: str, kill_at: int | None, line: str) -> None:
    if kill_at is not None:
        from copgen_cli.stages import atomic

        put, left = atomic.put_file, iter(range(kill_at))

        def fatal(*arguments: Path) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            put(*arguments)

        atomic.put_file = fatal
    os.chdir(folder)
    main(shlex.split(line))


def test_data_on_s3_is_that_of_a_disk(workplace, way, s3, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    for line in WAY[:2]:
        go(workplace, "s3://bucket/short", line)

    local = {name: data for name, data in way[0].items() if name.startswith(("data/rome/Core", "data/rome/copgen"))}
    local |= {name: data for name, data in way[0].items() if "thumbnail_png/" in name or name.startswith("data/Core")}
    assert s3.tree("short") == local


def test_s3_says_who_holds_the_lock(s3, environment, workplace):
    owner = {"stage": "download", "pid": os.getpid(), "host": socket.gethostname(), "since": "noon", "seen": 0}
    s3.write("held/rome/.copgen/lock", json.dumps(owner).encode())
    environment |= {"COPGEN_DATA_DIR": "s3://bucket/held"}

    code, said = call(workplace, environment, WAY[0])

    assert code == 1
    assert f"Another process is writing to s3://bucket/held/rome: download, process {os.getpid()} on" in said
    assert s3.keys("held/") == ["held/rome/.copgen/lock"]


@pytest.mark.parametrize(
    ("place", "without", "told"),
    [
        ("s3://nobody/data", (), "there is no such bucket"),
        ("s3://bucket/data", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "there are no credentials"),
    ],
)
def test_a_store_that_can_not_be_used_is_one_line_with_what_to_do(workplace, environment, place, without, told):
    environment = {name: value for name, value in environment.items() if name not in without}

    code, said = call(workplace, environment, f"prepare --data-dir {place}")

    assert code == 1
    lines = said.strip().splitlines()
    assert lines[0].startswith(f"error: {place}"), said
    assert told in lines[0]
    assert len(lines) == 2


# -- paths -----------------------------------------------------------------------------------------------------------


def test_text_becomes_a_path_of_its_kind():
    assert as_path("data/x") == Path("data/x")
    assert as_path("file:///a%20b/c") == Path("/a b/c")
    assert is_remote(as_path("memory://bucket/x"))
    assert str(as_path("memory://bucket/x") / "y") == "memory://bucket/x/y"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gs://bucket/x", r"pip install copgen\[gs\]"),
        ("nothing://bucket/x", "there is no storage called nothing://"),
        ("https://example.org/x", "can only be read"),
        ("s3://", "names no bucket"),
        ("file://host/x", "no path on this machine"),
        ("memory://bucket/../x", "holds no `..`"),
    ],
)
def test_a_place_that_can_not_be_reached_is_refused(text, told, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed, wherever it is

    with pytest.raises(CopgenError) as refused:
        as_path(text)
    assert re.search(told, f"{refused.value} {refused.value.hint}")


@pytest.mark.parametrize(
    "line",
    [
        "simulate --cells 1 --output s3://bucket/earth",
        "convert copgen-sim s3://bucket/model",
        "train-autoencoder --data s3://bucket/patches",
        "pack --input-type lmdb --input-dir s3://bucket/theirs --output-dir store",
        "quickstart --output s3://bucket/tour",
    ],
)
def test_what_needs_this_machine_says_so_and_writes_nothing(line, tmp_path, s3, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with copgen(*line.split(), environment=s3.environment) as process:
        code = process.end()

    assert code == 2, process.said
    assert "on this machine, not s3://bucket" in process.said
    assert not list(tmp_path.iterdir())
