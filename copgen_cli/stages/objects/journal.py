"""The finished units of a run under way, as whole objects of some lines each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from copgen_cli.stages.atomic import Place
from copgen_cli.stages.manifest import Header, Journal, Outcome, read_lines
from copgen_cli.storage import explain, names_in

BATCH = 200
"""Outcomes that an object holds, and that a kill can lose."""
SECONDS = 5.0
"""After which fewer are written, too."""
READERS = 16


@dataclass(frozen=True, slots=True)
class ObjectJournal(Journal):
    """Of one output and stage. A copy that comes to another process is a writer of its own."""

    by_driver: ClassVar[bool] = True
    writer: str = field(default_factory=lambda: uuid4().hex[:12], compare=False)
    waiting: list[bytes] = field(default_factory=list, compare=False)
    state: dict[str, float] = field(default_factory=dict, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectJournal, (self.file,)

    def start(
        self,
        place: Place,
        header: Header,
        *,
        afresh: bool,
        abandoned: Iterable[bytes] = (),
        theirs: Iterable[str] = (),
    ) -> None:
        values = {"settings": header.settings, "inputs": header.inputs, "afresh": afresh, "theirs": sorted(theirs)}
        data = b"".join((json.dumps(values, sort_keys=True).encode() + b"\n", *abandoned))
        before = self._batches()
        with explain(self.file):
            self.file.write_bytes(data)
            for batch in before:  # of a run that is given up: what they name is among what is abandoned
                batch.unlink(missing_ok=True)

    def append(self, outcome: Outcome, held: dict[Path, Path] | None = None) -> None:
        """Note a unit whose files are in place; with the next batch at the latest."""
        assert not held, "files are put in place by who made them"
        self.waiting.append(outcome.as_line())
        now = time.monotonic()
        if len(self.waiting) >= BATCH or now - self.state.setdefault("written", now) >= SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        number = int(self.state.get("number", 0))
        name = f"{self.file.name.removesuffix('.journal')}.{self.writer}-{number:06}.journal"
        with explain(self.file):
            self.file.with_name(name).write_bytes(b"".join(self.waiting))
        self.waiting.clear()
        self.state.update(number=number + 1, written=time.monotonic())

    def read(self) -> Iterator[Outcome]:
        yield from read_lines(self.file)
        batches = self._batches()
        with ThreadPoolExecutor(READERS) as pool:
            for outcomes in pool.map(lambda file: list(read_lines(file)), batches):
                yield from outcomes
        for line in self.waiting:
            yield Outcome.from_line(line)

    def remove(self) -> None:
        self.waiting.clear()
        with explain(self.file):
            for batch in self._batches():
                batch.unlink(missing_ok=True)
            self.file.unlink(missing_ok=True)

    def told_theirs(self) -> list[str] | None:
        """What was not ours when the run under way began; None where there is no such run."""
        try:
            with self.file.open("rb") as stream:
                return [str(name) for name in json.loads(stream.readline()).get("theirs", ())]
        except (FileNotFoundError, ValueError):
            return None

    def _batches(self) -> list[Path]:
        stem = f"{self.file.name.removesuffix('.journal')}."
        names = names_in(self.file.parent)
        return [
            self.file.with_name(name)
            for name in sorted(names)
            if name.startswith(stem) and name.endswith(".journal") and name != self.file.name
        ]
