"""`copgen scene` killed before each file that it puts in place: it goes on to the files of an undisturbed run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import rasterio
from numpy.testing import assert_array_equal

sys.path.insert(0, str(Path(__file__).parents[1]))

from killed_runs import Moment, forked_and_killed_at
from sample_commands import small_model
from test_scene import NEVER, in_blocks, reflectance
from tiny_rasters import write_raster

MOMENTS = range(1, 14)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    write_raster(folder / "s2.tif", reflectance(160, 160))
    model = small_model(folder / "model")
    assert forked_and_killed_at(Moment.FILE, NEVER, *in_blocks(folder, model, folder / "out")) == 0
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_before_any_file_it_goes_on_to_the_same_maps(undisturbed, tmp_path, moment):
    asked = in_blocks(undisturbed, undisturbed / "model", tmp_path / "killed")

    first = forked_and_killed_at(Moment.FILE, moment, *asked)
    assert first in (-9, 0)
    assert first == 0 or forked_and_killed_at(Moment.FILE, NEVER, *asked) == 0

    with rasterio.open(tmp_path / "killed/dem.tif") as one, rasterio.open(undisturbed / "out/dem.tif") as two:
        assert_array_equal(one.read(), two.read())
    there = {path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*")}
    assert there == {path.relative_to(undisturbed / "out") for path in (undisturbed / "out").rglob("*")}
