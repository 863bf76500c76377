"""How often central intervals of the samples hold the truth, and which rank it has among them, of all cells.

N places, n samples of each, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen_cli.evaluation.pictures import PictureSet
from copgen_cli.metrics import (
    Estimate,
    Floats,
    Weights,
    block_means,
    central_coverage,
    nominal_coverage,
    rank_histogram,
)

PIXELS, MEANS = "pixels", "8 px means"
"""What values are ranked: those of pixels, or of averages over 8 x 8 of them, as Coverage 8 px is of."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability curve and a rank histogram of one set of samples."""

    condition: str
    target: str
    resolution: str
    """`PIXELS` or `MEANS`."""
    covered: tuple[Estimate, ...]
    """Share of the truth from the k-th smallest to the k-th largest sample, k from 1: the widest interval first."""
    ranks: tuple[Estimate, ...]
    """Share of the truth that has so many of the samples below it, from none to all n."""

    @property
    def n_samples(self) -> int:
        return len(self.ranks) - 1

    @property
    def nominal(self) -> tuple[float, ...]:
        """What `covered` would be of calibrated samples."""
        return tuple(nominal_coverage(self.n_samples, k + 1) for k in range(len(self.covered)))

    @property
    def even(self) -> float:
        """What every one of `ranks` would be of calibrated samples."""
        return 1 / len(self.ranks)

    def as_json(self) -> dict[str, Any]:
        """Small JSON values; what is unknown is null."""
        return {
            "condition": self.condition,
            "target": self.target,
            "resolution": self.resolution,
            "n_samples": self.n_samples,
            "intervals": [
                {"nominal": nominal, **_numbers(covered)}
                for nominal, covered in zip(self.nominal, self.covered, strict=True)
            ],
            "ranks": [{"below": below, "even": self.even, **_numbers(share)} for below, share in enumerate(self.ranks)],
        }


def reliability_of(pictures: PictureSet, weights: Weights) -> tuple[Reliability, ...]:
    """The curves of one set, of pixels and of averages; none of single samples, or of places without their truth.

    Args:
        pictures: truths and samples.
        weights: how often each truth counts, by the cells that are drawn.
    """
    if not pictures.matched or pictures.samples.shape[1] < 2:
        return ()
    values: dict[str, tuple[NDArray, NDArray]] = {
        PIXELS: (pictures.truth, pictures.samples),
        MEANS: (block_means(pictures.truth), block_means(pictures.samples)),
    }
    curves = []
    for resolution, (truth, samples) in values.items():
        ranks = np.stack([rank_histogram(t, s) for t, s in zip(truth, samples, strict=True)])
        estimates = (_estimates(shares, weights) for shares in (central_coverage(ranks), ranks))
        curves.append(Reliability(pictures.condition, pictures.target, resolution, *estimates))
    return tuple(curves)


def _estimates(shares: Floats, weights: Weights) -> tuple[Estimate, ...]:
    """The mean over places of each column of (N, m) shares, with an interval within [0, 1]."""
    means = weights.truth @ shares / weights.truth.sum(1, keepdims=True)
    found = [weights.estimate(column, len(shares)) for column in means.T]
    return tuple(replace(e, low=float(np.clip(e.low, 0, 1)), high=float(np.clip(e.high, 0, 1))) for e in found)


def _numbers(estimate: Estimate) -> Mapping[str, float | None]:
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
