"""Which metrics there are, what each reports, and how a report calls it. Light, so that completion can read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from copgen_cli.errors import UnknownNameError, UsageError


class Metric(StrEnum):
    """What can be asked for; some report several numbers."""

    PSNR = "psnr"
    SSIM = "ssim"
    LPIPS = "lpips"
    CORRELATION = "correlation"
    RETRIEVAL = "retrieval"
    FRECHET = "frechet"
    KERNEL = "kernel"
    PRECISION_RECALL = "precision-recall"
    WASSERSTEIN = "wasserstein"
    SPECTRUM = "spectrum"
    DIVERSITY = "diversity"
    COVERAGE = "coverage"
    COPYING = "copying"
    RECONSTRUCTION = "reconstruction"
    CYCLE = "cycle"
    ERRORS = "errors"
    CLASSES = "classes"
    PLACE_TIME = "place-time"
    SPECTRA = "spectra"


OF_MEASUREMENTS = frozenset(
    {Metric.ERRORS, Metric.CLASSES, Metric.PLACE_TIME, Metric.SPECTRA, Metric.PSNR, Metric.SSIM}
)
"""What measurements, classes, places and dates are judged by; the others are of pictures, as PSNR and SSIM are too."""
DEFAULT_METRICS = tuple(
    m
    for m in Metric
    if m not in (Metric.LPIPS, Metric.CYCLE) and (m not in OF_MEASUREMENTS or m in (Metric.PSNR, Metric.SSIM))
)
"""Of pictures: all but those that need more weights, or several times as many samples."""
NEED_FEATURES = frozenset({Metric.FRECHET, Metric.KERNEL, Metric.PRECISION_RECALL})
NEED_MODEL = frozenset({Metric.RECONSTRUCTION, Metric.CYCLE})
LEAST_SIDE = {
    Metric.SSIM: 11,  # its window
    Metric.LPIPS: 31,  # what AlexNet reduces to one pixel
    Metric.RETRIEVAL: 8,  # these compare means over 8 x 8 pixels
    Metric.COVERAGE: 8,
    Metric.COPYING: 8,
    Metric.SPECTRUM: 3,  # a Hann window of two has no weight
}
"""Pixels that a picture needs along either side; what feature networks need they say themselves."""
NEEDS = {
    Metric.PSNR: "samples named as truths",
    Metric.SSIM: "samples named as truths",
    Metric.LPIPS: "samples named as truths",
    Metric.CORRELATION: "hillshades that are not flat, and samples named as truths",
    Metric.RETRIEVAL: "two cells, and samples named as truths",
    Metric.FRECHET: "two samples, and two true pictures that differ",
    Metric.KERNEL: "two cells, and true pictures that differ",
    Metric.PRECISION_RECALL: "four cells, and true pictures that differ",
    Metric.DIVERSITY: "two samples of each place",
    Metric.COVERAGE: "two samples of each place, named as truths",
    Metric.COPYING: "training pictures that are not the truths themselves",
}
"""Of pictures, for a number to be known; metrics that are not named here are always known."""


class Better(StrEnum):
    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a report."""

    metric: Metric
    title: str
    unit: str
    better: Better
    meaning: str
    least: float = 0
    """Values that it can take; the ends of intervals are kept within."""
    most: float = inf


