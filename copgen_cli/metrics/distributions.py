"""How alike two sets of pictures are, whatever picture is set beside which.

Each function returns one number per row of weights, so that the bootstrap costs no more than a matrix product where
that is possible. N true pictures, K generated ones, R resamples, D features, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from copgen_cli.metrics.confidence import Floats, Weights, place_of, weighted_mean

NEIGHBOURS = 3
"""k of the k-nearest-neighbour manifolds, as their paper chooses it."""


def frechet_distance(truth: Floats, generated: Floats, weights: Weights) -> Floats:
    """Fréchet distance between Gaussians fitted to features (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)). With S = R' R, the last trace is the sum of the singular values
    of R1 R2', which is exact however few pictures there are.

    Args:
        truth, generated: (N, D) and (K, D) features.

    Returns:
        (1 + R,); nan where a set has fewer than two pictures. It grows when there are fewer pictures: compare only
        numbers that come from equally many.
    """
    rows = zip(weights.truth, weights.generated, strict=True)
    return np.array([_frechet(truth, generated, w, v) for w, v in rows])


def kernel_distance(
    truth: Floats, generated: Floats, names: tuple[Sequence[str], Sequence[str]], weights: Weights
) -> Floats:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, section 4).

    The unbiased estimate: no pair of a picture with itself counts, nor any two pictures of one place, since a
    translation resembles its truth and patches of a cell resemble one another (Gretton et al. 2012, eq. 4).

    Args:
        truth, generated: (N, D) and (K, D) features.
        names: the (N,) and (K,) places that they show.

    Returns:
        (1 + R,); nan where all pictures are of one place. Near zero it may be negative.
    """
    places = [np.array([place_of(name) for name in side]) for side in names]
    among_truth = _mean_kernel(truth, truth, places[0], places[0], weights.truth, weights.truth)
    among_generated = _mean_kernel(generated, generated, places[1], places[1], weights.generated, weights.generated)
    across = _mean_kernel(truth, generated, places[0], places[1], weights.truth, weights.generated)
    return among_truth + among_generated - 2 * across


