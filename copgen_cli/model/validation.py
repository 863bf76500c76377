"""The loss on samples that training never sees, with noise and timesteps that never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from copgen_cli.modalities import Modality
from copgen_cli.model.data_order import DrawnSamples, Slot
from copgen_cli.model.diffusion import SCHEDULE, denoising_loss_parts
from copgen_cli.model.training_state import TrainState
from copgen_cli.records import ValidationReport

RANGES = 4
"""Ranges of timesteps that the loss is told for."""
BATCH = 16


@torch.no_grad()
def validate(
    state: TrainState,
    samples: DrawnSamples,
    count: int,
    modalities: Sequence[Modality],
    autocast: Callable[[], torch.autocast],
    interrupted: Callable[[], bool] = lambda: False,
) -> ValidationReport | None:
    """The loss of the averaged weights on the first `count` samples; None where it was interrupted.

    Every process computes it all: a validation is a small part of a run, and needs no word between them.
    """
    device = next(state.net.parameters()).device
    losses, timesteps = [], []
    state.net.eval()
    try:
        with state.average.in_place():
            for start in range(0, count, BATCH):
                if interrupted():
                    return None
                indices = range(start, min(start + BATCH, count))
                batch = samples.__getitems__([Slot(0, index, index) for index in indices]).to(device)
                with autocast():
                    parts = denoising_loss_parts(
                        state.net, batch.latents.unbind(), batch.timesteps.unbind(), batch.noise.unbind()
                    )
                losses.append(parts.float().cpu())
                timesteps.append(batch.timesteps.cpu())
    finally:
        state.net.train()
    loss, t = torch.cat(losses, dim=1), torch.cat(timesteps, dim=1)  # (M, B)
    width = SCHEDULE.steps // RANGES
    bins = (t - 1) // width
    return ValidationReport(
        samples=count,
        loss=float(loss.sum(0).mean()),
        by_modality=dict(zip(modalities, loss.mean(1).tolist(), strict=True)),
        by_timesteps={
            f"{i * width + 1}-{(i + 1) * width}": float(loss[bins == i].mean())
            for i in range(RANGES)
            if (bins == i).any()
        },
    )
