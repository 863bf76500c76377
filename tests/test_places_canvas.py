"""An area in latent pixels: windows, blocks, noise by position; and the one walk over all windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tiny_models import tiny_transformer

from copgen_cli.model import SampleNoise, sample_latents
from copgen_cli.places.canvas import Canvas, ramp_weight, window_edges
from copgen_cli.places.drawing import fading_of
from copgen_cli.places.gaps import KnownLatents, fit_to_border, integrate_around, known_latents, membrane, without_gaps
from copgen_cli.places.grid import Grid
from copgen_cli.places.walk import GivenWindows, JointWalk
from copgen_cli.records import Georeferencing, Solver

CRS = "EPSG:32633"


def canvas(height=1024, width=1024, *, west=400_000.0, north=4_600_000.0, block=384, stride=24, window=32):
    grid = Grid(Georeferencing(CRS, (10.0, 0.0, west, 0.0, -10.0, north)), width, height)
    return Canvas(grid, window, 8, stride, block)


@given(st.integers(32, 500), st.integers(1, 32))
def test_windows_cover_a_length_and_end_with_it(length, stride):
    edges = window_edges(length, 32, stride)

    assert edges[0] == 0
    assert edges[-1] + 32 == length
    assert all(0 < after - before <= stride for before, after in itertools.pairwise(edges))


def test_a_small_area_gets_one_window_with_what_lies_around_it():
    small = canvas(224, 300)

    assert (small.height, small.width) == (32, 38)
    assert small.offset == (16, 2)
    assert (small.whole.height, small.whole.width) == (256, 304)
    assert small.whole.place.transform[5] == 4_600_000 + 160


@given(
    st.integers(256, 6000), st.integers(256, 6000), st.integers(64, 300), st.sampled_from([(32, 24), (64, 64), (8, 4)])
)
@settings(max_examples=40, deadline=None)
def test_blocks_share_an_area_out_and_their_windows_cover_what_is_drawn_of_them(height, width, block, windows):
    area = canvas(height, width, block=block, window=windows[0], stride=windows[1])
    cover = np.zeros((area.height, area.width), int)

    for one in area.blocks:
        cover[slice(*one.rows), slice(*one.columns)] += 1
        for edges, drawn in ((one.window_rows, one.drawn_rows), (one.window_columns, one.drawn_columns)):
            assert edges[0] <= drawn[0]
            assert edges[-1] + area.window >= drawn[1]
            assert all(after - before <= area.window for before, after in itertools.pairwise(edges))

    assert (cover == 1).all()


def test_neighbouring_blocks_fade_into_one_another_and_add_up_to_one():
    area = canvas(2048, 1024, block=64)
    total = np.zeros((area.height * 8, area.width * 8), np.float32)

    for block in area.blocks:
        rows, columns = (slice(8 * first, 8 * last) for first, last in (block.drawn_rows, block.drawn_columns))
        down, across = (
            fading_of(*span, 8) for span in ((block.rows, block.drawn_rows), (block.columns, block.drawn_columns))
        )
        total[rows, columns] += np.outer(down, across)

    assert_allclose(total, 1, atol=1e-6)


def test_the_same_ground_has_the_same_noise_whatever_area_it_is_asked_in():
    one, other = canvas(west=400_000.0), canvas(west=400_000.0 + 800, north=4_600_000.0 - 1600)

    first = one.noise(7, 1, "dem", (20, 60), (10, 50), "start", 4)
    again = other.noise(7, 1, "dem", (0, 40), (0, 40), "start", 4)

    assert_array_equal(first, again)


def test_a_part_of_a_turned_raster_has_the_noise_of_its_ground():
    turned = tuple(Affine.translation(500_000, 4_600_000) @ Affine.rotation(30) @ Affine.scale(10, -10))[:6]
    grid = Grid(Georeferencing(CRS, turned), 1024, 1024)
    whole, part = (Canvas(one, 32, 8, 24, 384) for one in (grid, grid.part(160, 320, 512, 512)))

    assert_array_equal(
        whole.noise(1, 1, "dem", (20, 60), (40, 80), "start", 4), part.noise(1, 1, "dem", (0, 40), (0, 40), "start", 4)
    )


@pytest.mark.parametrize(
    ("seed", "sample", "modality", "purpose"),
    [(8, 1, "dem", "start"), (7, 2, "dem", "start"), (7, 1, "s1_rtc", "start"), (7, 1, "dem", "ignored")],
)
def test_noise_is_another_for_another_seed_sample_modality_and_purpose(seed, sample, modality, purpose):
    area = canvas()
    one = area.noise(7, 1, "dem", (0, 40), (0, 40), "start", 4)
    other = area.noise(seed, sample, modality, (0, 40), (0, 40), purpose, 4)

    assert abs(float((one * other).mean())) < 0.06
    assert abs(float(one.mean())) < 0.05
    assert float(one.std()) == pytest.approx(1, abs=0.03)


def test_borders_are_where_windows_and_blocks_meet_in_pixels_of_the_raster():
    area = canvas(block=64)

    assert area.borders["rows"] == [192, 256, 384, 448, 512, 576, 640, 768, 832]
    assert canvas(stride=32).borders["columns"] == [256, 512, 768]


def walk_of(net, windows, given=(), *, guidance=0.0, shape=(4, 8, 8)):
    held = [i for i in range(4) if i != 0]
    source = SampleNoise(3, ("a",), tuple("wxyz"))
    conditions = {i: torch.randn(1, *shape, generator=torch.Generator().manual_seed(i)) for i in given}
    region = (shape[0], max(r for r, _ in windows) + 8, max(c for _, c in windows) + 8)
    windowed = {
        i: GivenWindows(z.expand(len(windows), *shape), torch.ones(len(windows), dtype=torch.bool))
        for i, z in conditions.items()
    }
    walk = JointWalk(
        net,
        windows,
        [0],
        windowed,
        {i: source.draw("ignored", i, region)[0] for i in held},
        {i: source.draw("guidance", i, region)[0] for i in given} if guidance else {},
        guidance,
        3,
    )
    return walk, conditions, source, region


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize(("given", "guidance"), [((), 0.0), ((1, 3), 0.0), ((2,), 1.5)])
def test_one_window_alone_is_drawn_as_a_sample_is(solver, given, guidance):
    net = tiny_transformer(sample_size=8, patch_size=4)
    walk, conditions, source, region = walk_of(net, [(0, 0)], given, guidance=guidance)

    drawn = walk.draw({0: source.draw("start", 0, region)[0]}, steps=4, solver=solver)
    sample = sample_latents(net, [0], conditions, steps=4, solver=solver, guidance_scale=guidance, noise_source=source)

    assert_allclose(drawn[0], sample[0][0], rtol=1e-4, atol=1e-4)


def test_a_condition_that_a_window_lacks_counts_as_left_out_there():
    net = tiny_transformer(sample_size=8, patch_size=4)
    walk, _, source, region = walk_of(net, [(0, 0)], (1,))
    walk.given[1].known[:] = False

    drawn = walk.draw({0: source.draw("start", 0, region)[0]}, steps=3, solver=Solver.DPM_2M)
    without = sample_latents(net, [0], {}, steps=3, solver=Solver.DPM_2M, noise_source=source)

    assert_allclose(drawn[0], without[0][0], rtol=1e-4, atol=1e-4)


def test_what_overlapping_windows_say_of_a_place_is_averaged_at_every_call():
    class Says(torch.nn.Module):
        """Each window's noise is a number of its own."""

        config = tiny_transformer(sample_size=8, patch_size=4).config
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, latents, timesteps, *, heads):
            count = torch.arange(len(latents[0]), dtype=torch.float32)
            return [count[:, None, None, None].expand_as(latents[0])]

    walk, _, _, region = walk_of(Says(), [(0, 0), (0, 8), (0, 4)])
    (noise,) = walk._predict({0: torch.zeros(region)}, 500.0)

    assert_array_equal(noise[0, 4, 0], 0)
    assert float(noise[0, 4, 15]) == pytest.approx(1 * weight(7) / (weight(7) + 0), abs=1e-5)
    assert float(noise[0, 4, 7]) == pytest.approx(2 * weight(3) / (weight(3) + weight(7)), abs=1e-5)


