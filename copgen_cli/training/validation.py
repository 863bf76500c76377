"""The loss where noise and timesteps never change: on samples that training never sees, and on some that it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from copgen_cli.modalities import Modality
from copgen_cli.model import SCHEDULE, Denoiser, denoising_loss_parts
from copgen_cli.records import ValidationReport
from copgen_cli.training.data_order import DrawnSamples, Slot, TrainBatch
from copgen_cli.training.loop import Loss
from copgen_cli.training.state import TrainState

RANGES = 4
"""Ranges of timesteps that the loss is told for."""
BATCH = 16


@torch.no_grad()
def validate(
    state: TrainState,
    unseen: DrawnSamples,
    seen: DrawnSamples,
    count: int,
    modalities: Sequence[Modality],
    autocast: Callable[[], torch.autocast],
    interrupted: Callable[[], bool] = lambda: False,
    loss_of: Loss | None = None,
) -> ValidationReport | None:
    """The loss of the averaged weights on `count` samples of each kind, evenly spread; None where it was interrupted.

    None for `loss_of` is the ordinary loss, without weights. Every process computes it all: a validation is a small
    part of a run, and needs no word between them.
    """
    state.net.eval()
    try:
        with state.average.in_place():
            held_out, known = (
                _losses(state, samples, count, autocast, interrupted, loss_of or _unweighted)
                for samples in (unseen, seen)
            )
    finally:
        state.net.train()
    if held_out is None or known is None:
        return None
    loss, t = held_out
    width = SCHEDULE.steps // RANGES
    bins = (t - 1) // width
    return ValidationReport(
        samples=count,
        loss=float(loss.sum(0).mean()),
        train_loss=float(known[0].sum(0).mean()),
        by_modality=dict(zip(modalities, loss.mean(1).tolist(), strict=True)),
        by_timesteps={
            f"{i * width + 1}-{(i + 1) * width}": float(loss[bins == i].mean())
            for i in range(RANGES)
            if (bins == i).any()
        },
    )


def _losses(
    state: TrainState,
    samples: DrawnSamples,
    count: int,
    autocast: Callable[[], torch.autocast],
    interrupted: Callable[[], bool],
    loss_of: Loss,
) -> tuple[Tensor, Tensor] | None:
    """Losses and timesteps of modalities and samples, each (M, count)."""
    device = next(state.net.parameters()).device
    losses, timesteps = [], []
    for start in range(0, count, BATCH):
        if interrupted():
            return None
        numbers = range(start, min(start + BATCH, count))
        slots = [Slot(0, number, number * len(samples.moments.names) // count) for number in numbers]
        batch = samples.__getitems__(slots).to(device)
        with autocast():
            parts = loss_of(state.net, batch)
        losses.append(parts.float().cpu())
        timesteps.append(batch.timesteps.cpu())
    return torch.cat(losses, dim=1), torch.cat(timesteps, dim=1)


def _unweighted(net: Denoiser, batch: TrainBatch) -> Tensor:
    return denoising_loss_parts(net, batch.latents, batch.timesteps.unbind(), batch.noise)
