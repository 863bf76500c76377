"""`copgen prepare`, from the command line to the tree on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from killed_runs import Moment, forked_and_killed_at
from PIL import Image
from sample_commands import call_copgen
from tiny_subsets import CELLS, picture_bytes, thumbnail_file, tree, write_subset

from copgen_cli.errors import EXIT_FAILED, EXIT_PARTLY, EXIT_USAGE
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.rasters.pictures import read_colour
from copgen_cli.stages.driver import StageRun
from copgen_cli.stages.manifest import Journal, read_header, read_outcomes

HALVES = ("--train-ratio", "0.5", "--workers", "1")  # 464U_102R and 466U_104R to one split, 465U_103R to the other


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory) -> Path:
    """A subset with two small sources, for tests that do not look at pixels of all."""
    return write_subset(tmp_path_factory.mktemp("data") / "rome", modalities=[Modality.DEM, Modality.S2L2A])


@pytest.fixture
def prepare(tmp_path, monkeypatch, capsys, downloaded):
    """`copgen prepare` of that subset to `out` below an empty folder."""
    monkeypatch.chdir(tmp_path)

    def prepare(*options: object, subset: Path = downloaded, output: str = "out"):
        return call_copgen(capsys, "prepare", "--subset-path", subset, "--output-dir", output, *HALVES, *options)

    return prepare


def names(folder: Path, split: Split, modality: Modality = Modality.DEM) -> set[str]:
    return {file.stem for file in (folder / split / modality.spec.folder).glob("*")}


def test_every_cell_becomes_sixteen_patches_per_modality_in_one_split(prepare, downloaded):
    run = prepare()

    assert run.code == 0
    cells = {split: {name.rpartition("_")[0] for name in names(Path("out"), split)} for split in Split}
    assert cells[Split.TRAIN] | cells[Split.TEST] == set(CELLS)
    assert not cells[Split.TRAIN] & cells[Split.TEST]
    assert all(cells.values())
    for split in Split:
        assert names(Path("out"), split) == {f"{cell}_{k}" for cell in cells[split] for k in range(16)}
        assert names(Path("out"), split) == names(Path("out"), split, Modality.S2L2A)
        table = pq.read_table(f"out/{split}_metadata.parquet")
        assert {*table["patch"].to_pylist()} == names(Path("out"), split)
    thumbnail = read_colour(thumbnail_file(downloaded, CELLS[0], Modality.S2L2A))
    split = next(split for split in Split if CELLS[0] in cells[split])
    patch = patch_file(Path("out"), split, Modality.S2L2A, f"{CELLS[0]}_6", ".png")
    with Image.open(patch) as picture:
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), thumbnail[22 + 256 : 278 + 256, 22 + 512 : 278 + 512])


def test_thumbnails_a_few_pixels_off_are_used_and_placed_by_their_own_size(prepare, tmp_path):
    subset = write_subset(tmp_path / "data" / "rome", modalities=[Modality.DEM, Modality.S2L2A])
    odd = np.random.default_rng(0).integers(0, 256, (1071, 1067, 3), dtype=np.uint8)
    thumbnail_file(subset, CELLS[0], Modality.S2L2A).write_bytes(picture_bytes(odd))
    grey = np.random.default_rng(1).integers(0, 256, (355, 360), dtype=np.uint8)
    thumbnail_file(subset, CELLS[0], Modality.DEM).write_bytes(picture_bytes(grey))

    assert prepare(output="usual").code == 0
    run = prepare(subset=subset)

    assert run.code == 0, run.err
    split = next(split for split in Split if f"{CELLS[0]}_6" in names(Path("out"), split))
    with Image.open(patch_file(Path("out"), split, Modality.S2L2A, f"{CELLS[0]}_6", ".png")) as picture:
        np.testing.assert_array_equal(np.asarray(picture), odd[24 + 256 : 280 + 256, 22 + 512 : 278 + 512])
    rows = [
        next(row for row in pq.read_table(f"{output}/{split}_metadata.parquet").to_pylist() if row["patch"] == name)
        for output in ("out", "usual")
        for name in [f"{CELLS[0]}_6"]
    ]
    assert rows[0]["s2_l2a_c"] - rows[1]["s2_l2a_c"] == pytest.approx(5.0)  # 21.5 pixels cut off, rounded to 22
    assert rows[0]["s2_l2a_f"] - rows[1]["s2_l2a_f"] == pytest.approx(-5.0)  # 23.5, rounded to 24
    assert rows[0]["c"] - rows[1]["c"] == pytest.approx(5.0)  # 1083 px once enlarged: 29.5, rounded to 30


def test_a_region_has_its_folders_and_the_manifest_says_what_made_it(tmp_path, capsys, downloaded):
    shutil.copytree(downloaded, tmp_path / "rome")
    run = call_copgen(capsys, "prepare", "--data-dir", tmp_path, *HALVES, "--json")

    reported = json.loads(run.out)
    assert reported["done"] == 3
    assert reported["files"] == 3 * 16 * 2
    assert reported["train_cells"] + reported["test_cells"] == 3
    assert len(list((tmp_path / "rome/rome_thumbnail_png").rglob("*.png"))) == reported["files"]
    header = read_header(tmp_path / "rome/rome_thumbnail_png", "prepare")
    assert header is not None
    assert header.settings == {"train_ratio": 0.5, "seed": 42, "split_block": 1, "center_crop": False}
    assert header.inputs == {"sources": ["Core-DEM", "Core-S2L2A"]}


def test_one_worker_or_two_write_the_same_tree_and_a_second_run_writes_nothing(prepare):
    prepare(output="one")
    prepare("--workers", "2", output="two")
    assert tree(Path("one")) == tree(Path("two"))

    before = {file: file.stat().st_mtime_ns for file in Path("two").rglob("*")}
    again = prepare(output="two")
    assert "Nothing to do" in again.err
    assert "done now: 0" in again.out
    assert {file: file.stat().st_mtime_ns for file in Path("two").rglob("*")} == before


def test_centre_crops_are_single_and_called_so(prepare):
    assert prepare("--center-crop").code == 0

    assert names(Path("out"), Split.TRAIN) | names(Path("out"), Split.TEST) == {f"{cell}_center" for cell in CELLS}


def test_the_centre_crops_of_a_settings_file_can_be_called_off(prepare):
    Path("copgen.toml").write_text("[prepare]\ncenter_crop = true\n")

    assert json.loads(prepare("--dry-run", "--json").out)["patches"] == 3
    assert json.loads(prepare("--dry-run", "--json", "--no-center-crop").out)["patches"] == 3 * 16


def test_a_dry_run_gives_totals_and_writes_nothing(prepare):
    run = prepare("--dry-run", "--json")

    assert json.loads(run.out) | {"bytes": 0} == {
        "dry_run": True,
        "cells": 3,
        "done_before": 0,
        "patches": 48,
        "bytes": 0,
    }
    assert not Path("out").exists()


def test_other_settings_need_overwrite_and_leave_no_cell_in_both_splits(prepare):
    prepare()
    refused = prepare("--train-ratio", "0.01")
    assert refused.code == EXIT_FAILED
    assert "train_ratio was 0.5, and is now 0.01" in refused.err

    assert prepare("--train-ratio", "0.01", "--overwrite").code == 0
    assert names(Path("out"), Split.TRAIN) == set()
    assert len(names(Path("out"), Split.TEST)) == 48


def test_a_list_of_held_out_cells_makes_the_split_and_another_list_needs_overwrite(prepare, tmp_path):
    (tmp_path / "hold_out.txt").write_text("465U_103R\n1U_1R\n")

    assert prepare("--hold-out", tmp_path / "hold_out.txt").code == 0

    assert names(Path("out"), Split.TEST) == {f"465U_103R_{k}" for k in range(16)}
    assert len(names(Path("out"), Split.TRAIN)) == 32
    (tmp_path / "hold_out.txt").write_text("464U_102R\n")
    refused = prepare("--hold-out", tmp_path / "hold_out.txt")
    assert refused.code == EXIT_FAILED
    assert "hold_out was" in refused.err


def test_cells_that_left_the_subset_leave_the_patches_too(prepare, tmp_path):
    subset = write_subset(tmp_path / "subset", CELLS, modalities=[Modality.DEM])
    prepare(subset=subset)
    write_subset(subset, CELLS[:1], modalities=[Modality.DEM])

    assert prepare(subset=subset).code == 0
    assert names(Path("out"), Split.TRAIN) | names(Path("out"), Split.TEST) == {f"{CELLS[0]}_{k}" for k in range(16)}


def test_a_thumbnail_fetched_again_is_cut_again(prepare, tmp_path):
    subset = write_subset(tmp_path / "subset", CELLS[:1], modalities=[Modality.DEM])
    prepare(subset=subset)
    thumbnail_file(subset, CELLS[0], Modality.DEM).write_bytes(picture_bytes(np.zeros((356, 356), np.uint8)))

    assert "done now: 1" in prepare(subset=subset).out
    (patch,) = Path("out").rglob(f"{CELLS[0]}_0.png")
    assert not read_colour(patch).any()


def test_files_of_another_origin_are_refused_with_overwrite_and_without(prepare, tmp_path):
    prepare(output="first")
    for table in ("train_metadata.parquet", "copgen_prepare.json", "copgen_prepare.jsonl"):
        Path("first", table).unlink()
    Path("first/train").rename("out")  # now the cells of one split lie where those of the other go
    Path("first/test").rename("first/train")
    Path("out").rename("first/test")
    Path("first/test/notes.txt").write_text("mine")
    before = tree(Path("first"))

    for options in ((), ("--dry-run",), ("--overwrite",), ("--overwrite", "--dry-run")):
        refused = prepare(*options, output="first")
        assert refused.code == EXIT_FAILED
        assert "first/test_metadata.parquet was not written by copgen" in refused.err
        Path("first/test_metadata.parquet").rename("table")
        refused = prepare(*options, output="first")
        Path("table").rename("first/test_metadata.parquet")
        assert refused.code == EXIT_FAILED
        assert "first holds files" in refused.err
        assert "another output folder" in refused.err
    assert tree(Path("first")) == before


def test_a_folder_with_unrelated_files_is_fine(prepare):
    for stray in ("train/notes.txt", "train/DEM_thumbnail/.hidden.png", "train/other/1.png", "1.png"):
        Path("out", stray).parent.mkdir(parents=True, exist_ok=True)
        Path("out", stray).write_bytes(b"stray")

    assert prepare("--center-crop").code == 0
    assert Path("out/1.png").read_bytes() == b"stray"


# -- bad input -------------------------------------------------------------------------------------------------------


def cut_short() -> bytes:
    return picture_bytes(np.random.default_rng(0).integers(0, 256, (1068, 1068, 3), dtype=np.uint8))[:5000]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "no readable picture"),
        (cut_short(), "no readable picture"),
        (picture_bytes(np.zeros((128, 128, 3), np.uint8)), "128 x 128 px, and no tile"),
        (picture_bytes(np.zeros((1068, 1068), np.uint16)), "8-bit"),
        (None, "missing"),
    ],
    ids=["empty", "cut short", "another size", "16 bits", "missing"],
)
def test_a_broken_thumbnail_sets_its_cell_aside_and_the_rest_goes_on(prepare, tmp_path, bad, reason):
    subset = write_subset(tmp_path / "subset", CELLS[:2], modalities=[Modality.DEM, Modality.S2L2A])
    file = thumbnail_file(subset, CELLS[0], Modality.S2L2A)
    sound = file.read_bytes()
    file.unlink() if bad is None else file.write_bytes(bad)

    run = prepare(subset=subset)
    assert run.code == EXIT_PARTLY
    assert "set aside: 1" in run.out
    assert CELLS[0] in run.err
    assert reason in run.err
    (missing,) = json.loads(Path("out/copgen_prepare.json").read_text())["missing"]
    assert (missing["key"], missing["status"]) == (CELLS[0], "failed")
    assert {name.rpartition("_")[0] for split in Split for name in names(Path("out"), split)} == {CELLS[1]}
    rows = [row for split in Split for row in pq.read_table(f"out/{split}_metadata.parquet")["grid_cell"].to_pylist()]
    assert {*rows} == {CELLS[1]}

    file.write_bytes(sound)
    mended = prepare(subset=subset)
    assert mended.code == 0
    assert "done now: 1" in mended.out


def test_a_cell_that_one_source_lacks_is_skipped_and_counted(prepare, tmp_path):
    subset = write_subset(tmp_path / "subset", CELLS[:2], modalities=[Modality.DEM])
    write_subset(subset, CELLS[:1], modalities=[Modality.S2L2A])

    run = prepare("--json", subset=subset)

    assert run.code == 0
    assert json.loads(run.out)["skipped"] == {CELLS[1]: "not in Core-S2L2A"}


def test_a_hostile_product_id_is_set_aside(prepare, tmp_path):
    subset = write_subset(tmp_path / "subset", CELLS[:2], modalities=[Modality.S2L2A])
    index = subset / "Core-S2L2A/metadata.parquet"
    table = pq.read_table(index).to_pydict()
    table["product_id"][0] = "../../../../etc"
    pq.write_table(type(pq.read_table(index)).from_pydict(table), index)

    run = prepare("--json", subset=subset)

    assert run.code == EXIT_PARTLY
    assert "can not name a folder" in json.loads(run.out)["failed"][CELLS[0]]


def test_an_index_without_a_column_is_an_error_that_names_it(prepare, tmp_path):
    subset = write_subset(tmp_path / "subset", CELLS[:1], modalities=[Modality.DEM])
    index = subset / "Core-DEM/metadata.parquet"
    pq.write_table(pq.read_table(index).drop_columns(["crs"]), index)

    run = prepare(subset=subset)
    assert run.code == EXIT_FAILED
    assert "no column crs" in run.err


def test_nothing_downloaded_names_the_command_to_run(prepare, tmp_path):
    run = prepare(subset=tmp_path / "nowhere")
    assert run.code == EXIT_FAILED
    assert "copgen download" in run.err


def test_a_ratio_beyond_one_is_wrong_usage(prepare):
    assert prepare("--train-ratio", "1.5").code == EXIT_USAGE


def test_an_empty_split_is_told_with_what_to_do(prepare):
    run = prepare("--train-ratio", "1")
    assert run.code == 0
    assert "no cell fell into test" in run.err
    assert "--train-ratio" in run.err
    assert pq.read_table("out/test_metadata.parquet").num_rows == 0


def test_blocks_leave_a_gap_of_skipped_cells(prepare, tmp_path):
    cells = [f"{row}U_{col}R" for row in (462, 463, 464) for col in (101, 102, 103)]
    subset = write_subset(tmp_path / "subset", cells, modalities=[Modality.DEM])

    run = prepare("--split-block", "3", "--center-crop", "--json", subset=subset)
    reported = json.loads(run.out)
    cut = {name.rpartition("_")[0] for split in Split for name in names(Path("out"), split)}
    assert cut | reported["skipped"].keys() == set(cells)
    assert {*reported["skipped"].values()} <= {"left out between blocks of train and test"}


# -- interruptions ---------------------------------------------------------------------------------------------------


def test_killed_runs_continue_to_the_undisturbed_tree(prepare, downloaded, tmp_path):
    prepare(output="undisturbed")
    call = ("prepare", "--subset-path", downloaded, "--output-dir", tmp_path / "out", *HALVES)

    assert forked_and_killed_at(Moment.FILE, 1, *call) == -9  # before there is a journal
    for write in (3, 40, 21):
        done = {outcome.key for outcome in journal(tmp_path / "out")}
        assert forked_and_killed_at(Moment.FILE, write, *call) == -9
        assert done <= {outcome.key for outcome in journal(tmp_path / "out")}
    assert prepare().code == 0

    assert tree(Path("out")) == tree(Path("undisturbed"))


def journal(output: Path):
    return list(Journal(output / ".copgen/prepare.journal").read())


def test_a_folder_that_another_run_writes_is_refused_with_its_name(prepare, tmp_path):
    with StageRun("prepare", tmp_path / "out", settings={}):
        run = prepare()
    assert run.code == EXIT_FAILED
    assert f"process {os.getpid()}" in run.err


# -- the map ---------------------------------------------------------------------------------------------------------


def test_the_map_shows_the_cells(prepare):
    pytest.importorskip("matplotlib")
    run = prepare("--visualize", "--center-crop")
    assert run.code == 0
    with Image.open("out/split_map.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(0x44, 0x77, 0xAA), (0xEE, 0x66, 0x77)} <= colours
    drawn = Path("out/split_map.png").read_bytes()
    assert prepare("--visualize", "--center-crop", "--overwrite").code == 0
    assert Path("out/split_map.png").read_bytes() == drawn


def test_without_matplotlib_the_map_is_refused_before_any_work(prepare, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = prepare("--visualize")
    assert run.code == EXIT_FAILED
    assert "pip install 'copgen[plot]'" in run.err
    assert not Path("out").exists()


def test_workers_start_light():
    program = (
        "import sys, copgen_cli.patches.cutting; sys.exit(len({'torch', 'pyarrow', 'pydantic'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_manifest_lists_every_patch_with_its_hash(prepare):
    prepare("--center-crop")
    outcomes = list(read_outcomes(Path("out"), "prepare"))
    assert [outcome.key for outcome in outcomes] == sorted(CELLS)
    for outcome in outcomes:
        for file in outcome.files:
            assert hashlib.sha256(Path("out", file.path).read_bytes()).hexdigest() == file.sha256
