"""From pictures to numbers: every metric that was asked for, of one set of samples after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from copgen_cli.evaluation.calibration.reliability import Reliability, reliability_of
from copgen_cli.evaluation.pictures import Pictures, PictureSet
from copgen_cli.metrics import (
    NEED_FEATURES,
    QUANTITIES,
    RESAMPLES,
    Estimate,
    FeatureNetwork,
    Floats,
    Metric,
    Weights,
    block_means,
    closer_to_own,
    coverage,
    distributions,
    diversity,
    draw_weights,
    features_of,
    in_units_of_truth,
    layouts,
    mean_over_samples,
    nearest,
    pairwise,
    weighted_mean,
)

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class Score:
    """One number of one set of samples."""

    condition: str
    target: str
    key: str
    """Of `metrics.QUANTITIES`."""
    estimate: Estimate
    via: str = ""
    """In a cycle: what was translated to and back from."""
    translations: int = 0
    """In a cycle: how many there were."""
    unit: str = ""
    """Where it depends on what is judged; else that of the quantity."""


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """The sample of a set that is most like a training picture."""

    sample: NDArray[np.uint8]
    training: NDArray[np.uint8]
    """(H, W, 3) both."""
    ratio: float
    """Their distance, over the mean distance of held-out truths to their nearest training pictures."""


@dataclass(slots=True, eq=False)
class Scorer:
    """What judging needs, and what it remembers of the truths from one set to the next."""

    metrics: frozenset[Metric]
    features: FeatureNetwork | None = None
    """None leaves out the metrics that need it."""
    perceptual: pairwise.Compare | None = None
    training: Mapping[str, Pictures] = field(default_factory=dict)
    """(T, H, W, 3) pictures of each target that the model was trained on."""
    resamples: int = RESAMPLES
    seed: int = 0
    _truths: dict[tuple[str, str, tuple[str, ...]], Floats] = field(default_factory=dict)
    _training: dict[str, NDArray] = field(default_factory=dict)

    def scores(self, pictures: PictureSet) -> list[Score]:
        """All numbers of one set that are asked for and that there are enough pictures for."""
        n = pictures.samples.shape[1]
        repeated = tuple(name for name in pictures.names for _ in range(n))
        weights = draw_weights(pictures.truth_names, repeated, resamples=self.resamples, seed=self.seed)
        per_place = draw_weights(pictures.truth_names, pictures.names, resamples=self.resamples, seed=self.seed)
        found = self._distributions(pictures, repeated, weights)
        found |= self._samples(pictures, per_place)
        if pictures.matched:
            found |= self._pairs(pictures, per_place)
        return [
            Score(pictures.condition, pictures.target, key, within(estimate, key), pictures.via, pictures.translations)
            for key, estimate in found.items()
            if np.isfinite(estimate.value)
        ]

    def reliability(self, pictures: PictureSet) -> tuple[Reliability, ...]:
        """How often central intervals of the samples hold the truth, where coverage is asked for."""
        if Metric.COVERAGE not in self.metrics:
            return ()
        names = pictures.truth_names
        return reliability_of(pictures, draw_weights(names, names, resamples=self.resamples, seed=self.seed))

    def _pairs(self, pictures: PictureSet, weights: Weights) -> dict[str, Estimate]:
        """Numbers of a sample beside its truth, each a mean over the samples of a place first."""
        compare: dict[str, pairwise.Compare] = {}
        if Metric.PSNR in self.metrics:
            compare["psnr"] = pairwise.psnr
        if Metric.SSIM in self.metrics:
            compare["ssim"] = pairwise.ssim
        if self.perceptual is not None:
            compare["lpips"] = self.perceptual
        if Metric.CORRELATION in self.metrics and pairwise.is_grey(pictures.truth):
            compare["correlation"] = pairwise.correlation
        values = {
            key: mean_over_samples(
                np.array(
                    [
                        [function(truth, sample) for sample in samples]
                        for truth, samples in zip(pictures.truth, pictures.samples, strict=True)
                    ]
                )
            )
            for key, function in compare.items()
        }
        if Metric.COVERAGE in self.metrics:
            coarse = block_means(pictures.truth), block_means(pictures.samples)
            values["coverage"] = _each(coverage, pictures.truth, pictures.samples)
            values["coverage_coarse"] = _each(coverage, *coarse)
        if Metric.RETRIEVAL in self.metrics:
            truth, drawn = block_means(pictures.truth), block_means(pictures.samples)
            values["closer"], values["top1"] = closer_to_own(_flat(truth, 1), _flat(drawn, 2), pictures.names)
            values["closer_layout"], _ = closer_to_own(
                _flat(layouts(truth), 1), _flat(layouts(drawn), 2), pictures.names
            )
        return _means(values, weights.truth, weights)

    def _samples(self, pictures: PictureSet, weights: Weights) -> dict[str, Estimate]:
        """Numbers of the samples alone."""
        values: dict[str, Floats] = {}
        if Metric.DIVERSITY in self.metrics:
            values["diversity"] = np.array([diversity(samples) for samples in pictures.samples])
        found = _means(values, weights.generated, weights)
        distances = self._to_training(pictures)
        if distances is not None:
            of_samples, of_truth, _ = distances
            with np.errstate(invalid="ignore", divide="ignore"):
                rows = weighted_mean(of_samples.mean(1), weights.generated) / weighted_mean(of_truth, weights.truth)
            found["copying"] = weights.estimate(rows, of_samples.size)
        return found

    def closest_copy(self, pictures: PictureSet) -> Copy | None:
        """The likeliest copy of a training picture.

        None where none was asked for, there are no training pictures, or the truths are among them.
        """
        distances = self._to_training(pictures)
        if distances is None:
            return None
        of_samples, of_truth, which = distances
        if not of_truth.any():
            return None
        place, number = np.unravel_index(of_samples.argmin(), of_samples.shape)
        return Copy(
            sample=pictures.samples[place, number],
            training=self.training[pictures.target][which[place, number]],
            ratio=float(of_samples[place, number] / of_truth.mean()),
        )

    def _to_training(self, pictures: PictureSet) -> tuple[Floats, Floats, NDArray[np.intp]] | None:
        """(K, n) distances of samples to the nearest training picture, (N,) of truths, and (K, n) which it is."""
        if Metric.COPYING not in self.metrics or pictures.target not in self.training:
            return None
        training = self._of_training(pictures.target)
        drawn = block_means(pictures.samples).reshape(-1, training.shape[1])
        distance, which = nearest(drawn, training)
        of_truth = nearest(block_means(pictures.truth).reshape(-1, training.shape[1]), training)[0]
        shape = pictures.samples.shape[:2]
        return distance.reshape(shape), of_truth, which.reshape(shape)

    def _of_training(self, target: str) -> NDArray:
        if target not in self._training:
            self._training[target] = block_means(self.training[target]).reshape(len(self.training[target]), -1)
        return self._training[target]

    def _distributions(self, pictures: PictureSet, repeated: tuple[str, ...], weights: Weights) -> dict[str, Estimate]:
        """Numbers of all samples beside all truths."""
        truth, drawn = pictures.truth, pictures.samples.reshape(-1, *pictures.samples.shape[2:])
        values: dict[str, Floats] = {}
        if self.features is not None and self.metrics & NEED_FEATURES and not _unitless(self.features, truth):
            compute = partial(features_of, self.features)
            x, y = self._of_truth("features", compute, pictures), compute(drawn)
            if self.features.relative:
                x, y = in_units_of_truth(x, y)
            names = pictures.truth_names, repeated
            if Metric.FRECHET in self.metrics:
                values["frechet"] = distributions.frechet_distance(x, y, weights)
            if Metric.KERNEL in self.metrics:
                values["kernel"] = distributions.kernel_distance(x, y, names, weights)
            if Metric.PRECISION_RECALL in self.metrics:
                values["precision"], values["recall"] = distributions.precision_recall(x, y, names, weights)
        if Metric.WASSERSTEIN in self.metrics:
            x = self._of_truth("histograms", distributions.histograms, pictures)
            by_channel = distributions.wasserstein_distance(x, distributions.histograms(drawn), weights)
            values["wasserstein"] = by_channel.mean(1)
            if not pairwise.is_grey(truth):
                values |= {f"wasserstein_{channel}": by_channel[:, i] for i, channel in enumerate(CHANNELS)}
        if Metric.SPECTRUM in self.metrics:
            x = self._of_truth("power", distributions.radial_power, pictures)
            values["spectrum"] = distributions.spectrum_distance(x, distributions.radial_power(drawn), weights)
        return {key: weights.estimate(rows, len(drawn)) for key, rows in values.items()}

    def _of_truth(self, what: str, compute: Callable[[Pictures], Floats], pictures: PictureSet) -> Floats:
        """What is computed from the truths once, though many sets share them."""
        key = (what, pictures.target, pictures.truth_names)
        if key not in self._truths:
            self._truths[key] = compute(pictures.truth)
        return self._truths[key]


def reconstruction_scores(
    target: str, truth: Pictures, decoded: Pictures, draws: Pictures, names: tuple[str, ...], scorer: Scorer
) -> list[Score]:
    """How well an autoencoder gives pictures back, whatever is drawn by its latents.

    Args:
        truth, decoded: (n, H, W, 3), and what comes of the mean of their latents.
        draws: (n, 2, H, W, 3) what comes of two draws of each latent.
        names: (n,) of the places.
        scorer: whose resamples and seed are taken.
    """
    weights = draw_weights(names, names, resamples=scorer.resamples, seed=scorer.seed)
    found = _means(
        {
            "reconstruction": _each(pairwise.psnr, truth, decoded),
            "autoencoder_noise": np.array([diversity(pair) for pair in draws]),
        },
        weights.truth,
        weights,
    )
    powers = distributions.radial_power(truth), distributions.radial_power(decoded)
    sets = {"reconstruction_spectrum": distributions.spectrum_distance(*powers, weights)}
    if not pairwise.is_grey(truth):
        colours = distributions.saturations(truth), distributions.saturations(decoded)
        sets["reconstruction_saturation"] = distributions.saturation_ratio(*colours, weights)
    found |= {key: weights.estimate(rows, len(truth)) for key, rows in sets.items()}
    return [Score("", target, key, within(estimate, key)) for key, estimate in found.items()]


def mean_estimate(values: Floats, names: tuple[str, ...], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of one value per place, with its interval."""
    weights = draw_weights(names, names, resamples=resamples, seed=seed)
    return _means({"mean": values}, weights.truth, weights)["mean"]


