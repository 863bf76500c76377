"""The driver around every stage: what it resumes, records, refuses and leaves behind."""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from copgen_cli.errors import EXIT_PARTLY, BrokenInputError, BusyError, DiskFullError, MismatchError, UnusablePathError
from copgen_cli.stages.atomic import Place, require_free_space, safe_path
from copgen_cli.stages.driver import StageRun
from copgen_cli.stages.executors import Executor, Inline, Processes, Threads, WorkerLostError
from copgen_cli.stages.manifest import Outcome, Status, read_outcomes
from copgen_cli.stages.private_folder import PrivateFolder
from copgen_cli.stages.work_items import Result, WorkItem

EXECUTORS: list[Executor] = [Inline(), Threads(3), Processes(2)]


def shout(word: str, place: Place) -> Result:
    """The stage of these tests: one file per word, in capitals."""
    if word.startswith("broken"):
        raise BrokenInputError(f"{word} can not be shouted", hint="Say something else.")
    if word.startswith("silent"):
        return Result(skipped="nothing to shout")
    return Result(files=(place.write(f"words/{word}.txt", word.upper().encode()),), facts={"length": len(word)})


def die(word: str, place: Place) -> Result:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a dead process raises nothing")


def work_items_of(*words: str) -> list[WorkItem[str]]:
    return [WorkItem(word, word) for word in words]


def shout_all(output: Path, *words: str, executor: Executor | None = None, **options):
    with StageRun("shout", output, settings={"loud": True}, **options) as run:
        todo = run.pending(work_items_of(*words))
        outcomes = list(run.run(todo, functools.partial(shout, place=run.place), executor=executor))
        return outcomes, run.finish()


def tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("executor", EXECUTORS, ids=lambda executor: type(executor).__name__)
def test_every_executor_leaves_the_same_tree_and_nothing_but_output_and_manifest(tmp_path, executor):
    words = ["one", "two", "broken", "silent", "three"]
    shout_all(tmp_path / "plain", *words)
    _, summary = shout_all(tmp_path / "pool", *words, executor=executor)

    assert tree(tmp_path / "pool") == tree(tmp_path / "plain")
    assert set(tree(tmp_path / "pool")) == {
        "words/one.txt",
        "words/two.txt",
        "words/three.txt",
        "copgen_shout.json",
        "copgen_shout.jsonl",
    }
    assert (summary.done, summary.files, summary.exit_code) == (3, 3, EXIT_PARTLY)
    assert [outcome.key for outcome in summary.failed] == ["broken"]
    assert [outcome.key for outcome in summary.skipped] == ["silent"]


def test_the_manifest_says_what_is_missing_and_why(tmp_path):
    shout_all(tmp_path, "one", "broken")

    manifest = json.loads((tmp_path / "copgen_shout.json").read_text())

    assert manifest["settings"] == {"loud": True}
    assert manifest["totals"] == {"units": 2, "done": 1, "skipped": 0, "failed": 1, "files": 1, "bytes": 3}
    assert manifest["missing"] == [{"key": "broken", "status": "failed", "reason": "broken can not be shouted"}]
    one = next(outcome for outcome in read_outcomes(tmp_path, "shout") if outcome.key == "one")
    assert (one.files[0].path, one.files[0].size, one.facts) == ("words/one.txt", 3, {"length": 3})


def test_a_second_run_does_no_work_and_touches_nothing(tmp_path):
    shout_all(tmp_path, "one", "two")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}

    outcomes, summary = shout_all(tmp_path, "one", "two")

    assert (outcomes, summary.done, summary.already) == ([], 0, 2)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}.items() <= before.items()


def test_more_units_later_are_the_only_work(tmp_path):
    shout_all(tmp_path, "one", "broken")
    outcomes, summary = shout_all(tmp_path, "one", "two", "broken")

    assert [outcome.key for outcome in outcomes] == ["two", "broken"]  # what failed is tried again
    assert (summary.done, summary.already) == (1, 1)


def test_a_lost_or_changed_file_is_made_again_the_latter_when_asked_to_verify(tmp_path):
    shout_all(tmp_path, "one", "two")
    (tmp_path / "words/one.txt").unlink()
    (tmp_path / "words/two.txt").write_text("TWA")

    with StageRun("shout", tmp_path, settings={"loud": True}, dry_run=True) as run:
        assert [unit.key for unit in run.pending(work_items_of("one", "two"))] == ["one"]
        assert [unit.key for unit in run.pending(work_items_of("one", "two"), verify=True)] == ["one", "two"]


