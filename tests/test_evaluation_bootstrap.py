"""Intervals: how often they hold the truth, and that cells rather than patches are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from copgen_cli.metrics.confidence import Weights, draw_weights, place_of, weighted_mean


def estimate(values: np.ndarray, names: list[str], seed: int = 0, resamples: int = 400):
    weights = draw_weights(names, names, resamples=resamples, seed=seed)
    return weights.estimate(weighted_mean(values, weights.truth), len(values))


def test_the_number_is_the_mean_and_lies_in_its_interval():
    values = np.array([1.0, 2.0, 3.0, 10.0])

    found = estimate(values, list("abcd"))

    assert found.value == 4
    assert found.low < 4 < found.high
    assert found.n == 4


@pytest.mark.parametrize(("places", "most_missed"), [(40, 0.12), (8, 0.18), (2, 0.2)])
def test_intervals_of_means_hold_the_true_mean_about_nineteen_times_in_twenty(places, most_missed):
    random = np.random.default_rng(0)
    names = [str(i) for i in range(places)]
    held = 0
    for trial in range(200):
        found = estimate(random.exponential(size=places), names, seed=trial)
        held += found.low <= 1 <= found.high

    assert 1 - most_missed <= held / 200 <= 0.99


def test_a_seed_gives_the_same_interval_again_and_another_seed_another():
    values, names = np.arange(10.0), [str(i) for i in range(10)]

    assert estimate(values, names, seed=1) == estimate(values, names, seed=1)
    assert estimate(values, names, seed=1) != estimate(values, names, seed=2)


@pytest.mark.parametrize(
    ("name", "place"),
    [("454U_120R_7", "454U_120R"), ("0D_3L_center", "0D_3L"), ("img_7", "img_7"), ("454U_120R", "454U_120R")],
)
def test_the_place_of_a_patch_is_its_cell(name, place):
    assert place_of(name) == place


def test_patches_of_a_cell_are_drawn_together():
    names = ["1U_1R_0", "1U_1R_1", "2U_1R_0", "2U_1R_1"]

    weights = draw_weights(names, names, resamples=50, seed=0)

    assert (weights.truth[:, 0] == weights.truth[:, 1]).all()
    assert (weights.truth[:, 0] + weights.truth[:, 2] == 2).all()
    assert (weights.truth[0] == 1).all()


def test_sixteen_equal_patches_of_each_cell_tell_no_more_than_one():
    cells = np.arange(12.0)
    one = estimate(cells, [f"{i}U_1R_0" for i in range(12)])
    sixteen = estimate(np.repeat(cells, 16), [f"{i}U_1R_{k}" for i in range(12) for k in range(16)])

    assert sixteen.high - sixteen.low == pytest.approx(one.high - one.low)


def test_the_samples_of_a_place_are_drawn_with_its_truth():
    weights = draw_weights(["a", "b", "c"], ["a", "a", "b", "b", "c", "c"], resamples=30, seed=4)

    assert (weights.generated[:, ::2] == weights.truth).all()
    assert (weights.generated[:, 1::2] == weights.truth).all()


def test_sets_of_other_places_are_drawn_apart():
    weights = draw_weights(["a", "b", "c"], ["x", "y", "z"], resamples=30, seed=4)

    assert (weights.generated != weights.truth).any()
    assert (weights.generated.sum(1) == 3).all()


def test_one_place_gives_a_number_without_an_interval():
    found = estimate(np.array([5.0, 7.0]), ["1U_1R_0", "1U_1R_1"])

    assert found.value == 6
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_bias_that_resampling_adds_does_not_move_the_interval():
    """The largest gap between points is a statistic that resampling can only make larger."""
    weights = Weights(np.ones((5, 2)), np.ones((5, 2)), 2)

    found = weights.estimate(np.array([10.0, 13, 14, 15, 16]), 2)

    assert found.value == 10
    assert found.low < 10 < found.high


def test_what_is_unknown_of_a_place_does_not_count():
    assert weighted_mean(np.array([1.0, np.nan, 3.0]), np.ones((1, 3)))[0] == 2
