"""Reliability curves and rank histograms as inline SVG, for the report's page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from copgen_cli.evaluation.calibration.reliability import MEANS, PIXELS, Reliability
from copgen_cli.metrics import LEVEL, Estimate

WIDTH, HEIGHT = 258, 230
LEFT, RIGHT, TOP, BOTTOM = 38.0, 242.0, 10.0, 188.0
"""Sides of the plot's area; labels stand below and to the left."""
CLASSES = {PIXELS: "fine", MEANS: "coarse"}
SHIFT = {PIXELS: -2.0, MEANS: 2.0}
"""By which marks of one place stand apart, so that their intervals can be told from one another."""
EXPLANATION = (
    "Left: for central intervals of the samples, how often the truth lies within, against how often it should "
    "(dashed). A curve below is of samples that are too sure, one above of samples that are too unsure; the rightmost "
    "point is Coverage. Right: how many samples lie below the truth. Even (dashed) is calibrated, high ends are "
    "samples too close together, a high middle samples too far apart, and one high side a bias. Black: pixels. Yellow: "
    f"means over 8 x 8 pixels. Bars through marks are {LEVEL:.0%} intervals over cells. Ties count evenly for "
    "all ranks that they allow."
)
STYLE = """
svg.plot { width: 258px; height: 230px; font: 10px/1 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.plot text { fill: #55554f; } .plot .frame { fill: none; stroke: #b9b8b1; } .plot .grid { stroke: #e4e3de; }
.plot .calibrated { stroke: #77766f; stroke-dasharray: 4 3; }
.plot .fine, .plot .coarse { fill: none; stroke-width: 1.5; } .plot .fine { stroke: #1d1d1b; }
.plot .coarse { stroke: #c98a00; } .plot .mark.fine { fill: #1d1d1b; } .plot .mark.coarse { fill: #c98a00; }
.plot rect.share.fine { fill: #d5d4ce; stroke: none; }
"""


def as_figures(curves: Iterable[Reliability]) -> str:
    """One figure of two plots for every condition and target, in the order that they come."""
    together: dict[tuple[str, str], list[Reliability]] = {}
    for curve in curves:
        together.setdefault((curve.condition, curve.target), []).append(curve)
    return "".join(_figure(condition, target, some) for (condition, target), some in together.items())


def _figure(condition: str, target: str, curves: Sequence[Reliability]) -> str:
    name = target if condition in ("", "?") else f"{condition} \N{RIGHTWARDS ARROW} {target}"
    caption = f"{name}, {curves[0].n_samples} samples"
    drawn = _curve_plot(name, curves) + _rank_plot(name, curves)
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def _curve_plot(name: str, curves: Sequence[Reliability]) -> str:
    parts = [_frame(((0, "0"), (0.5, "50%"), (1, "100%")), most=1)]
    parts += [_text(_x(at), BOTTOM + 14, label) for at, label in ((0, "0"), (0.5, "50%"), (1, "100%"))]
    parts += [_text((LEFT + RIGHT) / 2, HEIGHT - 6, "should lie within"), _line(0, 0, 1, 1, "calibrated")]
    for curve in curves:
        kind = CLASSES[curve.resolution]
        points = [(0.0, 0.0), *sorted(zip(curve.nominal, (e.value for e in curve.covered), strict=True)), (1.0, 1.0)]
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        for nominal, covered in zip(curve.nominal, curve.covered, strict=True):
            parts.append(_mark(_x(nominal), covered, curve.resolution, f"{nominal:.0%} should, {covered.value:.0%} do"))
    told = (
        f"{curve.resolution} within the {nominal:.0%} interval: {covered.value:.0%}"
        for curve in curves
        for nominal, covered in zip(curve.nominal, curve.covered, strict=True)
    )
    return _svg(f"Reliability of {name}: {', '.join(told)}", parts)


def _rank_plot(name: str, curves: Sequence[Reliability]) -> str:
    shares = [share for curve in curves for share in curve.ranks]
    most = 1.08 * max(share.high if math.isfinite(share.high) else share.value for share in shares)
    even, ranks = curves[0].even, len(curves[0].ranks)
    every = -(-ranks // 9)
    parts = [_frame(((0, "0"), (even, f"{even:.0%}")), most=most)]
    labels = ((below, _x((below + 0.5) / ranks)) for below in range(0, ranks, every))
    parts += [_text(x, BOTTOM + 14, str(below)) for below, x in labels]
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 6, "samples below the truth"))
    for curve in curves:
        for below, share in enumerate(curve.ranks):
            left, right = _x((below + 0.08) / ranks), _x((below + 0.92) / ranks)
            parts.append(_bar(left, right, share, most, curve.resolution))
            title = f"{share.value:.1%} with {below} samples below"
            parts.append(_mark((left + right) / 2, share, curve.resolution, title, most=most))
    parts.append(_line(0, even / most, 1, even / most, "calibrated"))
    told = (f"{curve.resolution} {', '.join(f'{share.value:.0%}' for share in curve.ranks)}" for curve in curves)
    return _svg(f"Ranks of the truth of {name}, from below all samples to above all: {'; '.join(told)}", parts)


def _svg(description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">'
        f"{''.join(parts)}</svg>"
    )


def _frame(levels: Sequence[tuple[float, str]], most: float) -> str:
    lines = "".join(
        f"{_line(0, level / most, 1, level / most, 'grid')}{_text(LEFT - 5, _y(level / most) + 3.5, label, 'end')}"
        for level, label in levels
    )
    size = f'width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"'
    return f'{lines}<rect class="frame" x="{LEFT}" y="{TOP}" {size}/>'


def _bar(left: float, right: float, share: Estimate, most: float, resolution: str) -> str:
    """Filled for pixels, a line at its height for averages, which stand before it."""
    kind, top = CLASSES[resolution], _y(share.value / most)
    if resolution == MEANS:
        return f'<line class="{kind}" x1="{left:.1f}" y1="{top:.1f}" x2="{right:.1f}" y2="{top:.1f}"/>'
    size = f'width="{right - left:.1f}" height="{BOTTOM - top:.1f}"'
    return f'<rect class="share {kind}" x="{left:.1f}" y="{top:.1f}" {size}/>'


def _mark(x: float, estimate: Estimate, resolution: str, title: str, most: float = 1) -> str:
    """A point with its interval; the title shows under the pointer."""
    kind = CLASSES[resolution]
    x += SHIFT[resolution]
    point = f'<circle class="mark {kind}" cx="{x:.1f}" cy="{_y(estimate.value / most):.1f}" r="1.8"/>'
    whisker = ""
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = _y(estimate.low / most), _y(estimate.high / most)
        whisker = f'<line class="{kind}" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>'
        title += f" ({estimate.low:.0%} to {estimate.high:.0%})"
    return f"<g><title>{escape(f'{resolution}: {title}')}</title>{whisker}{point}</g>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Of shares of the plot's area."""
    return f'<line class="{kind}" x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _x(share: float) -> float:
    return LEFT + share * (RIGHT - LEFT)


def _y(share: float) -> float:
    return BOTTOM - share * (BOTTOM - TOP)
