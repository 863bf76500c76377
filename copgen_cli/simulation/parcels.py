"""The marks of people: blocks of land bounded by roads, fields and building plots within them, villages.

Blocks are the Voronoi cells of scattered points, with borders that wander a little. Each block has a direction of its
own, along which it is cut into strips, and the strips into parcels. All of it is laid out in world coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import Voronoi, cKDTree

from copgen_cli.simulation.noise import Float32, Frame, key_of, lattice_noise, uniform

_WANDER_STEP = 120.0  # metres between the bends of a border

Line = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Land between the roads of a cell."""

    label: NDArray[np.uint8]
    """(size, size) number of the block."""
    tables: Float32
    """(blocks, 6): cosine and sine of its direction; width and length of a field, of a plot, metres."""
    borders: list[Line]
    """Polylines (points, 2) in pixels, between blocks; each may carry a track or a road."""


@dataclass(frozen=True, slots=True)
class Villages:
    """Where people settle."""

    centres: NDArray[np.float64]
    """(villages, 2) east and north, metres."""
    radius: NDArray[np.float64]
    """(villages,) metres."""
    roads: list[Line]
    """Polylines (points, 2) in pixels, from village to village."""


def blocks_of(frame: Frame, spacing: float, key: int) -> Blocks:
    """Cut a frame into blocks of about `spacing` metres."""
    points = _scattered(frame, spacing, key, reach=3)
    voronoi = Voronoi(points)
    wander = _Wander(frame, key_of(key, "wander"))
    image = Image.new("L", (frame.size, frame.size))
    draw = ImageDraw.Draw(image)
    borders = [wander.along(*voronoi.vertices[ridge]) for ridge in voronoi.ridge_vertices if -1 not in ridge]
    for number, region in enumerate(voronoi.point_region):
        corners = voronoi.regions[region]
        if -1 not in corners and corners:
            closed = [wander.along(*voronoi.vertices[list(side)]) for side in pairwise([*corners, corners[0]])]
            draw.polygon([tuple(point) for point in np.concatenate(closed)], fill=number % 256)
    x, y = points.astype(np.int64).T
    draws = [uniform(x, y, key=key_of(key, word)) for word in ("turn", "width", "length", "plot")]
    angle = draws[0] * np.pi
    tables = np.stack(
        [
            np.cos(angle),
            np.sin(angle),
            45 + 150 * draws[1] ** 2,
            160 + 420 * draws[2],
            38 + 25 * draws[3],
            55 + 60 * draws[3],
        ],
        axis=1,
    )
    return Blocks(np.asarray(image), tables.astype(np.float32), borders)


def villages_of(frame: Frame, people: float, key: int) -> Villages:
    """Scatter villages, more and larger ones where many people live, and join neighbours by roads."""
    points = _scattered(frame, 2_300, key, reach=1)
    x, y = points.astype(np.int64).T
    chance, size = uniform(x, y, key=key_of(key, "chance")), uniform(x, y, key=key_of(key, "size"))
    lived_in = chance < 0.06 + 0.8 * people
    points, size = points[lived_in], size[lived_in]
    radius = 110 + 750 * size**3 * (0.35 + people)
    wander = _Wander(frame, key_of(key, "wander"))
    roads = []
    if len(points) > 2:
        _, nearest = cKDTree(points).query(points, k=3)
        pairs = {tuple(sorted((a, int(b)))) for a, near in enumerate(nearest) for b in near[1:]}
        roads = [wander.along(points[a], points[b]) for a, b in sorted(pairs)]
    return Villages(points, np.asarray(radius), roads)


