"""The labelled grid: records down, conditions, samples and truth across. Pixels are shown one to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDEST = 12
"""Pictures beside each other, before modalities go below one another."""
LINES_PER_PAGE = 8

_GAP = 6
_BLOCK_GAP = 22
_MARGIN = 18
_PAPER, _INK, _FAINT, _EMPTY = "white", "#1a1a1a", "#6b6b6b", "#f0f0f0"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring columns under one title."""

    title: str
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of pictures."""

    label: str
    cells: tuple[np.ndarray | None, ...]
    """(S, S, 3) uint8 each, as many as there are columns; None stays empty."""
    sublabel: str = ""


def draw_grid(blocks: Sequence[Block], lines: Sequence[Line], *, side: int, footer: str) -> Image.Image:
    """Draw one page.

    Args:
        blocks: the columns, from left to right.
        lines: the rows, from top to bottom.
        side: S, of every picture in pixels.
        footer: one line below; it is cut short where the page is too narrow.

    Raises:
        ValueError: a line does not hold one cell per column, or a picture is not (S, S, 3).
    """
    columns = sum(len(block.captions) for block in blocks)
    text = max(13, side // 13)
    left = _MARGIN + round(1.5 * text) + (round(1.4 * text) if any(line.sublabel for line in lines) else 0)
    captioned = any(caption for block in blocks for caption in block.captions)
    top = _MARGIN + round((3.2 if captioned else 1.7) * text)
    lefts = _left_edges(blocks, left, side)
    width = lefts[-1] + side + _MARGIN
    height = top + len(lines) * (side + _GAP) + round(1.4 * text) + _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    _draw_headers(draw, blocks, lefts, (top, top - round((2.1 if captioned else 0.55) * text)), side, text)
    for number, line in enumerate(lines):
        if len(line.cells) != columns:
            raise ValueError(f"{len(line.cells)} cells in a line of {columns} columns")
        y = top + number * (side + _GAP)
        _draw_label(page, line, y, side, text)
        for x, cell in zip(lefts, line.cells, strict=True):
            _draw_cell(page, cell, x, y, side)
    small = _font(max(11, round(0.62 * text)))
    footing = _shortened(draw, footer, small, width - left - _MARGIN)
    draw.text((left, height - _MARGIN), footing, fill=_FAINT, font=small, anchor="ls")
    return page


def _left_edges(blocks: Sequence[Block], left: int, side: int) -> list[int]:
    edges, x = [], left
    for block in blocks:
        for _ in block.captions:
            edges.append(x)
            x += side + _GAP
        x += _BLOCK_GAP - _GAP
    return edges


def _draw_headers(
    draw: ImageDraw.ImageDraw,
    blocks: Sequence[Block],
    lefts: Sequence[int],
    edges: tuple[int, int],
    side: int,
    text: int,
) -> None:
    """Titles, rules and captions; `edges` are the upper edge of the pictures and the line that titles stand on."""
    top, title_line = edges
    first = 0
    for block in blocks:
        last = first + len(block.captions) - 1
        room = lefts[last] + side - lefts[first]
        title = _fitting(draw, block.title, text, room)
        middle = (lefts[first] + lefts[last] + side) / 2
        draw.text((middle, title_line), block.title, fill=_INK, font=title, anchor="ms")
        if len(block.captions) > 1:
            rule = title_line + round(0.35 * text)
            draw.line([(lefts[first], rule), (lefts[last] + side - 1, rule)], fill=_FAINT, width=1)
        for x, caption in zip(lefts[first : last + 1], block.captions, strict=True):
            font = _fitting(draw, caption, round(0.8 * text), side)
            draw.text((x + side / 2, top - round(0.55 * text)), caption, fill=_FAINT, font=font, anchor="ms")
        first = last + 1


def _draw_label(page: Image.Image, line: Line, y: int, side: int, text: int) -> None:
    """The names of a line, turned by a quarter to read upwards."""
    x = _MARGIN
    for words, size, ink in ((line.label, text, _INK), (line.sublabel, round(0.8 * text), _FAINT)):
        if words:
            strip = Image.new("RGB", (side, round(1.4 * size)), _PAPER)
            draw = ImageDraw.Draw(strip)
            font = _fitting(draw, words, size, side)
            shown = _shortened(draw, words, font, side)
            draw.text((side / 2, strip.height / 2), shown, fill=ink, font=font, anchor="mm")
            page.paste(strip.transpose(Image.Transpose.ROTATE_90), (x, y))
            x += round(1.4 * size)


def _draw_cell(page: Image.Image, cell: np.ndarray | None, x: int, y: int, side: int) -> None:
    if cell is None:
        return
    if cell.shape != (side, side, 3) or cell.dtype != np.uint8:
        raise ValueError(f"a picture of shape {cell.shape} and {cell.dtype}, expected uint8 ({side}, {side}, 3)")
    page.paste(Image.fromarray(cell), (x, y))


def _fitting(draw: ImageDraw.ImageDraw, words: str, size: int, room: float) -> Font:
    """The font at this size, or at the largest that fits, down to 11 px."""
    while size > 11 and draw.textlength(words, font=_font(size)) > room:
        size -= 1
    return _font(size)


def _shortened(draw: ImageDraw.ImageDraw, words: str, font: Font, room: float) -> str:
    """The words, or their beginning and an ellipsis."""
    if draw.textlength(words, font=font) <= room:
        return words
    kept = len(words)
    while kept and draw.textlength(words[:kept] + "…", font=font) > room:
        kept -= 1
    return words[:kept] + "…"


@lru_cache(maxsize=32)
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)
