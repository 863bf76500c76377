"""How like its truth a picture is said to be: cases worked out by hand, and scikit-image's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import metrics as skimage

from copgen_cli.errors import CopgenError
from copgen_cli.metrics.extras import require
from copgen_cli.metrics.pairwise import correlation, is_grey, psnr, ssim
from copgen_cli.metrics.ranks import coverage, nominal_coverage
from copgen_cli.metrics.sample_spread import block_means, diversity, mean_over_samples


@pytest.fixture
def two_pictures():
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    noise = random.integers(-30, 31, truth.shape)
    return truth, np.clip(truth + noise, 0, 255).astype(np.uint8)


def flat(value: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_an_error_of_one_grey_level_everywhere_is_48_13_decibels():
    assert psnr(flat(10), flat(11)) == pytest.approx(20 * math.log10(255))


def test_psnr_does_not_wrap_around_at_the_ends_of_eight_bits():
    assert psnr(flat(0), flat(255)) == pytest.approx(0)
    assert psnr(flat(255), flat(0)) == pytest.approx(0)


def test_equal_pictures_count_as_a_hundred_decibels():
    assert psnr(flat(7), flat(7)) == 100


def test_psnr_is_that_of_scikit_image(two_pictures):
    assert psnr(*two_pictures) == pytest.approx(skimage.peak_signal_noise_ratio(*two_pictures, data_range=255))


def test_ssim_of_two_flat_pictures_is_its_luminance_term():
    a, b = 100, 120
    c1 = (0.01 * 255) ** 2

    assert ssim(flat(a), flat(b)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1))


def test_ssim_is_one_for_equal_pictures_and_less_for_others(two_pictures):
    truth, noisy = two_pictures

    assert ssim(truth, truth) == pytest.approx(1)
    assert 0.2 < ssim(truth, noisy) < 0.99


def test_ssim_has_the_window_of_its_paper(two_pictures):
    """An 11 x 11 Gaussian of 1.5 px, computed here without any library of metrics."""
    x, y = (picture[..., 0].astype(float) for picture in two_pictures)
    profile = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(profile, profile) / profile.sum() ** 2

    def mean(values):
        views = np.lib.stride_tricks.sliding_window_view(values, (11, 11))
        return (views * window).sum((-1, -2))

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    grey = [np.repeat(picture[..., :1], 3, axis=2) for picture in two_pictures]

    assert ssim(*grey) == pytest.approx(expected.mean(), abs=1e-6)


def test_correlation_is_one_whatever_brightness_and_contrast(two_pictures):
    truth = two_pictures[0] // 4

    assert correlation(truth, truth * 2 + 9) == pytest.approx(1)
    assert correlation(truth, 255 - truth) == pytest.approx(-1)


def test_correlation_is_pearsons(two_pictures):
    a, b = (picture.mean(axis=2).ravel() for picture in two_pictures)

    assert correlation(*two_pictures) == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_correlation_with_a_flat_picture_is_unknown(two_pictures):
    assert math.isnan(correlation(two_pictures[0][:16, :16], flat(5)))


def test_a_hillshade_is_told_from_a_colour_picture(two_pictures):
    assert is_grey(np.stack([flat(3), flat(200)]))
    assert not is_grey(two_pictures[0])


def test_a_missing_library_is_an_error_that_names_the_extra():
    with pytest.raises(CopgenError) as refused:
        require("a_library_that_nobody_has", extra="evaluate", purpose="SSIM")

    assert "copgen[evaluate]" in refused.value.hint


def test_diversity_is_the_mean_difference_over_pairs_of_samples():
    samples = np.stack([flat(0), flat(10), flat(40)])  # differences 10, 40 and 30

    assert diversity(samples) == pytest.approx(80 / 3)


def test_one_sample_has_no_diversity_and_no_coverage():
    assert math.isnan(diversity(flat(0)[None]))
    assert math.isnan(coverage(flat(0), flat(0)[None]))


def test_a_truth_between_the_samples_is_covered_and_one_outside_is_not():
    samples = np.stack([flat(10), flat(20)])

    assert coverage(flat(15), samples) == 1
    assert coverage(flat(25), samples) == 0
    assert coverage(flat(5), samples) == 0


def test_a_truth_equal_to_the_lowest_sample_counts_as_if_ties_were_broken_by_lot():
    assert coverage(flat(10), np.stack([flat(10), flat(20)])) == pytest.approx(1 / 2)
    assert coverage(flat(10), np.stack([flat(10), flat(10), flat(20)])) == pytest.approx(2 / 3)


def test_where_all_are_equal_coverage_is_the_nominal_one():
    assert coverage(flat(0), np.stack([flat(0)] * 4)) == pytest.approx(nominal_coverage(4))


@pytest.mark.parametrize("levels", [2, 7, 256])
def test_a_truth_drawn_as_the_samples_are_is_covered_at_the_nominal_rate_however_few_grey_levels(levels):
    drawn = np.random.default_rng(levels).integers(0, levels, (5, 200, 200, 3), dtype=np.uint8)

    assert nominal_coverage(4) == pytest.approx(0.6)
    assert coverage(drawn[0], drawn[1:]) == pytest.approx(0.6, abs=0.01)


def test_block_means_average_over_squares_of_eight_pixels():
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[8:, :8] = 64
    picture[0, 8] = 64

    means = block_means(picture)

    assert means.shape == (2, 3, 3)
    assert means[..., 0].tolist() == [[0, 1, 0], [64, 0, 0]]


def test_the_mean_over_samples_leaves_out_what_is_unknown():
    values = np.array([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.nan]])

    means = mean_over_samples(values)

    assert means[:2].tolist() == [2, 5]
    assert np.isnan(means[2])
