"""How much detail of each size a picture has, compared with another as a loss.

Absolute error is least where what cannot be known is averaged away, and power spectra show what that leaves out: it is
the power at high frequencies that blur takes, and the power of colour that is lost to grey.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

_OPPONENT = ((1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (1.0, 1.0, -2.0))
"""Brightness, red against green, yellow against blue: rows that are orthogonal."""
_ROUNDING = (2 / 255) ** 2 / 12
"""Variance of what rounding to a grey level adds to values in [-1, 1]."""


def spectral_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of log10 power over spatial frequencies, of brightness and of two colour differences.

    Each channel, less its mean, is seen through a Hann window against the jump at the border; power is averaged over
    the rings of frequencies within half a cycle per picture of f = 1, 2, …, S // 2, S the shorter side, crop by crop.
    What rounding to a byte adds is added to all power: less than that is not told apart, so that a grey or a flat crop
    asks for no colour or texture below what a picture file can hold, and gradients stay finite.

    Args:
        image, target: (B, 3, H, W) in [-1, 1], no side below 3.

    Returns:
        Scalar from 0 (equal power); 1 is power that is ten times too little or too much at every frequency.
    """
    difference = _log_power(image) - _log_power(target)
    return difference.abs().mean()


def _log_power(image: Tensor) -> Tensor:
    """(B, 3, S // 2) log10 of the power of each ring, relative to that of rounding."""
    height, width = image.shape[-2:]
    mixing = torch.tensor(_OPPONENT, dtype=image.dtype, device=image.device)
    mixing = mixing / mixing.norm(dim=1, keepdim=True)
    channels = torch.einsum("kc,bchw->bkhw", mixing, image)
    window, rings = _window_and_rings(height, width, image.device, image.dtype)
    seen = torch.fft.rfft2((channels - channels.mean(dim=(2, 3), keepdim=True)) * window)
    power = (seen.real.square() + seen.imag.square()).flatten(2) @ rings  # a product: sums of the same order each time
    return torch.log10(1 + power / (_ROUNDING * window.square().sum()))


@lru_cache(maxsize=4)
def _window_and_rings(height: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The (H, W) window, and (H * (W // 2 + 1), S // 2) weights that take the mean over each ring."""
    exact = torch.float64  # on the CPU: not every device has it
    vertical, horizontal = (torch.hann_window(side, periodic=False, dtype=exact) for side in (height, width))
    shorter = min(height, width)
    cycles_y = torch.fft.fftfreq(height, 1 / shorter, dtype=exact)[:, None]
    cycles_x = torch.fft.rfftfreq(width, 1 / shorter, dtype=exact)
    radius = torch.hypot(cycles_y, cycles_x).round().flatten()
    rings = (radius[:, None] == torch.arange(1, shorter // 2 + 1)).to(exact)
    return (vertical[:, None] * horizontal).to(device, dtype), (rings / rings.sum(dim=0)).to(device, dtype)
