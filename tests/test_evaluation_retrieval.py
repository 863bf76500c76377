"""Whether a sample is said to show its own place, or to copy a training picture."""

from __future__ import annotations

import numpy as np
import pytest

from copgen_cli.metrics.retrieval import chance_of_first, closer_to_own, nearest
from copgen_cli.metrics.sample_spread import layouts


def test_a_sample_is_compared_with_its_own_truth_and_with_all_others():
    truth = np.array([[0.0], [10], [20]])
    samples = np.array([[[1.0], [9]], [[10], [10]], [[0], [0]]])
    # place 0: the sample at 1 is nearest to its own truth; of the one at 9, one of two others is farther than its own
    # place 2: the samples at 0 are farther from their own truth than both others are

    farther, first = closer_to_own(truth, samples, ["a", "b", "c"])

    assert farther.tolist() == [0.75, 1, 0]
    assert first.tolist() == [0.5, 1, 0]


def test_a_tie_counts_by_half_and_is_not_a_first_place():
    farther, first = closer_to_own(np.array([[0.0], [2]]), np.array([[[1.0]], [[2]]]), ["a", "b"])

    assert farther.tolist() == [0.5, 1]
    assert first.tolist() == [0, 1]


def test_samples_that_know_nothing_of_their_place_are_closer_to_it_half_of_the_time():
    random = np.random.default_rng(0)

    farther, first = closer_to_own(
        random.normal(size=(80, 5)), random.normal(size=(80, 6, 5)), [str(i) for i in range(80)]
    )

    assert farther.mean() == pytest.approx(0.5, abs=0.05)
    assert first.mean() == pytest.approx(1 / 80, abs=0.02)


def test_patches_of_the_same_cell_are_no_other_places():
    truth = np.array([[0.0], [1], [50]])
    samples = np.array([[[1.0]], [[0]], [[50]]])  # the first two show each other

    farther, _ = closer_to_own(truth, samples, ["1U_1R_0", "1U_1R_1", "2U_1R_0"])

    assert farther.tolist() == [1, 1, 1]


def test_with_a_single_place_retrieval_is_unknown():
    farther, first = closer_to_own(np.zeros((1, 2)), np.zeros((1, 3, 2)), ["a"])

    assert np.isnan([farther[0], first[0]]).all()


def test_chance_of_the_first_place_counts_no_patches_of_the_same_cell():
    # of four patches, the two of one cell have two competitors each, the others three
    assert chance_of_first(["1U_1R_0", "1U_1R_1", "2U_1R_0", "3U_1R_0"]) == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert chance_of_first(["1U_1R_0", "1U_1R_1"]) is None


def test_a_layout_is_known_whatever_tone_contrast_and_colour_the_picture_has():
    truth = np.random.default_rng(0).normal(128, 20, (6, 4, 4, 3)).astype(np.float32)
    others = np.array([1.0, 0.5, 2.0, 1.0, 3.0, 0.1], np.float32)[:, None, None, None]
    samples = (truth - truth.mean((1, 2), keepdims=True)) * others + np.array([0, 60, 200], np.float32)
    names = [f"{i}U_1R_0" for i in range(6)]

    by_tone, _ = closer_to_own(truth.reshape(6, -1), samples.reshape(6, 1, -1), names)
    by_layout, _ = closer_to_own(layouts(truth).reshape(6, -1), layouts(samples).reshape(6, 1, -1), names)

    assert by_layout.tolist() == [1] * 6
    assert by_tone.mean() < 1


def test_the_distance_of_two_layouts_is_their_correlation_and_an_even_picture_has_none():
    first, second = np.random.default_rng(1).normal(size=(2, 5, 5, 1)).astype(np.float32)
    r = np.corrcoef(first.ravel(), second.ravel())[0, 1]

    assert np.square(layouts(first) - layouts(second)).sum() == pytest.approx(2 - 2 * r, rel=1e-5)
    assert not layouts(np.full((5, 5, 3), 70, np.float32)).any()


def test_the_nearest_training_picture_is_found():
    distance, which = nearest(np.array([[0.0, 0], [9, 9]]), np.array([[9.0, 8], [3, 4]]))

    assert distance.tolist() == [5, 1]
    assert which.tolist() == [1, 0]
