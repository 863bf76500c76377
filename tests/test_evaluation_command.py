"""`copgen evaluate` as one types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_commands import call_copgen

from copgen_cli.app import main


@pytest.fixture
def folders(tmp_path):
    """Four pictures, and each of them seven grey levels brighter."""
    random = np.random.default_rng(0)
    for folder in ("real", "made"):
        (tmp_path / folder / "s2_l2a").mkdir(parents=True)
    for name in ("1U_1R_0", "1U_2R_0", "2U_1R_0", "2U_2R_0"):
        pixels = random.integers(0, 240, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "real" / "s2_l2a" / f"{name}.png")
        Image.fromarray(pixels + 7).save(tmp_path / "made" / "s2_l2a" / f"{name}_v1.png")
    return tmp_path


@pytest.fixture
def run(capsys, monkeypatch):
    """`copgen evaluate` in a folder, in this process."""

    def evaluate(folder, *arguments):
        monkeypatch.chdir(folder)
        return call_copgen(capsys, "evaluate", *arguments)

    return evaluate


def test_two_folders_are_judged_and_a_report_is_written(run, folders):
    process = run(
        folders,
        *("--real", "real", "--generated", "made", "--metrics", "psnr,wasserstein", "--json", "--output", "report"),
    )

    assert process.code == 0, process.err
    printed = json.loads(process.out)
    values = {score["metric"]: score["value"] for score in printed["scores"]}
    assert values["psnr"] == pytest.approx(20 * np.log10(255 / 7))
    assert values["wasserstein"] == pytest.approx(7)
    written = json.loads((folders / "report" / "metrics.json").read_text())
    assert written["scores"] == printed["scores"]
    assert (folders / "report" / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--real", "real"], "belong together"),
        (["--real", "real", "--generated", "made", "--model", "copgen-sim"], "without a model"),
        (["--real", "real", "--generated", "made", "--metrics", "pnsr"], "Did you mean 'psnr'"),
        (["--real", "real", "--generated", "made", "--pairs", "joint", "--ignored", "published"], "--pairs, --ignored"),
        (["--real", "real", "--generated", "made", "--n-samples", "2", "--steps", "5"], "--n-samples, --steps"),
        (
            ["--real", "real", "--generated", "made", "--solver", "ddim", "--guidance-scale", "1"],
            "--solver, --guidance-scale",
        ),
        (["--real", "real", "--generated", "made", "--translations", "4"], "--translations"),
        (["--real", "real", "--generated", "made", "--dtype", "float16", "--data-dir", "x"], "--data-dir, --dtype"),
        (["--model", "copgen-sim", "--metrics", "cycle", "--translations", "3"], "multiple of 2"),
    ],
)
def test_wrong_usage_ends_with_two_and_says_what_to_do(run, folders, arguments, complaint):
    process = run(folders, *arguments)

    assert process.code == 2
    assert complaint in process.err
    assert "Traceback" not in process.err


def test_an_output_that_can_not_be_a_folder_is_refused_before_anything_is_read(run, folders):
    (folders / "taken").write_text("a file")

    process = run(folders, "--real", "missing", "--generated", "missing", "--output", "taken")

    assert process.code == 1
    assert "taken" in process.err
    assert "missing" not in process.err


def test_tables_are_printed_even_where_the_report_can_not_be_written(run, folders):
    (folders / "report" / "metrics.json").mkdir(parents=True)

    process = run(folders, "--real", "real", "--generated", "made", "--metrics", "psnr", "--output", "report")

    assert process.code != 0
    assert "metrics.json" in process.err
    assert "PSNR" in process.out


def test_samples_of_each_are_told_as_a_range_where_modalities_differ(run, folders):
    for name in ("1U_1R_0", "1U_2R_0"):
        for side, copies in (("real", [""]), ("made", ["_v1", "_v2", "_v3"])):
            picture = (folders / side / "s2_l2a" / f"{name}{copies[0]}.png").read_bytes()
            (folders / side / "s2_l1c").mkdir(exist_ok=True)
            for copy in copies:
                (folders / side / "s2_l1c" / f"{name}{copy}.png").write_bytes(picture)

    process = run(folders, "--real", "real", "--generated", "made", "--metrics", "psnr", "--json")

    assert json.loads(process.out)["facts"]["samples_of_each"] == "1 to 3", process.err


def test_a_folder_of_any_name_can_be_judged(run, folders):
    made = folders / os.fsdecode(b"g\xe9n")
    (folders / "made").rename(made)

    process = run(folders, "--real", "real", "--generated", made, "--metrics", "psnr", "--output", "report")

    assert process.code == 0, process.err
    assert (folders / "report" / "report.html").is_file()


def test_an_evaluation_that_is_stopped_does_not_promise_to_continue(folders, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("copgen_cli.evaluation.assess_folders", stop)
    monkeypatch.setattr(sys, "argv", ["copgen", "evaluate", "--real", "real", "--generated", "made"])
    monkeypatch.chdir(folders)

    with pytest.raises(SystemExit) as left:
        main()

    assert left.value.code == 130
    assert "begins again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("copgen evaluate --metrics psnr,fr", "psnr,frechet"),
        ("copgen evaluate --pairs joint,un", "joint,unconditional"),
        ("copgen evaluate --features inc", "inception"),
    ],
)
def test_metrics_pairs_and_feature_networks_are_completed(words, offered):
    environment = os.environ | {
        "_COPGEN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    copgen = Path(sys.executable).with_name("copgen")

    process = subprocess.run([copgen], env=environment, capture_output=True, text=True, check=False)

    assert process.stdout.split() == [offered]
