"""Straight from the autoencoder into a packed store: encoded batches as parts on disk, taken into the store in order.

LMDB has one writer. Each process leaves its batches as parts beside the store under construction, and the main process
takes in whichever come next, its own and the others'. A part is one line of JSON, `{"names": [...], "failed": {...}}`,
and the raw records of these names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from copgen_cli.latents.batches import EncodedBatch, PatchBatch, plan_batches, read_patch
from copgen_cli.latents.encoders import Encoders
from copgen_cli.latents.encoding import (
    Elsewhere,
    EncodeJob,
    encode_share,
    encoders_elsewhere,
    help_encoding,
    open_encoders,
    share_with_all,
)
from copgen_cli.latents.packing import SplitPlan, finish_store, note_failures, open_builder
from copgen_cli.latents.sharded.dealing import Dealt
from copgen_cli.latents.store_builder import StoreBuilder, as_stored
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches import PatchTree, fingerprint, read_tree
from copgen_cli.stages import Executor, Outcome, Place, StageRun, World, require_free_space

if TYPE_CHECKING:
    from copgen_cli.settings import EncodeSettings


@dataclass(frozen=True, slots=True)
class PatchPacking:
    """Patches and what encodes them; packs them, encoding them on the way."""

    tree: PatchTree
    encoders: Encoders
    world: World
    batch_size: int
    """Images per forward pass."""
    elsewhere: Elsewhere | None = None
    """Who encodes in the place of these processes."""

    def settings(self) -> dict[str, Any]:
        return {"modalities": list(self.tree.modalities), **self.encoders.settings()}

    def plans(self, dtype: str) -> Sequence[SplitPlan]:
        plans = [
            SplitPlan(
                split=split,
                names=tuple(self.tree.complete(split)),
                incomplete=self.tree.incomplete(split),
                modalities=self.tree.modalities,
                parts=self.encoders.parts,
                dtype=dtype,
                origin=fingerprint(self.tree.complete(split), self.tree.folder, "prepare"),
            )
            for split in Split
        ]
        return [plan for plan in plans if plan.names or plan.incomplete]

    def check(self, plan: SplitPlan, name: str) -> None:
        for modality in self.tree.modalities:
            read_patch(self.tree, plan.split, modality, name)

    def help(self) -> None:
        """The part of every process but the main one, whatever becomes of what is encoded."""
        help_encoding(self.tree, self.encoders, self.world)

    def build(self, run: StageRun, jobs: Sequence[Dealt]) -> Iterator[int]:
        """The part of the main process; the others call `help`."""
        splits = [_SplitInParts(run, job, self.batch_size) for job in jobs]
        require_free_space(run.output, sum(split.bytes_to_come for split in splits))
        batches = tuple(batch for split in splits for batch in split.to_encode())
        place = Place(run.building, run.place.temporary)
        sink = StoreParts(place, self.tree.modalities, jobs[0].plan.dtype if jobs else "float32")
        job = share_with_all(EncodeJob(batches, sink, run.journal, self.batch_size), self.world)
        for split in splits:
            yield split.records_done()
            yield from split.take_in()
        for _ in self._encode(job, run):
            for split in splits:
                yield from split.take_in()
        self.world.wait()
        for split in splits:
            yield from split.take_in()

    def _encode(self, job: EncodeJob, run: StageRun) -> Iterator[object]:
        if self.elsewhere is None:
            return encode_share(job, self.tree, self.encoders, self.world)
        if job.batches:
            self.elsewhere.executor.require(run.building)
        return self.elsewhere.encode(job.batches, self.tree, lambda batch: job.sink, job.batch_size)


def open_patches(
    source: Path,
    output: Path,
    stage: str,
    settings: EncodeSettings,
    *,
    overwrite: bool,
    executor: Executor | None = None,
) -> PatchPacking:
    """Find the patches below `source`, and open what encodes them, here or in the workers of an executor.

    Raises:
        MissingInputError: there are none.
        UsageError: there is no such device.
    """
    tree = read_tree(source, None, what="patches", written_by="prepare")
    encoders, world = open_encoders(tree, settings, output, stage, overwrite=overwrite, elsewhere=executor is not None)
    recipe = None if executor is None else Elsewhere(executor, encoders_elsewhere(tree, settings, encoders))
    return PatchPacking(tree, encoders, world, settings.batch_size, recipe)


@dataclass(frozen=True, slots=True)
class StoreParts:
    """A sink that leaves one part per batch."""

    place: Place
    modalities: tuple[Modality, ...]
    dtype: str

    def write(self, encoded: EncodedBatch) -> tuple[Outcome, ...]:
        names = list(encoded.moments)
        flat = [[encoded.moments[name][modality].ravel() for modality in self.modalities] for name in names]
        records = np.stack([np.concatenate(one) for one in flat]) if names else np.empty((0, 1), np.float32)
        unit = as_stored(names, records, self.dtype, {})
        head = json.dumps({"names": unit.names, "failed": {**encoded.failed, **unit.failed}}).encode()
        self.place.write(_part_path(encoded.batch), head + b"\n" + unit.values.tobytes())
        return ()


@dataclass(slots=True)
class _Filling:
    """A file of a split while it is filled, the one of all records or a shard. A unit is what it has of a batch."""

    plan: SplitPlan
    builder: StoreBuilder
    first: int
    """The batch that its first record is in."""
    end: int
    """One after that of its last."""

    @property
    def next(self) -> int:
        """The batch that it waits for; its end where it is complete."""
        return self.end if self.builder.finished else self.first + self.builder.units_done

    def wants(self, batch: int) -> bool:
        return self.next <= batch < self.end


class _SplitInParts:
    """The files of one split while its parts come in.

    Batches are those of the whole split, however it is dealt to files, since kernels round by the shape of a batch; a
    batch across an edge goes to two shards.
    """

    def __init__(self, run: StageRun, job: Dealt, batch_size: int) -> None:
        self._run = run
        plan = job.plan
        self._batches = plan_batches(plan.names, plan.split, len(plan.modalities), batch_size)
        self._each = len(self._batches[0].names)
        self._filling = [self._open(store) for store in job.stores]

    @property
    def bytes_to_come(self) -> int:
        return sum(one.plan.bytes - one.builder.size for one in self._filling)

    def to_encode(self) -> list[PatchBatch]:
        """The batches that some file wants and of which there is no part."""
        wanted = [batch for batch in self._batches if any(one.wants(batch.index) for one in self._filling)]
        return [batch for batch in wanted if not (self._run.building / _part_path(batch)).is_file()]

    def records_done(self) -> int:
        """Records of an earlier run."""
        return sum(
            len(self._names_of(one, self._batches[i])) for one in self._filling for i in range(one.first, one.next)
        )

    def take_in(self) -> Iterator[int]:
        """Append the parts that come next, as far as they are there, and put files in place that are complete; yields
        how many patches each dealt with."""
        while self._filling:
            complete = [one for one in self._filling if one.next == one.end]
            for one in complete:
                finish_store(self._run, one.plan, one.builder)
                self._filling.remove(one)
            if not self._filling:
                return
            batch = self._batches[min(one.next for one in self._filling)]
            part = self._run.building / _part_path(batch)
            if not part.is_file():
                return
            head, _, raw = part.read_bytes().partition(b"\n")
            for one in [one for one in self._filling if one.next == batch.index]:
                yield self._append(one, batch, json.loads(head), raw)
            part.unlink()

    def _open(self, plan: SplitPlan) -> _Filling:
        first, end = plan.start // self._each, -(-(plan.start + len(plan.names)) // self._each)
        return _Filling(plan, open_builder(self._run, plan, self._each), first, end)

    def _append(self, one: _Filling, batch: PatchBatch, known: Mapping[str, Any], raw: bytes) -> int:
        """Append what a file has of a batch; returns how many patches that is, failed ones included."""
        own = frozenset(self._names_of(one, batch))
        note_failures(self._run, one.plan, {name: why for name, why in known["failed"].items() if name in own})
        records = np.frombuffer(raw, np.uint8).reshape(len(known["names"]), one.plan.record_bytes)
        kept = [place for place, name in enumerate(known["names"]) if name in own]
        part = slice(kept[0], kept[-1] + 1) if kept else slice(0)
        one.builder.append(known["names"][part], records[part])
        return len(own)

    def _names_of(self, one: _Filling, batch: PatchBatch) -> Sequence[str]:
        before = one.plan.start - batch.index * self._each
        return batch.names[max(0, before) : before + len(one.plan.names)]


def _part_path(batch: PatchBatch) -> str:
    """Where the part of a batch lies, relative to the folder of what a run builds."""
    return f"{batch.split}/{batch.index:09}.part"
