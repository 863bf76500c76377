"""Every command, with one file of another origin at a time under each name that it writes."""

from __future__ import annotations

import shutil

import pytest
from way_of_commands import COMMANDS, stay, walk, with_and_without_overwrite


@pytest.fixture(scope="module")
def stations(tmp_path_factory):
    return walk(tmp_path_factory.mktemp("way") / "stations", list(COMMANDS))


@pytest.mark.parametrize(("name", "options"), with_and_without_overwrite(list(COMMANDS)))
def test_each_file_of_ones_own_stays(stations, tmp_path, name, options):
    assert stations[name].written
    for number, path in enumerate(sorted(stations[name].written)):
        place = stations[name].come_to(tmp_path / str(number))
        stay(place, [path], name, *options)
        shutil.rmtree(place)
