"""An area in latent pixels: the windows that the network sees, the blocks that are drawn apart, noise by position.

A canvas covers its grid and, where that is smaller than a window or no whole number of latent pixels, a little more.
Windows stand on a lattice of the whole area, so that blocks which are drawn apart see the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from copgen_cli.model import sample_noise
from copgen_cli.places.grid import Grid

MARGIN = 48
"""Latent pixels around a block that are walked with it: what lies further off changes nothing that can be seen."""
NOISE_TILE = 16
"""Side in latent pixels of the squares of ground that have noise of their own."""
BLEND = 4
"""Latent pixels by which a block's pictures reach beyond it on each side, where neighbours are blended."""

Span = tuple[int, int]
"""First, and one after the last."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a canvas that is drawn by itself; all in latent pixels of the canvas."""

    row: int
    column: int
    rows: Span
    columns: Span
    drawn_rows: Span
    """With what overlaps the neighbours."""
    drawn_columns: Span
    window_rows: tuple[int, ...]
    """Upper edges of the windows that are walked, beyond the block by a margin."""
    window_columns: tuple[int, ...]

    @property
    def key(self) -> str:
        return f"block_{self.row:03}_{self.column:03}"

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Upper left corners."""
        return [(row, column) for row in self.window_rows for column in self.window_columns]


@dataclass(frozen=True)
class Canvas:
    """The latent pixels of an area."""

    grid: Grid
    """What is asked for, in pixels."""
    window: int
    """Side of the network's latents."""
    reduction: int
    """Pixels per latent pixel along a side."""
    stride: int
    """Between windows."""
    block: int
    """The most that a side of a block has."""

    @property
    def height(self) -> int:
        """In latent pixels."""
        return self._length(self.grid.height)

    @property
    def width(self) -> int:
        return self._length(self.grid.width)

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the grid's first pixel, in pixels of the canvas."""
        rows, columns = self.height * self.reduction, self.width * self.reduction
        return (rows - self.grid.height) // 2, (columns - self.grid.width) // 2

    @cached_property
    def window_rows(self) -> tuple[int, ...]:
        return window_edges(self.height, self.window, self.stride)

    @cached_property
    def window_columns(self) -> tuple[int, ...]:
        return window_edges(self.width, self.window, self.stride)

    @property
    def whole(self) -> Grid:
        """All pixels of the canvas."""
        return self.pixels_of((0, self.height), (0, self.width))

    def pixels_of(self, rows: Span, columns: Span) -> Grid:
        """The pixels under some latent pixels."""
        top, left = self.offset
        return self.grid.part(
            rows[0] * self.reduction - top,
            columns[0] * self.reduction - left,
            (rows[1] - rows[0]) * self.reduction,
            (columns[1] - columns[0]) * self.reduction,
        )

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        rows, columns = _parts(self.height, self.block), _parts(self.width, self.block)
        return tuple(
            Block(
                i,
                j,
                row,
                column,
                _grown(row, BLEND, self.height),
                _grown(column, BLEND, self.width),
                self._windows_around(self.window_rows, row, self.height),
                self._windows_around(self.window_columns, column, self.width),
            )
            for i, row in enumerate(rows)
            for j, column in enumerate(columns)
        )

    @property
    def borders(self) -> dict[str, list[int]]:
        """Rows and columns of the grid, in pixels, at which a window or a block begins or ends."""
        top, left = self.offset
        rows = {edge for start in self.window_rows for edge in (start, start + self.window)}
        columns = {edge for start in self.window_columns for edge in (start, start + self.window)}
        rows |= {edge for block in self.blocks for edge in block.rows}
        columns |= {edge for block in self.blocks for edge in block.columns}
        return {
            "rows": [y for row in sorted(rows) if 0 < (y := row * self.reduction - top) < self.grid.height],
            "columns": [x for column in sorted(columns) if 0 < (x := column * self.reduction - left) < self.grid.width],
        }

    def noise(
        self, seed: int, sample: int, modality: str, rows: Span, columns: Span, purpose: str, channels: int
    ) -> Tensor:
        """Standard normal noise (channels, H, W) of some latent pixels.

        A function of seed, sample, modality, purpose and position on the ground: the same ground has the same noise,
        whatever area it is asked in.
        """
        first_row, first_column = self._ground
        return _ground_noise(
            seed,
            f"{self.grid.place.crs} {sample}",
            modality,
            purpose,
            channels,
            (first_row + rows[0], first_row + rows[1]),
            (first_column + columns[0], first_column + columns[1]),
        )

    @property
    def _ground(self) -> tuple[int, int]:
        """Row and column of the canvas's first latent pixel, counted from the origin of its projection."""
        column, row = self.whole.place.to_pixels(0, 0)
        return round(-row / self.reduction), round(-column / self.reduction)

    def _length(self, pixels: int) -> int:
        return max(-(-pixels // self.reduction), self.window)

    def _windows_around(self, edges: tuple[int, ...], span: Span, length: int) -> tuple[int, ...]:
        first, last = _grown(span, max(MARGIN, self.window + BLEND), length)  # what is drawn of a block is covered
        return tuple(edge for edge in edges if edge >= first and edge + self.window <= last)


def window_edges(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Where windows begin that cover a length; the last is moved back to end with it."""
    last = length - window
    return (*range(0, last, stride), last)


def window_weight(size: int) -> Tensor:
    """(size, size) raised cosine: how much each latent pixel of a window counts where windows overlap.

    After MultiDiffusion (arXiv:2302.08113), which weighs all alike: what is near the edge of a window is told with less
    of its surroundings.
    """
    edge = torch.sin(math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size) ** 2
    return torch.outer(edge, edge).float()


def ramp_weight(size: int, ramp: int) -> np.ndarray:
    """(size, size) float32 weight of a decoded window: 1 in the middle, less over `ramp` pixels towards its edges."""
    steps = np.arange(size, dtype=np.float32) + np.float32(0.5)
    edge = np.minimum(1, np.minimum(steps, size - steps) / max(ramp, 1)).astype(np.float32)
    return np.outer(edge, edge)


def _parts(length: int, size: int) -> list[Span]:
    """A length in about equal parts of at most that size."""
    count = max(1, -(-length // size))
    edges = [round(length * i / count) for i in range(count + 1)]
    return list(pairwise(edges))


def _grown(span: Span, margin: int, length: int) -> Span:
    return max(0, span[0] - margin), min(length, span[1] + margin)


def _ground_noise(
    seed: int, sample: str, modality: str, purpose: str, channels: int, rows: Span, columns: Span
) -> Tensor:
    noise = torch.empty(channels, rows[1] - rows[0], columns[1] - columns[0])
    for row, inside_rows, there_rows in _tiles(rows):
        for column, inside_columns, there_columns in _tiles(columns):
            tile = _noise_tile(seed, f"{sample} {row} {column}", modality, purpose, channels)
            noise[:, there_rows, there_columns] = tile[:, inside_rows, inside_columns]
    return noise


def _tiles(span: Span) -> Iterator[tuple[int, slice, slice]]:
    """Numbers of the tiles that a span touches, what it takes of each, and where that goes."""
    for tile in range(span[0] // NOISE_TILE, -(-span[1] // NOISE_TILE)):
        first, last = max(span[0], tile * NOISE_TILE), min(span[1], (tile + 1) * NOISE_TILE)
        yield tile, slice(first - tile * NOISE_TILE, last - tile * NOISE_TILE), slice(first - span[0], last - span[0])


@lru_cache(maxsize=4096)
def _noise_tile(seed: int, sample: str, modality: str, purpose: str, channels: int) -> Tensor:
    return sample_noise(seed, [sample], modality, (channels, NOISE_TILE, NOISE_TILE), purpose=purpose)[0]
