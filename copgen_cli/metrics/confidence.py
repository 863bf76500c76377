"""How sure a number is: the bootstrap over places (Efron 1979), written as weights.

A resample draws as many places as there are, with replacement; how often a place came up is its weight. A statistic
that takes weights is computed for all resamples at once; the first row of weights, all ones, gives the number itself.

Patches cut from one cell are neighbours and resemble one another, so whole cells are drawn, not patches.

R resamples, N true pictures, K generated ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

LEVEL = 0.95
"""Share of resamples that an interval holds."""
RESAMPLES = 500

Floats = NDArray[np.float64]

_PATCH = re.compile(r"(\d+[UD]_\d+[LR])_(?:\d+|center)")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval; the ends are nan where there are too few places to tell."""

    value: float
    low: float
    high: float
    n: int
    """Pictures that it was computed from."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """How often each picture counts."""

    truth: Floats
    """(1 + R, N); the first row is all ones."""
    generated: Floats
    """(1 + R, K); the first row is all ones."""
    places: int
    """How many were drawn from, of the set that has fewer."""

    def estimate(self, values: Floats, n: int) -> Estimate:
        """The number and its interval, from a statistic of each row of weights.

        The percentiles of the resamples are moved so that their mean falls on the number: resampling repeats pictures,
        which biases a distance between sets, and that bias is no part of how sure the number is. And their distances
        from it are stretched from a normal distribution's to Student's, and by sqrt(n / (n - 1)): with few places they
        are too small by these (Hesterberg 2015, arXiv:1411.5279, section 4).

        Args:
            values: (1 + R,); those that are not finite are left out.
            n: pictures that it was computed from.
        """
        value, resampled = float(values[0]), values[1:][np.isfinite(values[1:])]
        if not np.isfinite(value) or len(resampled) < len(values) // 2 or np.isnan(self.truth[1:]).any():
            return Estimate(value, float("nan"), float("nan"), n)
        tail = (1 - LEVEL) / 2
        stretch = t.ppf(tail, self.places - 1) / norm.ppf(tail) * np.sqrt(self.places / (self.places - 1))
        low, high = value + stretch * (np.quantile(resampled, (tail, 1 - tail)) - resampled.mean())
        return Estimate(value, float(low), float(high), n)


def draw_weights(truth: Sequence[str], generated: Sequence[str], *, resamples: int, seed: int) -> Weights:
    """Draw places with replacement.

    Where both sets show the same places, a place that is drawn counts in both; else the two are drawn apart.

    Args:
        truth: (N,) names of the true pictures.
        generated: (K,) names of the places that the generated pictures show.
        resamples: R.
        seed: of the draw; nothing else matters to it.
    """
    random = np.random.default_rng(seed)
    places_of_truth, places_generated = [place_of(n) for n in truth], [place_of(n) for n in generated]
    together = set(places_of_truth) == set(places_generated)
    counts = _counts(places_of_truth, resamples, random)
    counts_generated = counts if together else _counts(places_generated, resamples, random)
    return Weights(
        np.stack([counts[place] for place in places_of_truth], axis=1),
        np.stack([counts_generated[place] for place in places_generated], axis=1),
        min(len(counts), len(counts_generated)),
    )


def place_of(name: str) -> str:
    """The cell of a patch such as `454U_120R_7`; of another name, the name itself."""
    found = _PATCH.fullmatch(name)
    return found[1] if found else name


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """(1 + R,) means of (n,) values under (1 + R, n) weights; values that are nan don't count."""
    known = np.isfinite(values)
    total = weights[:, known].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights[:, known] @ values[known] / total)


def _counts(places: Sequence[str], resamples: int, random: np.random.Generator) -> dict[str, Floats]:
    """(1 + R,) how often each place is drawn; nan where a single place leaves nothing to draw from."""
    distinct = sorted(set(places))
    drawn = random.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=resamples).astype(float)
    if len(distinct) < 2:
        drawn[:] = np.nan
    return {place: np.concatenate([[1.0], drawn[:, i]]) for i, place in enumerate(distinct)}
