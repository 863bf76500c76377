"""The ground of the simulated Earth: noise in world coordinates, drainage, erosion, land cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from copgen_cli.archive.grid import footprint, parse_cell
from copgen_cli.errors import UsageError
from copgen_cli.simulation.climate import climate_of
from copgen_cli.simulation.drainage import drain, erode
from copgen_cli.simulation.landcover import Cover
from copgen_cli.simulation.noise import Frame, fractal_noise, generator_of, grain, lattice_noise, resized, sphere_noise
from copgen_cli.simulation.terrain import terrain_of
from copgen_cli.simulation.world import cells_of_region, simulate_cell, truth_of

SIZE = 240
WORLD = cells_of_region((-120, -50, 150, 70), 16, seed=0)


@pytest.fixture(scope="module")
def truths():
    return [truth_of(cell, 0, size=SIZE) for cell in WORLD]


def border(size: int) -> np.ndarray:
    outlet = np.ones((size, size), dtype=bool)
    outlet[1:-1, 1:-1] = False
    return outlet


def test_noise_is_a_function_of_the_place_whichever_frame_asks():
    frame = Frame(west=1000.0, north=5000.0, pixel=10.0, size=64)
    moved = Frame(west=1160.0, north=4840.0, pixel=10.0, size=30)

    assert_allclose(lattice_noise(frame, 130, 5)[16:46, 16:46], lattice_noise(moved, 130, 5), atol=1e-5)


def test_noise_has_about_zero_mean_and_unit_variance():
    wide = Frame(west=0.0, north=0.0, pixel=100.0, size=400)
    lat, lon = np.meshgrid(np.linspace(-60, 60, 200), np.linspace(-180, 180, 200))

    for field in (
        fractal_noise(wide, 900, 1, octaves=4),
        sphere_noise(lat, lon, 300_000, 1),
        grain(400, generator_of(0), levels=4),
    ):
        assert abs(field.mean()) < 0.15
        assert 0.8 < field.std() < 1.2


def test_noise_on_the_globe_has_no_seam_at_the_date_line():
    lat = np.linspace(-80, 80, 50)

    east, west = sphere_noise(lat, np.full(50, 180.0), 1e6, 3), sphere_noise(lat, np.full(50, -180.0), 1e6, 3)

    assert_allclose(east, west, atol=1e-6)


def test_every_drop_leaves_the_raster_and_every_depression_is_filled_to_its_brim():
    height = np.random.default_rng(0).random((40, 40)) * 100
    drained = drain(height, border(40), np.ones((40, 40)))

    leaves = drained.receiver[:-1] == 40 * 40
    assert_allclose(drained.area.ravel()[leaves].sum(), 1600)
    assert (drained.filled >= height).all()
    inner = ~border(40).ravel()
    below = drained.filled.ravel()[np.minimum(drained.receiver[:-1], 1599)]
    assert (below[inner] <= drained.filled.ravel()[inner] + 1e-9).all()


def test_a_bowl_fills_to_its_lowest_pass():
    height = np.full((7, 7), 10.0)
    height[3, 3] = 0.0
    height[3, 4:] = 6.0

    filled = drain(height, border(7), np.ones((7, 7))).filled

    assert filled[3, 3] == 6.0


def test_water_takes_the_steepest_way_down():
    x = np.arange(9.0)
    plane = np.tile(x[::-1] * 5, (9, 1))  # falls eastwards
    drained = drain(plane, border(9), np.ones((9, 9)))

    middle = 4 * 9 + 4
    assert drained.receiver[middle] == middle + 1


def test_erosion_solves_the_implicit_scheme_along_a_channel():
    """Three pixels in a row above an outlet: h = (h0 + F h_below) / (1 + F), upwards from the outlet."""
    height = np.full((3, 6), 99.0)
    height[1] = [50, 40, 30, 20, 10, 0]
    outlet = np.zeros((3, 6), dtype=bool)
    outlet[1, 5] = True
    size = 6
    square = np.full((size, size), 99.0)
    square[1] = height[1]
    mouth = np.zeros((size, size), dtype=bool)
    mouth[1, 5] = True

    eroded = erode(drain(square, mouth, np.ones((size, size))), np.full((size, size), 0.5))

    expected = [0.0]
    for old in (10, 20, 30, 40, 50):
        expected.append((old + 0.5 * expected[-1]) / 1.5)
    assert_allclose(eroded[1], expected[::-1])


def test_neighbours_have_the_same_land_where_their_pictures_overlap():
    """Relief is a function of the place; only erosion and the finest grain stop at a cell's edge."""
    seed, agreement = 0, []
    for name, east in (("463U_102R", "463U_103R"), ("500U_300R", "500U_301R"), ("90D_40R", "90D_41R")):
        frames, heights = [], []
        for cell in (name, east):
            place = footprint(parse_cell(cell))
            frame = Frame(place.west, place.north, 60.0, 178)
            frames.append(frame)
            heights.append(terrain_of(frame, climate_of(place, seed), seed, f"{place.zone}").height)
        shift = round((frames[1].west - frames[0].west) / 60)
        rows = round((frames[0].north - frames[1].north) / 60)
        left = heights[0][max(rows, 0) : 178 + min(rows, 0), shift + 2 : 176]
        right = heights[1][max(-rows, 0) : 178 + min(-rows, 0), 2 : 176 - shift]
        agreement.append(np.corrcoef(left.ravel(), right.ravel())[0, 1])

    assert min(agreement) > 0.8


