"""How like its truth one picture is: numbers of pairs of pictures.

Pictures are (H, W, 3) uint8 unless said otherwise. Every function takes a true and a generated picture of one size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen_cli.metrics.confidence import Floats
from copgen_cli.metrics.extras import require

Picture = NDArray[np.uint8]
Compare = Callable[[Picture, Picture], float]

HIGHEST_PSNR = 100.0
"""dB that two equal pictures count as, so that a mean stays finite."""
SSIM_WINDOW = 11
"""Side in pixels of the window of SSIM."""
_SSIM_OPTIONS: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def psnr(truth: NDArray, generated: NDArray, data_range: float = 255) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(range^2 / mean squared error), at most `HIGHEST_PSNR`.

    Of pictures, or of values whose range is given.
    """
    error = np.square(truth.astype(np.float64) - generated).mean()
    return float(min(10 * np.log10(data_range**2 / error), HIGHEST_PSNR)) if error else HIGHEST_PSNR


def ssim(truth: Picture, generated: Picture) -> float:
    """Structural similarity (Wang et al. 2004) with its Gaussian window of 1.5 px, mean over channels; 1 is equal.

    Raises:
        CopgenError: scikit-image is not installed.
    """
    require_ssim()
    from skimage.metrics import structural_similarity

    return float(structural_similarity(truth, generated, channel_axis=2, data_range=255, **_SSIM_OPTIONS))


def ssim_map(truth: Floats, generated: Floats, data_range: float) -> Floats:
    """Structural similarity of one band around each pixel, as `ssim` takes the mean of.

    Args:
        truth, generated: (H, W), no side below `SSIM_WINDOW`.
        data_range: in the unit of the values.

    Returns:
        (H, W); within half a window of the border it is of values mirrored there.

    Raises:
        CopgenError: scikit-image is not installed.
    """
    require_ssim()
    from skimage.metrics import structural_similarity

    return np.asarray(structural_similarity(truth, generated, data_range=data_range, full=True, **_SSIM_OPTIONS)[1])


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
