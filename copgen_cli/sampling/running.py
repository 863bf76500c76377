"""One run of sampling: records read ahead, samples drawn batch by batch, files written in the background.

Memory is bounded by a chunk, which is as many records as fill a batch or a page. Which samples share a batch depends
on the records and the batch size alone, so that a run that was interrupted ends with the files of one that was not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from copgen_cli.data.atomic import Place
from copgen_cli.data.driver import StageRun, Unit
from copgen_cli.data.executors import Threads
from copgen_cli.data.manifest import Outcome, Status
from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import Modality
from copgen_cli.sampling.batches import in_batches
from copgen_cli.sampling.images import Frame
from copgen_cli.sampling.inputs import Record, Source
from copgen_cli.sampling.outputs import Drawing, draw_grid_page, draw_pictures, page_path, sample_ids
from copgen_cli.sampling.pages import Painted, records_per_page
from copgen_cli.sampling.painter import Painter, Task
from copgen_cli.sampling.provenance import Recipe

READERS = 2


class SaveAs(StrEnum):
    GRID = "grid"
    PNGS = "pngs"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """All that one run needs."""

    painter: Painter
    source: Source
    names: Sequence[str]
    """Of the source's records, those to use."""
    recipe: Recipe
    frame: Frame
    save_as: SaveAs
    batch_size: int
    spread: bool = False

    @property
    def samples(self) -> int:
        """How many all records together get."""
        return len(self.names) * (self.recipe.request.n_samples if self.recipe.request.conditions else 1)

    def settings(self) -> dict[str, Any]:
        """What must not change while an output folder is being filled."""
        recipe = self.recipe.as_dict()
        del recipe["n_samples"], recipe["source"], recipe["device"], recipe["compiled"]
        recipe["model"] = recipe["model"]["sha256"]
        return recipe


@dataclass(frozen=True, slots=True)
class Group:
    """Records whose pictures are written together: one for single pictures, a page full for a grid."""

    key: str
    number: int
    """From 1."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A group whose samples are drawn and not yet written."""

    group: Group
    painted: tuple[Painted, ...]
    batches: tuple[tuple[str, ...], ...]
    broken: Mapping[str, str] = field(default_factory=dict)
    """Records that could not be read, and why."""


def units_of(job: Job) -> list[Unit[Group]]:
    """The groups in order, each with a fingerprint of what it shows."""
    return [Unit(group.key, group, _fingerprint(job, group.names)) for group in _groups(job)]


def start_run(job: Job, output: Path, *, overwrite: bool = False, dry_run: bool = False) -> StageRun:
    """The run that fills a folder with the job's pictures; each form has a manifest of its own."""
    return StageRun(
        f"sample_{job.save_as}",
        output,
        settings=job.settings(),
        inputs=job.source.describe(),
        overwrite=overwrite,
        dry_run=dry_run,
    )


def draw(job: Job, run: StageRun, units: Sequence[Unit[Group]], pending: Sequence[Unit[Group]]) -> Iterator[Outcome]:
    """Draw and write the pending ones of all units; yield what became of each group once its files are in place."""
    for name, reason in job.source.lacking.items():
        run.record(Outcome(name, Status.FAILED, reason=reason))
    write = functools.partial(_write, job, run.place)
    keys = {unit.key for unit in pending}
    with closing(_finished_groups(job, [unit.item for unit in units], keys)) as finished:
        for outcomes in Threads(1).map(write, finished, ordered=True):
            for outcome in outcomes:
                run.record(outcome)
                yield outcome


def _groups(job: Job) -> Iterator[Group]:
    if job.save_as is SaveAs.PNGS:
        for number, name in enumerate(job.names, start=1):
            yield Group(name, number, (name,))
        return
    rows = records_per_page(job.recipe.request, spread=job.spread)
    for number, first in enumerate(range(0, len(job.names), rows), start=1):
        yield Group(page_path(number).removesuffix(".png"), number, tuple(job.names[first : first + rows]))


def _fingerprint(job: Job, names: Sequence[str]) -> str:
    made_of = [job.recipe.request.n_samples, job.spread, [(name, job.source.stamp(name)) for name in names]]
    if not job.recipe.request.conditions:
        made_of[0] = 1  # each is a record of its own
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _finished_groups(job: Job, groups: Sequence[Group], pending: set[str]) -> Generator[Finished, None, None]:
    chunks = [chunk for chunk in _chunks(job, groups) if any(group.key in pending for group in chunk)]
    names = (name for chunk in chunks for group in chunk for name in group.names)
    read = functools.partial(_read, job.source)
    records = Threads(READERS).map(read, names, ordered=True)
    for chunk in chunks:
        size = sum(len(group.names) for group in chunk)
        yield from _paint_chunk(job, chunk, list(islice(records, size)), pending)


