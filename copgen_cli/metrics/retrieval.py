"""Whether a sample shows its own place rather than another, and whether it copies a training picture.

Pictures are compared by the Euclidean distance of their `block_means`, or of the `layouts` of these. N places, n
samples of each, D = values of one averaged picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from copgen_cli.metrics.confidence import Floats, place_of


def closer_to_own(truth: NDArray, samples: NDArray, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Compare every sample with its own truth and with the truths of all other places.

    Patches of the same cell are not "other places".

    Args:
        truth: (N, D) averaged true pictures.
        samples: (N, n, D) averaged samples.
        names: (N,).

    Returns:
        Two arrays (N,), each a mean over the place's samples: the share of other truths that are farther from the
        sample than its own, ties by half; and whether no other truth is nearer (top-1 retrieval). nan where there is
        no other place.
    """
    places = np.array([place_of(name) for name in names])
    farther, first = np.full(len(truth), np.nan), np.full(len(truth), np.nan)
    for i, own in enumerate(samples):
        others = places != places[i]
        if not others.any():
            continue
        to_own = cdist(own, truth[i : i + 1])
        to_others = cdist(own, truth[others])
        farther[i] = ((to_others > to_own) + 0.5 * (to_others == to_own)).mean()
        first[i] = (to_others > to_own).all(1).mean()
    return farther, first


def chance_of_first(names: Sequence[str]) -> float | None:
    """Top-1 retrieval of samples that know nothing of their place; None where there is no other place."""
    places = [place_of(name) for name in names]
    if len(set(places)) < 2:
        return None
    return float(np.mean([1 / (1 + len(places) - places.count(place)) for place in places]))


def nearest(pictures: NDArray, training: NDArray) -> tuple[Floats, NDArray[np.intp]]:
    """Distance of each averaged picture (K, D) to the nearest training picture (T, D), and which one that is."""
    distance = cdist(pictures, training)
    return np.asarray(distance.min(1)), np.asarray(distance.argmin(1))
