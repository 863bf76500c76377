"""One shard, from moments to a finished file beside its place: what a worker does, here or on another machine.

A task names all that it needs and is picklable; the same task goes on with what an interrupted one left, and gives the
same bytes. What it leaves lies in the task's folder until the main process puts it in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from copgen_cli.latents.store_builder import MomentReader, StoreBuilder, read_unit
from copgen_cli.latents.store_format import StoreMetadata
from copgen_cli.modalities import Split
from copgen_cli.stages import hash_file


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What is to be in a shard."""

    number: int
    """Its place in the list of tasks."""
    folder: Path
    """Where it is built; this task alone writes there."""
    split: Split
    names: tuple[str, ...]
    metadata: StoreMetadata
    """Of a store with these records, but for their count."""
    reader: MomentReader
    unit_records: int
    """Records of a transaction."""


@dataclass(frozen=True, slots=True)
class FilledShard:
    """A shard that is complete in its task's folder."""

    number: int
    size: int
    sha256: str
    failed: Mapping[str, str]
    """Record that this attempt left out to reason."""


def fill_shard(task: ShardTask) -> FilledShard:
    """Build a shard, or the rest of it."""
    about = task.metadata
    builder = StoreBuilder(
        task.folder,
        source=about.source,
        unit_records=task.unit_records,
        records=len(task.names),
        record_bytes=about.record_bytes,
    )
    failed: dict[str, str] = {}
    if not builder.finished:
        for start in range(builder.units_done * task.unit_records, len(task.names), task.unit_records):
            names = task.names[start : start + task.unit_records]
            unit = read_unit(names, task.split, about.parts, about.dtype, task.reader)
            failed |= unit.failed
            builder.append(unit.names, unit.values)
        builder.finish(lambda count: replace(about, count=count))
    return FilledShard(task.number, builder.size, hash_file(builder.file), failed)
