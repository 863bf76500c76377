"""How sure the model is: mean and standard deviation over the samples of one record, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from copgen_cli.modalities import ModalitySpec

STD_GAIN = 4
"""Grey levels of the picture per level of standard deviation; what exceeds 255 is cut."""


def spread_of(samples: Sequence[np.ndarray], spec: ModalitySpec) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over samples.

    Returns:
        Of pictures both as pictures; of a raster (B, H, W) float32 in its unit; of classes the most frequent one, and
        the share of the samples that are of another.
    """
    if spec.is_picture:
        return mean_picture(samples), std_picture(samples)
    stacked = np.stack(samples)
    if spec.classes:
        counts = np.stack([(stacked == value).sum(axis=0) for value in spec.class_values])
        most = np.asarray(spec.class_values)[counts.argmax(axis=0)]
        return most, (1 - counts.max(axis=0) / len(samples)).astype(np.float32)
    return stacked.mean(axis=0, dtype=np.float64).astype(np.float32), stacked.std(axis=0, dtype=np.float64).astype(
        np.float32
    )


def show_deviation(deviation: np.ndarray) -> np.ndarray:
    """(B, H, W) to (H, W, 3) uint8: the mean over the bands, white where it is largest."""
    mean = deviation.mean(axis=0)
    grey = (255 * mean / max(float(mean.max()), 1e-12)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def mean_picture(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8 mean of such pictures, rounded half up."""
    return np.floor(_stacked(pictures).mean(axis=0) + 0.5).astype(np.uint8)


def std_picture(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8 grey: the standard deviation of the samples times `STD_GAIN`.

    It is the root of the mean over the channels of their variance, with the number of samples as its divisor.
    """
    deviation = np.sqrt(_stacked(pictures).var(axis=0).mean(axis=-1, keepdims=True))
    grey = np.clip(np.floor(STD_GAIN * deviation + 0.5), 0, 255).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    if len(pictures) < 2:
        raise ValueError(f"a spread of {len(pictures)} samples; at least two are needed")
    return np.stack(pictures).astype(np.float32)
