"""A request of the page, run as `copgen sample` would run it, with the model that is open already."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from copgen_cli import __version__
from copgen_cli.errors import MissingInputError, UnknownNameError, UsageError
from copgen_cli.inputs import Frame
from copgen_cli.modalities import Modality
from copgen_cli.model import made_for
from copgen_cli.rasters import encode_png, show
from copgen_cli.sampling import (
    Job,
    LoadedModel,
    RequestOptions,
    Step,
    check_request,
    draw,
    finish,
    plan_job,
    start_run,
    work_items_of,
)
from copgen_cli.settings import SampleSettings, Settings
from copgen_cli.stages import Outcome, World, hash_file
from copgen_cli.studio.places_on_disk import PlacesOnDisk
from copgen_cli.studio.problems import NotThereError
from copgen_cli.studio.results.lines import lines_of
from copgen_cli.studio.results.pictures import describe_pictures, read_view
from copgen_cli.studio.scenes import CheckedScene, check_area, draw_scene, lines_of_scene
from copgen_cli.studio.schemas import Ask, Result
from copgen_cli.studio.tickets import Ticket, TicketQueue
from copgen_cli.studio.uploads import Uploads

RESULTS, UPLOADS = "results", "uploads"
NAME = re.compile(r"[0-9a-f]{32}")
"""Of the folder of a result; others are not ours to remove."""
SECONDS_BETWEEN_PREVIEWS = 0.5
SHARE_OF_PREVIEWS = 0.15
"""Of the time that drawing takes, at most."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that goes together."""

    settings: Settings
    options: RequestOptions
    inputs: Mapping[Modality, Path]
    key: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A result in the studio's folder."""

    result: Result
    folder: Path
    files: tuple[Path, ...]
    """Of its pictures, by number."""
    inputs: Mapping[Modality, Path]
    truths: Mapping[Modality, Path]
    documents: tuple[Path, ...]
    """Files of JSON beside the pictures, by number."""
    times: Mapping[Modality, str] = field(default_factory=dict)
    """When what is given was seen, as far as it is known."""
    is_map: bool = False

    @property
    def names(self) -> list[str]:
        """Of the pictures' files, without suffix, as they are handed out: maps have the modality in theirs."""
        pictures = self.result.pictures
        return [one.name if self.is_map else f"{one.modality}_{one.name}" for one in pictures]


