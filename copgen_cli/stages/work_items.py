"""What a stage works on and what becomes of it: a unit, the result of its item, the summary of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from copgen_cli.errors import EXIT_PARTLY
from copgen_cli.stages.atomic import WrittenFile
from copgen_cli.stages.manifest import Outcome

I = TypeVar("I")  # noqa: E741


@dataclass(frozen=True, slots=True)
class WorkItem(Generic[I]):
    """One piece of work."""

    key: str
    """Stable between runs: a cell, a patch, a product."""
    item: I
    fingerprint: str = ""
    """Of the input: a recorded unit whose input has changed is done again. Empty where the key says it all."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the function of a stage made of one item."""

    files: tuple[WrittenFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: str | None = None
    """Why nothing was made of the item, though nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run, for people and, through `as_dict`, for machines."""

    stage: str
    output: Path
    done: int
    """Units finished by this run."""
    already: int
    """Units that earlier runs had finished."""
    skipped: tuple[Outcome, ...]
    failed: tuple[Outcome, ...]
    files: int
    """Files of all finished units."""
    bytes: int

    @property
    def exit_code(self) -> int:
        return EXIT_PARTLY if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "output": str(self.output),
            "done": self.done,
            "already": self.already,
            "skipped": {outcome.key: outcome.reason for outcome in self.skipped},
            "failed": {outcome.key: outcome.reason for outcome in self.failed},
            "files": self.files,
            "bytes": self.bytes,
        }
