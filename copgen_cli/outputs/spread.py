"""How sure the model is: mean and standard deviation over the samples of one record, pixel by pixel, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STD_GAIN = 4
"""Grey levels of the picture per level of standard deviation; what exceeds 255 is cut."""


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