QUANTITIES: dict[str, Quantity] = {
    "psnr": Quantity(
        Metric.PSNR, "PSNR", "dB", Better.HIGHER, "Peak signal-to-noise ratio of a sample against its truth."
    ),
    "ssim": Quantity(
        Metric.SSIM, "SSIM", "", Better.HIGHER, "Structural similarity of a sample and its truth.", least=-1, most=1
    ),
    "lpips": Quantity(
        Metric.LPIPS, "LPIPS", "", Better.LOWER, "Learned perceptual distance (AlexNet) of a sample and its truth."
    ),
    "correlation": Quantity(
        Metric.CORRELATION,
        "Correlation",
        "",
        Better.HIGHER,
        "Pearson correlation of a hillshade with its truth.",
        least=-1,
        most=1,
    ),
    "closer": Quantity(
        Metric.RETRIEVAL,
        "Closer to own",
        "",
        Better.HIGHER,
        "Share of other places' truths that are farther from a sample than its own truth; 0.5 is chance. Pictures are "
        "compared as averages over 8 x 8 pixels.",
        most=1,
    ),
    "closer_layout": Quantity(
        Metric.RETRIEVAL,
        "Closer in layout",
        "",
        Better.HIGHER,
        "The same of what lies where: the mean of each channel is taken off and contrasts are made alike, so that "
        "season, light and the stretch of a thumbnail, which the condition need not tell, do not count.",
        most=1,
    ),
    "top1": Quantity(
        Metric.RETRIEVAL,
        "Top-1",
        "",
        Better.HIGHER,
        "Share of samples that are nearer to their own truth than to that of any other place.",
        most=1,
    ),
    "frechet": Quantity(
        Metric.FRECHET,
        "FD",
        "",
        Better.LOWER,
        "Fréchet distance between Gaussians fitted to the features of true and generated pictures. It falls as there "
        "are more pictures: compare it only between runs of one size.",
    ),
    "kernel": Quantity(
        Metric.KERNEL,
        "KD",
        "",
        Better.LOWER,
        "Squared maximum mean discrepancy of features under a cubic kernel; unbiased, so that it can be below zero.",
        least=-inf,
    ),
    "precision": Quantity(
        Metric.PRECISION_RECALL,
        "Precision",
        "",
        Better.HIGHER,
        "Share of generated pictures within reach of a true one: whether what is made looks real.",
        most=1,
    ),
    "recall": Quantity(
        Metric.PRECISION_RECALL,
        "Recall",
        "",
        Better.HIGHER,
        "Share of true pictures within reach of a generated one: whether all that is real can be made.",
        most=1,
    ),
    "wasserstein": Quantity(
        Metric.WASSERSTEIN,
        "Wasserstein",
        "levels",
        Better.LOWER,
        "Earth mover's distance between the grey levels of true and generated pictures, mean over channels.",
    ),
    "wasserstein_red": Quantity(Metric.WASSERSTEIN, "… red", "levels", Better.LOWER, "The same, of the red channel."),
    "wasserstein_green": Quantity(
        Metric.WASSERSTEIN, "… green", "levels", Better.LOWER, "The same, of the green channel."
    ),
    "wasserstein_blue": Quantity(
        Metric.WASSERSTEIN, "… blue", "levels", Better.LOWER, "The same, of the blue channel."
    ),
    "spectrum": Quantity(
        Metric.SPECTRUM,
        "Spectrum",
        "dB",
        Better.LOWER,
        "Root mean square difference of the mean power spectra over spatial frequencies: blur and noise show in it.",
    ),
    "diversity": Quantity(
        Metric.DIVERSITY,
        "Diversity",
        "levels",
        Better.NEITHER,
        "Root-mean-square difference of two samples of one place, mean over pairs. Below it stands what the "
        "autoencoder's own noise makes.",
    ),
    "coverage": Quantity(
        Metric.COVERAGE,
        "Coverage",
        "",
        Better.NEITHER,
        "Share of the truth's pixels within the range of the samples; calibrated samples reach the nominal share.",
        most=1,
    ),
    "coverage_coarse": Quantity(
        Metric.COVERAGE,
        "Coverage 8 px",
        "",
        Better.NEITHER,
        "The same, of averages over 8 x 8 pixels.",
        most=1,
    ),
    "copying": Quantity(
        Metric.COPYING,
        "Novelty",
        "",
        Better.NEITHER,
        "Distance of samples to the nearest training picture, over that of held-out truths: 1 is as far as a new place "
        "is, near 0 is a copy.",
    ),
    "reconstruction": Quantity(
        Metric.RECONSTRUCTION,
        "PSNR",
        "dB",
        Better.HIGHER,
        "Of the truth through the model's autoencoder and back: no sample can be expected to reach more.",
    ),
    "autoencoder_noise": Quantity(
        Metric.RECONSTRUCTION,
        "Noise",
        "levels",
        Better.NEITHER,
        "Root-mean-square difference of two pictures decoded from two draws of one latent.",
    ),
    "reconstruction_spectrum": Quantity(
        Metric.RECONSTRUCTION,
        "Spectrum",
        "dB",
        Better.LOWER,
        "Root mean square difference of the mean power spectra of the truth and of what comes back: no sample can be "
        "expected to be sharper.",
    ),
    "reconstruction_saturation": Quantity(
        Metric.RECONSTRUCTION,
        "Saturation",
        "",
        Better.NEITHER,
        "Mean distance from grey (largest channel less smallest) of what comes back, over that of the truth: 1 is "
        "right, below it is pale.",
    ),
    "mae": Quantity(Metric.ERRORS, "MAE", "", Better.LOWER, "Mean absolute error of a sample, in the unit of its row."),
    "rmse": Quantity(Metric.ERRORS, "RMSE", "", Better.LOWER, "Root-mean-square error, in the unit of its row."),
    "bias": Quantity(
        Metric.ERRORS, "Bias", "", Better.NEITHER, "Mean of sample less truth, in the unit of its row.", least=-inf
    ),
    "spectral_angle": Quantity(
        Metric.ERRORS,
        "Spectral angle",
        "°",
        Better.LOWER,
        "Angle between the spectra of a pixel in sample and truth (Kruse et al. 1993).",
        most=180,
    ),
    "accuracy": Quantity(
        Metric.CLASSES, "Accuracy", "", Better.HIGHER, "Share of the pixels that are of the true class.", most=1
    ),
    "mean_iou": Quantity(
        Metric.CLASSES,
        "mIoU",
        "",
        Better.HIGHER,
        "Intersection over union, mean over the classes that occur; of all places together.",
        most=1,
    ),
    "macro_f1": Quantity(
        Metric.CLASSES, "F1", "", Better.HIGHER, "Mean over the classes that occur; of all places together.", most=1
    ),
    "iou": Quantity(Metric.CLASSES, "IoU", "", Better.HIGHER, "Intersection over union of one class.", most=1),
    "f1": Quantity(Metric.CLASSES, "F1 of the class", "", Better.HIGHER, "Of one class.", most=1),
    "distance": Quantity(
        Metric.PLACE_TIME,
        "Distance",
        "km",
        Better.LOWER,
        "Along the great circle from the true place to the drawn one.",
    ),
    "time": Quantity(Metric.PLACE_TIME, "Time", "days", Better.LOWER, "Between the true date and the drawn one."),
    "season": Quantity(
        Metric.PLACE_TIME, "Season", "days", Better.LOWER, "The same within the year, whichever year it is.", most=183
    ),
    "range_coverage": Quantity(
        Metric.SPECTRA,
        "Range covered",
        "",
        Better.HIGHER,
        "Share of the true range of patch means that the samples' spans, mean over bands.",
        most=1,
    ),
    "spectral_precision": Quantity(
        Metric.SPECTRA,
        "Precision of spectra",
        "",
        Better.HIGHER,
        "Share of samples among the true patch means (Kynkäänniemi et al. 2019, k = 5).",
        most=1,
    ),
    "spectral_recall": Quantity(
        Metric.SPECTRA,
        "Recall of spectra",
        "",
        Better.HIGHER,
        "Share of true patch means among the samples: how much of the manifold is covered.",
        most=1,
    ),
    "nearest_neighbour": Quantity(
        Metric.SPECTRA,
        "1-NN accuracy",
        "",
        Better.NEITHER,
        "How often the nearest patch mean is of the same set: 0.5 where true and drawn are alike.",
        most=1,
    ),
    "squared_mmd": Quantity(
        Metric.SPECTRA, "MMD²", "", Better.LOWER, "Squared maximum mean discrepancy of patch means.", least=-inf
    ),
    "spectral_wasserstein": Quantity(
        Metric.SPECTRA, "Wasserstein", "", Better.LOWER, "Between the patch means of a band, in the unit of its row."
    ),
    "intra_set_distance": Quantity(
        Metric.SPECTRA, "Spread", "", Better.NEITHER, "Mean distance of the samples' patch means to one another."
    ),
    "intra_set_distance_truth": Quantity(
        Metric.SPECTRA, "True spread", "", Better.NEITHER, "The same of the truths: what the spread should be."
    ),
}
"""By the key that JSON uses."""


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """Read a comma-separated list such as `psnr,frechet`.

    Raises:
        UnknownNameError: a name is not a metric; the nearest is named.
        UsageError: there is none.
    """
    chosen = []
    for name in (part.strip() for part in text.split(",") if part.strip()):
        if name not in list(Metric):
            raise UnknownNameError("metric", name, known=list(Metric))
        chosen.append(Metric(name))
    if not chosen:
        raise UsageError("--metrics names no metric.", hint=f"Known: {', '.join(Metric)}.")
    return tuple(m for m in Metric if m in chosen)
