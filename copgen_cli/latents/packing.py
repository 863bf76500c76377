"""The stage from moments to packed stores: which records, in which order, and what became of those left out."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from copgen_cli.errors import BrokenInputError, CopgenError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.store import LatentStore
from copgen_cli.latents.store_builder import StoreBuilder, store_bytes
from copgen_cli.latents.store_format import DATA_FILE, LOCK_FILE, Part, StoreMetadata, settings_of_parts
from copgen_cli.layout import split_store
from copgen_cli.modalities import Modality, Split, spec_as_dict
from copgen_cli.stages import (
    Outcome,
    StageRun,
    Status,
    Summary,
    Threads,
    WorkItem,
    WrittenFile,
    local_executor,
    require_free_space,
    units_file,
)

PACK = "pack"
"""Also of `copgen encode --to lmdb`: one record for one store, whichever command made it."""
RECORDS_PER_UNIT = 256
"""In one transaction: 32 MB of float32 for four modalities."""
READERS = 2


class Packing(Protocol):
    """What is packed, and how the records come about."""

    def settings(self) -> dict[str, Any]:
        """JSON values that what is packed depends on."""
        ...

    def plans(self, dtype: str) -> Sequence[SplitPlan]:
        """The stores that are wanted."""
        ...

    def check(self, plan: SplitPlan, name: str) -> None:
        """Raises BrokenInputError where the record can not be made."""
        ...

    def build(self, run: StageRun, plans: Sequence[SplitPlan]) -> Iterator[int]:
        """Build stores and put them in place; yields numbers of records as they are dealt with."""
        ...


class Draw(Protocol):
    """Shows the progress of steps that each deal with some items."""

    def __call__(self, counts: Iterable[int], *, total: int, label: str, done: int, unit: str) -> Iterable[object]: ...


@dataclass(frozen=True, slots=True)
class Packed:
    """What a run did."""

    summary: Summary
    records: Mapping[Split, int]
    """In the store of each split."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do."""

    records: int
    done_before: int
    incomplete: int
    bytes: int