def weight(pixel):
    return float(np.sin(np.pi * (pixel + 0.5) / 8) ** 2)


# -- gaps ------------------------------------------------------------------------------------------------------------


def test_a_walk_around_known_latents_ends_with_them():
    clean = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    held = torch.arange(50)[None] % 2 == 0
    calls = []

    def predict(x, timestep):
        calls.append(timestep)
        return 0.3 * x

    noise = {}

    def draw(purpose):
        return noise.setdefault(purpose, torch.randn(1, 50, generator=torch.Generator().manual_seed(len(noise) + 1)))

    done = integrate_around(torch.ones(1, 50), 6, predict, KnownLatents(clean, held), draw)

    assert_array_equal(done[held], clean[held])
    assert not torch.isclose(done[~held], clean[~held]).any()
    assert len(calls) == 3 * 5 + 1
    assert calls == sorted(calls, reverse=True)


def test_latents_near_a_gap_are_not_known():
    gap = np.zeros((128, 128), bool)
    gap[64, 64] = True

    known = known_latents(gap, 8)

    assert not known[6:11, 8].any()
    assert not known[7, 7]
    assert known[5, 8]
    assert known[12, 8]
    assert known.sum() > 220


def test_a_membrane_takes_up_what_changes_evenly_around_a_gap():
    ramp = np.broadcast_to(np.linspace(0, 200, 96, dtype=np.float32)[None, :, None], (80, 96, 3)).copy()
    gap = np.zeros((80, 96), bool)
    gap[20:60, 30:70] = True

    filled = membrane(np.where(gap[..., None], np.float32(999), ramp), gap)

    assert_array_equal(filled[~gap], ramp[~gap])
    assert np.abs(filled[gap] - ramp[gap]).max() < 4


def test_outside_of_a_gap_nothing_changes_and_inside_the_drawing_is_fitted_to_its_border():
    random = np.random.default_rng(0)
    known = random.integers(0, 200, (64, 64, 3)).astype(np.uint8)
    gap = np.zeros((64, 64), bool)
    gap[16:48, 16:48] = True

    filled = fit_to_border(np.clip(known + 40, 0, 255).astype(np.uint8), known, gap)

    assert_array_equal(filled[~gap], known[~gap])
    assert np.abs(filled.astype(int) - known)[gap].mean() < 1


def test_sides_without_values_are_filled_by_reflection():
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    gap = np.zeros((16, 16), bool)
    gap[:4] = gap[:, 13:] = True

    filled = without_gaps(pixels, gap)

    assert_array_equal(filled[4:, :13], pixels[4:, :13])
    assert_array_equal(filled[3, :13], pixels[5, :13])
    assert_array_equal(filled[4:, 13], pixels[4:, 11])


def test_a_decoded_window_counts_less_towards_its_edges_and_somewhere_everywhere():
    weights = ramp_weight(256, 64)

    assert weights.min() > 0
    assert weights[128, 128] == 1
    assert weights[128, 0] == pytest.approx(0.5 / 64)
