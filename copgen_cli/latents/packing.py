"""The stage from moments to packed stores: which records, in which order, and what became of those left out."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from copgen_cli.errors import BrokenInputError, CopgenError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.sharded.dealing import Dealt, Sharding
from copgen_cli.latents.sharded.filling import ShardTask, fill_shard
from copgen_cli.latents.sharded.index import INDEX_FILE, NAMES_FILE, IndexedFile, shard_folder
from copgen_cli.latents.sharded.store import ShardedStore
from copgen_cli.latents.sharded.summing_up import sum_up
from copgen_cli.latents.store import LatentStore
from copgen_cli.latents.store_builder import MomentReader, StoreBuilder, move_store, read_unit, store_bytes
from copgen_cli.latents.store_format import DATA_FILE, LOCK_FILE, Part, StoreMetadata, settings_of_parts
from copgen_cli.layout import split_store
from copgen_cli.modalities import Modality, Split, spec_as_dict
from copgen_cli.stages import (
    Executor,
    Outcome,
    StageRun,
    Status,
    Summary,
    Threads,
    WorkItem,
    WrittenFile,
    hash_file,
    local_executor,
    require_free_space,
    units_file,
)
from copgen_cli.storage import is_there

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

    def build(self, run: StageRun, jobs: Sequence[Dealt]) -> Iterator[int]:
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

    def reader(self) -> MomentReader | None:
        """What reads the records in other processes, small and picklable; None where only this one can."""
        ...


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The store of one split, or one of its shards, before it is built."""

    split: Split
    names: tuple[str, ...]
    incomplete: Mapping[str, str]
    modalities: tuple[Modality, ...]
    parts: tuple[Part, ...]
    """Of each modality."""
    dtype: str
    origin: str
    """Fingerprint of what the records are made from."""
    shard: int | None = None
    """Its place among the shards of the split; None where the split is one file."""
    start: int = 0
    """Place of its first record among those of the split."""

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
        key = self.split if self.shard is None else f"{self.split}/shards/{self.shard:05}"  # no patch is called so
        return WorkItem(key, self, fingerprint=self.source)

    @property
    def folder(self) -> str:
        """Of its file, below the output."""
        return self.split if self.shard is None else f"{self.split}/{shard_folder(self.shard)}"

    def building(self, run: StageRun) -> Path:
        """The folder in which it is built."""
        return run.building / (self.split if self.shard is None else f"{self.split}-{self.shard:05}")

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
    executor: Executor = field(default_factory=lambda: local_executor(1, processes=True))
    """Who fills shards."""

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
        unit = read_unit([name], plan.split, plan.parts, plan.dtype, self.source)
        for reason in unit.failed.values():
            raise BrokenInputError(reason, hint="Encode the patch again.")

    def build(self, run: StageRun, jobs: Sequence[Dealt]) -> Iterator[int]:
        for job in jobs:
            if not job.sharded:
                for plan in job.stores:
                    yield from pack_split(run, plan, self.source)
        shards = [plan for job in jobs if job.sharded for plan in job.stores]
        yield from pack_shards(run, shards, self.source, self.executor)


