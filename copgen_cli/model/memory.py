"""How much memory a step of training needs, and the largest micro-batch that fits."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.settings import TrainSettings

BYTES_PER_PARAMETER = 4 * 5
"""Weights, gradients, two moments of Adam and the average, in float32."""

_KEPT_PER_TOKEN = 20
"""Values of the model's width that a block keeps for its backward pass; its MLP's hidden layer counts four, twice."""
_SHARE = 0.6
"""Of the memory that is free, what the activations may take."""


def activation_bytes(net: CopGenTransformer, settings: TrainSettings) -> int:
    """What one sample's activations take until its backward pass, about."""
    config = net.config
    tokens = net.pos_embed.shape[1]
    blocks = config.depth + 1
    value = 4 if settings.mixed_precision == "no" else 3  # under autocast some stay in float32
    kept = _KEPT_PER_TOKEN * blocks
    if settings.activation_checkpointing:
        kept = 2 * blocks + _KEPT_PER_TOKEN  # a block's inputs, and one block in full
    return tokens * config.hidden_size * kept * value


def estimate_bytes(net: CopGenTransformer, settings: TrainSettings, micro_batch: int) -> int:
    """What a process needs at its peak, about."""
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return parameters * BYTES_PER_PARAMETER + micro_batch * activation_bytes(net, settings)


def choose_micro_batch(net: CopGenTransformer, settings: TrainSettings, share: int, device: torch.device) -> int:
    """As many samples at a time as fit, of the `share` that a process has per step: a half, a third, … of it."""
    if settings.micro_batch is not None:
        return min(settings.micro_batch, share)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    room = _SHARE * (free_bytes(device) - parameters * BYTES_PER_PARAMETER)
    fitting = max(int(room // activation_bytes(net, settings)), 1)
    parts = max(-(-share // fitting), 1)
    return -(-share // parts)


def shrink_until_it_fits(micro_batch: int, attempt: Callable[[int], None]) -> int:
    """Half as many samples at a time, as often as an attempt with them runs out of the accelerator's memory.

    Raises:
        OutOfMemoryError: not even one fits.
    """
    while True:
        try:
            attempt(micro_batch)
            return micro_batch
        except torch.OutOfMemoryError:
            if micro_batch == 1:
                raise
        torch.cuda.empty_cache()  # outside the handler, which holds on to the tensors of the attempt
        micro_batch = -(-micro_batch // 2)


def free_bytes(device: torch.device) -> int:
    """Memory that is not in use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
