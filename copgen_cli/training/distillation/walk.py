"""How a teacher goes through each interval of its student's grid, as tables of numbers.

A student of S calls is called at S steps, T first; its interval i goes from step i to the next one, the last interval
to clean latents. The teacher goes through it in K calls of multistep DPM-Solver++ of order 2 (arXiv:2211.01095,
algorithm 2), whose first update is of order 1: with D the clean latents that a call tells, h the change of
lambda = log(alpha / sigma) over an update, and r that of the update before as a share of h,

    x' = (sigma' / sigma) x - alpha' expm1(-h) (D + (D - D_before) / (2 r))

This is linear in x and in all D, and so is the one update of order 1 (that of DDIM) over the whole interval. The clean
latents by which it lands where the teacher does are therefore a mean of those that the teacher told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from copgen_cli.model import SCHEDULE_ENDING_IN_NOISE, SECOND_LOG_SNR, NoiseSchedule, steps_from_noise

FIRST_LOG_SNR = SECOND_LOG_SNR - 1
"""Half the log-SNR from which on steps are even in an interval that begins in noise alone: 4 % signal."""


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """The teacher's K calls in each of the student's S intervals, in float64 on the CPU; float32 where it is used."""

    starts: Tensor
    """(S,) int64, the steps at which the student is called."""
    n: Tensor
    """(S, K) the steps, also between whole ones, at which the teacher is called."""
    signal: Tensor
    """(S, K) alpha there."""
    spread: Tensor
    """(S, K) sigma there."""
    keep: Tensor
    """(S, K) factor of the state in the update that follows a call."""
    push: Tensor
    """(S, K) factor of the clean latents that the call tells."""
    bend: Tensor
    """(S, K) factor of what these differ by from those of the call before; 0 at the first one."""
    shares: Tensor
    """(S, K) of each call in the clean latents that the student has to tell; 1 in sum."""

    @property
    def calls(self) -> int:
        """K."""
        return self.n.shape[1]

    def to(self, device: torch.device) -> Walk:
        tables = (self.n, self.signal, self.spread, self.keep, self.push, self.bend, self.shares)
        return Walk(self.starts.to(device), *(table.float().to(device) for table in tables))


def teachers_walk(calls: int, teacher_calls: int, schedule: NoiseSchedule = SCHEDULE_ENDING_IN_NOISE) -> Walk:
    """The walk of a teacher whose student samples in `calls` calls, `teacher_calls` in each of its intervals."""
    starts = steps_from_noise(schedule, calls)
    ends = [*starts[1:], None]
    rows = [_interval(schedule, *pair, teacher_calls) for pair in zip(starts, ends, strict=True)]
    return Walk(torch.tensor(starts), *(torch.stack(table) for table in zip(*rows, strict=True)))


def _interval(schedule: NoiseSchedule, start: int, end: int | None, calls: int) -> tuple[Tensor, ...]:
    """One row of each table; an interval that ends clean is walked to step 1, where its last call tells them."""
    updates = calls if end is not None else calls - 1
    levels = _even(_log_snr(schedule, start), _log_snr(schedule, end or 1), updates)
    if end is None:
        levels = torch.cat([levels, torch.full((1,), math.inf, dtype=torch.float64)])
    signal, spread = (2 * levels).sigmoid().sqrt(), (-2 * levels).sigmoid().sqrt()
    keep = spread[1:] / spread[:-1]
    change = levels.diff()
    push = -signal[1:] * torch.expm1(-change)
    bend = torch.zeros_like(push)
    bend[1:] = push[1:] * change[1:] / (2 * change[:-1])
    if end is None:
        bend[-1] = 0.0  # to clean in one update of order 1, which is what the last call tells
    n = _steps_at(schedule, levels[:-1])
    n[0] = start
    return n, signal[:-1], spread[:-1], keep, push, bend, _shares(keep, push, bend)


def _even(start: float, end: float, updates: int) -> Tensor:
    """(updates + 1,) even log-SNR, but that noise alone, in which they would mostly lie, is left in one update."""
    levels = torch.linspace(max(start, FIRST_LOG_SNR), end, updates + 1, dtype=torch.float64)
    levels[0] = start
    return levels


def _shares(keep: Tensor, push: Tensor, bend: Tensor) -> Tensor:
    """How much of what each call tells is in the state at the end, over what all of them are."""
    parts = torch.zeros_like(push)
    for call in range(len(push)):
        parts *= keep[call]
        parts[call] += push[call] + bend[call]
        parts[call - 1] -= bend[call]  # 0 at the first call
    return parts / parts.sum()


def _log_snr(schedule: NoiseSchedule, n: int) -> float:
    left = schedule.abar[n]
    return float((left / (1 - left)).log() / 2)


def _steps_at(schedule: NoiseSchedule, levels: Tensor) -> Tensor:
    """The steps, also between whole ones, with these log-SNR: log alpha is linear between whole steps."""
    log_alpha = torch.nn.functional.logsigmoid(2 * levels) / 2
    knots = schedule.abar.log().flip(0) / 2  # rising
    steps = np.interp(log_alpha.numpy(), knots.numpy(), np.arange(schedule.steps, -1, -1.0))
    return torch.from_numpy(steps)
