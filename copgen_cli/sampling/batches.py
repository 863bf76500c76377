"""How many samples at a time: what the device's memory holds, and half of it when that was too much."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from copgen_cli.errors import CopgenError
from copgen_cli.model import Autoencoders, CopGenTransformer

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

MOST = 64
MOST_ON_CPU = 4
"""A CPU is busy with a few; more only cost memory."""
SHARE_OF_FREE_MEMORY = 0.5


def choose_batch_size(net: CopGenTransformer, autoencoders: Autoencoders, *, guided: bool, device: torch.device) -> int:
    """The most samples whose activations fit in half of the memory that is free, up to `MOST` or `MOST_ON_CPU`.

    One sample takes the larger of two: in the network, the tokens' states of every block that waits for its skip, and
    a dozen more while a block computes; in the decoder, eight full-size maps of its widest full-size layer.
    """
    config = net.config
    tokens = net.pos_embed.shape[1]
    states = tokens * config.hidden_size * (config.depth // 2 + 12)
    in_network = states * (2 if guided else 1) * _bytes_of(net.dtype)
    largest = max(side for _, side, _ in net.latent_shapes)
    in_decoder = max(
        8 * (largest * one.reduction) ** 2 * max(one.model.config.block_out_channels[:2]) * _bytes_of(one.dtype)
        for one in autoencoders.distinct
    )
    most = MOST_ON_CPU if device.type == "cpu" else MOST
    return max(1, min(most, int(SHARE_OF_FREE_MEMORY * free_memory(device) / max(in_network, in_decoder))))


def free_memory(device: torch.device) -> int:
    """Bytes of the device's memory that nothing uses; of the machine's, where the device has none of its own."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30  # no way to tell without another library


def in_batches(
    items: Sequence[T], size: int, work: Callable[[Sequence[T]], Sequence[R]]
) -> Iterator[tuple[Sequence[T], Sequence[R]]]:
    """Yield each batch and what `work` made of it, with half as many at a time from where memory runs out.

    Raises:
        CopgenError: not even one item fits.
    """
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        try:
            results = work(batch)
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
            if len(batch) == 1:
                raise CopgenError(
                    "The device's memory does not hold one sample at a time.",
                    hint="Free some of it, choose --dtype bfloat16, or another --device.",
                ) from error
            size = len(batch) // 2
            log.warning("out of memory with %d samples at a time; going on with %d", len(batch), size)
        else:
            yield batch, results
            start += len(batch)
            continue
        clear_device_cache(garbage_collection=True)  # outside the handler, which keeps the failed call's tensors alive


def _bytes_of(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits // 8