def pack(
    packing: Packing,
    output: Path,
    *,
    dtype: str,
    input_type: str,
    overwrite: bool,
    dry_run: bool,
    draw: Draw,
    sharding: Sharding = Sharding(),  # noqa: B008 (frozen)
) -> Packed | Forecast:
    """Pack every split; the main process of a run calls it. A dry run only says what would be done.

    Raises:
        UsageError: there are fewer records than shards.
    """
    plans = packing.plans(dtype)
    splits = sharding.deal(plans)
    with StageRun(
        PACK,
        output,
        settings={"dtype": dtype, **sharding.settings(), **packing.settings()},
        inputs={"input_type": input_type},
        overwrite=overwrite,
        prune=True,
        unrecorded=foreign_databases,
        otherwise="`copgen pack --input-type lmdb` reads databases of the published workflow.",
        dry_run=dry_run,
    ) as run:
        if overwrite and not dry_run:
            shutil.rmtree(run.building)
        jobs = find_work(run, splits, packing, overwrite=overwrite)
        total, todo = (sum(len(plan.names) for job in some for plan in job.stores) for some in (splits, jobs))
        if dry_run:
            left_out = sum(len(plan.incomplete) for plan in plans)
            return Forecast(todo, total - todo, left_out, sum(plan.bytes for job in jobs for plan in job.stores))
        withdraw_indices(run, splits, jobs)
        for _ in draw(packing.build(run, jobs), total=total, done=total - todo, label="Packing", unit="records"):
            pass
        for plan in plans:
            note_failures(run, plan, {name: f"incomplete: {reason}" for name, reason in plan.incomplete.items()})
        counts = {split.plan.split: record_split(run, split, packing) for split in splits}
        return Packed(run.finish(), counts)


def find_work(run: StageRun, splits: Sequence[Dealt], packing: Packing, *, overwrite: bool) -> list[Dealt]:
    """The splits with files that are to be made, with these alone."""
    stores = [plan for split in splits for plan in split.stores]
    mended = {plan.unit.key for plan in stores if can_be_mended(run, plan, packing)}
    units = run.pending([plan.unit for plan in stores], is_done=lambda unit, _: unit.key not in mended)
    todo = {unit.key for unit in units if overwrite or unit.key in mended or not is_in_place(run, unit.item)}
    wanted = [replace(split, stores=tuple(p for p in split.stores if p.unit.key in todo)) for split in splits]
    return [split for split in wanted if split.stores]


def withdraw_indices(run: StageRun, splits: Sequence[Dealt], jobs: Sequence[Dealt]) -> None:
    """Remove the indices of shards that are about to change; each comes last again."""
    for job in jobs:
        if job.sharded:
            (split_store(run.output, job.plan.split) / INDEX_FILE).unlink(missing_ok=True)
    run.pending([split.plan.unit for split in splits if split.sharded])


def foreign_databases(output: Path) -> Iterator[Path]:
    """What lies in the places of stores and is none that can be read, or of which no finished run has left a record."""
    recorded = units_file(output, PACK).is_file()
    for split in (split_store(output, split) for split in Split):
        yield from (file for file in (split / INDEX_FILE, split / NAMES_FILE) if is_there(file))
        for folder in (split, *split.glob(shard_folder(0).replace("00000", "*"))):
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
    return source_of(run.output / plan.folder) == plan.source


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
        read = functools.partial(read_unit, split=plan.split, parts=plan.parts, dtype=plan.dtype, reader=source)
        for unit in Threads(READERS).map(read, units[builder.units_done :], ordered=True):
            note_failures(run, plan, unit.failed)
            builder.append(unit.names, unit.values)
            yield len(unit.names) + len(unit.failed)
    finish_store(run, plan, builder)


