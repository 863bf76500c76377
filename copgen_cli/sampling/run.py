"""One run of sampling: records read ahead, samples drawn batch by batch, files written in the background.

Memory is bounded by a chunk, which is as many records as fill a batch or a page. Which samples share a batch depends
on the records and the batch size alone, so that a run that was interrupted ends with the files of one that was not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from copgen_cli.errors import BrokenInputError, ItemError, MismatchError
from copgen_cli.inputs import Frame, Picture, Record, Source
from copgen_cli.modalities import Modality, decode_scalar
from copgen_cli.model import OnStep
from copgen_cli.outputs import (
    Drawing,
    GeneratedRecord,
    GeoreferencingTable,
    Recipe,
    draw_grid_page,
    draw_pictures,
    page_path,
    records_per_page,
    sample_ids,
)
from copgen_cli.rasters import encode_sidecar
from copgen_cli.records import Georeferencing
from copgen_cli.sampling.batches import in_batches
from copgen_cli.sampling.generation import PictureGenerator, Task
from copgen_cli.sampling.progress import Tell, tell_while
from copgen_cli.stages import (
    Journal,
    Outcome,
    Place,
    StageRun,
    Status,
    Threads,
    WorkItem,
    World,
    noticing_a_lost_process,
    read_header,
)

READERS = 2
LISTING = "samples.json"


class SaveAs(StrEnum):
    GRID = "grid"
    PNGS = "pngs"
    GEOTIFF = "geotiff"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """All that one run needs."""

    generator: PictureGenerator
    source: Source
    names: Sequence[str]
    """Of the source's records, those to use."""
    recipe: Recipe
    frame: Frame
    save_as: SaveAs
    batch_size: int
    spread: bool = False
    places: GeoreferencingTable = field(default_factory=GeoreferencingTable)
    """Where records lie on the ground, as far as that is known."""
    watch: OnStep | None = None
    """Shown every network call with the latents so far, besides the steps that are told; it changes nothing."""

    @property
    def samples(self) -> int:
        """How many all records together get."""
        return len(self.names) * (self.recipe.request.n_samples if self.recipe.request.conditions else 1)

    def settings(self) -> dict[str, Any]:
        """What must not change while an output folder is being filled."""
        recipe = self.recipe.as_dict()
        del recipe["n_samples"], recipe["source"], recipe["device"], recipe["compiled"], recipe["threads"]
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
    generated: tuple[GeneratedRecord, ...]
    batches: tuple[tuple[str, ...], ...]
    broken: Mapping[str, ItemError] = field(default_factory=dict)
    """Records that could not be read, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Broken:
    """A record that could not be read."""

    name: str
    error: ItemError


def work_items_of(job: Job) -> list[WorkItem[Group]]:
    """The groups in order, each with a fingerprint of what it shows."""
    return [WorkItem(group.key, group, _fingerprint(job, group.names)) for group in _groups(job)]


def start_run(job: Job, output: Path, *, overwrite: bool = False, dry_run: bool = False) -> StageRun:
    """The run that fills a folder with the job's pictures; each form has a manifest of its own.

    Raises:
        MismatchError: the folder holds pictures of other settings, in either form.
    """
    run = StageRun(
        f"sample_{job.save_as}",
        output,
        settings=job.settings(),
        inputs=job.source.describe(),
        overwrite=overwrite,
        keep=True,
        beside=(LISTING,),
        dry_run=dry_run,
    )
    for other_form in set(SaveAs) - {job.save_as}:
        other = read_header(output, f"sample_{other_form}")
        if other is not None and other.settings != run.header.settings:
            raise MismatchError(
                f"{output} holds {other_form} of other settings, such as another seed or model.",
                hint="Choose another folder with --output.",
            )
    return run


def steps_of(job: Job, pending: Sequence[WorkItem[Group]]) -> int:
    """How many steps all samples of these units take, with one item more for each unit that gets written."""
    request = job.recipe.request
    samples = sum(len(sample_ids(name, request)) for unit in pending for name in unit.item.names)
    return samples * request.steps + len(pending)


@dataclass(frozen=True, slots=True)
class Step:
    """One sample has come one network call further."""


@dataclass(frozen=True, slots=True)
class Share:
    """What the main process of several tells the others."""

    place: Place
    journal: Journal
    pending: frozenset[str]
    batch_size: int
    """The same for all, since which samples share a batch must not depend on who draws them."""


def draw(
    job: Job, run: StageRun, units: Sequence[WorkItem[Group]], pending: Sequence[WorkItem[Group]], world: World
) -> Iterator[Step | Outcome]:
    """Draw and write the pending ones of all units; with several processes, the part of the main one.

    Yields:
        Every step of every sample, what became of each group once its files are in place, and what was set aside. The
        latter is for the caller to record: a run that makes nothing leaves nothing.
    """
    for name, reason in job.source.lacking.items():
        yield Outcome(name, Status.FAILED, reason=reason)
    share = Share(run.place, run.journal, frozenset(unit.key for unit in pending), job.batch_size)
    for told in _draw_share(job, _told_to_all(share, world), world):
        if isinstance(told, Outcome) and told.status is Status.DONE:
            run.record(told)
        yield told
    for outcome in _of_others([], world):
        if outcome.status is Status.DONE:
            run.record(outcome)
        yield outcome


def help_drawing(job: Job, world: World) -> Iterator[Step | Outcome]:
    """The part of every other process; yields as `draw` does."""
    share = _told_to_all(None, world)
    outcomes = []
    for told in _draw_share(job, share, world):
        if isinstance(told, Outcome):
            outcomes.append(told)
            if told.status is Status.DONE:
                share.journal.append(told)  # should the main process not come so far
        yield told
    share.journal.flush()
    _of_others(outcomes, world)


def _draw_share(job: Job, share: Share, world: World) -> Iterator[Step | Outcome]:
    return tell_while(functools.partial(_draw, replace(job, batch_size=share.batch_size), share, world))


def _told_to_all(share: Share | None, world: World) -> Share:
    told = [share]
    if world.size > 1:
        with noticing_a_lost_process():
            told = broadcast_object_list(told)
    assert told[0] is not None
    return told[0]


def _of_others(outcomes: list[Outcome], world: World) -> list[Outcome]:
    """What all other processes made, once they are done; each hands in its own."""
    if world.size == 1:
        return []
    with noticing_a_lost_process():
        gathered: list[Outcome] = gather_object(outcomes)
    return gathered


def _draw(job: Job, share: Share, world: World, tell: Tell[Step | Outcome]) -> None:
    """Paint in this thread, read and write in others."""
    write = functools.partial(_write, job, share.place)
    with closing(_finished_groups(job, share.pending, world, tell)) as finished:
        for outcomes in Threads(1).map(write, finished, ordered=True):
            for outcome in outcomes:
                tell(outcome)


def _groups(job: Job) -> Iterator[Group]:
    if job.save_as is not SaveAs.GRID:
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


def _finished_groups(
    job: Job, pending: frozenset[str], world: World, tell: Tell[Step | Outcome]
) -> Generator[Finished, None, None]:
    """Every n-th of the chunks in which something is pending."""
    chunks = [chunk for chunk in _chunks(job, _groups(job)) if any(group.key in pending for group in chunk)]
    chunks = chunks[world.rank :: world.size]
    names = (name for chunk in chunks for group in chunk for name in group.names)
    read = functools.partial(_read, job.source)
    records = Threads(READERS).map(read, names, ordered=True)
    for chunk in chunks:
        size = sum(len(group.names) for group in chunk)
        generate = functools.partial(_generate, job, world.size, tell)
        yield from _generate_chunk(job, chunk, list(islice(records, size)), pending, generate)


def _chunks(job: Job, groups: Iterable[Group]) -> Iterator[list[Group]]:
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


def _read(source: Source, name: str) -> Record | Broken:
    try:
        return source.read(name)
    except ItemError as error:
        return Broken(name, error)


def _generate_chunk(
    job: Job,
    chunk: Sequence[Group],
    read: Sequence[Record | Broken],
    pending: Container[str],
    generate: Callable[[Sequence[Task]], list[dict[Modality, Picture]]],
) -> Iterator[Finished]:
    generator, request = job.generator, job.recipe.request
    records: dict[str, Record] = {}
    broken: dict[str, ItemError] = {}
    tasks: list[Task] = []
    for item in read:
        if isinstance(item, Broken):
            broken[item.name] = item.error
            continue
        try:
            moments = {modality: generator.moments_of(view, modality) for modality, view in item.conditions.items()}
        except ItemError as error:
            broken[item.name] = error
            continue
        records[item.name] = item
        tasks += [Task(sample, item.name, moments) for sample in sample_ids(item.name, request)]
    wanted = {name for group in chunk if group.key in pending for name in group.names}
    batches = [tasks[i : i + job.batch_size] for i in range(0, len(tasks), job.batch_size)]
    needed = [task for batch in batches if any(task.record in wanted for task in batch) for task in batch]
    pictures: dict[str, Mapping[Modality, Any]] = {}
    together: list[tuple[str, ...]] = []
    for batch, generated in in_batches(needed, job.batch_size, generate):
        together.append(tuple(task.sample for task in batch))
        pictures |= {task.sample: picture for task, picture in zip(batch, generated, strict=True)}
    for group in chunk:
        if group.key in pending:
            yield Finished(
                group,
                tuple(assemble(job, records[name], pictures) for name in group.names if name in records),
                tuple(together),
                {name: broken[name] for name in group.names if name in broken},
            )


def _generate(
    job: Job, processes: int, tell: Tell[Step | Outcome], tasks: Sequence[Task]
) -> list[dict[Modality, Picture]]:
    def on_step(call: int, calls: int, clean: dict[int, Tensor]) -> None:
        if job.watch is not None:
            job.watch(call, calls, clean)
        for _ in range(len(tasks) * processes):  # the others are about as far
            tell(Step())

    return job.generator.generate(tasks, on_step)


def assemble(job: Job, record: Record, pictures: Mapping[str, Mapping[Modality, Any]]) -> GeneratedRecord:
    """The record with those of its samples that are there, and for a grid what is shown beside them."""
    known = [sample for sample in sample_ids(record.name, job.recipe.request) if sample in pictures]
    samples = {sample: pictures[sample] for sample in known}
    if job.save_as is not SaveAs.GRID:
        return GeneratedRecord(record, samples)
    shown = {modality: job.generator.picture_of(view, modality) for modality, view in record.conditions.items()}
    truth = {modality: job.generator.picture_of(view, modality) for modality, view in record.truth.items()}
    return GeneratedRecord(record, samples, shown, truth)


def _write(job: Job, place: Place, finished: Finished) -> list[Outcome]:
    """Put the files of one group in place."""
    outcomes = [_failure(name, error) for name, error in finished.broken.items()]
    if not finished.generated:
        return outcomes
    try:
        files = tuple(place.write(path, data) for path, data in _files_of(job, finished))
    except BrokenInputError as error:  # a record's name that leaves the folder
        return [*outcomes, _failure(finished.group.key, error)]
    shown = [one.record.name for one in finished.generated]
    facts = {"records": {one.record.name: _facts_of(job, one) for one in finished.generated}}
    done = Outcome(finished.group.key, Status.DONE, files, facts=facts, fingerprint=_fingerprint(job, shown))
    return [*outcomes, done]


def _failure(key: str, error: ItemError) -> Outcome:
    return Outcome(key, Status.FAILED, reason=str(error), facts={"hint": error.hint})


def _files_of(job: Job, finished: Finished) -> Iterator[tuple[str, bytes]]:
    """Paths and contents: the pictures, and beside each whose place is known, a sidecar that puts it on the map."""
    records = {one.record.name: one.record for one in finished.generated}
    for drawing in _drawings(job, finished):
        modality = drawing.provenance.modality
        place = place_of_sample(job, records[drawing.provenance.records[0]], modality) if modality else None
        if job.save_as is SaveAs.GEOTIFF:
            yield f"{drawing.path.removesuffix('.png')}.tif", drawing.as_geotiff(place)
            continue
        yield drawing.path, drawing.as_png()
        if place is not None:
            yield f"{drawing.path}.aux.xml", encode_sidecar(place)


def place_of_sample(job: Job, record: Record, modality: Modality) -> Georeferencing | None:
    """Where what is generated of a record lies: by the table of its data, else by the files it is made from."""
    of_patch = job.places.of(record.name, modality)
    place = of_patch or record.place_of(modality)
    if place is None or not modality.spec.is_picture:
        return place
    if of_patch is not None and record.picture_size is not None:  # a patch may be larger than the model's pictures
        place = job.frame.georeferencing_of_square(of_patch, record.picture_size)
    return job.frame.georeferencing_of_cut(place)


def _facts_of(job: Job, one: GeneratedRecord) -> dict[str, Any]:
    """What `samples.json` says of a record."""
    generated = job.recipe.request.generated
    places = {m: place_of_sample(job, one.record, m) for m in generated if not m.spec.is_scalar}
    scalars = [modality for modality in generated if modality.spec.is_scalar]
    return {
        "samples": [
            {"id": sample, "seed": job.recipe.request.seed}
            | {str(modality): decode_scalar(values[modality], modality.spec) for modality in scalars}
            for sample, values in one.samples.items()
        ],
        "inputs": {str(modality): asdict(view.file) for modality, view in one.record.conditions.items()},
        "places": {str(modality): asdict(place) for modality, place in places.items() if place is not None},
    }


def _drawings(job: Job, finished: Finished) -> Iterator[Drawing]:
    if job.save_as is SaveAs.GRID:
        yield draw_grid_page(
            finished.group.number, finished.generated, job.recipe, job.frame, finished.batches, spread=job.spread
        )
        return
    for one in finished.generated:
        yield from draw_pictures(one, job.recipe, job.frame, finished.batches, spread=job.spread)