def test_a_unit_whose_input_changed_is_done_again(tmp_path):
    for fingerprint, expected in (("a", ["one"]), ("a", []), ("b", ["one"])):
        with StageRun("shout", tmp_path, settings={}) as run:
            todo = run.pending([WorkItem("one", "one", fingerprint)])
            assert [o.key for o in run.run(todo, functools.partial(shout, place=run.place))] == expected
            run.finish()


def test_what_a_stopped_run_finished_is_not_done_again_and_the_tree_ends_the_same(tmp_path):
    words = [f"word{i}" for i in range(6)]
    shout_all(tmp_path / "undisturbed", *words)
    with StageRun("shout", tmp_path / "stopped", settings={"loud": True}) as run:
        results = run.run(run.pending(work_items_of(*words)), functools.partial(shout, place=run.place))
        assert {next(results).key, next(results).key} == {"word0", "word1"}

    journal = tmp_path / "stopped/.copgen/shout.journal"
    journal.write_bytes(journal.read_bytes() + b'\n{"key": "word2", "status": "do')  # as a kill would leave it
    outcomes, _ = shout_all(tmp_path / "stopped", *words)

    assert [outcome.key for outcome in outcomes] == words[2:]
    assert tree(tmp_path / "stopped") == tree(tmp_path / "undisturbed")
    assert not (tmp_path / "stopped/.copgen").exists()


def test_other_settings_are_refused_until_told_to_overwrite_which_leaves_no_stale_file(tmp_path):
    shout_all(tmp_path, "one", "two")

    with pytest.raises(MismatchError, match=r"loud was true, and is now false") as caught:
        StageRun("shout", tmp_path, settings={"loud": False}).__enter__()
    assert "--overwrite" in caught.value.hint

    with StageRun("shout", tmp_path, settings={"loud": False}, overwrite=True) as run:
        todo = run.pending(work_items_of("two", "three"))
        assert [outcome.key for outcome in run.run(todo, functools.partial(shout, place=run.place))] == ["two", "three"]
        run.finish()
    assert sorted(os.listdir(tmp_path / "words")) == ["three.txt", "two.txt"]


def test_overwriting_can_be_interrupted_and_continued(tmp_path):
    shout_all(tmp_path, "one", "two", "three")
    with StageRun("shout", tmp_path, settings={"loud": False}, overwrite=True) as run:
        next(run.run(run.pending(work_items_of("one", "two")), functools.partial(shout, place=run.place)))

    with StageRun("shout", tmp_path, settings={"loud": False}) as run:  # without saying overwrite again
        assert [unit.key for unit in run.pending(work_items_of("one", "two"))] == ["two"]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_unit_that_fails_later_keeps_its_files_where_the_key_says_all_that_matters(tmp_path, fixed):
    shout_all(tmp_path, "one", "two", fixed=fixed)
    with StageRun("shout", tmp_path, settings={"loud": True}, fixed=fixed) as run:
        assert len(run.pending([WorkItem("one", "one", "changed"), *work_items_of("two")])) == 1
        run.record(Outcome("one", Status.FAILED, reason="no more to be had"))
        assert len(run.finish().failed) == 1
    assert (tmp_path / "words/one.txt").exists() is not fixed
    with StageRun("shout", tmp_path, settings={"loud": True}, fixed=fixed, dry_run=True) as run:
        assert len(run.pending(work_items_of("one"))) == 1