def open_builder(run: StageRun, plan: SplitPlan, unit_records: int) -> StoreBuilder:
    """The store under construction of a split, as far as an interrupted run left it."""
    return StoreBuilder(
        plan.building(run),
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
    put_store(run, plan)
    if plan.shard is not None:
        _recorded_shard(run, plan)


def put_store(run: StageRun, plan: SplitPlan) -> None:
    """Put a store that is complete where it is built in its place."""
    target = run.output / plan.folder
    run.claims.take([target / DATA_FILE])
    move_store(plan.building(run), target)


def pack_shards(run: StageRun, plans: Sequence[SplitPlan], source: MomentSource, executor: Executor) -> Iterator[int]:
    """Build shards, as many at a time as the executor has workers, and put each in its place when it is complete.

    Raises:
        DiskFullError: there is less room than they will take.
    """
    reader = source.reader()
    tasks = [
        ShardTask(
            number, plan.building(run), plan.split, plan.names, plan.describe(0), reader or source, RECORDS_PER_UNIT
        )
        for number, plan in enumerate(plans)
    ]
    built = [task.folder / DATA_FILE for task in tasks]
    there = sum(file.stat().st_size for file in built if file.is_file())
    require_free_space(run.output, sum(plan.bytes for plan in plans) - there)
    chosen = executor if reader is not None else local_executor(1, processes=True)
    if tasks:
        chosen.require(run.building)
    for filled in chosen.map(fill_shard, tasks):
        plan = plans[filled.number]
        note_failures(run, plan, filled.failed)
        put_store(run, plan)
        record_shard(run, plan, filled.size, filled.sha256)
        yield len(plan.names)


def record_shard(run: StageRun, plan: SplitPlan, size: int, sha256: str) -> None:
    """Note a shard that is in its place."""
    file = WrittenFile(f"{plan.folder}/{DATA_FILE}", size, sha256)
    run.record(Outcome(plan.unit.key, Status.DONE, (file,), fingerprint=plan.source))


def record_split(run: StageRun, split: Dealt, packing: Packing) -> int:
    """Note the store of a split that is in its place, and the patches that it lacks; returns how many records it holds.

    Of shards it writes the index, unless it is there.
    """
    plan = split.plan
    names = record_index(run, split) if split.sharded else record_store(run, plan)
    for name in sorted(set(plan.names).difference(names)):
        note_failures(run, plan, {name: _why_broken(run, plan, packing, name)})
    return len(names)


def record_index(run: StageRun, split: Dealt) -> Sequence[str]:
    """Note shards and their index, which is written if it is not there; returns the names of their records."""
    plan, folder = split.plan, split_store(run.output, split.plan.split)
    files = [_recorded_shard(run, store) for store in split.stores]
    known = run.recorded(plan.unit.key)
    if known is not None and known.fingerprint == plan.source and all(map(run.is_intact, known.files)):
        return ShardedStore(folder / INDEX_FILE).names
    beside = [IndexedFile(f.path.removeprefix(f"{plan.split}/"), f.size, f.sha256) for f in files]
    summed = sum_up(folder, beside, plan.describe)
    written = (
        run.place.write(f"{plan.split}/{NAMES_FILE}", summed.names_file, durable=True),
        run.place.write(f"{plan.split}/{INDEX_FILE}", summed.index.as_json(), durable=True),
    )
    facts = {"records": len(summed.names), "shards": len(files)}
    run.record(Outcome(plan.unit.key, Status.DONE, written, facts=facts, fingerprint=plan.source))
    return summed.names


def _recorded_shard(run: StageRun, plan: SplitPlan) -> WrittenFile:
    """What is on record of a shard that is in its place, noted now where a kill kept it from that."""
    known = run.recorded(plan.unit.key)
    if known is None or known.fingerprint != plan.source or not all(map(run.is_intact, known.files)):
        file = run.output / plan.folder / DATA_FILE
        record_shard(run, plan, file.stat().st_size, hash_file(file))
        known = run.recorded(plan.unit.key)
    assert known is not None
    return known.files[0]


def record_store(run: StageRun, plan: SplitPlan) -> Sequence[str]:
    """Note a store that is in its place; returns the names of its records."""
    names = LatentStore(split_store(run.output, plan.split)).names
    known = run.recorded(plan.split)
    if known is None or known.status is not Status.DONE or known.fingerprint != plan.source:
        size = (split_store(run.output, plan.split) / DATA_FILE).stat().st_size
        file = WrittenFile(f"{plan.split}/{DATA_FILE}", size, sha256="")  # hashing it would take as long as packing it
        run.record(Outcome(plan.split, Status.DONE, (file,), facts={"records": len(names)}, fingerprint=plan.source))
    return names


def _why_broken(run: StageRun, plan: SplitPlan, packing: Packing, name: str) -> str:
    """What is wrong with a record now, or else was when the store was built."""
    try:
        packing.check(plan, name)
    except BrokenInputError as error:
        return str(error)
    known = run.recorded(plan.key(name))
    return (known.reason if known is not None else None) or "it could not be read"