class MomentSource(Protocol):
    """Moments as some earlier step left them: npy files, or a database of the published workflow."""

    modalities: tuple[Modality, ...]
    shapes: tuple[tuple[int, int, int], ...]
    """(2 C, H, W) of each modality."""
    readers: int
    """How many records are read at a time."""

    def names(self, split: Split) -> list[str]:
        """Complete records, sorted by the bytes of their names."""
        ...

    def incomplete(self, split: Split) -> dict[str, str]:
        """Others, with the reason."""
        ...

    def fingerprint(self, split: Split) -> str: ...

    def read_into(self, out: Sequence[np.ndarray], split: Split, name: str) -> None:
        """Fill one (2 C, H, W) float32 array a modality with one record; raises BrokenInputError."""
        ...


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The store of one split, before it is built."""

    split: Split
    names: tuple[str, ...]
    incomplete: Mapping[str, str]
    modalities: tuple[Modality, ...]
    parts: tuple[Part, ...]
    """Of each modality."""
    dtype: str
    origin: str
    """Fingerprint of what the records are made from."""

    @property
    def alike(self) -> Part | None:
        """What all modalities have in common; None where they differ."""
        first = self.parts[0]
        pictures = all(modality.spec.is_picture for modality in self.modalities)
        return first if pictures and all(part == first for part in self.parts) else None

    @property
    def source(self) -> str:
        """SHA-256 of all that the store depends on."""
        values: list[Any] = [self.split, self.origin, self.modalities]
        if self.alike is not None:
            autoencoder = self.alike.autoencoder
            values += [self.alike.shape, self.dtype, autoencoder.fingerprint, autoencoder.id]
        else:
            values += [[asdict(part) for part in self.parts], self.dtype]
            values.append([spec_as_dict(modality.spec) for modality in self.modalities])
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    @property
    def record_bytes(self) -> int:
        return self.describe(0).record_bytes

    @property
    def bytes(self) -> int:
        """About what it will take on disk."""
        return store_bytes(len(self.names), self.record_bytes)

    @property
    def unit(self) -> WorkItem[SplitPlan]:
        return WorkItem(self.split, self, fingerprint=self.source)

    def describe(self, count: int) -> StoreMetadata:
        alike = self.alike
        if alike is None:
            return StoreMetadata(self.modalities, None, self.dtype, count, None, self.source, self.parts)
        shape = (len(self.modalities), *alike.shape)
        return StoreMetadata(self.modalities, shape, self.dtype, count, alike.autoencoder, self.source)

    def key(self, name: str) -> str:
        """How the manifest calls a record that was left out."""
        return f"{self.split}/{name}"


@dataclass(frozen=True, slots=True)
class MomentPacking:
    """Packs moments that are there already."""

    source: MomentSource
    autoencoders: Mapping[Modality, AutoencoderFacts]

    @property
    def parts(self) -> tuple[Part, ...]:
        source = self.source
        return tuple(
            Part(shape, self.autoencoders[modality])
            for modality, shape in zip(source.modalities, source.shapes, strict=True)
        )

    def settings(self) -> dict[str, Any]:
        return {"modalities": list(self.source.modalities), **settings_of_parts(self.source.modalities, self.parts)}

    def plans(self, dtype: str) -> Sequence[SplitPlan]:
        source = self.source
        plans = [
            SplitPlan(
                split=split,
                names=tuple(source.names(split)),
                incomplete=source.incomplete(split),
                modalities=source.modalities,
                parts=self.parts,
                dtype=dtype,
                origin=source.fingerprint(split),
            )
            for split in Split
        ]
        return [plan for plan in plans if plan.names or plan.incomplete]

    def check(self, plan: SplitPlan, name: str) -> None:
        for reason in read_unit([name], plan, self.source).failed.values():
            raise BrokenInputError(reason, hint="Encode the patch again.")

    def build(self, run: StageRun, plans: Sequence[SplitPlan]) -> Iterator[int]:
        for plan in plans:
            yield from pack_split(run, plan, self.source)


def pack(
    packing: Packing,
    output: Path,
    *,
    dtype: str,
    input_type: str,
    overwrite: bool,
    dry_run: bool,
    draw: Draw,
) -> Packed | Forecast:
    """Pack every split; the main process of a run calls it. A dry run only says what would be done."""
    plans = packing.plans(dtype)
    with StageRun(
        PACK,
        output,
        settings={"dtype": dtype, **packing.settings()},
        inputs={"input_type": input_type},
        overwrite=overwrite,
        prune=True,
        unrecorded=foreign_databases,
        otherwise="`copgen pack --input-type lmdb` reads databases of the published workflow.",
        dry_run=dry_run,
    ) as run:
        if overwrite and not dry_run:
            shutil.rmtree(run.building)
        stores = [plan for plan in plans if plan.names]
        unrecorded = {unit.key for unit in run.pending([plan.unit for plan in stores])}
        todo = [
            plan
            for plan in stores
            if (plan.split in unrecorded and (overwrite or not is_in_place(run, plan)))
            or can_be_mended(run, plan, packing)
        ]
        total, before = (sum(len(plan.names) for plan in some) for some in (plans, [p for p in plans if p not in todo]))
        if dry_run:
            left_out = sum(len(plan.incomplete) for plan in plans)
            return Forecast(total - before, before, left_out, sum(plan.bytes for plan in todo))
        for _ in draw(packing.build(run, todo), total=total, done=before, label="Packing", unit="records"):
            pass
        for plan in plans:
            note_failures(run, plan, {name: f"incomplete: {reason}" for name, reason in plan.incomplete.items()})
        counts = {plan.split: record_store(run, plan, packing) for plan in stores}
        return Packed(run.finish(), counts)


def foreign_databases(output: Path) -> Iterator[Path]:
    """What lies in the places of stores and is none that can be read, or of which no finished run has left a record."""
    recorded = units_file(output, PACK).is_file()
    for folder in (split_store(output, split) for split in Split):
        if (folder / DATA_FILE).is_file() and not (recorded and source_of(folder)):
            yield from (file for file in (folder / DATA_FILE, folder / LOCK_FILE) if file.is_file())


def can_be_mended(run: StageRun, plan: SplitPlan, packing: Packing) -> bool:
    """Whether a record that was broken when the store was built is sound by now."""
    for name in plan.names:
        known = run.recorded(plan.key(name))
        if known is not None and known.status is Status.FAILED:
            try:
                packing.check(plan, name)
            except BrokenInputError:
                continue
            return True
    return False


def is_in_place(run: StageRun, plan: SplitPlan) -> bool:
    """Whether the very store that is wanted has been put in its place, though a kill kept it from being recorded."""
    return source_of(split_store(run.output, plan.split)) == plan.source


def source_of(store: Path) -> str | None:
    """What the metadata of a store say of its source; None where there is no store that can be read."""
    try:
        return LatentStore(store).metadata.source
    except CopgenError:
        return None


def pack_split(run: StageRun, plan: SplitPlan, source: MomentSource) -> Iterator[int]:
    """Build the store of one split and put it in its place; yields numbers of records as they are dealt with.

    Raises:
        DiskFullError: there is less room than it will take.
    """
    builder = open_builder(run, plan, RECORDS_PER_UNIT)
    if not builder.finished:
        require_free_space(run.output, plan.bytes - builder.size)
        units = [plan.names[i : i + RECORDS_PER_UNIT] for i in range(0, len(plan.names), RECORDS_PER_UNIT)]
        yield sum(map(len, units[: builder.units_done]))
        read = functools.partial(read_unit, plan=plan, source=source)
        for unit in Threads(READERS).map(read, units[builder.units_done :], ordered=True):
            note_failures(run, plan, unit.failed)
            builder.append(unit.names, unit.values)
            yield len(unit.names) + len(unit.failed)
    finish_store(run, plan, builder)


def open_builder(run: StageRun, plan: SplitPlan, unit_records: int) -> StoreBuilder:
    """The store under construction of a split, as far as an interrupted run left it."""
    return StoreBuilder(
        run.building / plan.split,
        source=plan.source,
        unit_records=unit_records,
        records=len(plan.names),
        record_bytes=plan.record_bytes,
    )


def note_failures(run: StageRun, plan: SplitPlan, failed: Mapping[str, str]) -> None:
    for name, reason in failed.items():
        run.record(Outcome(plan.key(name), Status.FAILED, reason=reason))


def finish_store(run: StageRun, plan: SplitPlan, builder: StoreBuilder) -> None:
    """Complete a store and put it in its place."""
    if not builder.finished:
        builder.finish(plan.describe)
    target = split_store(run.output, plan.split)
    run.claims.take([target / DATA_FILE])
    builder.move_to(target)


def record_store(run: StageRun, plan: SplitPlan, packing: Packing) -> int:
    """Note a store that is in its place, and the patches that it lacks; returns how many records it holds."""
    names = LatentStore(split_store(run.output, plan.split)).names
    for name in sorted(set(plan.names).difference(names)):
        note_failures(run, plan, {name: _why_broken(run, plan, packing, name)})
    known = run.recorded(plan.split)
    if known is None or known.status is not Status.DONE or known.fingerprint != plan.source:
        size = (split_store(run.output, plan.split) / DATA_FILE).stat().st_size
        file = WrittenFile(f"{plan.split}/{DATA_FILE}", size, sha256="")  # hashing it would take as long as packing it
        run.record(Outcome(plan.split, Status.DONE, (file,), facts={"records": len(names)}, fingerprint=plan.source))
    return len(names)


def _why_broken(run: StageRun, plan: SplitPlan, packing: Packing, name: str) -> str:
    """What is wrong with a record now, or else was when the store was built."""
    try:
        packing.check(plan, name)
    except BrokenInputError as error:
        return str(error)
    known = run.recorded(plan.key(name))
    return (known.reason if known is not None else None) or "it could not be read"


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """Records as a store takes them in, in one transaction."""

    names: Sequence[str]
    values: np.ndarray
    """(N, numbers of a record) in the type of the store."""
    failed: Mapping[str, str]
    """Record that is left out to reason."""


def read_unit(names: Sequence[str], plan: SplitPlan, source: MomentSource) -> StoredUnit:
    """Read some records, each once into its place."""
    values = np.empty((len(names), sum(part.numbers for part in plan.parts)), np.float32)
    ends = list(accumulate(part.numbers for part in plan.parts))
    failed = {}

    def read(number: int) -> None:
        out = [values[number, e - p.numbers : e].reshape(p.shape) for e, p in zip(ends, plan.parts, strict=True)]
        try:
            source.read_into(out, plan.split, names[number])
        except BrokenInputError as error:
            failed[names[number]] = str(error)

    for _ in local_executor(source.readers, processes=False).map(read, range(len(names))):
        pass
    return as_stored(names, values, plan.dtype, failed)


def as_stored(names: Sequence[str], values: np.ndarray, dtype: str, failed: Mapping[str, str]) -> StoredUnit:
    """Leave out records that failed, are not finite, or are beyond what float16 can hold; convert the others.

    Args:
        values: (N, numbers of a record) float32; of records that failed, anything.
    """
    limit = np.finfo(dtype).max
    peaks = np.maximum(values.max(axis=1), -values.min(axis=1))  # not a number where one value is none
    unfit = {
        name: "it holds values that are not finite" if not peak < np.inf else f"it holds values beyond {dtype}"
        for name, peak in zip(names, peaks, strict=True)
        if name not in failed and not peak <= limit
    }
    failed = {**failed, **unfit}
    kept = [place for place, name in enumerate(names) if name not in failed]
    if failed:
        values = values[kept]
    if dtype == "float16":
        values = torch.from_numpy(values).half().numpy()  # fifty times as fast as NumPy's conversion
    return StoredUnit([names[place] for place in kept], values, failed)