def precision_recall(
    truth: Floats,
    generated: Floats,
    names: tuple[Sequence[str], Sequence[str]],
    weights: Weights,
    *,
    neighbours: int = NEIGHBOURS,
) -> tuple[Floats, Floats]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Precision is the share of generated pictures within reach of a true one, recall the share of true pictures within
    reach of a generated one; the reach of a picture is the distance to its k-th neighbour in its own set.
    Pictures of the same place are no neighbours: they resemble one another, and the more of them there are, the shorter
    all reaches would be, and the fewer pictures within them.

    Args:
        truth, generated: (N, D) and (K, D) features.
        names: the (N,) and (K,) places that they show.
        neighbours: k.

    Returns:
        Two arrays (1 + R,); nan where a picture has fewer than k of other places in its set.
    """
    distance = cdist(truth, generated)
    of_truth, of_generated = _Neighbours.among(truth, names[0]), _Neighbours.among(generated, names[1])
    found = np.full((2, len(weights.truth)), np.nan)
    for row, (w, v) in enumerate(zip(weights.truth, weights.generated, strict=True)):
        reach_of_truth, reach_of_generated = of_truth.reaches(w, neighbours), of_generated.reaches(v, neighbours)
        if reach_of_truth is not None and reach_of_generated is not None:
            found[0, row] = v @ (distance <= reach_of_truth[:, None]).any(0) / v.sum()
            found[1, row] = w @ (distance <= reach_of_generated).any(1) / w.sum()
    return found[0], found[1]


def histograms(pictures: NDArray[np.uint8]) -> Floats:
    """(n, C, 256) share of the pixels of pictures (n, H, W, C) at each grey level."""
    n, channels = len(pictures), pictures.shape[-1]
    counts = np.empty((n, channels, 256))
    for i in range(n):
        for c in range(channels):
            counts[i, c] = np.bincount(pictures[i, ..., c].ravel(), minlength=256)
    return counts / (pictures.shape[1] * pictures.shape[2])


def wasserstein_distance(truth: Floats, generated: Floats, weights: Weights) -> Floats:
    """Earth mover's distance between the grey levels of two sets, channel by channel.

    In one dimension it is the area between the two cumulative distributions (Villani 2003, remark 2.19).

    Args:
        truth, generated: (N, C, 256) and (K, C, 256) from `histograms`.

    Returns:
        (1 + R, C) in grey levels.
    """
    share_of_truth, share_of_generated = (
        np.tensordot(w / w.sum(1, keepdims=True), h, axes=1)
        for w, h in ((weights.truth, truth), (weights.generated, generated))
    )
    between = np.cumsum(share_of_truth - share_of_generated, axis=-1)
    return np.asarray(np.abs(between).sum(-1))


def radial_power(pictures: NDArray[np.uint8]) -> Floats:
    """(n, S // 2) power of the brightness of pictures (n, H, W, C) by spatial frequency, S the shorter side.

    Brightness in grey levels, less its mean, under a Hann window against the jump at the border; the power of all
    frequencies within half a cycle per picture of f = 1, 2, …, S // 2 is averaged.
    """
    height, width = pictures.shape[1:3]
    window = np.hanning(height)[:, None] * np.hanning(width)
    cycles_y, cycles_x = np.fft.fftfreq(height, 1 / height), np.fft.rfftfreq(width, 1 / width)
    shorter = min(height, width)
    radius = np.rint(np.hypot(cycles_y[:, None] * shorter / height, cycles_x * shorter / width)).astype(int)
    kept = (radius >= 1) & (radius <= shorter // 2)
    members = np.bincount(radius[kept], minlength=shorter // 2 + 1)[1:]
    power = np.empty((len(pictures), shorter // 2))
    for i, picture in enumerate(pictures):
        grey = picture.mean(axis=2, dtype=np.float64)
        spectrum = np.square(np.abs(np.fft.rfft2((grey - grey.mean()) * window)))
        power[i] = np.bincount(radius[kept], weights=spectrum[kept], minlength=shorter // 2 + 1)[1:] / members
    return power


def spectrum_distance(truth: Floats, generated: Floats, weights: Weights) -> Floats:
    """How far apart the mean power spectra of two sets are: root mean square over frequencies, in dB.

    Too little power at high frequencies is blur, too much is noise. Power below a millionth of a grey level squared
    counts as that much.

    Args:
        truth, generated: (N, F) and (K, F) from `radial_power`.

    Returns:
        (1 + R,) dB.
    """
    decibels = [
        10 * np.log10(w / w.sum(1, keepdims=True) @ power + 1e-6)
        for w, power in ((weights.truth, truth), (weights.generated, generated))
    ]
    return np.asarray(np.sqrt(np.square(decibels[0] - decibels[1]).mean(-1)))


def saturations(pictures: NDArray[np.uint8]) -> Floats:
    """(n,) mean over the pixels of pictures (n, H, W, 3) of their distance from grey: largest channel less smallest.

    In grey levels, and not over the largest channel as in HSV: there a shadow's rounding counts as deep colour.
    """
    return np.array([np.ptp(picture.astype(np.int16), axis=-1).mean() for picture in pictures])


def saturation_ratio(truth: Floats, generated: Floats, weights: Weights) -> Floats:
    """Mean saturation of generated pictures over that of true ones: below 1 they are pale.

    Args:
        truth, generated: (N,) and (K,) from `saturations`.

    Returns:
        (1 + R,); nan where the truths are grey.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = weighted_mean(generated, weights.generated) / weighted_mean(truth, weights.truth)
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _frechet(truth: Floats, generated: Floats, w: Floats, v: Floats) -> float:
    if not (w.sum() > 1 and v.sum() > 1):  # also where a weight is nan
        return float("nan")
    mean_1, root_1 = _gaussian(truth, w)
    mean_2, root_2 = _gaussian(generated, v)
    shared = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    apart = np.square(mean_1 - mean_2).sum()
    distance = apart + np.square(root_1).sum() + np.square(root_2).sum() - 2 * shared
    return max(0.0, float(distance))  # rounding alone takes it below


def _gaussian(features: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Weighted mean, and a root of the covariance: R with R' R = S, with no more rows than features."""
    mean = w @ features / w.sum()
    rows = np.sqrt(w / (w.sum() - 1))[:, None] * (features - mean)
    rows = rows[w > 0]
    return mean, np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > features.shape[1] else rows


def _mean_kernel(x: Floats, y: Floats, at_x: NDArray, at_y: NDArray, w: Floats, v: Floats) -> Floats:
    """(1 + R,) weighted means of the kernel over all pairs that show different places."""
    apart = (at_x[:, None] != at_y[None, :]).astype(float)
    kernel = (x @ y.T / x.shape[1] + 1) ** 3 * apart
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(((w @ kernel) * v).sum(1) / ((w @ apart) * v).sum(1))


@dataclass(frozen=True, slots=True, eq=False)
class _Neighbours:
    """The pictures of other places in a set, from the nearest of each picture to its farthest."""

    order: NDArray[np.intp]
    """(n, n) which they are."""
    distance: Floats
    """(n, n) how far; infinite, and so last, are those of the same place."""

    @classmethod
    def among(cls, features: Floats, names: Sequence[str]) -> _Neighbours:
        places = np.array([place_of(name) for name in names])
        distance = np.where(places[:, None] == places, np.inf, cdist(features, features))
        order = distance.argsort(axis=1)
        return cls(order, np.take_along_axis(distance, order, axis=1))

    def reaches(self, w: Floats, k: int) -> Floats | None:
        """(n,) distances to the k-th neighbour when each picture counts w times; below zero where it counts never.

        None where one that counts has no k neighbours.
        """
        counted = np.cumsum(w[self.order], axis=1) >= k
        reach = np.take_along_axis(self.distance, counted.argmax(axis=1)[:, None], axis=1)[:, 0]
        known = counted.any(axis=1) & np.isfinite(reach)
        return None if (~known & (w != 0)).any() else np.where(w > 0, reach, -1.0)