@dataclass(slots=True, eq=False)
class Studio:
    """One model, the places and uploads that it may start from, and what it has made."""

    settings: Settings
    model: LoadedModel
    places: PlacesOnDisk
    uploads: Uploads
    config: Path | None = None
    """The settings file, where one was named."""
    _kept: OrderedDict[str, Kept] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, settings: Settings, model: LoadedModel, config: Path | None = None) -> Studio:
        steps, solver = settings.sample.calls(made_for(model.net))
        sample = settings.sample.model_copy(update={"steps": steps, "solver": solver})
        settings = settings.model_copy(update={"sample": sample})
        limits, frame = settings.studio, Frame(model.picture_side, model.picture_side)
        uploads = Uploads(limits.folder.absolute() / UPLOADS, frame, limits.upload_bytes, limits.uploads)
        return cls(settings, model, PlacesOnDisk(settings, model.modalities), uploads, config)

    @property
    def frame(self) -> Frame:
        return self.uploads.frame

    def modality(self, name: str) -> Modality:
        """Raises UnknownNameError where the model has none of that name."""
        for modality in self.model.modalities:
            if str(modality) == name:
                return modality
        raise UnknownNameError("modality of this model", name, known=self.model.modalities)

    def check(self, ask: Ask) -> Checked | CheckedScene:
        """What it amounts to, as far as it goes together.

        Raises:
            UsageError: it contradicts itself, asks too much, or for what the model does not know.
            MissingInputError: the place does not have what is given.
            NotThereError: there is no such place or upload.
        """
        self._check_limits(ask)
        generate = [self.modality(name) for name in ask.generate]
        if ask.area is not None:
            self.places.cells(ask.area.region)  # it is there
            return check_area(self._settings(ask), ask, self.model, self.config)
        inputs = {modality: self._input(ask, modality) for modality in self._conditions(ask)}
        settings = self._settings(ask)
        options = RequestOptions(
            generate=",".join(generate),
            inputs=tuple(f"{modality}={file}" for modality, file in inputs.items()),
            given=tuple(f"{name}={value}" for name, value in ask.scalars.items()),
            spread=ask.spread,
            ignored=ask.ignored,
        )
        check_request(settings, options)
        return Checked(settings, options, inputs, self._key(settings, options, inputs))

    def known(self, key: str) -> Result | None:
        """The result of an equal request, if it is still there."""
        with self._lock:
            kept = self._kept.get(key)
            return kept.result if kept is not None and all(file.is_file() for file in kept.files) else None

    def kept(self, key: str) -> Kept:
        """Raises NotThereError where it has made room for others."""
        with self._lock:
            if key not in self._kept:
                raise NotThereError.of("result", key)
            return self._kept[key]

    def work(self, ticket: Ticket, queue: TicketQueue) -> Result:
        """Draw what is asked for, telling the queue how far it is; an equal result is taken as it is."""
        known = self.known(ticket.key)
        if known is not None:
            return known.model_copy(update={"cached": True})
        checked = self.check(ticket.ask)
        folder = self.settings.studio.folder.absolute() / RESULTS / checked.key
        if isinstance(checked, CheckedScene):
            kept = self._draw_map(checked, folder, ticket, queue)
        else:
            kept = self._draw_patch(checked, folder, ticket, queue)
        with self._lock:
            self._kept[ticket.key] = kept
        self._make_room(folder)
        return kept.result

    def _draw_map(self, checked: CheckedScene, folder: Path, ticket: Ticket, queue: TicketQueue) -> Kept:
        started = time.monotonic()
        queue.progress(ticket, 0, checked.plan.network_calls)
        pictures, files, documents = draw_scene(checked.plan, folder, functools.partial(queue.progress, ticket))
        result = Result(
            record=checked.plan.request.name,
            pictures=pictures,
            given=[],
            truth=[],
            documents=[file.name if file.parent == folder else f"{file.parent.name}.json" for file in documents],
            samples=[],
            seconds=round(time.monotonic() - started, 3),
            lines=lines_of_scene(checked.plan),
        )
        return Kept(result, folder, tuple(files), {}, {}, tuple(documents), is_map=True)

    def _draw_patch(self, checked: Checked, folder: Path, ticket: Ticket, queue: TicketQueue) -> Kept:
        plan = plan_job(checked.settings, checked.options, self.model.net.device, self.model)
        watch = _Previews(plan.job, functools.partial(queue.show, ticket))
        return self._draw(replace(plan.job, watch=watch), folder, checked, ticket, queue)

    def _draw(self, job: Job, folder: Path, checked: Checked, ticket: Ticket, queue: TicketQueue) -> Kept:
        started = time.monotonic()
        steps = job.samples * job.recipe.request.steps
        with start_run(job, folder) as run:
            units = work_items_of(job)
            pending = run.pending(units)
            queue.progress(ticket, 0, steps)
            drawn = draw(job, run, units, pending, World(self.model.net.device))
            told = _counted(drawn, functools.partial(queue.progress, ticket), steps)
            report = finish(job, run, told, done_before=len(units) - len(pending))
        listing = json.loads(report.listing.read_text("utf-8"))
        pictures, files = describe_pictures(folder, listing)
        truths = self._truths(ticket.ask, job)
        scalars = dict(ticket.ask.scalars)
        result = Result(
            record=job.names[0],
            pictures=pictures,
            given=[str(modality) for modality in checked.inputs],
            truth=[str(modality) for modality in truths],
            documents=[report.listing.name],
            samples=[sample for record in listing["records"].values() for sample in record["samples"]],
            seconds=round(time.monotonic() - started, 3),
            lines=lines_of(job, checked.inputs, scalars, self.config),
        )
        times = self._times(ticket.ask, checked.inputs)
        return Kept(result, folder, tuple(files), checked.inputs, truths, (report.listing,), times)

    def _truths(self, ask: Ask, job: Job) -> dict[Modality, Path]:
        if ask.place is None:
            return {}
        generated = (m for m in job.recipe.request.generated if not m.spec.is_scalar)
        found = {modality: self.places.file(ask.place, modality) for modality in generated}
        return {modality: file for modality, file in found.items() if file is not None}

    def _times(self, ask: Ask, inputs: Mapping[Modality, Path]) -> dict[Modality, str]:
        if ask.place is None:
            return {}
        return self.places.times(ask.place, [m for m in inputs if str(m) not in ask.uploads])

    def _conditions(self, ask: Ask) -> list[Modality]:
        """Of files, in the order of all modalities; uploads that are not named are conditions too."""
        named = {self.modality(name) for name in (*ask.condition, *ask.uploads)}
        scalars = {self.modality(name) for name in ask.scalars}
        return [modality for modality in Modality if modality in named - scalars]

    def _input(self, ask: Ask, modality: Modality) -> Path:
        uploaded = ask.uploads.get(str(modality))
        if uploaded is not None:
            upload = self.uploads.get(uploaded)
            if upload.modality is not modality:
                raise UsageError(f"The upload is {upload.modality}, not {modality}.", hint="Hand it in again.")
            return upload.file
        if ask.place is None:
            raise UsageError(f"{modality} is given, and nothing says what it is.", hint="Choose a place, or a file.")
        file = self.places.file(ask.place, modality)
        if file is None:
            raise MissingInputError(f"{modality} of {ask.place.patch}", Path(ask.place.region), written_by="prepare")
        return file.absolute()

    def _check_limits(self, ask: Ask) -> None:
        limits = self.settings.studio
        for what, asked, most in (
            ("samples", ask.n_samples, limits.most_samples),
            ("steps", ask.steps, limits.most_steps),
        ):
            if asked is not None and asked > most:
                raise UsageError(f"{asked} {what} are asked for.", hint=f"This studio takes up to {most}.")

    def _settings(self, ask: Ask) -> Settings:
        """Those of `sample`, with what the page says; always written as GeoTIFF, of which PNGs are made."""
        names = ("n_samples", "steps", "solver", "guidance_scale", "seed")
        said = {name: value for name in names if (value := getattr(ask, name)) is not None}
        fixed: dict[str, Any] = {"save_as": "geotiff", "limit": None, "gpus": None, "num_processes": None}
        try:
            sample = SampleSettings.model_validate({**self.settings.sample.model_dump(), **said, **fixed})
        except ValidationError as error:
            raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, "), hint="Ask for less.") from None
        return self.settings.model_copy(update={"sample": sample})

    def _key(self, settings: Settings, options: RequestOptions, inputs: Mapping[Modality, Path]) -> str:
        sample = settings.sample
        facts: list[Any] = [__version__, self.model.sha256, options.generate, sorted(options.given), options.spread]
        facts += [str(options.ignored), sample.n_samples, sample.steps, str(sample.solver), sample.guidance_scale]
        facts += [sample.seed, sample.batch_size, str(self.model.net.dtype), str(self.model.net.device)]
        facts += [[str(modality), str(file), hash_file(file)] for modality, file in inputs.items()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _make_room(self, newest: Path) -> None:
        """Remove the oldest results, so that as many as the settings say are left."""
        ours = (folder for folder in newest.parent.iterdir() if NAME.fullmatch(folder.name))
        folders = sorted(ours, key=lambda folder: folder.stat().st_mtime_ns)
        for folder in folders[: max(0, len(folders) - self.settings.studio.results)]:
            if folder != newest:
                with self._lock:
                    self._kept.pop(folder.name, None)
                shutil.rmtree(folder, ignore_errors=True)


def view_of(studio: Studio, file: Path, modality: Modality) -> bytes:
    """A PNG of a file as the model takes it."""
    pixels = read_view(file, modality, studio.frame).conditions[modality].pixels
    if pixels is None:
        raise NotThereError.of("picture of", str(modality))
    return encode_png(pixels)


def _counted(
    drawn: Iterator[Step | Outcome], progress: Callable[[int, int], None], steps: int
) -> Generator[Step | Outcome, None, None]:
    """Pass on what is drawn; where `progress` raises, drawing ends first."""
    step = 0
    with contextlib.closing(drawn):  # type: ignore[type-var]
        for told in drawn:
            if isinstance(told, Step):
                step += 1
                progress(step, max(steps, step))
            yield told


@dataclass(slots=True, eq=False)
class _Previews:
    """Shows the first sample of a batch now and then, as the network takes it to be."""

    job: Job
    show: Callable[[Mapping[str, bytes]], None]
    due: float = field(default_factory=lambda: time.monotonic() + SECONDS_BETWEEN_PREVIEWS)

    def __call__(self, call: int, calls: int, clean: Mapping[int, Tensor]) -> None:
        started = time.monotonic()
        if call == calls or started < self.due:
            return
        generator, pictures = self.job.generator, {}
        for position, latents in clean.items():
            modality = generator.modalities[position]
            if modality in generator.request.generated and not modality.spec.is_scalar:
                (values,) = generator.autoencoders.decode(modality, latents[:1])
                pictures[str(modality)] = encode_png(show(values, modality.spec))
        self.show(pictures)
        now = time.monotonic()
        self.due = now + max(SECONDS_BETWEEN_PREVIEWS, (now - started) / SHARE_OF_PREVIEWS)
