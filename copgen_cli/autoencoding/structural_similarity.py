"""How much of a picture's structure another keeps, as a loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALES = 3
_WINDOW = 8  # pixels


def structural_loss(image: Tensor, target: Tensor) -> Tensor:
    """1 - structural similarity, averaged over three scales.

    Contrast and structure are compared at every scale and brightness at the coarsest one, as Wang, Simoncelli and Bovik
    (2003, "Multiscale structural similarity") do; the scales are averaged rather than multiplied, because a product has
    no useful gradient where a correlation is negative. Windows are 8 px squares, every 4 px.

    Args:
        image, target: (B, C, H, W) in [-1, 1], H and W at least 32.

    Returns:
        Scalar from 0 (equal) to 2.
    """
    similarity = torch.zeros((), device=image.device)
    for scale in range(_SCALES):
        if scale:
            image, target = F.avg_pool2d(image, 2), F.avg_pool2d(target, 2)
        brightness, structure = _compare_windows(image, target)
        similarity = similarity + (structure if scale < _SCALES - 1 else brightness * structure).mean()
    return 1 - similarity / _SCALES


def _compare_windows(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness and contrast-structure terms of SSIM per window, for a data range of 2."""
    moments = torch.cat([image, target, image * image, target * target, image * target], dim=1)
    pooled = F.avg_pool2d(moments, _WINDOW, stride=_WINDOW // 2)
    mean_a, mean_b, square_a, square_b, product = pooled.chunk(5, dim=1)
    variances = square_a - mean_a**2 + square_b - mean_b**2
    covariance = product - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return brightness, (2 * covariance + c2) / (variances + c2)
