"""The loss of a student: how far its velocity is from the one by which a single step lands where its teacher lands.

What is given is held clean, what is left out at T, as the sampler holds them; what is generated walks. At T both
generated and left out are noise, and a network can not tell one from the other. All that stands there walks together:
a student that had to repeat walks with others held, too, could only tell the mean of both. For what is then left out
after all this does no harm, since of a walk together each part by itself is distributed as it would be alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from copgen_cli.model import SCHEDULE_ENDING_IN_NOISE, Denoiser, add_noise, guide, min_snr_weight
from copgen_cli.training.data_order import TrainBatch
from copgen_cli.training.distillation.walk import Walk


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """B questions to a model of M modalities, each at the start of one of the student's intervals."""

    states: tuple[Tensor, ...]
    """(B, C, H, W) of each modality: given clean, generated with the noise of the interval's start, left out at T."""
    timesteps: Tensor
    """(M, B)."""
    generated: Tensor
    """(M, B) bool."""
    interval: Tensor
    """(B,) which interval."""
    stand_in: tuple[Tensor, ...]
    """(B, C, H, W) of each modality: the noise that stands for what is given, where guidance asks without it."""

    @classmethod
    def of(cls, batch: TrainBatch, walk: Walk) -> Questions:
        """The questions of a batch, whose timesteps are drawn among `ROLES` on the walk's grid.

        What is given has no use for its noise, which therefore is its stand-in.

        Raises:
            ValueError: something is generated at a step that is not on the grid.
        """
        noised = torch.where(batch.timesteps == 0, SCHEDULE_ENDING_IN_NOISE.steps, batch.timesteps)
        start = noised.amin(0)
        here = walk.starts[:, None] == start
        if not here.any(0).all():
            raise ValueError(f"steps {start.tolist()} are not all among {walk.starts.tolist()}, where a walk begins")
        states = tuple(
            add_noise(z, e, n, SCHEDULE_ENDING_IN_NOISE)
            for z, e, n in zip(batch.latents, batch.noise, batch.timesteps.unbind(), strict=True)
        )
        return cls(states, batch.timesteps, batch.timesteps == start, here.int().argmax(0), batch.noise)


@dataclass(frozen=True, slots=True, eq=False)
class Distillation:
    """The loss of a student on a batch, a `Loss`."""

    teacher: Denoiser
    """Predicts velocities of `SCHEDULE_ENDING_IN_NOISE`; never changed."""
    walk: Walk
    """On the teacher's device."""
    guidance_scale: float = 0.0
    """Of the teacher."""
    min_snr_gamma: float | None = None
    """Weighs the steps of the grid as `denoising_loss_parts` does; None weighs them alike."""

    def __call__(self, net: Denoiser, batch: TrainBatch) -> Tensor:
        """(M, B) mean squared error of the student's velocity; 0 of what is not generated."""
        asked = Questions.of(batch, self.walk)
        landing = clean_targets(self.teacher, asked, self.walk, self.guidance_scale)
        signal, spread = (_wide(table[asked.interval, 0]) for table in (self.walk.signal, self.walk.spread))
        targets = [(signal * x - clean) / spread for x, clean in zip(asked.states, landing, strict=True)]
        told = net(list(asked.states), asked.timesteps.unbind())
        errors = [(v.to(t.dtype) - t).square().flatten(1).mean(1) for v, t in zip(told, targets, strict=True)]
        parts = torch.where(asked.generated, torch.stack(errors), 0)
        if self.min_snr_gamma is None:
            return parts
        starts = self.walk.starts[asked.interval]
        return parts * min_snr_weight(starts, self.min_snr_gamma, SCHEDULE_ENDING_IN_NOISE)


@torch.no_grad()
def clean_targets(teacher: Denoiser, asked: Questions, walk: Walk, guidance_scale: float = 0.0) -> list[Tensor]:
    """The clean latents by which one step of order 1 over an interval lands where the teacher's walk through it does.

    Returns:
        (B, C, H, W) of each modality; without meaning where it is not generated.
    """
    states, before = list(asked.states), list(asked.states)
    targets = [torch.zeros_like(x) for x in states]
    moves = [_wide(each) for each in asked.generated]
    for call in range(walk.calls):
        n, *factors = (table[asked.interval, call] for table in (
            walk.n, walk.signal, walk.spread, walk.keep, walk.push, walk.bend, walk.shares))  # fmt: skip
        signal, spread, keep, push, bend, share = map(_wide, factors)
        timesteps = torch.where(asked.generated, n, asked.timesteps.to(n.dtype))
        velocities = guided_velocities(teacher, states, timesteps, n, asked, guidance_scale)
        clean = [signal * x - spread * v.to(x.dtype) for x, v in zip(states, velocities, strict=True)]
        targets = [target + share * d for target, d in zip(targets, clean, strict=True)]
        if call == 0:
            before = clean
        walked = [keep * x + push * d + bend * (d - e) for x, d, e in zip(states, clean, before, strict=True)]
        states = [torch.where(move, new, x) for move, new, x in zip(moves, walked, states, strict=True)]
        before = clean
    return targets


def guided_velocities(
    teacher: Denoiser,
    states: Sequence[Tensor],
    timesteps: Tensor,
    n: Tensor,
    asked: Questions,
    guidance_scale: float,
) -> Sequence[Tensor]:
    """The velocities of what is generated, which is at steps n (B,), as `guide` puts together those with what is given
    and those with noise in its place, both out of one call; the former alone where the scale is 0."""
    if guidance_scale == 0:
        return teacher(list(states), timesteps.unbind())
    given = asked.timesteps == 0
    free = [torch.where(_wide(g), e.to(x.dtype), x) for g, e, x in zip(given, asked.stand_in, states, strict=True)]
    times = torch.cat([timesteps, timesteps.masked_fill(given, SCHEDULE_ENDING_IN_NOISE.steps)], dim=1)
    told = teacher([torch.cat(pair) for pair in zip(states, free, strict=True)], times.unbind())
    halves = ((*each.float().chunk(2), state) for each, state in zip(told, states, strict=True))
    return [
        guide(with_it, without, guidance_scale, state, _wide(n), SCHEDULE_ENDING_IN_NOISE)
        for with_it, without, state in halves
    ]


def _wide(per_sample: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return per_sample[:, None, None, None]
