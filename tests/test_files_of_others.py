"""Commands in folders that hold files of another origin: they stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from way_of_commands import COMMANDS, call, stay, walk, with_and_without_overwrite

QUICK = [name for name in COMMANDS if name not in ("simulate", "train-autoencoder")]


@pytest.fixture(scope="module")
def stations(tmp_path_factory, worker_id):
    folder = tmp_path_factory.getbasetemp() / "way"
    if worker_id != "master":  # processes share what takes long to make
        folder = folder.parents[1] / "way"
    with FileLock(folder.with_suffix(".lock")):
        return walk(folder, QUICK)


@pytest.mark.parametrize(("name", "options"), with_and_without_overwrite(QUICK))
def test_what_has_the_name_of_something_that_a_command_writes_stays(stations, tmp_path, name, options):
    place, written = stations[name].come_to(tmp_path / "place"), sorted(stations[name].written)

    assert written
    stay(place, written[1:] or written, name, *options)


@pytest.mark.parametrize("name", ["download", "prepare", "train", "convert", "sample"])
def test_what_lies_among_the_files_that_a_command_wrote_stays_with_overwrite(stations, tmp_path, name):
    place = stations[name].come_to(tmp_path / "place")
    call(place, name)
    folders = {Path(path).parent for path in stations[name].written} - {Path()}

    stay(place, [str(folder / file) for folder in folders for file in ("mine.txt", "mine/notes")], name, "--overwrite")
