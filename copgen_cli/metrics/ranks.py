"""Where the truth lies among samples of one place: ranks, and how often central intervals hold it.

A truth that is drawn as n samples are has each of n + 1 ranks among them equally often (Talagrand et al. 1997; Hamill
2001, doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2). Samples that lie too close together leave it in the outer
ranks, those that lie too far apart in the middle ones, and a bias in those of one side.

n samples of each place, H and W pixels, C channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from copgen_cli.metrics.confidence import Floats


def rank_histogram(truth: NDArray, samples: NDArray) -> Floats:
    """(n + 1,) share of the values of a truth (H, W, C) that have r of the samples (n, H, W, C) below them.

    A truth that equals e of the samples could have e + 1 ranks, were ties broken by lot, and counts by 1 / (e + 1) in
    each. So the ranks of what is drawn as the samples are come out even, whatever the number of grey levels, and
    nothing is left to chance.
    """
    ranks = len(samples) + 1
    below, equal = np.count_nonzero(samples < truth, axis=0), np.count_nonzero(samples == truth, axis=0)
    together = np.bincount((below * ranks + equal).ravel(), minlength=ranks**2).reshape(ranks, ranks)
    histogram = np.zeros(ranks)
    for first, ties in zip(*together.nonzero(), strict=True):
        histogram[first : first + ties + 1] += together[first, ties] / (ties + 1)
    return histogram / truth.size


def central_coverage(histograms: Floats) -> Floats:
    """How often truths lie from the k-th smallest to the k-th largest sample.

    Args:
        histograms: (..., n + 1) shares by rank.

    Returns:
        (..., n // 2) shares, k from 1.
    """
    ranks = histograms.shape[-1]
    inside = [histograms[..., k : ranks - k].sum(-1) for k in range(1, (ranks - 1) // 2 + 1)]
    return np.stack(inside, axis=-1) if inside else np.empty((*histograms.shape[:-1], 0))


def coverage(truth: NDArray, samples: NDArray) -> float:
    """Share of values of the truth (H, W, C) that lie in the range of the samples (n, H, W, C); nan for one sample."""
    if len(samples) < 2:
        return float("nan")
    return float(central_coverage(rank_histogram(truth, samples))[0])


def nominal_coverage(n: int, k: int = 1) -> float:
    """How often a truth that is drawn as n samples are lies from the k-th smallest to the k-th largest of them."""
    return (n + 1 - 2 * k) / (n + 1)