def _chunks(job: Job, groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Neighbouring groups that together fill a batch."""
    chunk: list[Group] = []
    samples = 0
    for group in groups:
        chunk.append(group)
        samples += sum(len(sample_ids(name, job.recipe.request)) for name in group.names)
        if samples >= job.batch_size:
            yield chunk
            chunk, samples = [], 0
    if chunk:
        yield chunk


def _read(source: Source, name: str) -> Record | tuple[str, str]:
    """The record, or its name and what is wrong with it."""
    try:
        return source.read(name)
    except BrokenInputError as error:
        return name, str(error)


def _paint_chunk(
    job: Job, chunk: Sequence[Group], read: Sequence[Record | tuple[str, str]], pending: set[str]
) -> Iterator[Finished]:
    painter, request = job.painter, job.recipe.request
    records: dict[str, Record] = {}
    broken: dict[str, str] = {}
    tasks: list[Task] = []
    for item in read:
        if not isinstance(item, Record):
            broken[item[0]] = item[1]
            continue
        try:
            moments = {modality: painter.moments_of(view) for modality, view in item.conditions.items()}
        except BrokenInputError as error:
            broken[item.name] = str(error)
            continue
        records[item.name] = item
        tasks += [Task(sample, item.name, moments) for sample in sample_ids(item.name, request)]
    wanted = {name for group in chunk if group.key in pending for name in group.names}
    batches = [tasks[i : i + job.batch_size] for i in range(0, len(tasks), job.batch_size)]
    needed = [task for batch in batches if any(task.record in wanted for task in batch) for task in batch]
    pictures: dict[str, Mapping[Modality, Any]] = {}
    together: list[tuple[str, ...]] = []
    for batch, painted in in_batches(needed, job.batch_size, painter.paint):
        together.append(tuple(task.sample for task in batch))
        pictures |= {task.sample: picture for task, picture in zip(batch, painted, strict=True)}
    for group in chunk:
        if group.key in pending:
            yield Finished(
                group,
                tuple(_assemble(job, records[name], pictures) for name in group.names if name in records),
                tuple(together),
                {name: broken[name] for name in group.names if name in broken},
            )


def _assemble(job: Job, record: Record, pictures: Mapping[str, Mapping[Modality, Any]]) -> Painted:
    samples = {sample: pictures[sample] for sample in sample_ids(record.name, job.recipe.request)}
    if job.save_as is SaveAs.PNGS:
        return Painted(record, samples)
    shown = {modality: job.painter.picture_of(view) for modality, view in record.conditions.items()}
    truth = {modality: job.painter.picture_of(view) for modality, view in record.truth.items()}
    return Painted(record, samples, shown, truth)


def _write(job: Job, place: Place, finished: Finished) -> list[Outcome]:
    """Put the files of one group in place."""
    outcomes = [Outcome(name, Status.FAILED, reason=reason) for name, reason in finished.broken.items()]
    if not finished.painted:
        return outcomes
    try:
        files = tuple(place.write(drawing.path, drawing.as_png()) for drawing in _drawings(job, finished))
    except BrokenInputError as error:  # a record's name that leaves the folder
        return [*outcomes, Outcome(finished.group.key, Status.FAILED, reason=str(error))]
    shown = [one.record.name for one in finished.painted]
    facts = {
        "samples": {one.record.name: list(one.samples) for one in finished.painted},
        "inputs": {
            one.record.name: {str(modality): asdict(view.file) for modality, view in one.record.conditions.items()}
            for one in finished.painted
        },
    }
    done = Outcome(finished.group.key, Status.DONE, files, facts=facts, fingerprint=_fingerprint(job, shown))
    return [*outcomes, done]


def _drawings(job: Job, finished: Finished) -> Iterator[Drawing]:
    if job.save_as is SaveAs.GRID:
        yield draw_grid_page(
            finished.group.number, finished.painted, job.recipe, job.frame, finished.batches, spread=job.spread
        )
        return
    for one in finished.painted:
        yield from draw_pictures(one, job.recipe, job.frame, finished.batches, spread=job.spread)