def test_units_no_longer_asked_for_go_when_the_stage_prunes(tmp_path):
    shout_all(tmp_path, "one", "two")
    shout_all(tmp_path, "one", prune=True)

    assert os.listdir(tmp_path / "words") == ["one.txt"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_stage_that_prunes_does_not_replace_all_of_a_folder_unasked(tmp_path, dry_run):
    shout_all(tmp_path, "one", "two", prune=True)
    before = tree(tmp_path)

    with (
        StageRun("shout", tmp_path, settings={"loud": True}, prune=True, dry_run=dry_run) as run,
        pytest.raises(MismatchError, match="such as one, and of none") as refused,
    ):
        run.pending(work_items_of("three"))

    assert "--overwrite" in refused.value.hint
    assert tree(tmp_path) == before
    shout_all(tmp_path, "three", prune=True, overwrite=True)
    assert os.listdir(tmp_path / "words") == ["three.txt"]


def test_a_link_to_another_disk_may_lie_within_the_output(tmp_path):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second disk")
    with tempfile.TemporaryDirectory(dir=elsewhere) as words:
        (tmp_path / "words").symlink_to(words)

        shout_all(tmp_path, "one", "two")

        assert sorted(os.listdir(words)) == ["one.txt", "two.txt"]
        assert (tmp_path / "words/two.txt").read_text() == "TWO"
        assert not (tmp_path / ".copgen").exists()


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    with StageRun("shout", tmp_path, settings={}), pytest.raises(BusyError, match=rf"process {os.getpid()} on "):
        StageRun("shout", tmp_path, settings={}).__enter__()


def test_a_start_that_fails_leaves_neither_lock_nor_folder(tmp_path, monkeypatch):
    def fail(self: PrivateFolder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(PrivateFolder, "_clear_temporaries", fail)
        with pytest.raises(OSError, match="No space left"):
            StageRun("shout", tmp_path / "output", settings={}).__enter__()

    assert not (tmp_path / "output").exists()
    shout_all(tmp_path / "output", "one")


def test_a_lock_that_can_not_be_had_is_no_lock(tmp_path, monkeypatch):
    def vanish(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("filelock.FileLock.acquire", vanish)
    with pytest.raises(BusyError):
        PrivateFolder(tmp_path, "shout").take()


def test_where_no_folder_can_be_made_no_other_process_is_blamed():
    with pytest.raises(UnusablePathError, match="/proc/copgen can not be made"):
        PrivateFolder(Path("/proc/copgen"), "shout").take()


def test_a_dry_run_writes_nothing_and_needs_no_lock(tmp_path):
    output = tmp_path / "output"
    with StageRun("shout", output, settings={}, dry_run=True) as run:
        assert len(run.pending(work_items_of("one"))) == 1
        run.finish()
    assert not output.exists()


def test_temporaries_of_killed_runs_go_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    import socket

    killed = tmp_path / f".copgen/tmp/{socket.gethostname()}_{dead.pid}_0"
    living = tmp_path / f".copgen/tmp/{socket.gethostname()}_{os.getppid()}_0"
    for folder in (killed, living):
        folder.mkdir(parents=True)
        (folder / "half.png").write_bytes(b"half")

    with StageRun("shout", tmp_path, settings={}):
        assert not killed.exists()
        assert living.exists()


def test_a_bug_ends_the_run_with_its_own_exception(tmp_path):
    def bug(word: str) -> Result:
        raise ZeroDivisionError

    with StageRun("shout", tmp_path, settings={}) as run, pytest.raises(ZeroDivisionError):
        list(run.run(run.pending(work_items_of("one")), bug, executor=Threads(2)))


def test_broken_input_is_tried_again_as_often_as_asked(tmp_path):
    tried = []

    def fails_twice(word: str) -> Result:
        tried.append(word)
        if len(tried) < 3:
            raise BrokenInputError("bad luck", hint="Again.")
        return Result()

    with StageRun("shout", tmp_path, settings={}) as run:
        outcome = next(run.run(run.pending(work_items_of("one")), fails_twice, retries=2))
    assert (outcome.status, len(tried)) == (Status.DONE, 3)


def test_a_killed_worker_process_is_a_clear_error(tmp_path):
    with StageRun("shout", tmp_path, settings={}) as run, pytest.raises(WorkerLostError, match="want of memory"):
        list(run.run(run.pending(work_items_of("one")), functools.partial(die, place=run.place), executor=Processes(2)))


def test_an_executor_takes_only_a_few_items_ahead_of_its_workers():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = Threads(2).map(str, items())
    next(results)
    assert len(taken) <= 6


def test_results_come_in_the_order_of_the_items_when_asked(tmp_path):
    words = [f"w{i}" for i in range(20)]
    with StageRun("shout", tmp_path, settings={}) as run:
        work = functools.partial(shout, place=run.place)
        outcomes = run.run(run.pending(work_items_of(*words)), work, executor=Threads(4), ordered=True)
        assert [outcome.key for outcome in outcomes] == words


def test_a_stage_that_does_its_own_mapping_records_its_units(tmp_path):
    with StageRun("shout", tmp_path, settings={}) as run:
        file = run.place.write("all.txt", b"ALL")
        run.record(Outcome("one", Status.DONE, (file,)))
        assert run.finish().done == 1
    with StageRun("shout", tmp_path, settings={}, dry_run=True) as run:
        assert run.pending(work_items_of("one")) == []


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a\x00b", "a\\b", "", "a\nb"])
def test_a_path_that_leaves_the_output_is_refused(tmp_path, path):
    with pytest.raises(BrokenInputError):
        safe_path(path)


def test_a_file_is_in_place_only_once_its_hash_is_known_so_that_it_can_be_noted_at_once(tmp_path, monkeypatch):
    def killed(data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hashlib.sha256", killed)
    with pytest.raises(KeyboardInterrupt):
        Place(tmp_path, tmp_path).write("a/file", b"long")
    assert not list(tmp_path.rglob("*"))


def test_too_little_room_is_noticed_before_the_work(tmp_path):
    with pytest.raises(DiskFullError, match=r"bytes are needed, .* are free"):
        require_free_space(tmp_path / "not" / "yet", 1 << 62)


@pytest.mark.parametrize("executor", EXECUTORS[1:], ids=lambda executor: type(executor).__name__)
def test_files_of_one_unit_at_a_time_come_into_place_with_its_line_in_the_journal(tmp_path, executor):
    with StageRun("shout", tmp_path, settings={}) as run, run.journal.file.open("ab") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)  # as a worker does that is about to note its unit
        work, todo = functools.partial(shout, place=run.place), run.pending(work_items_of("one", "two", "three"))
        runner = threading.Thread(target=lambda: list(run.run(todo, work, executor=executor)))
        runner.start()
        try:
            deadline = time.monotonic() + 60
            while len(list(run.place.temporary.iterdir())) < 2:
                assert not (tmp_path / "words").exists()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert not (tmp_path / "words").exists()
        finally:
            fcntl.flock(journal, fcntl.LOCK_UN)
            runner.join()
        assert run.finish().done == 3


def test_of_a_unit_that_fails_nothing_comes_into_place(tmp_path):
    def half(word: str, place: Place) -> Result:
        place.write(f"{word}.txt", b"half")
        raise BrokenInputError("the other half is missing", hint="Fetch it.")

    with StageRun("halve", tmp_path, settings={}) as run:
        list(run.run(run.pending(work_items_of("one")), functools.partial(half, place=run.place), retries=1))
        assert not list(run.place.temporary.iterdir())
        run.finish()
    assert sorted(os.listdir(tmp_path)) == ["copgen_halve.json", "copgen_halve.jsonl"]


SLOW_STAGE = """
    import functools, sys, time
    from pathlib import Path
    from copgen_cli.stages.driver import StageRun
    from copgen_cli.stages.executors import Processes, Threads
    from copgen_cli.stages.work_items import Result, WorkItem

    def slow(i, place):
        file = place.write(f"{i}.txt", str(i).encode() * 1000)
        time.sleep(0.01)
        return Result(files=(file,))

    if __name__ == "__main__":
        with StageRun("slow", Path(sys.argv[1]), settings={}) as run:
            todo = run.pending([WorkItem(f"{i:03}", i) for i in range(60)])
            pool = {"threads": Threads, "processes": Processes}[sys.argv[2]](2)
            for outcome in run.run(todo, functools.partial(slow, place=run.place), executor=pool):
                print(outcome.key, flush=True)
            run.finish()
"""


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_killed_over_and_over_a_run_still_ends_with_the_undisturbed_tree(tmp_path, pool):
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW_STAGE))
    run = [sys.executable, script]
    subprocess.run([*run, tmp_path / "undisturbed", "threads"], check=True, stdout=subprocess.DEVNULL)
    made: list[str] = []
    for lines_until_kill in (3, 11, 1):
        with subprocess.Popen([*run, tmp_path / "killed", pool], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            made += [process.stdout.readline().strip() for _ in range(lines_until_kill)]
            process.kill()
            made += [line.strip() for line in process.stdout]
    last = subprocess.run([*run, tmp_path / "killed", pool], check=True, stdout=subprocess.PIPE, text=True)
    made += last.stdout.split()

    assert len(made) == len(set(made))  # no unit that was finished is done again
    assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")
    assert not (tmp_path / "killed/.copgen").exists()


def test_files_of_a_run_that_was_given_up_do_not_stay_when_it_is_overwritten(tmp_path):
    with StageRun("shout", tmp_path, settings={"loud": True}) as run:
        next(
            run.run(run.pending(work_items_of("one", "two")), functools.partial(shout, place=run.place))
        )  # and is stopped

    with StageRun("shout", tmp_path, settings={"loud": False}, overwrite=True) as run:
        list(run.run(run.pending(work_items_of("two")), functools.partial(shout, place=run.place)))
        run.finish()
    assert os.listdir(tmp_path / "words") == ["two.txt"]


def test_a_unit_made_anew_under_another_name_leaves_no_old_file(tmp_path):
    def write(to: str, place: Place) -> Result:
        return Result(files=(place.write(to, b"data"),))

    for to, overwrite in (("train/cell", False), ("test/cell", True)):
        with StageRun("deal", tmp_path, settings={}, overwrite=overwrite) as run:
            list(run.run(run.pending([WorkItem("cell", to)]), functools.partial(write, place=run.place)))
            run.finish()
    assert not (tmp_path / "train").exists()
    assert (tmp_path / "test/cell").exists()
