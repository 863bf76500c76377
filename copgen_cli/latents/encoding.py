"""The stage from patches to moments: batches shared among processes.

One process or several, each takes every n-th batch. What a batch becomes is up to a sink: files of their own here,
parts of a packed store in `store_parts.py`. The main process plans, holds the lock and writes the manifest.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from copgen_cli import console
from copgen_cli.latents.autoencoder_record import id_of
from copgen_cli.latents.batches import EncodedBatch, PatchBatch, encode_batches, plan_batches
from copgen_cli.latents.encoders import Encoders, autoencoder_sources
from copgen_cli.layout import autoencoders_beside, patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.model import choose_device, choose_dtype, wants_gpu
from copgen_cli.patches import PatchTree
from copgen_cli.stages import (
    Executor,
    Journal,
    OncePerProcess,
    Outcome,
    Place,
    StageRun,
    Status,
    WorkItem,
    World,
    join_world,
    noticing_a_lost_process,
    refuse_launch,
    settings_of,
)

if TYPE_CHECKING:
    from copgen_cli.settings import EncodeSettings


ENCODE = "encode"


def open_encoders(
    tree: PatchTree, settings: EncodeSettings, output: Path, stage: str, *, overwrite: bool, elsewhere: bool = False
) -> tuple[Encoders, World]:
    """The autoencoders of a tree, and the processes that share the work.

    Args:
        tree: the patches.
        settings: name the autoencoder of pictures, and where those of others may be.
        output, stage: where the facts of the autoencoders may be known from an earlier run.
        overwrite: nothing earlier counts.
        elsewhere: a cluster encodes; see `encoders_elsewhere`.

    Raises:
        UsageError: there is no such device, or this process is one of several that were launched for a cluster.
        CopgenError: there is no autoencoder for a raster.
    """
    if elsewhere:  # what is known of the autoencoders is told by this machine, whatever it has
        refuse_launch("--scheduler")
        world = World(torch.device("cpu"))
        dtype = choose_dtype(settings.dtype, torch.device("cuda" if wants_gpu(settings.device) else "cpu"))
    else:
        world = join_world(choose_device(settings.device), settings.rendezvous_timeout, console.warn)
        dtype = choose_dtype(settings.dtype, world.device)
    known = None if overwrite else settings_of(output, stage)
    sources = _sources(tree, settings)
    return Encoders(tree.modalities, sources, device=world.device, dtype=dtype, known=known), world


def _sources(tree: PatchTree, settings: EncodeSettings) -> dict[Modality, str]:
    folders = [settings.vae_dir] if settings.vae_dir is not None else [autoencoders_beside(tree.folder)]
    return autoencoder_sources(tree.modalities, settings.vae, folders)


def encoders_elsewhere(tree: PatchTree, settings: EncodeSettings, encoders: Encoders) -> OncePerProcess[Encoders]:
    """The same autoencoders, opened once by each worker on its device, whose weights must be the very same.

    Args:
        tree: the patches.
        settings: say which, and on which device.
        encoders: those that the driver has looked at.
    """
    sources = {modality: id_of(source) for modality, source in _sources(tree, settings).items()}
    return OncePerProcess(
        _open_in_worker, tree.modalities, sources, settings.device, encoders.arithmetic, encoders.settings()
    )


def _open_in_worker(
    modalities: Sequence[Modality],
    sources: Mapping[Modality, str],
    device: str,
    arithmetic: str,
    known: Mapping[str, Any],
) -> Encoders:
    chosen = choose_device(device)
    return Encoders(modalities, sources, device=chosen, dtype=choose_dtype(arithmetic, chosen), known=known)


class Sink(Protocol):
    """Where encoded batches go; picklable, since every process of a run has a copy."""

    def write(self, encoded: EncodedBatch) -> tuple[Outcome, ...]:
        """Write a batch; returns what became of its patches, as far as that is known now."""
        ...


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """What all processes of a run must know."""

    batches: tuple[PatchBatch, ...]
    sink: Sink
    journal: Journal
    batch_size: int
    """Images per forward pass."""

    def share(self, world: World) -> tuple[PatchBatch, ...]:
        """The batches of one process."""
        return self.batches[world.rank :: world.size]


@dataclass(frozen=True, slots=True)
class NpyFiles:
    """A file of its own for each patch and modality."""

    place: Place
    wanted: Mapping[str, str]
    """Key to fingerprint of the patches to write; the others of their batches are in place."""

    def write(self, encoded: EncodedBatch) -> tuple[Outcome, ...]:
        split = encoded.batch.split
        outcomes = []
        for name in encoded.batch.names:
            key = patch_key(split, name)
            if key not in self.wanted:
                continue
            if name in encoded.failed:
                failed = Outcome(key, Status.FAILED, reason=encoded.failed[name], fingerprint=self.wanted[key])
                outcomes.append(failed)
                continue
            files = tuple(
                self.place.write(patch_file(Path(), split, modality, name, ".npy").as_posix(), npy_bytes(values))
                for modality, values in encoded.moments[name].items()
            )
            outcomes.append(Outcome(key, Status.DONE, files, fingerprint=self.wanted[key]))
        return tuple(outcomes)


def patch_key(split: Split, name: str) -> str:
    """How manifests call a patch."""
    return f"{split}/{name}"


def work_items_of(tree: PatchTree) -> list[WorkItem[None]]:
    """One unit per patch; its fingerprint tells a PNG that was cut anew."""
    units = []
    for split in tree.names:
        for name in tree.all(split):
            sizes = (tree.size(split, modality, name) for modality in tree.has(split, name))
            units.append(WorkItem(patch_key(split, name), None, fingerprint=" ".join(map(str, sizes))))
    return units


def batches_of(tree: PatchTree, batch_size: int) -> list[PatchBatch]:
    """All patches of a tree in batches, complete or not."""
    return [
        batch
        for split in tree.names
        for batch in plan_batches(tree.all(split), split, len(tree.modalities), batch_size)
    ]


def encode_share(
    job: EncodeJob, tree: PatchTree, encoders: Encoders, world: World
) -> Iterator[tuple[PatchBatch, tuple[Outcome, ...]]]:
    """Do this process's share of a job: a thread writes one batch while the next is encoded."""
    batches = job.share(world)
    if not batches:
        return
    writing: tuple[PatchBatch, Future[tuple[Outcome, ...]]] | None = None
    with ThreadPoolExecutor(1) as writer:
        for encoded in encode_batches(batches, tree, encoders, batch_size=job.batch_size):
            if writing is not None:
                yield writing[0], writing[1].result()
            writing = encoded.batch, writer.submit(job.sink.write, encoded)
        if writing is not None:
            yield writing[0], writing[1].result()