def parcels_in(frame: Frame, blocks: Blocks, built: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut blocks into fields, or plots where `built`.

    Returns:
        (size, size) a random number of each parcel, equal within it, and whether a pixel lies on its edge.
    """
    cosine, sine, *_ = blocks.tables.T
    width = np.concatenate([1 / blocks.tables[:, 2], 1 / blocks.tables[:, 4]])
    length = np.concatenate([1 / blocks.tables[:, 3], 1 / blocks.tables[:, 5]])
    padded = 256 - len(cosine)
    cosine, sine = np.pad(cosine, (0, max(padded, 0))), np.pad(sine, (0, max(padded, 0)))
    x = (frame.eastings % 1e5).astype(np.float32)[None, :]
    y = (frame.northings % 1e5).astype(np.float32)[:, None]
    turned = cosine.take(blocks.label), sine.take(blocks.label)
    kind = blocks.label + built.astype(np.uint16) * len(blocks.tables)
    strip = ((turned[0] * x + turned[1] * y) * width.take(kind, mode="clip") + 8192).astype(np.int32)
    strip -= (strip * 40503 >> 7) & 1 & strip  # some strips are twice as wide
    shift = ((strip * np.int32(48271)) & 1023).astype(np.float32) * np.float32(1 / 1024)
    piece = ((turned[0] * y - turned[1] * x) * length.take(kind, mode="clip") + shift + 8192).astype(np.int32)
    number = (strip.astype(np.uint32) * np.uint32(73856093)) ^ (piece.astype(np.uint32) * np.uint32(19349663))
    number = (number ^ (blocks.label * np.uint32(83492791))) * np.uint32(2654435761)
    edge = np.zeros(number.shape, dtype=bool)
    edge[:, 1:] = number[:, 1:] != number[:, :-1]
    edge[1:] |= number[1:] != number[:-1]
    return (number >> np.uint32(24)).astype(np.uint8), edge


def draw_lines(size: int, lines: list[Line], widths: list[int]) -> NDArray[np.bool_]:
    """Which pixels of a square raster polylines in pixels cover."""
    image = Image.new("1", (size, size))
    draw = ImageDraw.Draw(image)
    for line, width in zip(lines, widths, strict=True):
        draw.line([tuple(point) for point in line], fill=1, width=width)
    return np.asarray(image)


class _Wander:
    """Bends straight lines by noise that depends on the place alone, so that lines that meet go on meeting."""

    def __init__(self, frame: Frame, key: int) -> None:
        self.frame = frame
        self.coarse = frame.at_size(64).widened(16)
        self.shift = [45 * lattice_noise(self.coarse, 700, key + axis) for axis in range(2)]

    def along(self, start: Line, end: Line) -> Line:
        """Points in pixels of the frame on the way between two points in metres."""
        steps = int(np.hypot(*(end - start)) / _WANDER_STEP) + 2
        if start[0] > end[0]:  # both neighbours of a border walk it alike
            return self.along(end, start)[::-1]
        way = start + np.linspace(0, 1, steps)[:, None] * (end - start)
        col = ((way[:, 0] - self.coarse.west) / self.coarse.pixel).clip(0, self.coarse.size - 1).astype(int)
        row = ((self.coarse.north - way[:, 1]) / self.coarse.pixel).clip(0, self.coarse.size - 1).astype(int)
        bent = way + np.stack([shift[row, col] for shift in self.shift], axis=1)
        return np.stack([bent[:, 0] - self.frame.west, self.frame.north - bent[:, 1]], axis=1) / self.frame.pixel


def _scattered(frame: Frame, spacing: float, key: int, *, reach: int) -> NDArray[np.float64]:
    """One random point in every square of a lattice over the frame and `reach` squares around it, metres."""
    side = frame.size * frame.pixel
    col = np.arange(int(frame.west // spacing) - reach, int((frame.west + side) // spacing) + reach + 1)
    row = np.arange(int((frame.north - side) // spacing) - reach, int(frame.north // spacing) + reach + 1)
    cols, rows = (axis.ravel().astype(np.int64) for axis in np.meshgrid(col, row))
    east = (cols + uniform(cols, rows, key=key)) * spacing
    north = (rows + uniform(cols, rows, key=key + 1)) * spacing
    return np.stack([east, north], axis=1)
