"""The report as one HTML page that needs nothing beside it: tables, pictures, and what every number means."""

from __future__ import annotations

import math
from html import escape

from copgen_cli import __version__
from copgen_cli.evaluation.calibration import plots
from copgen_cli.evaluation.examples import Column, CopyExample, ExamplePictures
from copgen_cli.evaluation.report import Report, Table, digits_of, order_of, tables
from copgen_cli.metrics import LEVEL, QUANTITIES, Better, Estimate
from copgen_cli.modalities import Modality

_FACTS = {
    "model_sha256": "SHA-256 of its weights",
    "samples_of_each": "samples of each place",
    "steps": "calls of the network per sample",
    "ignored": "what is neither given nor generated",
    "chance_of_top1": "Top-1 by chance",
    "nominal_coverage": "Coverage of calibrated samples",
    "features": "sets are compared by",
    "training_pictures": "Novelty is told against",
}
"""Facts whose names in metrics.json do not speak for themselves."""

_ARROW = {Better.HIGHER: "higher is better", Better.LOWER: "lower is better", Better.NEITHER: ""}


def as_html(report: Report, examples: ExamplePictures) -> str:
    """The whole page."""
    parts = [
        f"<h1>{escape(_title(report))}</h1>",
        '<p class="lead">All generated pictures on this page are synthetic. Every number stands above its '
        f"{LEVEL:.0%} interval.</p>",
        _facts(report),
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        *(_table(table) for table in tables(report)),
        _calibration(report),
        *(_pictures(target, examples) for target in sorted(examples.columns, key=order_of)),
        _copies(examples),
        _meanings(report),
    ]
    style = _STYLE + (plots.STYLE if report.reliability else "")
    return _PAGE.format(title=escape(_title(report)), style=style, body="\n".join(filter(None, parts)))


def _title(report: Report) -> str:
    return f"{report.facts.get('model') or report.facts.get('generated')}, judged"


def _facts(report: Report) -> str:
    rows = "".join(
        f"<dt>{escape(_FACTS.get(name, name.replace('_', ' ')))}</dt><dd>{escape(_plain(value))}</dd>"
        for name, value in report.facts.items()
        if value is not None
    )
    return f"<dl>{rows}</dl>"


def _table(table: Table) -> str:
    headings = "".join(
        f'<th title="{escape(QUANTITIES[key].meaning)}">{escape(column)}</th>'
        for key, column in zip(table.keys, table.columns, strict=True)
    )
    rows = "".join(
        f"<tr><th>{escape(name.replace('->', '→')).replace('+', '+<wbr>')}</th>{''.join(map(_cell, estimates))}</tr>"
        for name, estimates in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2>"
        f'<div class="wide"><table><thead><tr><th></th>{headings}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "<td></td>"
    digits = digits_of(estimate)
    interval = (
        f"<small>{estimate.low:.{digits}f} to {estimate.high:.{digits}f}</small>"
        if math.isfinite(estimate.low) and math.isfinite(estimate.high)
        else ""
    )
    return f'<td title="{estimate.n} values">{estimate.value:.{digits}f}{interval}</td>'


def _calibration(report: Report) -> str:
    if not report.reliability:
        return ""
    curves = sorted(report.reliability, key=lambda curve: order_of(curve.target))  # as the tables have them
    return (
        f"<h2>Calibration of the samples</h2><p>{escape(plots.EXPLANATION)}</p>"
        f'<div class="figures">{plots.as_figures(curves)}</div>'
    )


def _pictures(target: str, examples: ExamplePictures) -> str:
    columns = examples.columns[target]
    headings = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    rows = "".join(
        f"<tr><th>{escape(place)}</th>{''.join(_picture_cell(column, i) for column in columns)}</tr>"
        for i, place in enumerate(examples.places[target])
    )
    return (
        f"<h2>{escape(_name_of_target(target))}</h2>"
        "<p>Each row is a place. A column shows what was drawn from the condition that heads it, or the truth.</p>"
        f'<div class="wide"><table class="pictures"><thead><tr><th></th>{headings}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _picture_cell(column: Column, row: int) -> str:
    pictures = column.rows[row] if row < len(column.rows) else ()
    return f"<td>{''.join(_image(url, column.title) for url in pictures)}</td>"


def _copies(examples: ExamplePictures) -> str:
    if not examples.copies:
        return ""
    figures = "".join(
        _copy(target, example)
        for target, examples in examples.copies.items()
        for example in [min(examples, key=lambda example: example.ratio)]
    )
    return (
        "<h2>Likeliest copies</h2><p>Of all samples of each modality, the one nearest to a training picture (right), "
        "and their distance as a multiple of how far held-out truths are from theirs.</p>"
        f'<div class="figures">{figures}</div>'
    )


def _copy(target: str, example: CopyExample) -> str:
    caption = f"{target} from {example.condition}: {example.ratio:.2f}"
    return (
        f"<figure>{_image(example.sample, 'sample')}{_image(example.training, 'nearest training picture')}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _meanings(report: Report) -> str:
    used = {score.key for score in report.scores}
    items = "".join(
        f"<dt>{escape(report.feature_titles.get(key, quantity.title))}</dt>"
        f"<dd>{escape(' '.join(filter(None, (quantity.meaning, _direction(quantity.better)))))}</dd>"
        for key, quantity in QUANTITIES.items()
        if key in used
    )
    return (
        f"<h2>What the numbers mean</h2><dl>{items}</dl><p>Intervals hold {LEVEL:.0%} of the resamples of a bootstrap "
        "over places: whole cells are drawn, since patches of one cell resemble one another.</p>"
    )


def _direction(better: Better) -> str:
    return f"{_ARROW[better].capitalize()}." if _ARROW[better] else ""


def _name_of_target(target: str) -> str:
    return Modality(target).spec.title if target in list(Modality) else target.capitalize()


def _image(url: str, description: str) -> str:
    return f'<img alt="{escape(description)}" src="{url}">'


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1d1d1b;
  background: #fff; max-width: 80rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
.lead { color: #55554f; margin-top: 0; } .note { border-left: 3px solid #c98a00; padding-left: .7rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; }
dt { color: #55554f; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { font-weight: 600; border-bottom: 2px solid #1d1d1b; vertical-align: bottom; }
tbody th { font-weight: 500; text-align: left; white-space: normal; min-width: 12rem; }
tbody tr { border-bottom: 1px solid #e4e3de; }
td small { display: block; color: #77766f; font-size: .78rem; }
.pictures td { padding: .25rem .35rem; text-align: left; }
.pictures thead th { text-align: left; padding: .3rem .35rem; white-space: normal; }
.pictures tbody th { font-size: .8rem; color: #55554f; vertical-align: middle; } .pictures tbody tr { border: 0; }
img { width: clamp(120px, 12vw, 180px); height: auto; margin-right: 4px; border-radius: 3px; }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem; }
figure { margin: 0; } figcaption { font-size: .85rem; color: #55554f; }
.wide tbody th { position: sticky; left: 0; background: #fff; }
@media (max-width: 40rem) { body { margin: 1.5rem auto; } h1 { font-size: 1.35rem; overflow-wrap: anywhere; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } .pictures tbody th { white-space: normal; }
  tbody th { min-width: 7.5rem; } th, td { padding: .3rem .5rem; } }
footer { margin-top: 3rem; color: #77766f; font-size: .85rem; }
"""

_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title><style>{{style}}</style></head>
<body>
{{body}}
<footer>copgen {__version__}</footer>
</body></html>
"""
