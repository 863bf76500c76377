"""How alike two sets of pictures are said to be: cases worked out by hand, and SciPy's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance as scipy_wasserstein

from copgen_cli.evaluation.scores import Scorer, reconstruction_scores
from copgen_cli.metrics.confidence import Weights, draw_weights
from copgen_cli.metrics.distributions import (
    frechet_distance,
    histograms,
    kernel_distance,
    precision_recall,
    radial_power,
    saturations,
    spectrum_distance,
    wasserstein_distance,
)


def once(n: int, k: int) -> Weights:
    """Everything counts once; no resamples."""
    return Weights(np.ones((1, n)), np.ones((1, k)), min(n, k))


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


@pytest.fixture
def random():
    return np.random.default_rng(3)


@pytest.mark.parametrize(("n", "k", "features"), [(50, 40, 6), (8, 9, 20)], ids=["many", "fewer than features"])
def test_the_frechet_distance_is_its_formula_with_scipys_matrix_root(random, n, k, features):
    x = random.normal(size=(n, features)) @ random.normal(size=(features, features))
    y = random.normal(size=(k, features)) + 1
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2)))

    assert frechet_distance(x, y, once(n, k))[0] == pytest.approx(expected, rel=1e-4)


def test_the_frechet_distance_of_shifted_points_is_the_shift_squared():
    x = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])

    assert frechet_distance(x, x + np.array([3, 4]), once(3, 3))[0] == pytest.approx(25)


def test_the_frechet_distance_in_one_dimension_is_the_difference_of_deviations_squared():
    x = np.array([[-1.0], [1.0]])  # variance 2 with n - 1

    assert frechet_distance(x, 3 * x, once(2, 2))[0] == pytest.approx((3 - 1) ** 2 * 2)


def test_rounding_takes_no_frechet_distance_below_zero(random):
    x = 1e3 * random.normal(size=(40, 30))

    assert min(frechet_distance(x * k, x * k, once(40, 40))[0] for k in np.linspace(1, 2, 50)) == 0


def test_a_picture_that_counts_twice_counts_as_two_pictures(random):
    x, y = random.normal(size=(5, 3)), random.normal(size=(6, 3))
    doubled = Weights(np.array([[2.0, 1, 0, 1, 1]]), np.ones((1, 6)), 5)

    written_out = x[[0, 0, 1, 3, 4]]

    assert frechet_distance(x, y, doubled)[0] == pytest.approx(frechet_distance(written_out, y, once(5, 6))[0])


def test_the_kernel_distance_is_the_unbiased_estimate_written_as_loops(random):
    x, y = random.normal(size=(5, 4)), random.normal(size=(6, 4))

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    xx = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([kernel(a, b) for a in x for b in y])

    found = kernel_distance(x, y, (names("x", 5), names("y", 6)), once(5, 6))[0]

    assert found == pytest.approx(xx + yy - 2 * xy)


def test_the_kernel_distance_of_perfect_translations_is_zero_as_no_pair_of_one_place_counts(random):
    x = random.normal(size=(7, 4))

    assert kernel_distance(x, x, (names("x", 7), names("x", 7)), once(7, 7))[0] == pytest.approx(0)


def test_patches_of_one_cell_do_not_count_as_pairs_either(random):
    x = random.normal(size=(4, 3))
    patches = ["1U_1R_0", "1U_1R_1", "2U_1R_0", "2U_1R_1"]

    def kernel(i, j):
        return (x[i] @ x[j] / 3 + 1) ** 3

    across = np.mean([kernel(i, j) for i in (0, 1) for j in (2, 3)])
    found = kernel_distance(x, x * 0, (patches, names("y", 4)), once(4, 4))[0]

    assert found == pytest.approx(across + 1 - 2)  # the kernel of anything with zero is 1


def test_precision_and_recall_on_a_line_by_hand():
    truth = np.array([[0.0], [1], [2], [3], [100]])  # reaches 3, 2, 2, 3 and 99
    generated = np.array([[-3.5], [1.5], [2.5], [200], [300]])  # reaches 203.5, 198.5, 197.5, 198.5 and 298.5

    precision, recall = precision_recall(truth, generated, (names("t", 5), names("g", 5)), once(5, 5))

    assert precision[0] == pytest.approx(2 / 5)
    assert recall[0] == 1


def test_what_is_everywhere_has_full_recall_and_what_is_in_one_spot_full_precision(random):
    wide, narrow = random.normal(size=(60, 2)) * 10, random.normal(size=(60, 2)) * 0.01

    precision, recall = precision_recall(wide, narrow, (names("w", 60), names("n", 60)), once(60, 60))

    assert precision[0] == 1
    assert recall[0] < 0.2


def test_precision_and_recall_of_too_few_pictures_are_unknown(random):
    sets = random.normal(size=(3, 2)), random.normal(size=(9, 2))

    found = precision_recall(*sets, (names("t", 3), names("g", 9)), once(3, 9))

    assert np.isnan(found).all()


def test_more_patches_of_each_cell_do_not_lower_precision_and_recall(random):
    """Cells differ as much as their patches do; the model is perfect."""

    def draw(patches: int) -> tuple[float, float]:
        of_cells = [f"{i}U_1R_{k}" for i in range(40) for k in range(patches)]
        cells = random.normal(size=(2, 40, 1, 2))
        truth, generated = (cells + random.normal(size=(2, 40, patches, 2)) * 0.1).reshape(2, -1, 2)
        found = precision_recall(truth, generated, (of_cells, of_cells), once(len(truth), len(generated)))
        return found[0][0], found[1][0]

    assert draw(1) == pytest.approx((0.85, 0.85), abs=0.15)
    assert draw(8) == pytest.approx((0.85, 0.85), abs=0.15)


def test_intervals_of_precision_move_with_the_places_that_stand_for_the_truth(random):
    """Of two spots, only one is generated; how near anything is depends on which truths are drawn."""
    truth, generated = random.normal(size=(2, 24, 3))
    of_places = names("p", 24)

    weights = draw_weights(of_places, of_places, resamples=100, seed=0)
    precision, recall = precision_recall(truth, generated, (of_places, of_places), weights)

    whole = precision_recall(truth, generated, (of_places, of_places), once(24, 24))
    assert (precision[0], recall[0]) == (whole[0][0], whole[1][0])
    assert 0.02 < precision[1:].std() < 0.2
    assert 0.02 < recall[1:].std() < 0.2


def test_a_picture_that_was_drawn_twice_counts_as_two_neighbours():
    truth = np.array([[0.0], [1], [2], [3], [4]])
    generated = np.array([[-1.9], [-2.5], [10], [11], [12]])
    weights = Weights(np.array([[1.0, 2, 1, 1, 0]]), np.ones((1, 5)), 5)

    precision, _ = precision_recall(truth, generated, (names("t", 5), names("g", 5)), weights)

    assert precision[0] == pytest.approx(1 / 5), "0 reaches as far as 2, for 1 counts twice"


def test_the_wasserstein_distance_is_scipys_in_every_channel(random):
    truth = random.integers(0, 200, (3, 16, 16, 3), dtype=np.uint8)
    generated = random.integers(40, 256, (2, 16, 16, 3), dtype=np.uint8)

    found = wasserstein_distance(histograms(truth), histograms(generated), once(3, 2))[0]

    expected = [scipy_wasserstein(truth[..., c].ravel(), generated[..., c].ravel()) for c in range(3)]
    assert found == pytest.approx(expected)


def test_a_shift_of_seven_grey_levels_is_a_wasserstein_distance_of_seven(random):
    truth = random.integers(0, 200, (2, 8, 8, 3), dtype=np.uint8)

    assert wasserstein_distance(histograms(truth), histograms(truth + 7), once(2, 2))[0] == pytest.approx([7, 7, 7])


def waves(cycles: int, amplitude: float, side: int = 64) -> np.ndarray:
    wave = 128 + amplitude * np.sin(2 * np.pi * cycles * np.arange(side) / side)
    return np.repeat(np.broadcast_to(wave, (side, side))[..., None], 3, axis=2).round().astype(np.uint8)[None]


@pytest.mark.parametrize("cycles", [3, 10, 25])
def test_the_power_of_a_wave_lies_at_its_frequency(cycles):
    power = radial_power(waves(cycles, 100))

    assert power.shape == (1, 32)
    assert np.abs(power[0].argmax() + 1 - cycles) <= 1  # a wave lies on an axis, where a ring has few members


def test_twice_the_amplitude_is_six_decibels_more_at_every_frequency(random):
    base = random.normal(size=(1, 64, 64, 1)).repeat(3, axis=-1)
    quiet, loud = ((128 + a * base).clip(0, 255) for a in (10, 20))  # not rounded, so that the ratio is exact

    found = spectrum_distance(radial_power(quiet), radial_power(loud), once(1, 1))[0]

    assert found == pytest.approx(20 * np.log10(2), abs=1e-6)


def test_blur_is_seen_in_the_spectrum(random):
    sharp = random.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    blurred = (sharp // 2 + np.roll(sharp, 1, axis=2) // 2).astype(np.uint8)

    assert spectrum_distance(radial_power(sharp), radial_power(sharp), once(4, 4))[0] == pytest.approx(0)
    assert spectrum_distance(radial_power(sharp), radial_power(blurred), once(4, 4))[0] > 2


def test_every_statistic_of_the_first_row_is_that_of_all_pictures_once(random):
    x, y = random.normal(size=(6, 3)), random.normal(size=(6, 3))
    weights = draw_weights(names("p", 6), names("p", 6), resamples=20, seed=1)

    assert frechet_distance(x, y, weights)[0] == pytest.approx(frechet_distance(x, y, once(6, 6))[0])
    assert len(frechet_distance(x, y, weights)) == 21


def reconstructed(truth, decoded):
    names = tuple(f"{k}U_1R_0" for k in range(len(truth)))
    draws = np.stack([decoded, decoded], axis=1)
    scores = reconstruction_scores("s2_l2a", truth, decoded, draws, names, Scorer(frozenset(), resamples=50))
    return {score.key: score.estimate for score in scores}


def test_what_an_autoencoder_gives_back_is_sharp_and_colourful_pale_or_soft(random):
    truth = random.integers(100, 150, (4, 32, 32, 3), dtype=np.uint8)
    grey = truth.mean(axis=3, keepdims=True)
    pale = np.rint(grey + (truth - grey) / 2).astype(np.uint8)
    soft = gaussian_filter(truth, (0, 1.5, 1.5, 0))

    kept, faded, blurred = (reconstructed(truth, decoded) for decoded in (truth, pale, soft))

    for estimate in (kept["reconstruction_saturation"], faded["reconstruction_saturation"]):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 4
    assert kept["reconstruction_saturation"].value == 1
    assert faded["reconstruction_saturation"].value == pytest.approx(0.5, abs=0.02)
    assert kept["reconstruction_spectrum"].value == pytest.approx(0)
    assert faded["reconstruction_spectrum"].value < 0.5  # brightness is what it was
    assert blurred["reconstruction_spectrum"].value > 5


def test_a_shadow_that_is_rounded_is_hardly_a_colour_and_a_hillshade_has_none(random):
    shadow, sea = np.array([[[[2, 1, 1]]], [[[0, 50, 100]]]], dtype=np.uint8)
    assert saturations(np.stack([shadow, sea])) == pytest.approx([1, 100])

    hillshade = np.repeat(random.integers(0, 256, (3, 16, 16, 1), dtype=np.uint8), 3, axis=3)
    assert "reconstruction_saturation" not in reconstructed(hillshade, hillshade // 2)
