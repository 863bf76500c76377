"""How like its truth one picture is: numbers of pairs of pictures.

Pictures are (H, W, 3) uint8. Every function takes a true and a generated picture of one size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from copgen_cli.metrics.extras import require

Picture = NDArray[np.uint8]
Compare = Callable[[Picture, Picture], float]

HIGHEST_PSNR = 100.0
"""dB that two equal pictures count as, so that a mean stays finite."""


def psnr(truth: Picture, generated: Picture) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean squared error), at most `HIGHEST_PSNR`."""
    error = np.square(truth.astype(np.float64) - generated).mean()
    return float(min(10 * np.log10(255**2 / error), HIGHEST_PSNR)) if error else HIGHEST_PSNR


def ssim(truth: Picture, generated: Picture) -> float:
    """Structural similarity (Wang et al. 2004) with its Gaussian window of 1.5 px, mean over channels; 1 is equal.

    Raises:
        CopgenError: scikit-image is not installed.
    """
    require_ssim()
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            truth,
            generated,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def require_ssim() -> None:
    """Make sure that scikit-image is there.

    Raises:
        CopgenError: it is not installed.
    """
    require("skimage", extra="evaluate", purpose="SSIM")


def correlation(truth: Picture, generated: Picture) -> float:
    """Pearson correlation of brightness over all pixels; nan where one of the two is flat."""
    a, b = (picture.mean(axis=2, dtype=np.float64) for picture in (truth, generated))
    a, b = a - a.mean(), b - b.mean()
    power = np.sqrt(np.square(a).sum() * np.square(b).sum())
    return float((a * b).sum() / power) if power > 0 else float("nan")


def is_grey(pictures: NDArray[np.uint8]) -> bool:
    """Whether the three channels of pictures (..., 3) are equal, as those of a hillshade are."""
    return bool((pictures == pictures[..., :1]).all())
