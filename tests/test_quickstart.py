"""`copgen quickstart` among a user's files; its whole way is walked by the README's first line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from copgen_cli.app import app
from copgen_cli.errors import UsageError
from copgen_cli.quickstart import claim_folder, write_settings


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
    write_settings(tmp_path, seed=3)
    for made in ("archive", "data", "runs", "pictures", "report", "notes"):
        (tmp_path / made).mkdir()
    (tmp_path / "index.html").touch()

    claim_folder(tmp_path, overwrite=True)

    assert {path.name for path in tmp_path.iterdir()} == {"copgen.toml", "notes"}


def test_a_step_that_fails_ends_the_tour_with_its_code_and_number(tmp_path):
    tour = tmp_path / "tour"
    claim_folder(tour, overwrite=False)
    write_settings(tour, seed=3)
    (tour / "archive").write_text("no folder")

    run = CliRunner().invoke(app, ["quickstart", "--output", str(tour)])

    assert run.exit_code == 1, run.output
    assert "Step 1 ended with code 1" in run.output
    assert not (tour / "index.html").exists()
