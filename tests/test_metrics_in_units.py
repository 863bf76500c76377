"""How measurements are judged in their units: cases worked out by hand, and numbers of SciPy and scikit-image."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from scipy.stats import wasserstein_distance as scipy_wasserstein
from skimage import metrics as skimage

from copgen_cli.metrics import (
    EARTH_RADIUS_KM,
    band_errors,
    confusion_matrix,
    days_apart,
    great_circle_km,
    intra_set_distance,
    judge_classes,
    judge_places,
    judge_spectra,
    judge_times,
    judge_values,
    manifold_precision_recall,
    mean_spectra,
    nearest_neighbour_accuracy,
    psnr_of_bands,
    range_coverage,
    season_days_apart,
    spectral_angle,
    squared_mmd,
    ssim_of_bands,
    to_decibels,
    wasserstein_of_bands,
)
from copgen_cli.modalities import Modality, ModalitySpec, encode_place, encode_time

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")
LAND_COVER = Modality("land_cover").spec.class_values
OF_KIND = {"REFLECTANCE": "s2_l2a_10m", "BACKSCATTER": "s1_db", "HEIGHT": "dem_m", "CLASSES": "land_cover"}


def spec_of(kind: str, bands: tuple[str, ...]) -> ModalitySpec:
    return replace(Modality(OF_KIND[kind]).spec, bands=bands)


@pytest.fixture
def random():
    return np.random.default_rng(11)


def one_image(*bands: list[list[float]]) -> np.ndarray:
    """(1, B, H, W)."""
    return np.array([bands], np.float32)


def smooth(random, *shape: int) -> np.ndarray:
    return np.cumsum(random.normal(size=shape), axis=-1)


# Values


def test_the_errors_of_each_band_are_worked_out_by_hand():
    truth = one_image([[0, 10], [20, 30]], [[5, 5], [5, 5]])
    generated = one_image([[3, 6], [20, 30]], [[4, 4], [4, 4]])

    first, second = band_errors(truth, generated)

    assert (first.mae, first.rmse, first.bias) == pytest.approx((7 / 4, 5 / 2, -1 / 4))
    assert (second.mae, second.rmse, second.bias) == (1, 1, -1)


def test_a_mask_for_all_bands_and_one_of_each_band_leave_out_what_has_no_data():
    truth = one_image([[0, 100]], [[0, 100]])
    generated = one_image([[1, 100]], [[1, 103]])
    shared = np.array([[[False, True]]])
    own = np.array([[[[False, True]], [[True, False]]]])

    assert [e.mae for e in band_errors(truth, generated, shared)] == [0, 3]
    assert [e.mae for e in band_errors(truth, generated, own)] == [0, 1]


def test_where_the_truth_is_no_number_nothing_is_judged():
    truth = one_image([[NAN, 2, math.inf]])

    (errors,) = band_errors(truth, one_image([[7, 5, 7]]))

    assert (errors.mae, errors.rmse, errors.bias) == (3, 3, 3)


@pytest.mark.parametrize("broken", [NAN, math.inf])
def test_a_generated_value_that_is_no_number_is_not_passed_over(broken, random):
    truth = smooth(random, 1, 2, 16, 16)
    generated = truth + 1
    generated[0, 0, 4, 4] = broken
    generated[0, 0, 4, 5] = -broken

    scores = judge_values(truth, generated, spec=spec_of("REFLECTANCE", ("B02", "B03")))

    assert {name for name, score in scores.items() if not math.isnan(score.value)} == {
        f"{name}_B03" for name in ("mae", "rmse", "bias", "psnr", "ssim")
    }


def test_values_are_not_rounded_to_the_integers_that_the_raster_holds():
    truth, generated = np.full((1, 1, 1, 1), 3, np.uint16), np.full((1, 1, 1, 1), 5, np.uint16)

    assert band_errors(generated, truth)[0].bias == -2


def test_backscatter_is_judged_in_decibels_above_the_least_power():
    truth = one_image([[1.0, 0.0, -3.0, 1e-12]])
    generated = one_image([[0.1, 2.6380407689430285e-06, 2.6380407689430285e-05, 0.0]])

    scores = judge_values(truth, generated, spec=spec_of("BACKSCATTER", ("vv",)), structure=False)

    assert to_decibels(truth)[0, 0, 0].tolist() == pytest.approx([0, -55.787186, -55.787186, -55.787186], abs=1e-5)
    assert scores["mae"].value == pytest.approx((10 + 0 + 10 + 0) / 4, abs=1e-5)
    assert scores["bias"].value == pytest.approx((-10 + 0 + 10 + 0) / 4, abs=1e-5)
    assert scores["mae"].unit == "dB"


def test_the_spectral_angle_is_the_angle_between_two_vectors():
    truth = one_image([[1, 1, 2]], [[0, 1, 1]])
    generated = one_image([[1, 0, 4]], [[1, 5, 2]])

    assert spectral_angle(truth, generated) == pytest.approx((45 + 45 + 0) / 3)


def test_the_spectral_angle_of_equal_spectra_is_zero_to_the_last_digit(random):
    spectra = random.uniform(1, 9000, (2, 6, 4, 4))

    assert spectral_angle(spectra, 3 * spectra) < 1e-12


def test_a_spectral_angle_counts_pixels_with_data_in_all_bands_and_blank_ones_as_perpendicular():
    truth = one_image([[1, 1, 0, 1]], [[1, 1, 0, 1]])
    generated = one_image([[1, -9, 1, 0]], [[1, 0, 0, 0]])
    valid = np.array([[[[True, True, True, True]], [[True, False, True, True]]]])

    assert spectral_angle(truth, generated, valid) == pytest.approx((0 + 90) / 2)


def test_psnr_holds_the_error_against_the_range_that_is_given_or_else_the_truths():
    truth = one_image([[0, 50], [20, 10]])
    generated = truth + 5

    assert psnr_of_bands(truth, generated, data_range=500) == pytest.approx([40])
    assert psnr_of_bands(truth, generated) == pytest.approx([20])
    assert psnr_of_bands(truth, truth) == [100]


def test_psnr_is_the_mean_over_images_with_data_and_that_of_scikit_image(random):
    truth = smooth(random, 3, 1, 8, 8)
    generated = truth + random.normal(size=truth.shape)
    valid = np.ones((3, 8, 8), bool)
    valid[2] = False
    expected = [skimage.peak_signal_noise_ratio(t, g, data_range=30) for t, g in zip(truth, generated, strict=True)]

    assert psnr_of_bands(truth, generated, valid, data_range=30) == pytest.approx([np.mean(expected[:2])])


def test_ssim_is_that_of_scikit_image(random):
    truth = smooth(random, 2, 2, 24, 20)
    generated = truth + random.normal(size=truth.shape)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 12}
    expected = [
        np.mean([skimage.structural_similarity(truth[i, b], generated[i, b], **options) for i in range(2)])
        for b in range(2)
    ]

    assert ssim_of_bands(truth, generated, data_range=12) == pytest.approx(expected)
    assert ssim_of_bands(truth, truth) == pytest.approx([1, 1])


def test_ssim_is_of_windows_without_a_gap_whatever_stands_in_the_gap(random):
    truth = smooth(random, 1, 1, 16, 40)
    generated = truth + random.normal(size=truth.shape)
    whole = ssim_of_bands(truth[..., :24], generated[..., :24], data_range=12)
    valid = np.ones((1, 16, 40), bool)
    valid[..., 24:] = False
    truth[..., 24:30], truth[..., 30:], generated[..., 24:] = NAN, math.inf, -9999

    assert ssim_of_bands(truth, generated, valid, data_range=12) == pytest.approx(whole)


def test_images_below_a_window_have_no_ssim():
    assert math.isnan(ssim_of_bands(np.ones((1, 1, 10, 30)), np.ones((1, 1, 10, 30)), data_range=1)[0])


def test_scores_of_several_bands_come_with_their_mean_and_those_of_one_band_once():
    truth = one_image([[0, 10]], [[0, 20]])

    two = judge_values(truth, truth + 3, spec=spec_of("REFLECTANCE", ("B02", "B03")), structure=False)
    one = judge_values(truth[:, :1], truth[:, :1] - 3, spec=spec_of("HEIGHT", ("DEM",)), structure=False)

    assert set(two) == {f"{n}{b}" for n in ("mae", "rmse", "bias", "psnr") for b in ("", "_B02", "_B03")} | {
        "spectral_angle"
    }
    assert two["psnr"].value == pytest.approx((two["psnr_B02"].value + two["psnr_B03"].value) / 2)
    assert (two["rmse_B03"].unit, two["rmse_B03"].band) == ("reflectance x 10000", "B03")
    assert two["spectral_angle"].unit == "°"
    assert set(one) == {"mae", "rmse", "bias", "psnr"}
    assert (one["bias"].value, one["bias"].unit, one["bias"].band) == (-3, "m", "DEM")


@pytest.mark.parametrize("kind", ["REFLECTANCE", "BACKSCATTER", "HEIGHT"])
def test_without_any_pixel_every_score_is_unknown(kind):
    truth = np.ones((2, 2, 16, 16), np.float32)

    scores = judge_values(truth, truth, np.zeros((2, 16, 16), bool), spec=spec_of(kind, ("a", "b")))

    assert all(math.isnan(score.value) for score in scores.values())


def test_what_does_not_fit_is_refused():
    values = np.ones((1, 2, 4, 4))
    with pytest.raises(ValueError, match="shapes"):
        band_errors(values, values[:, :1])
    with pytest.raises(ValueError, match="valid has shape"):
        band_errors(values, values, np.ones((1, 4, 3), bool))
    with pytest.raises(ValueError, match="one for each of the bands DEM"):
        judge_values(values, values, spec=spec_of("HEIGHT", ("DEM",)))
    with pytest.raises(ValueError, match="which has no errors"):
        judge_values(values, values, spec=spec_of("CLASSES", ("a", "b")))


# Classes


def test_accuracy_iou_and_f1_are_worked_out_by_hand():
    truth = np.array([[[1, 1, 1, 2], [2, 2, 5, 5]]])
    generated = np.array([[[1, 1, 2, 2], [2, 5, 5, 7]]])

    scores = judge_classes(confusion_matrix(truth, generated, (1, 2, 5, 7, 9)))

    assert scores["accuracy"].value == 5 / 8
    iou = {1: 2 / 3, 2: 2 / 4, 5: 1 / 3, 7: 0}
    f1 = {1: 4 / 5, 2: 4 / 6, 5: 2 / 4, 7: 0}
    for value in iou:
        assert scores[f"iou_{value}"].value == pytest.approx(iou[value])
        assert scores[f"f1_{value}"].value == pytest.approx(f1[value])
    assert math.isnan(scores["iou_9"].value)
    assert scores["iou_5"].band == "5"
    assert scores["mean_iou"].value == pytest.approx(sum(iou.values()) / 4), "9 occurs nowhere"
    assert scores["macro_f1"].value == pytest.approx(sum(f1.values()) / 4)


def test_a_confusion_matrix_counts_pairs_of_classes(random):
    truth, generated = random.choice(LAND_COVER, (2, 3, 20, 20)).astype(np.uint8)

    found = confusion_matrix(truth, generated, LAND_COVER)

    expected = [[((truth == a) & (generated == b)).sum() for b in LAND_COVER] for a in LAND_COVER]
    assert found.counts[:, :-1].tolist() == np.array(expected).tolist()
    assert found.counts[:, -1].sum() == 0


def test_batches_add_up_to_the_whole(random):
    truth, generated = random.choice(LAND_COVER, (2, 4, 8, 8))

    first, *rest = (confusion_matrix(truth[i], generated[i], LAND_COVER, ignore=0) for i in range(4))

    whole = confusion_matrix(truth, generated, LAND_COVER, ignore=0)
    assert sum(rest, start=first).counts.tolist() == whole.counts.tolist()


def test_matrices_of_other_classes_do_not_add_up():
    pixel = np.array([[[1]]])
    with pytest.raises(ValueError, match="can not be counted together"):
        confusion_matrix(pixel, pixel, (1, 2)) + confusion_matrix(pixel, pixel, (1, 3))


@pytest.mark.parametrize("table", [(1, 2), (0, 1, 2)], ids=["beside the table", "in the table"])
def test_the_ignored_value_counts_nowhere_in_the_truth_and_as_a_miss_in_what_was_generated(table):
    truth = np.array([[[0, 0, 1, 1, 2]]])
    generated = np.array([[[1, 0, 1, 0, 2]]])

    scores = judge_classes(confusion_matrix(truth, generated, table, ignore=0))

    assert scores["accuracy"].value == pytest.approx(2 / 3)
    assert scores["iou_1"].value == pytest.approx(1 / 2)
    assert scores["f1_1"].value == pytest.approx(2 / 3)
    assert scores["mean_iou"].value == pytest.approx((1 / 2 + 1) / 2)
    assert "iou_0" not in scores


def test_an_image_of_one_class_that_is_met_is_perfect():
    water = np.full((2, 4, 4), 1, np.uint8)

    scores = judge_classes(confusion_matrix(water, water, LAND_COVER))

    assert [scores[n].value for n in ("accuracy", "mean_iou", "macro_f1")] == [1, 1, 1]


def test_an_image_of_one_class_that_is_missed_scores_nothing():
    scores = judge_classes(confusion_matrix(np.full((1, 4, 4), 1), np.full((1, 4, 4), 2), LAND_COVER))

    assert [scores[n].value for n in ("accuracy", "mean_iou", "macro_f1")] == [0, 0, 0]


def test_where_the_truth_has_no_class_every_score_is_unknown():
    nothing = np.zeros((1, 4, 4), np.uint8)

    scores = judge_classes(confusion_matrix(nothing, nothing + 1, LAND_COVER, ignore=0))

    assert [scores[n].value for n in ("accuracy", "iou_1", "mean_iou", "macro_f1")] == pytest.approx(
        [NAN] * 4, nan_ok=True
    )


def test_a_value_of_no_class_is_refused():
    good, strange = np.array([[[1, 2]]]), np.array([[[1, 3]]])
    for pair in ((good, strange), (strange, good)):
        with pytest.raises(ValueError, match=r"values \[3\] are no classes"):
            confusion_matrix(*pair, (1, 2, 4), ignore=0)


# Place and time


def test_distances_on_the_sphere_are_worked_out_by_hand():
    truth = np.array([[0, 0], [0, 179.5], [90, 10], [60, 0], [0, 0]])
    generated = np.array([[0, 90], [0, -179.5], [90, 170], [60, 180], [0, 180]])
    degree = math.pi * EARTH_RADIUS_KM / 180

    assert degree == pytest.approx(111.19508, abs=1e-5)
    assert great_circle_km(truth, generated) == pytest.approx([90 * degree, degree, 0, 60 * degree, 180 * degree])


def test_distances_are_the_angle_between_the_vectors_that_places_are_encoded_as(random):
    places = np.stack([random.uniform(-90, 90, 40), random.uniform(-180, 180, 40)], axis=1).reshape(2, 20, 2)
    vectors = np.array([[encode_place(*p) for p in side] for side in places], np.float64)
    angles = np.arccos((vectors[0] * vectors[1]).sum(-1))

    assert great_circle_km(*places) == pytest.approx(angles * 6371.0088, rel=1e-4)


def test_places_are_judged_by_mean_and_median_of_those_that_are_known():
    truth = np.array([[0.0, 0], [0, 0], [0, 0], [NAN, 0]])
    generated = np.array([[0.0, 0], [0, 3], [0, 30], [0, 90]])
    degree = math.pi * EARTH_RADIUS_KM / 180

    scores = judge_places(truth, generated)

    assert scores["distance"].value == pytest.approx(11 * degree)
    assert scores["distance_median"].value == pytest.approx(3 * degree)
    assert scores["distance"].unit == "km"
    assert math.isnan(judge_places(generated, truth)["distance"].value), "a generated place is none"


def test_days_and_season_are_worked_out_by_hand():
    truth = [date(2021, 1, 1), date(2021, 12, 31), date(2021, 3, 1), date(2022, 1, 1)]
    generated = [date(2021, 1, 11), date(2022, 1, 1), date(2019, 3, 1), date(2020, 7, 2)]

    assert days_apart(truth, generated).tolist() == [10, 1, 731, 548]
    year = 365.25
    assert season_days_apart(truth, generated) == pytest.approx([10 / 365 * year, year / 365, 0, year / 2])


def test_season_is_the_angle_between_the_vectors_that_dates_are_encoded_as(random):
    days = np.datetime64("1990-01-01") + random.integers(0, 12000, (2, 30))
    vectors = np.array([[encode_time(d)[:2] for d in side] for side in days.tolist()], np.float64)
    angles = np.arccos((vectors[0] * vectors[1]).sum(-1).clip(-1, 1))

    assert season_days_apart(*days) == pytest.approx(angles / (2 * math.pi) * 365.25, abs=0.1)


def test_times_are_judged_by_mean_and_median_of_those_that_are_known():
    truth = np.array(["2021-01-01", "2021-01-01", "2021-01-01", "NaT"], "datetime64[D]")
    generated = np.array(["2021-01-01", "2020-01-01", "2021-01-04", "2021-01-04"], "datetime64[D]")

    scores = judge_times(truth, generated)

    assert scores["time"].value == pytest.approx((0 + 366 + 3) / 3)
    assert scores["time_median"].value == 3
    assert scores["season"].value == pytest.approx((3 / 365 * 365.25) / 3)
    assert scores["season_median"].value == 0
    assert {score.unit for score in scores.values()} == {"days"}
    assert math.isnan(judge_times(generated, truth)["time"].value), "a generated date is none"
    assert math.isnan(judge_times(generated, truth)["season"].value)


def test_of_no_places_and_dates_nothing_is_known():
    scores = {**judge_places(np.empty((0, 2)), np.empty((0, 2))), **judge_times([], [])}

    assert all(math.isnan(score.value) for score in scores.values())


# Sets of spectra


def test_a_mean_spectrum_leaves_out_zeros_and_what_has_no_data():
    values = one_image([[0, 2], [4, 9]], [[0, 0], [0, 0]], [[1, 1], [1, 5]])
    valid = np.array([[[True, True], [True, False]]])

    assert mean_spectra(values)[0] == pytest.approx([5, NAN, 2], nan_ok=True)
    assert mean_spectra(values, valid)[0] == pytest.approx([3, NAN, 1], nan_ok=True)
    assert np.isnan(mean_spectra(one_image([[NAN, 1]], [[math.inf, -math.inf]]))).all()


def test_the_coverage_of_a_range_is_the_part_of_the_true_one_that_is_spanned():
    truth = np.array([[0.0, 0, 0, 0, 7, 7], [10, 10, 10, 10, 7, 7], [5, 5, 5, 5, 7, 7]])
    generated = np.array([[2.0, -5, 8, 11, 6, 8], [4, 20, 30, 12, 8, 9]])

    assert range_coverage(truth, generated) == pytest.approx([0.2, 1, 0.2, 0, 1, 0])


def test_precision_and_recall_on_a_line_by_hand_with_two_neighbours():
    truth = np.array([[0.0], [1], [2], [10]])  # reaches 2, 1, 2 and 9
    generated = np.array([[-1.5], [3.9], [4.1], [30]])  # reaches 5.6, 5.4, 5.6 and 26.1

    precision, recall = manifold_precision_recall(truth, generated, neighbours=2)

    assert precision == 3 / 4, "all but 30 are within reach of 0 or 10"
    assert recall == 1


def test_precision_and_recall_of_the_benchmark_are_their_definition_as_loops(random):
    truth, generated = random.normal(size=(16, 4)), random.normal(size=(16, 4)) * 0.7 + 0.4

    def within(points, others):
        reach = [sorted(np.linalg.norm(others - o, axis=1))[5] for o in others]  # itself is the first, at 0
        return np.mean([any(np.linalg.norm(p - o) <= r for o, r in zip(others, reach, strict=True)) for p in points])

    precision, recall = manifold_precision_recall(truth, generated)

    assert (precision, recall) == (within(generated, truth), within(truth, generated))
    assert 0 < recall < 1


def test_the_nearest_neighbours_on_a_line_by_hand():
    truth, generated = np.array([[0.0], [1], [10]]), np.array([[1.4], [9.5], [5]])

    # 0 to 1: same; 1 to 1.4, 10 to 9.5, 1.4 to 1, 9.5 to 10: other; 5 to 1.4: same
    assert nearest_neighbour_accuracy(truth, generated) == pytest.approx(2 / 6)


def test_copies_are_told_apart_no_more_than_by_lot():
    truth = np.array([[0.0], [0.0]])

    assert nearest_neighbour_accuracy(truth, truth) == pytest.approx(1 / 3)


def test_sets_far_apart_are_told_apart_and_sets_drawn_alike_are_not(random):
    spectra = random.normal(size=(2, 300, 2))

    assert nearest_neighbour_accuracy(spectra[0], spectra[1] + 100) == 1
    assert nearest_neighbour_accuracy(*spectra) == pytest.approx(0.5, abs=0.07)


def test_the_mean_discrepancy_is_the_unbiased_estimate_written_as_loops(random):
    x, y = random.normal(size=(5, 3)), random.normal(size=(7, 3)) + 0.5
    pool = [*x, *y]
    width = np.median([np.linalg.norm(a - b) for i, a in enumerate(pool) for b in pool[:i]]) / 2

    def kernel(a, b):
        return math.exp(-np.sum((a - b) ** 2) / (2 * width**2))

    xx = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(xx + yy - 2 * xy)


def test_equal_spectra_have_no_discrepancy():
    assert squared_mmd(np.ones((3, 2)), np.ones((3, 2))) == 0


def test_the_wasserstein_distance_of_each_band_is_scipys_and_of_a_shift_the_shift(random):
    truth, generated = random.normal(size=(9, 2)), random.normal(size=(6, 2))
    expected = [scipy_wasserstein(truth[:, b], generated[:, b]) for b in range(2)]

    assert wasserstein_of_bands(truth, generated) == pytest.approx(expected)
    assert wasserstein_of_bands(truth, truth + np.array([1, -3])) == pytest.approx([1, 3])


def test_the_distance_within_a_set_is_the_mean_over_pairs():
    assert intra_set_distance(np.array([[0.0, 0], [3, 4], [6, 8]])) == pytest.approx((5 + 10 + 5) / 3)


def test_spectra_are_judged_by_every_number_of_the_benchmark(random):
    truth, generated = random.normal(size=(16, 2)), random.normal(size=(16, 2))

    scores = judge_spectra(truth, generated, bands=("B02", "B03"), unit="reflectance x 10000")

    names = {"precision", "recall", "nearest_neighbour_accuracy", "squared_mmd"}
    names |= {"intra_set_distance", "intra_set_distance_truth"}
    assert set(scores) == names | {f"{n}{b}" for n in ("range_coverage", "wasserstein") for b in ("", "_B02", "_B03")}
    assert scores["range_coverage"].value == pytest.approx(range_coverage(truth, generated).mean())
    assert (scores["precision"].value, scores["recall"].value) == manifold_precision_recall(truth, generated)
    assert scores["squared_mmd"].value == squared_mmd(truth, generated)
    assert scores["intra_set_distance"].value == intra_set_distance(generated)
    assert scores["intra_set_distance_truth"].value == intra_set_distance(truth)
    assert scores["wasserstein_B03"].unit == "reflectance x 10000"


def test_a_true_spectrum_that_is_not_known_is_left_out_and_a_generated_one_is_not_passed_over(random):
    truth, generated = random.normal(size=(9, 1)), random.normal(size=(9, 1))
    unknown = np.concatenate([truth, [[NAN]]])

    assert judge_spectra(unknown, generated, bands=("B02",)) == judge_spectra(truth, generated, bands=("B02",))
    broken = judge_spectra(generated, unknown, bands=("B02",))
    assert {name for name, score in broken.items() if not math.isnan(score.value)} == {"intra_set_distance_truth"}


@pytest.mark.parametrize("n", [0, 1])
def test_of_too_few_spectra_nothing_is_known(n):
    spectra = np.ones((n, 1))

    scores = judge_spectra(spectra, spectra, bands=("B02",))

    unknown = {name for name, score in scores.items() if math.isnan(score.value)}
    assert set(scores) - unknown == ({"wasserstein"} if n else set())
