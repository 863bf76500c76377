"""How alike two sets of spectra are, as the stochastic benchmark of COP-GEN (arXiv:2603.03239) compares them.

It sets several true dates of one place beside several samples, each image by its mean spectrum. N true images, K
generated ones, B bands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from scipy.stats import wasserstein_distance

from copgen_cli.metrics.confidence import Floats, Weights
from copgen_cli.metrics.distributions import precision_recall
from copgen_cli.metrics.in_units.judgement import Judgement, over_bands

BENCHMARK_NEIGHBOURS = 5
"""k of the manifolds, as the benchmark chooses it."""
_LEAST_WIDTH = 1e-8
"""Added to the kernel's width, so that there is one where most spectra are equal."""


def judge_spectra(
    truth: Floats, generated: Floats, *, bands: Sequence[str], unit: str = "", neighbours: int = BENCHMARK_NEIGHBOURS
) -> dict[str, Judgement]:
    """Score a set of spectra by another.

    Args:
        truth, generated: (N, B) and (K, B), from `mean_spectra`; true ones that are not known are left out.
        bands: (B,) names.
        unit: of the spectra.
        neighbours: k of precision and recall.

    Returns:
        `range_coverage` and `wasserstein`, each as a mean over bands and, of several, of each; `precision`, `recall`,
        `nearest_neighbour_accuracy`, `squared_mmd`, `intra_set_distance` of what was generated and
        `intra_set_distance_truth`.
    """
    truth = truth[np.isfinite(truth).all(axis=1)]
    if not np.isfinite(generated).all():
        generated = generated[:0]  # no score is known of what is no number
    precision, recall = manifold_precision_recall(truth, generated, neighbours)
    return {
        **over_bands("range_coverage", range_coverage(truth, generated).tolist(), "", bands),
        "precision": Judgement(precision),
        "recall": Judgement(recall),
        "nearest_neighbour_accuracy": Judgement(nearest_neighbour_accuracy(truth, generated)),
        "squared_mmd": Judgement(squared_mmd(truth, generated)),
        **over_bands("wasserstein", wasserstein_of_bands(truth, generated).tolist(), unit, bands),
        "intra_set_distance": Judgement(intra_set_distance(generated), unit),
        "intra_set_distance_truth": Judgement(intra_set_distance(truth), unit),
    }


def mean_spectra(values: NDArray, valid: NDArray[np.bool_] | None = None) -> Floats:
    """Mean of each band over its pixels that are not zero, which stands for no data.

    Args:
        values: (N, B, H, W) reflectance.
        valid: (N, H, W) or (N, B, H, W), true where there are data.

    Returns:
        (N, B); nan where a band has no such pixel, or one that is no number.
    """
    kept = values != 0
    if valid is not None:
        kept &= valid[:, None] if valid.ndim == 3 else valid
    with np.errstate(invalid="ignore"):  # of infinities that cancel
        total = np.where(kept, values, 0).sum(axis=(2, 3), dtype=np.float64)
    count = kept.sum(axis=(2, 3))
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=(count > 0) & np.isfinite(total))


def range_coverage(truth: Floats, generated: Floats) -> Floats:
    """(B,) share of the range of true values that the range of generated ones spans; nan of fewer than two spectra.

    A band whose true values are all equal is covered wholly or not at all.
    """
    if min(len(truth), len(generated)) < 2:
        return np.full(truth.shape[1], np.nan)
    low, high = np.maximum(truth.min(0), generated.min(0)), np.minimum(truth.max(0), generated.max(0))
    span = np.ptp(truth, axis=0)
    inside = (low <= high).astype(np.float64)
    return np.divide(np.maximum(high - low, 0), span, out=inside, where=span > 0)


def manifold_precision_recall(
    truth: Floats, generated: Floats, neighbours: int = BENCHMARK_NEIGHBOURS
) -> tuple[float, float]:
    """`precision_recall` of spectra that all count once and are neighbours of one another; nan of k or fewer."""
    n, k = len(truth), len(generated)
    if min(n, k) <= neighbours:
        return float("nan"), float("nan")
    names = [f"true {i}" for i in range(n)], [f"generated {i}" for i in range(k)]
    once = Weights(np.ones((1, n)), np.ones((1, k)), min(n, k))
    precision, recall = precision_recall(truth, generated, names, once, neighbours=neighbours)
    return float(precision[0]), float(recall[0])


def nearest_neighbour_accuracy(truth: Floats, generated: Floats) -> float:
    """Share of all spectra whose nearest other one is of the same set: 0.5 where the sets can not be told apart.

    The two-sample test of Lopez-Paz and Oquab 2017 (arXiv:1610.06545), leaving one out. Of equally near ones each
    counts alike. nan where a set is empty, or each holds one.
    """
    if min(len(truth), len(generated)) == 0 or len(truth) + len(generated) < 3:
        return float("nan")
    pool = np.concatenate([truth, generated])
    of_truth = np.arange(len(pool)) < len(truth)
    distance = cdist(pool, pool)
    np.fill_diagonal(distance, np.inf)
    nearest = distance == distance.min(axis=1, keepdims=True)
    same = of_truth[:, None] == of_truth
    return float(((nearest & same).sum(axis=1) / nearest.sum(axis=1)).mean())


def squared_mmd(truth: Floats, generated: Floats) -> float:
    """Squared maximum mean discrepancy under exp(-d^2 / (2 s^2)), the unbiased estimate (Gretton et al. 2012, eq. 3).

    s is half the median distance of all pairs of both sets. nan where a set has fewer than two spectra; near zero it
    may be negative.
    """
    n, k = len(truth), len(generated)
    if min(n, k) < 2:
        return float("nan")
    pool = np.concatenate([truth, generated])
    width = np.median(pdist(pool)) / 2 + _LEAST_WIDTH
    kernel = np.exp(-cdist(pool, pool, "sqeuclidean") / (2 * width**2))
    among_truth, among_generated = (part.sum() - len(part) for part in (kernel[:n, :n], kernel[n:, n:]))
    return float(among_truth / (n * (n - 1)) + among_generated / (k * (k - 1)) - 2 * kernel[:n, n:].mean())


def wasserstein_of_bands(truth: Floats, generated: Floats) -> Floats:
    """(B,) earth mover's distance between the values of each band, in their unit; nan where a set is empty."""
    if min(len(truth), len(generated)) == 0:
        return np.full(truth.shape[1], np.nan)
    return np.array([wasserstein_distance(t, g) for t, g in zip(truth.T, generated.T, strict=True)])


def intra_set_distance(spectra: Floats) -> float:
    """Mean Euclidean distance of two spectra of a set (N, B); nan of fewer than two."""
    return float(pdist(spectra).mean()) if len(spectra) > 1 else float("nan")
