"""Whether samples are as unsure as they should be: ranks of the truth, and curves of samplers that are known."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from copgen_cli.evaluation.calibration.reliability import MEANS, PIXELS, Reliability, reliability_of
from copgen_cli.evaluation.examples import ExamplePictures
from copgen_cli.evaluation.page import as_html
from copgen_cli.evaluation.pictures import PictureSet
from copgen_cli.evaluation.report import Report, as_json
from copgen_cli.evaluation.scores import Scorer
from copgen_cli.metrics import Metric
from copgen_cli.metrics.confidence import draw_weights
from copgen_cli.metrics.ranks import central_coverage, coverage, nominal_coverage, rank_histogram
from copgen_cli.modalities import Modality

NAMES = tuple(f"{cell}U_1R_{patch}" for cell in range(6) for patch in range(4))
N = 8


def picture_set(spread: float = 1, bias: float = 0, levels: int = 256, names=NAMES, n: int = N) -> PictureSet:
    """What is known of a pixel is a mean; truth and samples are normal about it, the samples `spread` times as wide."""
    random = np.random.default_rng(0)
    shape = (len(names), n + 1, 32, 32, 3)
    means = random.uniform(0, 1, (shape[0], 1, *shape[2:]))  # some near the ends, where many values are cut off
    deviation, of_all = np.full((n + 1, 1, 1, 1), 0.12 * spread), random.standard_normal(shape)
    deviation[0] = 0.12
    values = means + deviation * of_all
    values[:, 1:] += bias
    drawn = np.round(np.clip(values, 0, 1) * (levels - 1)).astype(np.uint8)
    return PictureSet("s2_l2a", (Modality("s1_rtc"),), names, drawn[:, 0], names, drawn[:, 1:])


def curves_of(pictures: PictureSet) -> dict[str, Reliability]:
    names = pictures.truth_names
    found = reliability_of(pictures, draw_weights(names, names, resamples=50, seed=0))
    return {curve.resolution: curve for curve in found}


def values(estimates) -> np.ndarray:
    return np.array([estimate.value for estimate in estimates])


def test_a_truth_counts_for_the_number_of_samples_below_it_and_evenly_where_it_equals_some():
    truth = np.array([5, 1, 9, 3], np.uint8).reshape(1, 4, 1)
    samples = np.array([[4, 2, 2, 3], [6, 3, 2, 3]], np.uint8).reshape(2, 1, 4, 1)

    # between the two; below both; above both; equal to both
    assert rank_histogram(truth, samples) * 4 == pytest.approx([1 + 1 / 3, 1 + 1 / 3, 1 + 1 / 3])
    assert rank_histogram(truth[:, :1], samples[:, :, :1]).tolist() == [0, 1, 0]
    assert rank_histogram(truth[:, 1:2], samples[:, :, 1:2]).tolist() == [1, 0, 0]


def test_central_intervals_get_narrower_down_to_the_middle_of_an_even_number_of_samples():
    ranks = np.array([[0.3, 0.1, 0.2, 0.15, 0.25]])

    assert central_coverage(ranks) == pytest.approx(np.array([[0.45, 0.2]]))
    assert [nominal_coverage(4, k) for k in (1, 2)] == pytest.approx([0.6, 0.2])
    assert central_coverage(np.full((3, 2), 0.5)).shape == (3, 0)  # one sample has no interval


@pytest.mark.parametrize("levels", [2, 6, 256])
def test_calibrated_samples_lie_on_the_diagonal_however_coarsely_values_are_rounded(levels):
    for resolution, curve in curves_of(picture_set(levels=levels)).items():
        noise = {PIXELS: 0.01, MEANS: 0.04}[resolution]  # of 74,000 values, and of 1,200
        assert curve.nominal == pytest.approx([7 / 9, 5 / 9, 3 / 9, 1 / 9])
        assert values(curve.covered) == pytest.approx(curve.nominal, abs=noise)
        assert values(curve.ranks) == pytest.approx(np.full(N + 1, 1 / 9), abs=noise)


def test_samples_that_are_too_sure_lie_below_the_diagonal_and_leave_the_truth_in_the_outer_ranks():
    curve = curves_of(picture_set(spread=0.4))[PIXELS]
    ranks = values(curve.ranks)

    assert all(values(curve.covered) < np.array(curve.nominal))
    assert curve.covered[0].high < curve.nominal[0] - 0.2
    assert min(ranks[0], ranks[-1]) > 2 * ranks[1:-1].max()


def test_samples_that_are_too_unsure_lie_above_the_diagonal_and_leave_the_truth_in_the_middle_ranks():
    curve = curves_of(picture_set(spread=2.5))[PIXELS]
    ranks = values(curve.ranks)

    assert all(values(curve.covered) > np.array(curve.nominal))
    assert curve.covered[0].low > curve.nominal[0] + 0.1
    assert max(ranks[0], ranks[-1]) < ranks[N // 2] / 3


def test_samples_that_are_too_bright_have_the_truth_in_the_lower_ranks_of_averages_above_all():
    curves = curves_of(picture_set(bias=0.1))

    assert values(curves[PIXELS].ranks)[0] > 2 * values(curves[PIXELS].ranks)[-1]
    assert values(curves[MEANS].ranks)[0] > 0.9


def test_the_widest_interval_is_the_coverage_of_the_tables():
    pictures = picture_set(spread=0.7)
    scorer = Scorer(frozenset({Metric.COVERAGE}), resamples=50)

    scores = {score.key: score.estimate for score in scorer.scores(pictures)}
    curves = {curve.resolution: curve for curve in scorer.reliability(pictures)}

    for key, resolution in (("coverage", PIXELS), ("coverage_coarse", MEANS)):
        widest = curves[resolution].covered[0]
        assert [widest.value, widest.low, widest.high] == pytest.approx(
            [scores[key].value, scores[key].low, scores[key].high]
        )
    assert scores["coverage"].value == pytest.approx(
        np.mean([coverage(t, s) for t, s in zip(pictures.truth, pictures.samples, strict=True)])
    )


def test_there_is_a_curve_only_where_coverage_is_asked_for_and_there_are_samples_of_known_truths():
    pictures, others = picture_set(), tuple(f"sample_{i}" for i in range(len(NAMES)))
    unmatched = PictureSet("s2_l2a", None, NAMES, pictures.truth, others, pictures.samples)
    scorer = Scorer(frozenset({Metric.COVERAGE}), resamples=20)

    assert len(scorer.reliability(pictures)) == 2
    assert scorer.reliability(unmatched) == ()
    assert scorer.reliability(picture_set(n=1)) == ()
    assert Scorer(frozenset({Metric.PSNR}), resamples=20).reliability(pictures) == ()


@pytest.fixture
def report():
    """Of two places of one cell, so that no interval is known."""
    curves = tuple(curves_of(picture_set(names=NAMES[:2], n=3)).values())
    return Report({"model": "toy"}, (), {}, reliability=curves)


def test_a_report_holds_curves_with_what_they_should_be_and_null_for_what_is_unknown(report):
    fine, coarse = json.loads(json.dumps(as_json(report), allow_nan=False))["reliability"]

    assert (fine["condition"], fine["target"], fine["n_samples"]) == ("s1_rtc", "s2_l2a", 3)
    assert (fine["resolution"], coarse["resolution"]) == ("pixels", "8 px means")
    assert [point["nominal"] for point in fine["intervals"]] == [0.5]
    assert fine["intervals"][0]["low"] is None
    assert [point["below"] for point in fine["ranks"]] == [0, 1, 2, 3]
    assert sum(point["value"] for point in fine["ranks"]) == pytest.approx(1)
    assert fine["ranks"][0]["even"] == 0.25


def test_the_page_draws_both_plots_inside_itself_and_says_them_in_words(report):
    page = as_html(report, ExamplePictures())

    plots = [ET.fromstring(piece + "</svg>") for piece in page.split("<figure>")[1].split("</svg>")[:2]]  # well-formed
    reliability, ranks = (plot.get("aria-label") for plot in plots)
    covered = report.reliability[0].covered[0].value
    assert f"pixels within the 50% interval: {covered:.0%}" in reliability
    assert "from below all samples to above all" in ranks
    assert "s1_rtc → s2_l2a, 3 samples" in page
    assert len(plots[1].findall("rect[@class='share fine']")) == 4
    assert "NaN" not in page.split("<figure>")[1]
    assert "nan" not in page.split("<figure>")[1].split("</figure>")[0]


def test_a_page_without_curves_has_no_section_of_them():
    assert "Calibration" not in as_html(Report({"model": "toy"}, (), {}), ExamplePictures())
