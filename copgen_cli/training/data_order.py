"""Which samples a step sees, and what is drawn for them: functions of numbers alone, so any step can be made again.

The order of an epoch depends on (seed, epoch). Everything drawn for a sample depends on (seed, step, slot), its slot
being its place in the global batch. Neither depends on the number of processes or loader workers, nor on what was
drawn before; a run therefore continues after a stop as if it had never stopped.

Epochs follow one another without a gap: the last batch of one may hold the first samples of the next.
"""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from copgen_cli.errors import CopgenError
from copgen_cli.modalities import Modality
from copgen_cli.model import PUBLISHED_LAW, TimestepLaw, draw_latents, draw_timesteps

SHARED_MEMORY = Path("/dev/shm")
"""Where processes that load data hand over what they have."""
READ_AHEAD = 4
"""Batches, of each of these processes."""
SECONDS_FOR_A_BATCH = 600
"""After which one of them is taken for lost."""


class Moments(Protocol):
    """Some samples' moments."""

    @property
    def moments(self) -> Tensor:
        """(B, M, 2 C, H, W) mean, then log-variance; (B, N) where shapes differ."""

    def by_modality(self) -> Sequence[Tensor]:
        """(B, 2 C, H, W) of each modality."""


class MomentsDataset(Protocol):
    """What training needs of a store: named samples of moments."""

    @property
    def names(self) -> Sequence[str]:
        """Of the samples, by index."""

    def select(self, modalities: Sequence[Modality]) -> MomentsDataset:
        """The same samples with these modalities, in this order."""

    def __getitems__(self, indices: list[int]) -> Moments: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of one step's global batch, and the sample that goes there."""

    step: int
    slot: int
    index: int


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """What one forward pass of training sees; with the weights, it determines the gradient."""

    latents: tuple[Tensor, ...]
    """(B, C, H, W) of each modality, clean and scaled."""
    noise: tuple[Tensor, ...]
    """Likewise, standard normal."""
    timesteps: Tensor
    """(M, B) steps in 0..T; at 0 there is no noise."""

    def __len__(self) -> int:
        return self.timesteps.shape[1]

    def to(self, device: torch.device) -> TrainBatch:
        latents, noise = (
            tuple(one.to(device, non_blocking=True) for one in tensors) for tensors in (self.latents, self.noise)
        )
        return TrainBatch(latents, noise, self.timesteps.to(device, non_blocking=True))

    def pin_memory(self) -> TrainBatch:
        """The loader calls this, by name."""
        latents, noise = (tuple(one.pin_memory() for one in tensors) for tensors in (self.latents, self.noise))
        return TrainBatch(latents, noise, self.timesteps.pin_memory())


def derive_seed(*parts: int | str) -> int:
    """A seed for one purpose out of integers and words; unrelated for parts that differ in anything."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """(size,) the samples in the order in which an epoch visits them."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch)))


def sample_at(seed: int, position: int, size: int) -> int:
    """The sample at a position of the endless sequence of epochs."""
    epoch, place = divmod(position, size)
    return int(epoch_order(seed, epoch, size)[place])


