"""The one driver around every data stage: pool, order, retries, manifest, resumption, lock and summary.

A stage is a plain function from one item to a `Result`; it writes through a `Place`. A command reads like this:

    with StageRun("prepare", output, settings={"seed": 42}) as run:
        units = [WorkItem(cell, scene) for cell, scene in scenes]              # stable keys
        todo = run.pending(units)                                          # what an earlier run did not finish
        work = functools.partial(cut_and_save, place=run.place)            # scene -> Result; importable, picklable
        for outcome in console.track(run.run(todo, work, executor=Processes(8)), total=len(todo), label="Cutting"):
            ...                                                            # outcomes as they come; failures too
        summary = run.finish()                                             # writes the manifest, removes the journal

where

    def cut_and_save(scene: Scene, place: Place) -> Result:
        return Result(files=tuple(place.write(path, png) for path, png in cut(scene)))

An `ItemError` in `work`, such as `BrokenInputError`, sets its unit aside: counted, listed in the manifest, tried again
by the next run, and the rest goes on. Any other exception ends the run with its traceback. A stage that batches, or
that writes in one thread, maps with an executor itself and tells the run of each finished unit:
`run.record(Outcome(key, Status.DONE, files))`.

Stopped at any moment, even by SIGKILL, the same call continues, and the tree that it leaves is the one that an
undisturbed run leaves: everything of a run under way lies in `<output>/.copgen/`, which is gone in the end.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from copgen_cli.errors import BrokenInputError, ItemError, MismatchError
from copgen_cli.stages.atomic import Place, WrittenFile, hash_file, held_back, put_in_place, safe_path, throw_away
from copgen_cli.stages.claims import Claims, foreign_file
from copgen_cli.stages.executors import Executor, Inline
from copgen_cli.stages.manifest import (
    Header,
    Journal,
    Outcome,
    Status,
    manifest_file,
    read_header,
    read_outcomes,
    units_file,
    write_manifest,
)
from copgen_cli.stages.objects.outputs import claims_of, journal_of, private_folder_of
from copgen_cli.stages.unit_table import UnitTable
from copgen_cli.stages.work_items import Result, Summary, WorkItem
from copgen_cli.storage import is_remote, is_there, sizes_in

I = TypeVar("I")  # noqa: E741

MADE_ANEW = "to be made anew"
"""The reason in the record of a unit that only says which files it had."""


class StageRun:
    """One run of one stage on one output folder; a context manager that holds the folder's lock.

    Args:
        stage: its name, as in the manifest's.
        output: the folder that the stage writes.
        settings: JSON values that change what is written; a run with others needs `overwrite`.
        inputs: JSON values that name what it is made from, compared likewise; no absolute paths, so that trees compare.
        overwrite: forget what earlier runs recorded and do everything again.
        fixed: False where other settings or inputs are fine, because each unit's key says all that matters to it.
        prune: in the end remove the files of units that this run was not asked for.
        keep: units that this run was not asked for stay on record with their files.
        beside: names of files that the stage writes beside those of its units, such as a table.
        unrecorded: finds files below the output that are of the stage's kind and not on record, and would be taken for
            its own by whoever reads the output; a new run does not go there.
        otherwise: what else can be done about these, for the message.
        dry_run: only look; takes no lock and writes nothing.

    Raises:
        BusyError: another process holds the lock; the message says which.
        MismatchError: the output was made with other settings or from other inputs, or holds files of another origin.
    """

    def __init__(
        self,
        stage: str,
        output: Path,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        fixed: bool = True,
        prune: bool = False,
        keep: bool = False,
        beside: Iterable[str] = (),
        unrecorded: Callable[[Path], Iterable[Path]] = lambda _: (),
        otherwise: str = "",
        dry_run: bool = False,
    ) -> None:
        self.header = Header(stage, _as_json(settings), _as_json(inputs or {}))
        self.output = output
        self._overwrite, self._fixed, self._prune, self._dry_run = overwrite, fixed, prune, dry_run
        self._keeps = keep or not (fixed or prune)  # a key that says all may be wanted again
        self._unrecorded, self._otherwise = unrecorded, otherwise
        self._private = private_folder_of(output, stage)
        self._journal = journal_of(output, stage)
        self._claims = claims_of(output)
        self._sizes = sizes_in(output)
        self._claims_elsewhere = self._claims if is_remote(output) else Claims(output, by_worker=True)
        self._beside = frozenset(beside)
        self.place = Place(output, self._private.temporary, self._claims)
        self._units = UnitTable()  # the record of each known unit, as it will stand in the manifest
        self._afresh = overwrite
        self._finished_here = 0
        self._already = 0

    # -- beginning and end -------------------------------------------------------------------------------------------

    def __enter__(self) -> StageRun:
        if not self._dry_run:
            self._private.take()
        try:
            self._read_records()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def building(self) -> Path:
        """A folder for what is built over several runs and renamed into place in the end, such as a database."""
        folder = self._private.build
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def claims(self) -> Claims:
        """Of the output."""
        return self._claims

    @property
    def journal(self) -> Journal:
        """For other processes of this run: each appends what it finishes, and this one calls `take_in` in the end."""
        return self._journal

    def made_from(self, inputs: Mapping[str, Any]) -> None:
        """Name in the manifest what the output is made from, where that shows only on the way; it is not compared."""
        self.header = replace(self.header, inputs=_as_json(inputs))

    # -- what is to be done ------------------------------------------------------------------------------------------

    def pending(
        self,
        units: Iterable[WorkItem[I]],
        *,
        verify: bool = False,
        is_done: Callable[[WorkItem[I], Outcome], bool] | None = None,
    ) -> list[WorkItem[I]]:
        """The units that are not done: unknown, failed or skipped before, with another input, or with a file missing
        or of another size.

        Args:
            units: all that the output is to hold.
            verify: also compare the hash of every file that has one recorded.
            is_done: a further condition on a unit that is recorded as done.

        Raises:
            MismatchError: all that earlier runs made would be removed in the end, for it is of none of these units.
        """
        todo = []
        for unit in units:
            self._units.want(unit.key)
            known = self.recorded(unit.key)
            if (
                known is None
                or known.status is not Status.DONE
                or known.fingerprint != unit.fingerprint
                or not all(self.is_intact(file, verify=verify) for file in known.files)
                or (is_done is not None and not is_done(unit, known))
            ):
                todo.append(unit)
            else:
                self._already += 1
        if self._prune and not self._afresh and not self._already:
            self._must_share_a_unit()
        return todo

    def recorded(self, key: str) -> Outcome | None:
        """What earlier runs, or this one, say of a unit."""
        line = self._units.get(key)
        known = Outcome.from_line(line) if line is not None else None
        return None if known is not None and known.reason == MADE_ANEW else known

    def is_intact(self, file: WrittenFile, *, verify: bool = False) -> bool:
        """Whether a recorded file is there with its size and, if asked, its hash."""
        path = self.output / safe_path(file.path)
        try:
            same_size = self._sizes.of(file.path) == file.size
            return same_size and (not verify or file.sha256 in ("", hash_file(path)))
        except OSError:
            return False

    # -- doing it ----------------------------------------------------------------------------------------------------

    def run(
        self,
        units: Sequence[WorkItem[I]],
        work: Callable[[I], Result],
        *,
        executor: Executor | None = None,
        retries: int = 0,
        ordered: bool = False,
    ) -> Iterator[Outcome]:
        """Do the work of these units, and yield what became of each, as they get done or in their order.

        Args:
            work: from an item to its result. With processes it must be picklable: a function of a module, or a
                `functools.partial` of one.
            executor: who does it; this thread where none is named.
            retries: how often a unit whose input seems broken is tried again at once.
        """
        chosen = executor or Inline()
        if units:
            chosen.require(self.shared)
        attempt = self.attempt(work, retries=retries, elsewhere=chosen.elsewhere)
        for outcome in chosen.map(attempt, units, ordered=ordered):
            if attempt.journal is None:
                self._journal.append(outcome)
            self._finish_unit(outcome)
            yield outcome

    def attempt(self, work: Callable[[I], Result], *, retries: int = 0, elsewhere: bool) -> Attempt[I]:
        """The work of a unit as a worker does it; for stages that do their own mapping.

        Args:
            work, retries: as for `run`.
            elsewhere: the worker may be on another machine, and does not write to the journal: `record` what it gives.
        """
        by_driver = elsewhere or self._journal.by_driver
        claims = self._claims_elsewhere if elsewhere else self._claims
        return Attempt(work, None if by_driver else self._journal, claims, retries)

    @property
    def shared(self) -> Path:
        """The folder that workers elsewhere must see and be able to write to."""
        return self._private.folder if is_remote(self.output) else self.place.temporary

    @property
    def place_elsewhere(self) -> Place:
        """The place as workers of an executor elsewhere may write to it, where they do more than the work of a unit."""
        return replace(self.place, claims=self._claims_elsewhere)

    def record(self, outcome: Outcome) -> None:
        """Note a finished unit; for stages that do their own mapping. Its files must be in place."""
        self._units.want(outcome.key)
        self._journal.append(outcome)
        self._finish_unit(outcome)

    def take_in(self) -> None:
        """Learn what other processes of this run have noted in its journal."""
        noted = {outcome.key: outcome for outcome in self._journal.read() if self._units.is_wanted(outcome.key)}
        for outcome in noted.values():  # the last word on each
            if self._units.get(outcome.key) != outcome.as_line():
                self._finish_unit(outcome)

    def finish(self, *, still_to_come: Iterable[str] = ()) -> Summary:
        """Write the manifest, remove what only a run under way needs, and sum up.

        Call it when all pending units have an outcome; a run that stops before can be continued.

        Args:
            still_to_come: of the files beside those of the units, which will be written after this.
        """
        self._units.keep(self._stays)
        summary = self._sum_up()
        if self._dry_run:
            return summary
        for path in sorted(self._superseded()):
            self._remove(self.output / safe_path(path))
        beside = {name for name in self._beside if (self.output / name).is_file()}.union(still_to_come)
        totals = {
            "units": self._units.wanted,
            "done": summary.done + summary.already,
            "skipped": len(summary.skipped),
            "failed": len(summary.failed),
            "files": summary.files,
            "bytes": summary.bytes,
        }
        write_manifest(self.place, self.header, lambda: (line for _, line in self._units.lines()), totals, beside)
        self._journal.remove()
        self._claims.forget()
        shutil.rmtree(self._private.build, ignore_errors=True)
        return summary

    # -- inside ------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        if self._dry_run:
            return
        try:
            self._journal.flush()
            nothing_noted = self._journal.exists() and next(self._journal.read(), None) is None
            if nothing_noted and not self._claims.exist():  # nor put in place without being noted
                self._journal.remove()  # nothing was finished that a next run could build on
            if not self._journal.exists() or not self._claims.exist():
                self._claims.forget()
        finally:
            self._private.leave()

    def _stays(self, key: str) -> bool:
        """Whether a unit stays in the manifest."""
        if self._units.is_wanted(key):
            return True
        known = self.recorded(key)
        return self._keeps and known is not None and known.status is Status.DONE

    def _superseded(self) -> set[str]:
        """Files that earlier runs made of units which were made anew since or, where the run says so, not wanted."""
        everything = self._prune or self._afresh
        before: set[str] = set()
        for outcome in itertools.chain(read_outcomes(self.output, self.header.stage), self._journal.read()):
            if outcome.files and (everything or self._units.is_wanted(outcome.key)):
                line = self._units.get(outcome.key)
                now = {file.path for file in Outcome.from_line(line).files} if line is not None else set()
                before.update(file.path for file in outcome.files if file.path not in now)
        if before:  # which another unit may have made
            for _, line in self._units.lines():
                before.difference_update(file.path for file in Outcome.from_line(line).files)
        return before

    def _must_share_a_unit(self) -> None:
        known = ((key, Outcome.from_line(line)) for key, line in self._units.lines())
        done = [key for key, outcome in known if outcome.status is Status.DONE and outcome.reason != MADE_ANEW]
        if done and self._units.wanted and not any(map(self._units.is_wanted, done)):
            raise MismatchError(
                f"{self.output} holds what was made of others, such as {done[0]}, and of none that are to be made now.",
                hint="Choose another output folder, or give --overwrite to replace all that is there.",
            )

    def _read_records(self) -> None:
        self._claims.look_anew(self._journal.told_theirs())
        self._refuse_unrecorded()
        finished = None if self._overwrite else read_header(self.output, self.header.stage)
        started = None if self._overwrite else self._journal.read_start(self.header.stage)
        self._afresh = self._overwrite or (started is not None and started[1])
        if finished is not None and not self._afresh:
            self._must_agree(finished)
        if started is not None:
            self._must_agree(started[0])
        for outcome in read_outcomes(self.output, self.header.stage):
            self._units.set(outcome.key, outcome.as_line())
        if self._afresh:
            self._units.change(_forgotten)
        if started is not None:
            for outcome in self._journal.read():
                self._keep(outcome)
            return
        abandoned = [_forgotten(outcome.as_line()) for outcome in self._journal.read()]
        for line in abandoned:
            self._units.set(Outcome.from_line(line).key, line)
        if not self._dry_run:
            theirs = self._claims.theirs
            self._journal.start(self.place, self.header, afresh=self._overwrite, abandoned=abandoned, theirs=theirs)

    def _refuse_unrecorded(self) -> None:
        """Refuse to go where files of another origin are in the way. Those that a killed run made are ours."""
        stage = self.header.stage
        fixed = (manifest_file(self.output, stage), units_file(self.output, stage))
        for file in (*fixed, *(self.output / name for name in sorted(self._beside))):
            if is_there(file) and not self._claims.owns(file):
                raise foreign_file(file)
        if self._journal.exists() and not self._overwrite:
            return
        unrecorded = sorted(self._unrecorded(self.output))
        foreign = [file for file in unrecorded if not self._claims.owns(file)]
        if foreign:
            raise MismatchError(
                f"{self.output} holds files that no earlier run is known to have left there, such as "
                f"{foreign[0].relative_to(self.output)}; what is made now would mix with them.",
                hint=f"Choose another output folder, or move them away. {self._otherwise}".strip(),
            )
        if self._overwrite and not self._dry_run:
            for file in unrecorded:
                self._remove(file)

    def _must_agree(self, other: Header) -> None:
        if not self._fixed:
            return
        for kind, mine, theirs in (
            ("settings", self.header.settings, other.settings),
            ("inputs", self.header.inputs, other.inputs),
        ):
            for key in sorted(mine.keys() | theirs.keys()):
                if mine.get(key) != theirs.get(key):
                    raise MismatchError(
                        f"{self.output} was made with other {kind}: {key} was {_shown(theirs.get(key))}, "
                        f"and is now {_shown(mine.get(key))}.",
                        hint="Give --overwrite to make it anew, or choose another folder.",
                    )

    def _finish_unit(self, outcome: Outcome) -> None:
        self._keep(outcome)
        self._finished_here += outcome.status is Status.DONE

    def _keep(self, outcome: Outcome) -> None:
        """Make this the record of its unit. Where the key says all, files of before are right though it fails now."""
        if outcome.status is Status.FAILED and not self._fixed and (before := self._units.get(outcome.key)):
            outcome = replace(outcome, files=Outcome.from_line(before).files)
        self._units.set(outcome.key, outcome.as_line())

    def _remove(self, file: Path) -> None:
        """Remove a file of the output and the folders that it leaves empty."""
        file.unlink(missing_ok=True)
        for folder in () if is_remote(file) else file.parents:
            if folder == self.output:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def _sum_up(self) -> Summary:
        skipped, failed, files, size = [], [], 0, 0
        for outcome in map(Outcome.from_line, self._units.wanted_lines()):
            if outcome.status is Status.SKIPPED:
                skipped.append(outcome)
            elif outcome.status is Status.FAILED:
                failed.append(outcome)
            files += len(outcome.files)
            size += sum(file.size for file in outcome.files)
        return Summary(
            stage=self.header.stage,
            output=self.output,
            done=self._finished_here,
            already=self._already,
            skipped=tuple(skipped),
            failed=tuple(failed),
            files=files,
            bytes=size,
        )


def settings_of(output: Path, stage: str) -> Mapping[str, Any] | None:
    """What the run under way on an output, or else the finished one, was asked for; None where there is neither."""
    started = journal_of(output, stage).read_start(stage)
    header = started[0] if started is not None else read_header(output, stage)
    return header.settings if header is not None else None


@dataclass(frozen=True, slots=True)
class Attempt(Generic[I]):
    """One unit, from its item to files in place and, where there is a journal, its line in it; runs in a worker."""

    work: Callable[[I], Result]
    journal: Journal | None
    """None where the driver appends to it what comes back."""
    claims: Claims | None
    retries: int

    def __call__(self, unit: WorkItem[I]) -> Outcome:
        with held_back() as files:
            outcome = self._try(unit, files)
            if self.journal is not None:
                self.journal.append(outcome, files)
            else:
                put_in_place(files, self.claims)
        return outcome

    def _try(self, unit: WorkItem[I], files: dict[Path, Path]) -> Outcome:
        for left in range(self.retries, -1, -1):
            try:
                result = self.work(unit.item)
            except ItemError as error:
                throw_away(files)
                if not left or not isinstance(error, BrokenInputError):
                    return Outcome(unit.key, Status.FAILED, reason=str(error), fingerprint=unit.fingerprint)
            else:
                status = Status.DONE if result.skipped is None else Status.SKIPPED
                made = Outcome(unit.key, status, result.files, result.skipped, result.facts)
                return replace(made, fingerprint=unit.fingerprint)
        raise AssertionError("the last attempt returns")


def _forgotten(line: bytes) -> bytes:
    """The record of a unit that is to be done again: only which files it had."""
    return replace(Outcome.from_line(line), status=Status.FAILED, reason=MADE_ANEW).as_line()


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read back, so that a tuple equals the list that the manifest holds."""
    result = json.loads(json.dumps(values))
    assert isinstance(result, dict)
    return result


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)
