"""What comes together while sets of pictures are judged, and the files that it ends in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from copgen_cli.evaluation.calibration.reliability import Reliability
from copgen_cli.evaluation.examples import ExamplePictures
from copgen_cli.evaluation.page import as_html
from copgen_cli.evaluation.pictures import PictureSet
from copgen_cli.evaluation.report import Report, as_json, is_report
from copgen_cli.evaluation.scores import Score, Scorer
from copgen_cli.metrics import NEED_MODEL, NEEDS, QUANTITIES, Metric
from copgen_cli.stages import Claims, write_atomically

REPORT_FILE = "report.html"
NUMBERS_FILE = "metrics.json"


@dataclass(slots=True, eq=False)
class Assessment:
    """What comes together while sets of pictures pass by."""

    scorer: Scorer
    facts: dict[str, Any]
    notes: list[str]
    told: frozenset[Metric]
    """Metrics that a note names where they give no number."""
    unknown: dict[Metric, dict[str, None]] = field(default_factory=dict)
    """Metrics without a number, and of which targets."""
    examples: ExamplePictures = field(default_factory=ExamplePictures)
    scores: list[Score] = field(default_factory=list)
    reliability: list[Reliability] = field(default_factory=list)

    def add(self, pictures: PictureSet) -> None:
        scores = self.scorer.scores(pictures)
        for metric in sorted(self.told - NEED_MODEL - {QUANTITIES[score.key].metric for score in scores}):
            self.unknown.setdefault(metric, {})[pictures.target] = None
        self.scores += scores
        self.reliability += self.scorer.reliability(pictures)
        self.examples.add(pictures)
        copy = self.scorer.closest_copy(pictures)
        if copy is not None:
            self.examples.add_copy(pictures.target, pictures.condition, copy)

    @property
    def report(self) -> Report:
        network = self.scorer.features
        titles = {"frechet": network.frechet_name, "kernel": network.kernel_name} if network else {}
        unknown = [f"No {m} of {', '.join(targets)}: it needs {NEEDS[m]}." for m, targets in self.unknown.items()]
        return Report(self.facts, tuple(self.scores), titles, (*self.notes, *unknown), tuple(self.reliability))

    def write(self, folder: Path) -> Mapping[str, Path]:
        """Write the page and the numbers, each whole or not at all.

        Raises:
            MismatchError: under one of their names lies what copgen did not write.
        """
        page, numbers = folder / REPORT_FILE, folder / NUMBERS_FILE
        claims = claim_report(folder)
        write_atomically(numbers, (json.dumps(as_json(self.report), indent=2) + "\n").encode(), claims)
        write_atomically(page, as_html(self.report, self.examples).encode(errors="replace"), claims)
        return {"report": page, "numbers": numbers}


def claim_report(folder: Path) -> Claims:
    """The claims to the names of a report's files.

    Raises:
        MismatchError: under one of them lies what copgen did not write.
    """
    files = folder / NUMBERS_FILE, folder / REPORT_FILE
    claims = Claims(folder)
    claims.look_anew()
    if is_report(files[0]):
        claims.adopt(files)
    claims.require(*files)
    return claims
