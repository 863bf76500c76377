"""What a stage wrote: its manifest, canonical and free of times and hosts, and the journal of a run under way.

Beside the output lie two files, both the same whether or not the run that made them was ever interrupted:

    copgen_<stage>.json    what made it, with which settings, from what, totals, and what failed or was left out and why
    copgen_<stage>.jsonl   one line per unit of work, sorted by key: its files with size and SHA-256, and facts of it

While a run is under way `.copgen/<stage>.journal` gets one line per finished unit, written by whoever finished it.
A line that a kill cut short is skipped: its unit is done again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from copgen_cli import __version__
from copgen_cli.errors import BrokenInputError
from copgen_cli.stages.atomic import Place, WrittenFile, disk_full_is_an_error, put_in_place
from copgen_cli.stages.claims import Claims

FORMAT = 1


class Status(StrEnum):
    DONE = "done"
    SKIPPED = "skipped"
    """Nothing could be made of it, and nothing is wrong: a cell that one source lacks."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one unit of work."""

    key: str
    status: Status
    files: tuple[WrittenFile, ...] = ()
    reason: str | None = None
    """Why it failed or was skipped."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Small JSON values that later stages or reports want to know."""
    fingerprint: str = ""
    """Of the unit's input, where it has one."""

    def as_line(self) -> bytes:
        values: dict[str, Any] = {"key": self.key, "status": self.status}
        if self.files:
            values["files"] = [[file.path, file.size, file.sha256] for file in self.files]
        if self.reason is not None:
            values["reason"] = self.reason
        if self.facts:
            values["facts"] = dict(self.facts)
        if self.fingerprint:
            values["fingerprint"] = self.fingerprint
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Outcome:
        """Raises ValueError, KeyError or TypeError where the line is not one of ours."""
        values = json.loads(line)
        return cls(
            key=str(values["key"]),
            status=Status(values["status"]),
            files=tuple(WrittenFile(str(path), int(size), str(sha)) for path, size, sha in values.get("files", ())),
            reason=values.get("reason"),
            facts=values.get("facts", {}),
            fingerprint=values.get("fingerprint", ""),
        )


@dataclass(frozen=True, slots=True)
class Header:
    """What made an output, from what: the part of a manifest that a continued run must agree with."""

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]


def manifest_file(output: Path, stage: str) -> Path:
    return output / f"copgen_{stage}.json"


def units_file(output: Path, stage: str) -> Path:
    return output / f"copgen_{stage}.jsonl"


def read_header(output: Path, stage: str) -> Header | None:
    """What the output was made from; None where this stage has not finished here.

    Raises:
        BrokenInputError: the manifest is not readable.
    """
    file = manifest_file(output, stage)
    try:
        values = json.loads(file.read_bytes())
        return Header(str(values["stage"]), dict(values["settings"]), dict(values["inputs"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenInputError(
            f"{file} is damaged: {error}", hint="Remove it, or start afresh with --overwrite."
        ) from None


def read_outcomes(output: Path, stage: str) -> Iterator[Outcome]:
    """The units of a finished run, sorted by key; for the next stage, too."""
    return read_lines(units_file(output, stage))


def write_manifest(
    place: Place,
    header: Header,
    lines: Callable[[], Iterable[bytes]],
    totals: Mapping[str, int],
    beside: Iterable[str],
) -> None:
    """Write both files, the units first; a file that would not change is left alone.

    Args:
        place: of the output.
        header: what it was made from.
        lines: gives those of the units, by key, each time it is called.
        totals: numbers of units, files and bytes.
        beside: names of the files that the stage writes beside those of its units.
    """
    missing = [outcome for outcome in map(Outcome.from_line, lines()) if outcome.status is not Status.DONE]
    values = {
        "format": FORMAT,
        "stage": header.stage,
        "copgen": __version__,
        "settings": header.settings,
        "inputs": header.inputs,
        "totals": totals,
        "missing": [{"key": item.key, "status": item.status, "reason": item.reason} for item in missing],
        "units": units_file(place.output, header.stage).name,
        "beside": sorted(beside),
    }
    text = json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    _write_if_changed(place, units_file(place.output, header.stage), lines)
    _write_if_changed(place, manifest_file(place.output, header.stage), lambda: [text.encode()])


@dataclass(frozen=True, slots=True)
class Journal:
    """The finished units of a run under way; picklable, and appended to by any worker."""

    by_driver: ClassVar[bool] = False
    """Whether only the process that drives the run appends, and workers hand it what became of each unit."""
    file: Path

    def start(
        self,
        place: Place,
        header: Header,
        *,
        afresh: bool,
        abandoned: Iterable[bytes] = (),
        theirs: Iterable[str] = (),
    ) -> None:
        """Begin a new journal.

        Args:
            afresh: what an earlier manifest records does not count.
            abandoned: records of a journal that is given up, whose files must not be forgotten.
            theirs: names of what is not ours, for stores, where claims are not written down one by one.
        """
        values = {"settings": header.settings, "inputs": header.inputs, "afresh": afresh}
        data = b"".join((json.dumps(values, sort_keys=True).encode() + b"\n", *abandoned))
        place.write(self.file.relative_to(place.output).as_posix(), data)

    def append(self, outcome: Outcome, held: dict[Path, Path] | None = None) -> None:
        """Put files in place that were held back, and note their unit: one unit at a time over all threads and
        processes, so that a kill leaves at most one that is in place but not noted. (Worker processes that outlive the
        killed one end one after another, and each may leave one.)

        One write at the end of the file, which the system does not mix with another's where locks do not work. The
        leading newline keeps a line that a kill cut short from spoiling this one.
        """
        with disk_full_is_an_error(self.file):
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                with suppress(OSError):  # a file system without locks: a kill may cost a few units more
                    fcntl.flock(descriptor, fcntl.LOCK_EX)  # until it is closed, also by a kill
                put_in_place(held or {}, Claims(self.file.parents[1]))
                os.write(descriptor, b"\n" + outcome.as_line())
            finally:
                os.close(descriptor)

    def read_start(self, stage: str) -> tuple[Header, bool] | None:
        """What the unfinished run was started with; None where there is none."""
        try:
            with self.file.open("rb") as stream:
                values = json.loads(stream.readline())
            return Header(stage, dict(values["settings"]), dict(values["inputs"])), bool(values["afresh"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def flush(self) -> None:
        """Have all that was appended where a kill does not lose it: it is."""

    def exists(self) -> bool:
        return self.file.is_file()

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)

    def told_theirs(self) -> list[str] | None:
        return None

    def read(self) -> Iterator[Outcome]:
        return read_lines(self.file)


def read_lines(file: Path) -> Iterator[Outcome]:
    """The units of a file of lines; none where there is no such file."""
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for line in stream:
            try:
                yield Outcome.from_line(line)
            except (ValueError, KeyError, TypeError):
                continue


def _write_if_changed(place: Place, file: Path, pieces: Callable[[], Iterable[bytes]]) -> None:
    if _holds(file, pieces()):
        return
    with place.writing(file.name) as beside, beside.open("wb") as stream:
        stream.writelines(pieces())
        stream.flush()
        os.fsync(stream.fileno())


def _holds(file: Path, pieces: Iterable[bytes]) -> bool:
    """Whether a file is there with just these bytes."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return all(stream.read(len(piece)) == piece for piece in pieces) and not stream.read(1)