def draw_for(
    seed: int, step: int, slot: int, shapes: Sequence[tuple[int, ...]], law: TimestepLaw
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """What is drawn for one slot of one step.

    Args:
        seed, step, slot: all that it depends on.
        shapes: (C, H, W) of each modality.
        law: of timesteps.

    Returns:
        Standard normal numbers for the draw of the latents and for their noise, (C, H, W) of each modality, and
        (M,) timesteps.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "step", step, slot))
    sizes = [math.prod(shape) for shape in shapes]
    draw, noise = (
        tuple(
            piece.view(shape)
            for piece, shape in zip(torch.randn(sum(sizes), generator=generator).split(sizes), shapes, strict=True)
        )
        for _ in range(2)
    )
    timesteps = draw_timesteps(1, len(shapes), law=law, generator=generator)[:, 0]
    return draw, noise, timesteps


@dataclass(frozen=True, slots=True)
class DrawnSamples(Dataset[TrainBatch]):
    """Turns slots into batches: moments from the store, latents from moments, noise and timesteps; in any process."""

    moments: MomentsDataset
    """Of the model's modalities, in its order."""
    scales: tuple[float, ...]
    """What drawn latents are multiplied by, of each modality."""
    seed: int
    law: TimestepLaw = PUBLISHED_LAW

    def __getitems__(self, slots: Sequence[Slot]) -> TrainBatch:
        moments = [one.float() for one in self.moments.__getitems__([slot.index for slot in slots]).by_modality()]
        shapes = [(one.shape[1] // 2, *one.shape[2:]) for one in moments]
        drawn = [draw_for(self.seed, slot.step, slot.slot, shapes, self.law) for slot in slots]
        draws, noise = ([torch.stack(one) for one in zip(*parts, strict=True)] for parts in list(zip(*drawn))[:2])  # noqa: B905
        latents = [draw_latents(m, d, scale) for m, d, scale in zip(moments, draws, self.scales, strict=True)]
        return TrainBatch(tuple(latents), tuple(noise), torch.stack([t for _, _, t in drawn], dim=1))


@dataclass(frozen=True, slots=True)
class Plan:
    """Who takes what: the slots of every step, cut into the micro-batches of one process."""

    seed: int
    size: int
    """Samples in the data."""
    batch_size: int
    """Samples per step, over all processes, which divide it."""
    micro_batch: int
    """Samples at a time; the last micro-batch of a step may be smaller."""
    rank: int = 0
    processes: int = 1

    @property
    def share(self) -> int:
        """Samples per step of one process."""
        return self.batch_size // self.processes

    @property
    def micro_batches(self) -> int:
        """Micro-batches per step of one process."""
        return -(-self.share // self.micro_batch)

    def indices(self, position: int) -> list[int]:
        """The global batch that begins at a position of the sequence, in order of slots."""
        return [sample_at(self.seed, position + slot, self.size) for slot in range(self.batch_size)]

    def slots(self, first_step: int, last_step: int, position: int) -> Iterator[list[Slot]]:
        """This process's micro-batches of steps first_step to last_step, the first of which begins at `position`."""
        own = range(self.rank * self.share, (self.rank + 1) * self.share)
        for step in range(first_step, last_step + 1):
            start = position + (step - first_step) * self.batch_size
            slots = [Slot(step, slot, sample_at(self.seed, start + slot, self.size)) for slot in own]
            for begin in range(0, self.share, self.micro_batch):
                yield slots[begin : begin + self.micro_batch]


def load_batches(
    samples: DrawnSamples, slots: Iterator[list[Slot]], *, workers: int, pin_memory: bool
) -> Iterator[TrainBatch]:
    """The micro-batches of these slots, in their order, read ahead by `workers` processes.

    Raises:
        CopgenError: the processes can not hand over so much at a time.
    """
    if workers:
        first = next(slots, None)
        slots = chain(() if first is None else (first,), slots)
        _require_shared_memory(samples, 0 if first is None else len(first), workers)
    loader = DataLoader(
        samples,
        batch_sampler=_Once(slots),
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # __getitems__ makes a batch in one piece
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_the_parent,
        prefetch_factor=READ_AHEAD if workers else None,
        timeout=SECONDS_FOR_A_BATCH if workers else 0,
    )
    return iter(loader)


def _require_shared_memory(samples: DrawnSamples, micro_batch: int, workers: int) -> None:
    """Raise where processes that read ahead would fill /dev/shm: PyTorch then kills them, or waits for ever."""
    if not SHARED_MEMORY.is_dir():
        return
    moments = samples.moments.__getitems__([0]).moments
    needed = micro_batch * moments.nelement() * 4 * (READ_AHEAD + 1) * workers  # latents and noise: as many numbers
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise CopgenError(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, and {workers} processes that load data need "
            f"{needed / 2**20:.0f} MiB there.",
            hint="Give the container more, such as docker run --shm-size 8g; or load in one process: --workers 0",
        )


class _Once:
    """A batch sampler that hands out what it was given."""

    def __init__(self, slots: Iterator[list[Slot]]) -> None:
        self.slots = slots

    def __iter__(self) -> Iterator[list[Slot]]:
        return self.slots


def _as_it_is(batch: TrainBatch) -> TrainBatch:
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """A worker goes on until its parent is done with it, whatever the terminal sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