def test_the_world_shows_variety(truths):
    """Seas, woods, fields, deserts, towns and ranges all turn up in a handful of cells."""
    shares = np.array([[(truth.land.cover == cover).mean() for cover in Cover] for truth in truths])
    relief = np.array([np.ptp(truth.height) for truth in truths])

    for cover in (Cover.WATER, Cover.BROADLEAF, Cover.CONIFER, Cover.FIELD, Cover.GRASS, Cover.SAND, Cover.BUILT):
        assert shares[:, cover].max() > 0.05, cover.name
    assert relief.max() > 700
    assert relief.min() < 150


def test_lakes_are_flat_and_the_sea_lies_at_zero(truths):
    coasts = 0
    for truth in truths:
        lake = truth.terrain.lake > 0
        assert truth.terrain.lake.min() >= 0
        rises = np.abs(np.diff(truth.terrain.height, axis=1))[lake[:, 1:] & lake[:, :-1]]
        assert rises.size == 0 or np.median(rises) < 0.01
        off_shore = ndimage.maximum_filter(resized(truth.terrain.height, SIZE // 3), 9) < 0
        assert np.abs(truth.height[off_shore]).max(initial=0) < 0.01
        coasts += off_shore.mean() > 0.02
    assert coasts > 2


def test_trees_avoid_the_cold():
    truth = truth_of("697U_180R", 0, size=SIZE)  # from a valley up to where summers are below zero
    warmest = resized((truth.land.warmth + truth.land.swing).astype(np.float32), SIZE)
    trees = np.isin(truth.land.cover, [Cover.CONIFER, Cover.BROADLEAF])

    assert trees[warmest > 10.5].mean() > 0.3
    assert trees[warmest < 7].mean() < 0.01


def test_fields_avoid_slopes(truths):
    slopes, fields = [], []
    for truth in truths:
        steps = SIZE // 3
        cover = truth.land.cover[1::3, 1::3]
        slope = np.hypot(*np.gradient(truth.height, truth.height_pixel))
        assert slope.shape == (steps, steps)
        slopes.append(slope[cover != Cover.WATER])
        fields.append(slope[cover == Cover.FIELD])
    assert np.concatenate(fields).mean() < 0.7 * np.concatenate(slopes).mean()


def test_the_surface_index_tells_kinds_of_field_and_plot_apart(truths):
    for truth in truths:
        land = truth.land
        assert_array_equal(land.surface[land.cover == Cover.FIELD] >> 8, 1)
        assert_array_equal(land.surface[land.cover == Cover.BUILT] >> 8, 2)
        plain = ~np.isin(land.cover, [Cover.FIELD, Cover.BUILT])
        assert_array_equal(land.surface[plain], land.cover[plain])
        assert_array_equal(land.water_depth > 0, land.cover == Cover.WATER)


@pytest.mark.parametrize("size", [48, 100, 1069])
def test_a_size_that_does_not_fit_the_pixels_is_refused(size):
    with pytest.raises(UsageError, match="px wide"):
        simulate_cell("463U_102R", 0, size=size)
