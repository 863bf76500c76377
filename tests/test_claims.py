"""Files of the user's own survive under every name that a stage or a sampling run writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from sample_commands import call_copgen, one_thread, save_picture, small_model

from copgen_cli.errors import MismatchError
from copgen_cli.stages import Outcome, Result, StageRun, Status, WorkItem


def write_one(output: Path, *, overwrite: bool = False, beside: tuple[str, ...] = ()) -> None:
    with StageRun("shout", output, settings={}, overwrite=overwrite, beside=beside) as run:
        units = [WorkItem("a", "a"), WorkItem("b", "b")]
        work = lambda item: Result(files=(run.place.write(f"{item}.txt", item.encode()),))  # noqa: E731
        for _ in run.run(run.pending(units), work):
            pass
        run.finish()


def stop_after(output: Path, work: Callable[[StageRun], object]) -> None:
    with suppress(KeyboardInterrupt), StageRun("shout", output, settings={}) as run:
        work(run)
        raise KeyboardInterrupt


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["b.txt", "copgen_shout.jsonl", "copgen_shout.json", "table"])
def test_a_stage_leaves_files_of_another_origin_as_they_are(tmp_path, name, overwrite):
    (tmp_path / name).write_text('{"mine": 1}')

    with pytest.raises(MismatchError, match=name):
        write_one(tmp_path, overwrite=overwrite, beside=("table",))

    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_what_a_stage_wrote_itself_it_may_replace(tmp_path):
    write_one(tmp_path)
    (tmp_path / "b.txt").write_text("damaged")

    write_one(tmp_path)

    assert (tmp_path / "b.txt").read_text() == "b"
    assert not (tmp_path / ".copgen").exists()


def test_a_file_in_place_that_a_stop_kept_from_being_noted_is_ours(tmp_path):
    stop_after(tmp_path, lambda run: run.place.write("b.txt", b"half done"))

    write_one(tmp_path)

    assert (tmp_path / "b.txt").read_text() == "b"


def test_a_recorded_unit_of_a_run_under_way_is_ours(tmp_path):
    stop_after(tmp_path, lambda run: run.record(Outcome("b", Status.DONE, (run.place.write("b.txt", b"early"),))))

    write_one(tmp_path, overwrite=True)

    assert (tmp_path / "b.txt").read_text() == "b"


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
@pytest.mark.parametrize("name", ["samples.json", "dem/radar_v1.png", "dem/radar_v1.png.aux.xml"])
def test_sampling_leaves_files_of_another_origin_as_they_are(tmp_path, monkeypatch, capsys, name, options):
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "radar.png", size=(64, 64))
    (tmp_path / "radar.pgw").write_text("10\n0\n0\n-10\n5\n-5\n")
    mine = tmp_path / "o" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")

    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", small_model(tmp_path / "model"), "--input", "s1_rtc=radar.png",
            "--generate", "dem", "--steps", 1, "--save-as", "pngs", "--output", "o", *options,
        )  # fmt: skip

    assert call.code == 1
    assert f"o/{name} was not written by copgen" in call.err
    assert mine.read_text() == "mine"