def within(estimate: Estimate, key: str) -> Estimate:
    """The estimate with an interval that holds no values which the quantity can not take."""
    low, high = np.clip([estimate.low, estimate.high], QUANTITIES[key].least, QUANTITIES[key].most)
    return replace(estimate, low=float(low), high=float(high))


def _means(values: Mapping[str, Floats], rows: Floats, weights: Weights) -> dict[str, Estimate]:
    """Means of (n,) values under (1 + R, n) rows; what is known of no picture is left out."""
    return {
        key: weights.estimate(weighted_mean(value, rows), int(np.isfinite(value).sum()))
        for key, value in values.items()
        if np.isfinite(value).any()
    }


def _each(function: Callable[[NDArray, NDArray], float], truth: NDArray, samples: NDArray) -> Floats:
    """(N,) values of each truth and its samples."""
    return np.array([function(t, s) for t, s in zip(truth, samples, strict=True)])


def _flat(pictures: NDArray, lead: int) -> NDArray:
    """One row of values per picture, behind `lead` axes that count them."""
    return pictures.reshape(*pictures.shape[:lead], -1)


def _unitless(network: FeatureNetwork, truth: Pictures) -> bool:
    """Whether features are compared in units of their spread over true pictures that do not differ."""
    return network.relative and bool((truth == truth[:1]).all())
