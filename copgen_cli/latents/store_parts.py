"""Straight from the autoencoder into a packed store: encoded batches as parts on disk, taken into the store in order.

LMDB has one writer. Each process leaves its batches as parts beside the store under construction, and the main process
takes in whichever come next, its own and the others'. A part is one line of JSON, `{"names": [...], "failed": {...}}`,
and the raw records of these names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from copgen_cli.latents.batches import EncodedBatch, PatchBatch, plan_batches, read_patch
from copgen_cli.latents.encoders import Encoders
from copgen_cli.latents.encoding import EncodeJob, encode_share, help_encoding, open_encoders, share_with_all
from copgen_cli.latents.packing import SplitPlan, as_stored, finish_store, note_failures, open_builder
from copgen_cli.latents.store_builder import StoreBuilder
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches import PatchTree, fingerprint, read_tree
from copgen_cli.stages import Outcome, Place, StageRun, World, require_free_space

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

    def build(self, run: StageRun, plans: Sequence[SplitPlan]) -> Iterator[int]:
        """The part of the main process; the others call `help`."""
        splits = [_SplitInParts(run, plan, self.batch_size) for plan in plans]
        require_free_space(run.output, sum(split.plan.bytes - split.builder.size for split in splits))
        batches = tuple(batch for split in splits for batch in split.to_encode())
        sink = StoreParts(
            Place(run.building, run.place.temporary), self.tree.modalities, plans[0].dtype if plans else "float32"
        )
        job = share_with_all(EncodeJob(batches, sink, run.journal, self.batch_size), self.world)
        for split in splits:
            yield split.records_done()
            yield from split.take_in()
        for _ in encode_share(job, self.tree, self.encoders, self.world):
            for split in splits:
                yield from split.take_in()
        self.world.wait()
        for split in splits:
            yield from split.take_in()
            finish_store(run, split.plan, split.builder)


def open_patches(source: Path, output: Path, stage: str, settings: EncodeSettings, *, overwrite: bool) -> PatchPacking:
    """Find the patches below `source`, and open what encodes them.

    Raises:
        MissingInputError: there are none.
        UsageError: there is no such device.
    """
    tree = read_tree(source, None, what="patches", written_by="prepare")
    encoders, world = open_encoders(tree, settings, output, stage, overwrite=overwrite)
    return PatchPacking(tree, encoders, world, settings.batch_size)


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


class _SplitInParts:
    """The store of one split while its parts come in."""

    def __init__(self, run: StageRun, plan: SplitPlan, batch_size: int) -> None:
        self.plan = plan
        self._run = run
        self._batches = plan_batches(plan.names, plan.split, len(plan.modalities), batch_size)
        self.builder: StoreBuilder = open_builder(run, plan, len(self._batches[0].names))

    def to_encode(self) -> list[PatchBatch]:
        """The batches that neither the store nor a part holds."""
        left = self._batches[self.builder.units_done :] if not self.builder.finished else []
        return [batch for batch in left if not (self._run.building / _part_path(batch)).is_file()]

    def records_done(self) -> int:
        """Records of an earlier run."""
        done = self._batches if self.builder.finished else self._batches[: self.builder.units_done]
        return sum(len(batch.names) for batch in done)

    def take_in(self) -> Iterator[int]:
        """Append the parts that come next, as far as they are there; yields how many patches each dealt with."""
        while not self.builder.finished and self.builder.units_done < len(self._batches):
            batch = self._batches[self.builder.units_done]
            part = self._run.building / _part_path(batch)
            if not part.is_file():
                return
            head, _, raw = part.read_bytes().partition(b"\n")
            known = json.loads(head)
            note_failures(self._run, self.plan, known["failed"])
            records = np.frombuffer(raw, np.uint8).reshape(len(known["names"]), self.plan.record_bytes)
            self.builder.append(known["names"], records)
            part.unlink()
            yield len(batch.names)


def _part_path(batch: PatchBatch) -> str:
    """Where the part of a batch lies, relative to the folder of what a run builds."""
    return f"{batch.split}/{batch.index:09}.part"