def encode_to_files(
    run: StageRun, tree: PatchTree, encoders: Encoders, world: World, *, todo: Sequence[WorkItem[None]], batch_size: int
) -> Iterator[int]:
    """Encode what is pending into npy files: the part of the main process. Yields numbers of patches."""
    wanted = {unit.key: unit.fingerprint for unit in todo}
    batches = pending_batches(batches_of(tree, batch_size), wanted)
    job = share_with_all(EncodeJob(batches, NpyFiles(run.place, wanted), run.journal, batch_size), world)
    for batch, outcomes in encode_share(job, tree, encoders, world):
        for outcome in outcomes:
            run.record(outcome)
        yield len(batch.names)
    world.wait()
    run.take_in()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The workers of an executor, each with the autoencoders."""

    executor: Executor
    encoders: OncePerProcess[Encoders]

    def encode(
        self, batches: Sequence[PatchBatch], tree: PatchTree, sink_of: Callable[[PatchBatch], Sink], batch_size: int
    ) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Encode batches in the workers; yields numbers of patches, and what became of them, as they get done.

        Args:
            batches: what is encoded.
            tree: the patches; of each batch, its own travel.
            sink_of: where the moments of a batch go, small enough to travel with it.
            batch_size: images per forward pass.
        """
        travelling = (_Travelling(batch, tree.only(batch.split, batch.names), sink_of(batch)) for batch in batches)
        return self.executor.map(
            functools.partial(_encode_travelling, encoders=self.encoders, size=batch_size), travelling
        )


@dataclass(frozen=True, slots=True)
class _Travelling:
    """A batch with all that its worker must know of it."""

    batch: PatchBatch
    tree: PatchTree
    sink: Sink


def _encode_travelling(
    item: _Travelling, encoders: OncePerProcess[Encoders], size: int
) -> tuple[int, tuple[Outcome, ...]]:
    """Runs in a worker: encode and write a batch."""
    (encoded,) = encode_batches([item.batch], item.tree, encoders.get(), batch_size=size)
    return len(item.batch.names), item.sink.write(encoded)


def encode_to_files_elsewhere(
    run: StageRun, tree: PatchTree, elsewhere: Elsewhere, *, todo: Sequence[WorkItem[None]], batch_size: int
) -> Iterator[int]:
    """`encode_to_files` in the workers of an executor."""
    wanted = {unit.key: unit.fingerprint for unit in todo}
    batches = pending_batches(batches_of(tree, batch_size), wanted)
    if batches:
        elsewhere.executor.require(run.shared)

    def sink_of(batch: PatchBatch) -> Sink:
        keys = [patch_key(batch.split, name) for name in batch.names]
        return NpyFiles(run.place_elsewhere, {key: wanted[key] for key in keys if key in wanted})

    for patches, outcomes in elsewhere.encode(batches, tree, sink_of, batch_size):
        for outcome in outcomes:
            run.record(outcome)
        yield patches


def help_encoding(tree: PatchTree, encoders: Encoders, world: World) -> None:
    """The part of every other process, whatever the sink."""
    job = share_with_all(None, world)
    for _, outcomes in encode_share(job, tree, encoders, world):
        for outcome in outcomes:
            job.journal.append(outcome)
    job.journal.flush()
    world.wait()


def share_with_all(job: EncodeJob | None, world: World) -> EncodeJob:
    """Give the job of the main process to the others."""
    if world.size > 1:
        from torch.distributed import broadcast_object_list

        carrier: list[EncodeJob | None] = [job]
        with noticing_a_lost_process():
            broadcast_object_list(carrier, src=0)
        job = carrier[0]
    assert job is not None
    return job


def npy_bytes(values: np.ndarray) -> bytes:
    """The npy file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def pending_batches(batches: Sequence[PatchBatch], wanted: Collection[str]) -> tuple[PatchBatch, ...]:
    """The batches that hold a wanted patch; each is encoded whole."""
    return tuple(batch for batch in batches if any(patch_key(batch.split, name) in wanted for name in batch.names))
