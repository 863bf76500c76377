"""The end of a run: what it made, and `samples.json`, which lists what lies in the folder, for programs."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli import __version__
from copgen_cli.errors import CopgenError
from copgen_cli.outputs import FORMAT
from copgen_cli.sampling.run import LISTING, Job, Step
from copgen_cli.stages import Outcome, StageRun, Status, Summary, read_outcomes


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of sampling made."""

    summary: Summary
    samples: int
    """Drawn by this run."""
    seconds: float
    """That it took, loading left out."""
    listing: Path


def finish(job: Job, run: StageRun, drawn: Iterable[Step | Outcome], *, done_before: int) -> Report:
    """Draw all, close the manifest, and write `samples.json`.

    Args:
        drawn: what `draw` yields.
        done_before: how many groups of pictures earlier runs had finished.

    Raises:
        CopgenError: not one record could be used.
    """
    started, samples, done = time.monotonic(), 0, done_before
    failed: list[Outcome] = []
    for told in drawn:
        if isinstance(told, Outcome) and told.status is Status.DONE:
            done += 1
            samples += sum(len(record["samples"]) for record in told.facts["records"].values())
        elif isinstance(told, Outcome):
            failed.append(told)
    seconds = time.monotonic() - started
    if failed and not done:
        several = f"None of {len(failed):,} records could be used. " if len(failed) > 1 else ""
        raise CopgenError(
            f"{several}{failed[0].key}: {failed[0].reason}", hint=failed[0].facts.get("hint", "Mend the input.")
        )
    for outcome in failed:
        run.record(outcome)
    summary = run.finish(still_to_come=[LISTING])
    listing = run.output / LISTING
    if summary.done or not listing.is_file():
        with run.place.writing(LISTING) as beside, beside.open("w", encoding="utf-8") as stream:
            stream.writelines(_list(job, run, samples, seconds))
    return Report(summary, samples, seconds, listing)


def _list(job: Job, run: StageRun, samples: int, seconds: float) -> Iterator[str]:
    """The JSON document in pieces, so that a list of a hundred thousand pictures costs no memory."""
    head: dict[str, Any] = {
        "format": FORMAT,
        "synthetic": True,
        "software": f"copgen {__version__}",
        "settings": job.recipe.as_dict() | {"save_as": str(job.save_as), "spread": job.spread},
        "noise": "a sample's noise is a function of its seed, its id and the modality's name",
        "timing": {
            "samples": samples,
            "seconds": round(seconds, 3),
            "seconds_per_sample": round(seconds / samples, 3) if samples else None,
            "batch_size": job.batch_size,
            "device": job.recipe.device,
        },
    }
    yield "{\n"
    for name, value in head.items():
        yield f"{json.dumps(name)}: {json.dumps(value)},\n"
    outcomes = functools.partial(read_outcomes, run.output, run.header.stage)
    yield from _object("records", (item for outcome in outcomes() for item in outcome.facts.get("records", {}).items()))
    yield ",\n"
    yield from _object(
        "files",
        (
            (file.path, {"sha256": file.sha256, "bytes": file.size})
            for outcome in outcomes()
            if outcome.status is Status.DONE
            for file in outcome.files
        ),
    )
    yield ",\n"
    missing = (outcome for outcome in outcomes() if outcome.status is not Status.DONE)
    yield from _object("missing", ((outcome.key, outcome.reason) for outcome in missing))
    yield "\n}\n"


def _object(name: str, items: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """One member of the document that is an object of many members, a line each."""
    yield f"{json.dumps(name)}: {{"
    for number, (key, value) in enumerate(items):
        yield f"{',' if number else ''}\n  {json.dumps(key)}: {json.dumps(value)}"
    yield "\n}"
