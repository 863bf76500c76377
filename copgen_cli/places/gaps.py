"""Filling gaps: known latents are kept while the rest is drawn, and what is drawn is fitted to the known pixels.

At every step the known latents are put in place with that step's noise, and the step is walked again several times, so
that the rest comes to fit them (RePaint, arXiv:2201.09865). What remains of a difference at the border is spread over
the gap as a membrane is (Poisson image editing, Perez et al. 2003, doi:10.1145/882262.882269).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from copgen_cli.model import SCHEDULE, NoiseSchedule, scheduler_at
from copgen_cli.records import Solver

REPEATS = 3
"""How often each step but the last is walked."""
GROWN = 16
"""Pixels around a gap whose latents are taken for unknown: as far as an autoencoder looks, and clouds have haze."""
_SWEEPS = 60
"""Of relaxation at every resolution of a membrane."""

Predict = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class KnownLatents:
    """Latents of one modality of which some are known."""

    latents: Tensor
    """Scaled; of any value where they are not known."""
    known: Tensor
    """bool, of the same shape."""

    @classmethod
    def nothing(cls, like: Tensor) -> KnownLatents:
        return cls(torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool))

    @classmethod
    def side_by_side(cls, several: Sequence[KnownLatents]) -> KnownLatents:
        """Those of several modalities as one state (1, K)."""
        latents = torch.cat([one.latents.flatten() for one in several])[None]
        return cls(latents, torch.cat([one.known.flatten() for one in several])[None])


def calls_around(steps: int) -> int:
    """How often the network is called."""
    return REPEATS * (steps - 1) + 1


@torch.no_grad()
def integrate_around(
    x: Tensor,
    steps: int,
    predict: Predict,
    known: KnownLatents,
    draw_noise: Callable[[str], Tensor],
    schedule: NoiseSchedule = SCHEDULE,
) -> Tensor:
    """Walk a state from noise to clean in deterministic steps of first order, around what is known of it.

    Args:
        x: standard normal noise.
        steps: noise levels, spaced as those of the multistep solver.
        predict: the noise in a state, at a timestep in [0, 1000].
        known: what is to stay, of the shape of `x`.
        draw_noise: standard normal noise of that shape, for a purpose that is named.
        schedule: of the network.

    Returns:
        The clean state, equal to the known one where that is known.
    """
    timesteps = [float(t) + 1 for t in scheduler_at(Solver.DPM_2M, schedule, steps).timesteps] + [0.0]
    levels = [_amplitudes(schedule, timestep) for timestep in timesteps]
    clean, held = known.latents.to(x.device), known.known.to(x.device)
    for step, timestep in enumerate(timesteps[:-1]):
        (signal, spread), (next_signal, next_spread) = levels[step], levels[step + 1]
        repeats = REPEATS if step < steps - 1 else 1
        for turn in range(repeats):
            noise = predict(x, timestep)
            x = next_signal * (x - spread * noise) / signal + next_spread * noise
            given = next_signal * clean
            if next_spread:
                given = given + next_spread * draw_noise(f"known {step} {turn}")
            x = torch.where(held, given, x)
            if turn < repeats - 1:
                kept = signal / next_signal
                added = max(spread**2 - (kept * next_spread) ** 2, 0.0) ** 0.5
                x = kept * x + added * draw_noise(f"again {step} {turn}")
    return x


def _amplitudes(schedule: NoiseSchedule, timestep: float) -> tuple[float, float]:
    signal, spread = schedule.amplitudes(torch.tensor(timestep, dtype=torch.float64), torch.float64)
    return float(signal), float(spread)


def known_latents(gap: np.ndarray, reduction: int) -> np.ndarray:
    """Which latent pixels are known, given the pixels that are not.

    Args:
        gap: (H, W) bool, a multiple of `reduction` along each side.

    Returns:
        (H / reduction, W / reduction) bool.
    """
    grown = ndimage.distance_transform_edt(~gap) <= GROWN if gap.any() else gap
    height, width = gap.shape
    blocks = grown.reshape(height // reduction, reduction, width // reduction, reduction)
    return np.asarray(~blocks.any(axis=(1, 3)))


def fit_to_border(drawn: np.ndarray, known: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Put what is drawn into the gap, with the differences at its border spread over it; all else is as it was.

    Args:
        drawn, known: (H, W, 3) uint8.
        gap: (H, W) bool.

    Returns:
        (H, W, 3) uint8.
    """
    if not gap.any() or gap.all():
        return np.where(gap[..., None], drawn, known)
    difference = membrane(known.astype(np.float32) - drawn.astype(np.float32), gap)
    fitted = np.clip(np.rint(drawn + difference), 0, 255).astype(np.uint8)
    return np.where(gap[..., None], fitted, known)


def without_gaps(pixels: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Pixels with their gaps filled, for an autoencoder that knows of none: smoothly, or by reflection where a side of
    the picture is all gap.

    Args:
        pixels: (H, W, 3) uint8.
        gap: (H, W) bool.
    """
    if not gap.any() or gap.all():
        return pixels
    (top, bottom), (left, right) = ((int(i.min()), int(i.max()) + 1) for i in np.nonzero(~gap))
    inner, inner_gap = pixels[top:bottom, left:right], gap[top:bottom, left:right]
    if inner_gap.any():
        inner = np.clip(np.rint(membrane(inner.astype(np.float32), inner_gap)), 0, 255).astype(np.uint8)
    around = ((top, gap.shape[0] - bottom), (left, gap.shape[1] - right), (0, 0))
    return np.pad(inner, around, mode="reflect" if min(inner_gap.shape) > 1 else "edge")


def membrane(values: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Fill a gap smoothly from its border: Laplace's equation, relaxed from coarse to fine.

    Args:
        values: (H, W, C) float32; those in the gap do not count.
        gap: (H, W) bool.

    Returns:
        (H, W, C) float32, as it was outside of the gap.
    """
    height, width = gap.shape
    if not gap.any():
        return values
    if gap.all():
        return np.zeros_like(values)
    if min(height, width) > 2:
        coarse_values, coarse_gap = _halved(values, gap)
        coarse = membrane(coarse_values, coarse_gap)
        guess = np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)[:height, :width]
    else:
        guess = np.broadcast_to(values[~gap].mean(axis=0), values.shape)
    filled = np.where(gap[..., None], guess, values)
    near = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in np.nonzero(gap))  # with the border's pixels
    part, inside = filled[near], gap[near][..., None]
    for _ in range(_SWEEPS):
        padded = np.pad(part, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        part = np.where(inside, around, part)
    filled[near] = part
    return filled


def _halved(values: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the known values of 2 x 2 pixels, and where there are none."""
    height, width = (-(-side // 2) * 2 for side in gap.shape)
    extra = ((0, height - gap.shape[0]), (0, width - gap.shape[1]))
    known = np.pad(~gap, extra).astype(np.float32)[..., None]
    padded = np.pad(values, (*extra, (0, 0))) * known
    sums = padded.reshape(height // 2, 2, width // 2, 2, -1).sum(axis=(1, 3))
    counts = known.reshape(height // 2, 2, width // 2, 2, 1).sum(axis=(1, 3))
    return (sums / np.maximum(counts, 1)).astype(np.float32), np.asarray(counts[..., 0] == 0)
