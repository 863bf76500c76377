"""What an evaluation says: as JSON, and as tables for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli import __version__
from copgen_cli.evaluation.calibration.reliability import Reliability
from copgen_cli.evaluation.scores import Score
from copgen_cli.metrics import LEVEL, QUANTITIES, Estimate
from copgen_cli.modalities import Kind, Modality, Rule

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers that stand in one table."""

    title: str
    keys: tuple[str, ...]


FAMILIES = (
    Family("Each sample beside its truth", ("psnr", "ssim", "lpips", "correlation", "closer", "closer_layout", "top1")),
    Family("All samples beside all truths", ("frechet", "kernel", "precision", "recall", "wasserstein", "spectrum")),
    Family("Wasserstein by channel", ("wasserstein_red", "wasserstein_green", "wasserstein_blue")),
    Family("Samples among themselves", ("diversity", "coverage", "coverage_coarse", "copying")),
    Family("Errors in the unit of each row", ("mae", "rmse", "bias", "spectral_angle")),
    Family("Classes", ("accuracy", "mean_iou", "macro_f1", "iou", "f1")),
    Family("Place and time", ("distance", "time", "season")),
    Family(
        "Means of whole patches",
        (
            "range_coverage",
            "spectral_precision",
            "spectral_recall",
            "nearest_neighbour",
            "squared_mmd",
            "spectral_wasserstein",
            "intra_set_distance",
            "intra_set_distance_truth",
        ),
    ),
    Family(
        "The autoencoder alone",
        ("reconstruction", "reconstruction_spectrum", "reconstruction_saturation", "autoencoder_noise"),
    ),
)
CYCLE_KEYS = ("psnr", "frechet")
LOPSIDED = 0.2
"""Of half an interval's width: how far its middle may lie from the number that "±" speaks of."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of scores under columns of quantities."""

    title: str
    columns: tuple[str, ...]
    """Headings after the first column."""
    keys: tuple[str, ...]
    """Of `QUANTITIES`, one per column."""
    rows: tuple[tuple[str, tuple[Estimate | None, ...]], ...]
    """What it is of, and one estimate per column."""


@dataclass(frozen=True, slots=True)
class Report:
    facts: Mapping[str, Any]
    """What was evaluated, and how: small JSON values."""
    scores: tuple[Score, ...]
    feature_titles: Mapping[str, str]
    """What distances are called in the feature network that was used."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    reliability: tuple[Reliability, ...] = ()
    """How often central intervals of the samples hold the truth, by condition, target and resolution."""

    def title_of(self, key: str) -> str:
        """With its unit, as a column's heading."""
        quantity = QUANTITIES[key]
        title = self.feature_titles.get(key, quantity.title)
        return f"{title} [{quantity.unit}]" if quantity.unit else title


def as_json(report: Report) -> dict[str, Any]:
    """One JSON document; what is unknown is null."""
    return {
        "format": FORMAT,
        "copgen": __version__,
        "confidence_level": LEVEL,
        "facts": dict(report.facts),
        "notes": list(report.notes),
        "scores": [_score_as_json(score, report) for score in report.scores],
        "reliability": [curve.as_json() for curve in report.reliability],
    }


def is_report(file: Path) -> bool:
    """Whether a file is what `as_json` makes of a report."""
    try:
        return {"format", "copgen", "confidence_level", "facts", "scores"} <= json.loads(file.read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def tables(report: Report) -> list[Table]:
    """The scores, family by family; families and columns without a number are left out."""
    translated = [score for score in report.scores if not score.translations]
    found = []
    for family in FAMILIES:
        scores = {(s.condition, s.target, s.key): s.estimate for s in translated if s.key in family.keys}
        keys = tuple(key for key in family.keys if any(k == key for _, _, k in scores))
        if keys:
            pairs = dict.fromkeys((condition, target) for condition, target, _ in scores)
            rows = sorted(pairs, key=lambda pair: order_of(pair[1]))  # what is compared stands together
            found.append(
                Table(
                    family.title,
                    tuple(report.title_of(key) for key in keys),
                    keys,
                    tuple((_arrow(c, _named(t)), tuple(scores.get((c, t, key)) for key in keys)) for c, t in rows),
                )
            )
    cycles = _cycle_table(report)
    return [*found, cycles] if cycles else found


def as_text(report: Report) -> list[str]:
    """Lines for a terminal: every table with its numbers and their intervals."""
    lines: list[str] = []
    for table in tables(report):
        cells = [[name, *(with_interval(estimate) for estimate in estimates)] for name, estimates in table.rows]
        lines += ["", *_aligned([[table.title, *table.columns], *cells])]
    return lines


def digits_of(estimate: Estimate) -> int:
    """Decimals that say no more than the interval allows: two digits of half its width, or else three of the number."""
    half = (estimate.high - estimate.low) / 2
    known = math.isfinite(half) and half > 0
    leading, significant = (half, 2) if known else (abs(estimate.value), 3)
    if leading == 0:
        return 0
    return min(max(significant - 1 - math.floor(math.log10(leading)), 0), 6)


def _score_as_json(score: Score, report: Report) -> dict[str, Any]:
    quantity = QUANTITIES[score.key]
    values = {
        "condition": score.condition,
        "target": score.target,
        "metric": score.key,
        "title": report.feature_titles.get(score.key, quantity.title),
        "unit": score.unit or quantity.unit,
        "better": str(quantity.better),
        "value": _or_none(score.estimate.value),
        "low": _or_none(score.estimate.low),
        "high": _or_none(score.estimate.high),
        "n": score.estimate.n,
    }
    return values | ({"via": score.via, "translations": score.translations} if score.translations else {})


def _cycle_table(report: Report) -> Table | None:
    scores = {(s.target, s.via, s.key, s.translations): s.estimate for s in report.scores if s.translations}
    columns = sorted({(CYCLE_KEYS.index(key), number) for _, _, key, number in scores if key in CYCLE_KEYS})
    if not columns:
        return None
    keys = [(CYCLE_KEYS[index], number) for index, number in columns]
    rows = dict.fromkeys((start, via) for start, via, _, _ in scores)
    return Table(
        "There and back again",
        tuple(f"{report.title_of(key)} after {number}" for key, number in keys),
        tuple(key for key, _ in keys),
        tuple(
            (f"{start} via {via}", tuple(scores.get((start, via, key, number)) for key, number in keys))
            for start, via in rows
        ),
    )


def order_of(target: str) -> int:
    """Where a target stands among others: as the registry orders modalities."""
    names = list(map(str, Modality))
    name = target.partition(" ")[0]  # of one band, or of all
    return names.index(name) if name in names else len(names)


def _named(target: str) -> str:
    """A target with the unit of its values, where these are measured."""
    name = target.partition(" ")[0]
    spec = Modality(name).spec if name in list(Modality) else None
    if spec is None or spec.kind is not Kind.RASTER:
        return target
    return f"{target} [{'dB' if spec.normalisation.rule is Rule.DECIBEL else spec.unit}]"


def _arrow(condition: str, target: str) -> str:
    return target if condition in ("", "?") else f"{condition} -> {target}"


def with_interval(estimate: Estimate | None) -> str:
    """A number and half the width of its interval; the ends instead where they lie at unlike distances from it."""
    if estimate is None:
        return ""
    digits = digits_of(estimate)
    half = (estimate.high - estimate.low) / 2
    interval = ""
    if abs((estimate.high + estimate.low) / 2 - estimate.value) > LOPSIDED * half:
        interval = f" ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
    elif math.isfinite(half):
        interval = f" ± {half:.{digits}f}"
    return f"{estimate.value:.{digits}f}{interval}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
