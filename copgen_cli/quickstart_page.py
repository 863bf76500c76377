"""The page that `copgen quickstart` leaves: what each command made, and the numbers of the report, in one file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from copgen_cli import __version__
from copgen_cli.errors import UnknownNameError
from copgen_cli.modalities import as_modality

LEAST_SCALE = 0.55
"""Of a grid on the page: its pictures of 256 px have 140 at least."""
SHOWN = {
    "psnr": "How near the values of a sample are to the truth's: 30 dB is a difference of 8 grey levels of 255.",
    "correlation": "Whether slopes lie where they truly lie: 1 is all of them, 0 none.",
    "closer": "Share of other places that a sample resembles less than its own: 1 is all of them, 0.5 is chance.",
}
"""Metrics of a translation that one understands at once, each with a sentence; the report has the rest."""


def tour_page(sections: Iterable[str]) -> str:
    """The whole page."""
    return _PAGE.format(version=__version__, style=_STYLE, body="\n".join(sections))


def section(number: int, title: str, line: str, *parts: str, about: str = "") -> str:
    """One step: its title, a sentence of what it does, its command line, and what came of it."""
    says = f'<p class="about">{escape(about)}</p>' if about else ""
    return f"<section><h2><span>{number}</span> {escape(title)}</h2>{says}{command(line)}{''.join(parts)}</section>"


def command(line: str) -> str:
    """A command line, which wraps between its words."""
    words = " ".join(f"<b>{escape(word)}</b>" for word in line.split(" "))
    return f"<pre><code><i>$</i> {words}</code></pre>"


def figure(file: Path, link: str, given: Sequence[str], wanted: Sequence[str], n_samples: int) -> str:
    """A page of a grid, whole on a wide screen and scrolling on a narrow one, and a sentence of what it shows.

    Args:
        file: the page.
        link: to it, from the folder of the tour.
        given, wanted: modalities, by name.
        n_samples: of each place.
    """
    says = what_it_shows(given, wanted, n_samples)
    data = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
    with Image.open(file) as picture:
        least = round(picture.width * LEAST_SCALE)
    image = f'<div class="wide"><img style="--least: {least}px" alt="{escape(says)}" src="{data}"></div>'
    whole = f'<a href="{escape(link)}">In full size.</a>'
    return f"<figure>{image}<figcaption>{escape(says)} {whole}</figcaption></figure>"


def what_it_shows(given: Sequence[str], wanted: Sequence[str], n_samples: int) -> str:
    """One sentence on a grid of samples."""
    answers = "one answer" if n_samples == 1 else f"{n_samples} answers"
    if not given:
        return f"Each row is a place that does not exist, drawn in {_listed(wanted)} at once."
    return (
        f"Each row is a place: on the left {_listed(given)}, which was given; then, of {_listed(wanted)}, {answers} "
        "of the model and the truth."
    )


def scores(report: Path, link: str) -> str:
    """The chief numbers of a report, a table per translation; a sentence alone where it can not be read."""
    more = (
        f'<p><a href="{escape(link)}">The report</a> has all numbers, their meaning, and pictures beside the truth.</p>'
    )
    try:
        numbers = json.loads(report.read_bytes())
        found = [s for s in numbers["scores"] if s.get("value") is not None and s["condition"] and s["metric"] in SHOWN]
        pairs = dict.fromkeys((str(score["condition"]), str(score["target"])) for score in found)
        tables = [_table(pair, [s for s in found if (s["condition"], s["target"]) == pair]) for pair in pairs]
        few = _how_few(numbers.get("facts", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return more
    return f'<div class="scores">{"".join(tables)}</div>{few}{more}'


def _how_few(facts: Mapping[str, Any]) -> str:
    """What so few places can tell."""
    patches, cells = facts.get("patches"), facts.get("cells")
    if not (isinstance(patches, int) and isinstance(cells, int)):
        return ""
    return (
        f'<p class="about">Small print below a number is its 95% interval. These are of {patches} patches in {cells} '
        "cells, so they say how the tour went, and little of the model.</p>"
    )


def _table(pair: tuple[str, str], found: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(_row(score) for score in sorted(found, key=lambda score: [*SHOWN].index(score["metric"])))
    condition, target = pair
    caption = f"{_named(target)} from {_listed(condition.split('+'))}" if condition else _named(target)
    return f"<table><caption>{escape(caption)}</caption>{rows}</table>"


def _row(score: Mapping[str, Any]) -> str:
    low, high = score.get("low"), score.get("high")
    interval = f"<small>{low:.3g} to {high:.3g}</small>" if low is not None and high is not None else ""
    name = f"{score['title']}{' [' + score['unit'] + ']' if score.get('unit') else ''}"
    meaning = escape(SHOWN[score["metric"]])
    return f"<tr><th>{escape(name)}<small>{meaning}</small></th><td>{score['value']:.3g}{interval}</td></tr>"


def _listed(names: Sequence[str]) -> str:
    titles = [_named(name) for name in names]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _named(name: str) -> str:
    try:
        return as_modality(name).spec.title
    except UnknownNameError:
        return name


NEXT = (
    (
        "Ask for other views",
        "copgen sample --model copgen-sim --condition s2_l2a --generate dem --n-samples 4 --limit 3 --spread",
    ),
    (
        "Ask on a page with a map, and take what comes of it (pip install 'copgen[studio]')",
        "copgen studio",
    ),
    (
        "Draw a map of a whole cell, without seams, in some minutes (pip install 'copgen[scene]')",
        "copgen scene --model copgen-sim --region simulated --condition s2_l1c --generate s2_l2a",
    ),
    (
        "Draw what a raster of your own could look like to another sensor, here a Sentinel-2 L2A",
        "copgen scene --model copgen-sim --input s2_l2a=YOUR.tif --generate dem,s1_rtc",
    ),
    ("Leave the simulated Earth: fetch thumbnails of Rome, some hundred megabytes", "copgen download --region rome"),
    ("See every setting, and where it came from", "copgen config show"),
)
"""Where to go from here: what for, and the command line, which works in the folder of the tour."""


def what_next() -> str:
    """The last section."""
    lines = "".join(f"<li>{escape(what)}{command(line)}</li>" for what, line in NEXT)
    return f"<section><h2>Where to go next</h2><ul>{lines}</ul></section>"


_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --pale: #5d5d57; --paper: #fff; --box: #f3f3f0; --line: #deddd7;
  --mark: #00796b; }
@media (prefers-color-scheme: dark) { :root { --ink: #ecebe6; --pale: #a9a8a1; --paper: #191a19; --box: #262725;
  --line: #3a3b38; --mark: #5cc9b8; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 76rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; } h2 span { color: var(--mark); margin-right: .3rem; }
.lead { max-width: 46rem; color: var(--pale); margin: 0 0 2rem; }
.about { max-width: 46rem; margin: 0 0 .6rem; }
section { border-top: 1px solid var(--line); padding: 1.4rem 0; }
pre { background: var(--box); border-radius: 6px; padding: .6rem .9rem; margin: 0 0 .6rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font: .9rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre code { font: inherit; } pre b { font-weight: inherit; display: inline-block; }
pre i { color: var(--pale); font-style: normal; user-select: none; }
figure { margin: 1rem 0 0; } figcaption { color: var(--pale); max-width: 60rem; margin-top: .4rem; }
img { display: block; width: 100%; height: auto; border-radius: 4px; background: #fff; }
a { color: var(--mark); }
.scores { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem 3rem; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; flex: 0 1 26rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { text-align: left; font-weight: 400; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td { text-align: right; white-space: nowrap; padding-right: 0; }
small { display: block; color: var(--pale); font-size: .8rem; }
ul { padding-left: 1.2rem; } li { margin-bottom: .6rem; } li pre { margin-top: .3rem; }
.wide { overflow-x: auto; }
@media (max-width: 60rem) { img { min-width: var(--least); } }
footer { color: var(--pale); font-size: .85rem; border-top: 1px solid var(--line); padding-top: 1rem; }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>copgen quickstart</title><style>{style}</style></head>
<body>
<h1>From an archive to pictures</h1>
<p class="lead">Everything here is synthetic: a simulated Earth, and pictures that a model drew of it. Each step is
a command that works in this folder as it stands.</p>
{body}
<footer>copgen {version}</footer>
</body></html>
"""
