"""The preview of a scene: conditions, samples and, where it is known, the truth; with scale bar and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from copgen_cli.outputs import Block, Line, draw_grid
from copgen_cli.places.grid import Grid

SIDE = 384
"""Of every picture in pixels."""
_INK, _FAINT, _PAPER = "#1a1a1a", "#6b6b6b", (255, 255, 255)
_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One picture of the preview."""

    title: str
    caption: str
    pixels: np.ndarray
    """(H, W, 3) or (H, W) uint8, of the shape of the scene or smaller."""


def draw_preview(columns: Sequence[Column], grid: Grid, name: str, footer: str) -> Image.Image:
    """Draw the page.

    Args:
        columns: from left to right; neighbours of one title stand under one heading.
        grid: of the scene.
        name: of its area, at the side.
        footer: one line below.
    """
    blocks: list[Block] = []
    for column in columns:
        if blocks and blocks[-1].title == column.title:
            blocks[-1] = Block(column.title, (*blocks[-1].captions, column.caption))
        else:
            blocks.append(Block(column.title, (column.caption,)))
    pictures = tuple(_squared(column.pixels) for column in columns)
    page = draw_grid(blocks, [Line(name, pictures)], side=SIDE, footer=footer)
    return _with_legend(page, grid)


def _squared(pixels: np.ndarray) -> np.ndarray:
    """A picture made to fit a square, in the middle of white."""
    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    height, width = colour.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = Image.fromarray(colour).resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    square = Image.new("RGB", (SIDE, SIDE), _PAPER)
    square.paste(resized, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square)


def _with_legend(page: Image.Image, grid: Grid) -> Image.Image:
    """The page with a line more: a scale bar, and longitude and latitude of two corners."""
    font = ImageFont.load_default(size=15)
    whole = Image.new("RGB", (page.width, page.height + 40), _PAPER)
    whole.paste(page, (0, 0))
    draw = ImageDraw.Draw(whole)
    metres_per_pixel = max(grid.width, grid.height) * _pixel_metres(grid) / SIDE
    length = _round_length(metres_per_pixel * SIDE / 3)
    bar = round(length / metres_per_pixel)
    x, y = 60, page.height + 12
    draw.line([(x, y - 5), (x, y), (x + bar, y), (x + bar, y - 5)], fill=_INK, width=2)
    told = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    draw.text((x + bar + 10, y), told, fill=_INK, font=font, anchor="lm")
    corners = grid.outline(1)["coordinates"][0]
    (west, north), (east, south) = corners[0], corners[2]
    place = f"{_degrees(north, 'NS')} {_degrees(west, 'EW')} to {_degrees(south, 'NS')} {_degrees(east, 'EW')}"
    room = page.width - x - bar - 110
    if draw.textlength(place, font=font) < room:
        draw.text((page.width - 24, y), f"{place}, {_name_of(grid.place.crs)}", fill=_FAINT, font=font, anchor="rm")
    else:
        draw.text((x, y + 18), place, fill=_FAINT, font=font, anchor="lm")
    return whole


def _pixel_metres(grid: Grid) -> float:
    a, _, _, d, _, _ = grid.place.transform
    return float(np.hypot(a, d))


def _round_length(metres: float) -> float:
    """The largest of 1, 2, 5, 10 and so on that is no longer."""
    power = 10 ** int(np.floor(np.log10(metres)))
    return float(max(step * power for step in _STEPS if step * power <= metres))


def _degrees(value: float, signs: str) -> str:
    return f"{abs(value):.4f}° {signs[0] if value >= 0 else signs[1]}"


def _name_of(crs: str) -> str:
    """A code, or the name in a longer description."""
    return crs if crs.startswith("EPSG:") else crs.split('"')[1] if '"' in crs else "own CRS"
