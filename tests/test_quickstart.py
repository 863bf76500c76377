"""`copgen quickstart` among a user's files; its whole way is walked by the README's first line."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from copgen_processes import running
from tiny_stores import tiny_store
from typer.testing import CliRunner

from copgen_cli.app import app, main
from copgen_cli.errors import UsageError
from copgen_cli.patches.split import SplitRule, split_of
from copgen_cli.quickstart import RUGGED, Step, claim_folder, run_step, write_settings
from copgen_cli.settings.loading import load_settings
from copgen_cli.simulation.world import cells_of_region


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", ["copgen.toml", "index.html", "thesis.tex"])
def test_a_folder_with_files_of_the_user_is_refused_and_left_as_it_is(tmp_path, name, options):
    (tmp_path / name).write_text('region = "mine"\n')

    run = CliRunner().invoke(app, ["quickstart", "--output", str(tmp_path), *options])

    assert isinstance(run.exception, UsageError)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == 'region = "mine"\n'


def test_overwriting_removes_what_quickstart_wrote_and_nothing_of_the_users(tmp_path):
    claim_folder(tmp_path, overwrite=False)
    write_settings(tmp_path, cells=6, seed=3, overwrite=False)
    for made in ("archive", "data", "runs", "pictures", "report", "notes"):
        (tmp_path / made).mkdir()
    (tmp_path / "index.html").touch()

    claim_folder(tmp_path, overwrite=True)

    assert {path.name for path in tmp_path.iterdir()} == {"copgen.toml", "notes"}


def test_a_step_that_fails_ends_the_tour_with_its_code_and_number(tmp_path):
    tour = tmp_path / "tour"
    claim_folder(tour, overwrite=False)
    write_settings(tour, cells=6, seed=0, overwrite=False)
    (tour / "archive").write_text("no folder")

    run = CliRunner().invoke(app, ["quickstart", "--output", str(tour)])

    assert run.exit_code == 1, run.output
    assert "Step 1 ended with code 1" in run.output
    assert not (tour / "index.html").exists()


@pytest.mark.parametrize("cells", [3, 6])
def test_both_splits_get_cells_whatever_the_seed(tmp_path, cells):
    for seed in range(8):
        settings = load_settings(write_settings(tmp_path, cells, seed, overwrite=True))
        rule = SplitRule(settings.prepare.train_ratio, settings.prepare.seed)
        drawn = cells_of_region(settings.region_settings().bbox, cells, seed, least_rugged=RUGGED)
        dealt = [split_of(cell, rule) for cell in drawn]
        assert [dealt.count("train"), dealt.count("test")] == {3: [2, 1], 6: [4, 2]}[cells]


def test_variables_of_the_user_lead_no_step_to_the_users_data(tmp_path, monkeypatch, capfd):
    write_settings(tmp_path, cells=3, seed=3, overwrite=False)
    monkeypatch.setenv("COPGEN_DATA_DIR", "/mine")
    monkeypatch.setenv("COPGEN_REGION", "rome")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.test")
    monkeypatch.setenv("HF_TOKEN", "secret")

    assert run_step(tmp_path, Step("Tell", ("config", "show")), main) == 0

    told = capfd.readouterr().out
    assert "simulated" in told
    assert "/mine" not in told
    assert "mirror.test" not in told
    assert "(HF_" not in told


@pytest.mark.parametrize("change", ["options", "hand"])
def test_a_tour_of_other_settings_is_left_as_it_is_unless_it_may_be_overwritten(tmp_path, change):
    tour = tmp_path / "tour"
    claim_folder(tour, overwrite=False)
    settings = write_settings(tour, cells=3, seed=0, overwrite=False)
    if change == "hand":
        settings.write_text(settings.read_text() + "\n[evaluate]\nn_samples = 3\n")
    before = settings.read_text()

    run = CliRunner().invoke(
        app, ["quickstart", "--output", str(tour), "--cells", {"options": "4", "hand": "3"}[change]]
    )

    assert isinstance(run.exception, UsageError)
    assert "--overwrite" in run.exception.hint
    assert settings.read_text() == before
    assert write_settings(tour, cells=4, seed=0, overwrite=True).read_text() != before


def take_step(folder, arguments):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.setpgid(0, 0)
    sys.exit(run_step(folder, Step("Train", arguments), main, ("--verbose",)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tour_that_is_stopped_lets_its_step_save_what_it_has(tmp_path, number):
    store = tiny_store(tmp_path / "store", side=8)
    train = ("train", "--data", str(store), "--preset", "tiny", "--steps", "1000000", "--workdir", "run")

    with running(take_step, tmp_path, (*train, "--preview-every", "0", "--save-every", "2")) as process:
        process.wait_for("Step 2: wrote")
        if number == signal.SIGINT:
            os.killpg(process.process.pid, number)  # as a terminal does
        else:
            os.kill(process.process.pid, number)
        process.end()

    assert "Stopped by" in process.said


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--verbose",)])
def test_the_steps_of_a_tour_say_as_much_as_the_tour(tmp_path, monkeypatch, options):
    seen = []

    def note(folder, step, run, options):
        seen.append(options)
        return 1

    monkeypatch.setattr("copgen_cli.quickstart.run_step", note)

    CliRunner().invoke(app, [*options, "quickstart", "--output", str(tmp_path / "tour")])

    assert seen == [options]
