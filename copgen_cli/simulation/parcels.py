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

_BENDS = 12  # points along a border

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
    points = _scattered(frame, spacing, key, reach=2)
    voronoi = Voronoi(points)
    sides = np.array([ridge for ridge in voronoi.ridge_vertices if -1 not in ridge])
    borders = _Wander(frame, key_of(key, "wander")).between(
        voronoi.vertices[sides[:, 0]], voronoi.vertices[sides[:, 1]]
    )
    ways = {}
    for (start, end), line in zip(sides.tolist(), borders, strict=True):
        ways[start, end], ways[end, start] = line, line[::-1]
    image = Image.new("L", (frame.size, frame.size))
    draw = ImageDraw.Draw(image)
    for number, region in enumerate(voronoi.point_region):
        corners = voronoi.regions[region]
        if corners and -1 not in corners:
            outline = np.concatenate([ways[side] for side in pairwise([*corners, corners[0]])])
            if (outline.max(axis=0) > 0).all() and (outline.min(axis=0) < frame.size).all():
                draw.polygon(outline.ravel().tolist(), fill=number % 256)
    x, y = points.astype(np.int64).T
    turn, slim, long, plot = (uniform(x, y, key=key_of(key, word)) for word in ("turn", "slim", "long", "plot"))
    angle = turn * np.pi
    width, length = 40 * 7**slim, 130 * 6**long
    sizes = [np.cos(angle), np.sin(angle), width, np.maximum(width, length), 28 + 22 * plot, 36 + 50 * plot]
    return Blocks(np.asarray(image), np.stack(sizes, axis=1).astype(np.float32), list(borders))


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
        first, second = np.array(sorted(pairs)).T
        roads = list(wander.between(points[first], points[second]))
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


def pivots_in(frame: Frame, share: float, key: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Circles of irrigation 400 m in radius, as arms that turn about a well leave them.

    Args:
        share: of the places on their lattice that have one.

    Returns:
        (size, size) whether a pixel lies in one, and a random number of each.
    """
    spacing = 860.0
    side = frame.size * frame.pixel
    cols = np.arange(int(frame.west // spacing), int((frame.west + side) // spacing) + 1)
    rows = np.arange(int((frame.north - side) // spacing), int(frame.north // spacing) + 1)
    x, y = (axis.ravel().astype(np.int64) for axis in np.meshgrid(cols, rows))
    chance, kind = uniform(x, y, key=key), uniform(x, y, key=key + 1)
    image = Image.new("I", (frame.size, frame.size))
    draw = ImageDraw.Draw(image)
    for col, row, number in zip(x[chance < share], y[chance < share], kind[chance < share], strict=True):
        left, upper = (col * spacing - frame.west) / frame.pixel, (frame.north - (row + 1) * spacing) / frame.pixel
        reach = 800 / frame.pixel
        draw.ellipse([left, upper, left + reach, upper + reach], fill=1 + int(number * 256))
    drawn = np.asarray(image)
    return drawn > 0, (drawn - 1).astype(np.uint8)


def draw_lines(size: int, lines: list[Line], widths: list[int]) -> NDArray[np.bool_]:
    """Which pixels of a square raster polylines in pixels cover."""
    image = Image.new("1", (size, size))
    draw = ImageDraw.Draw(image)
    for line, width in zip(lines, widths, strict=True):
        draw.line(line.ravel().tolist(), fill=1, width=width)
    return np.asarray(image)


class _Wander:
    """Bends straight lines by noise that depends on the place alone, so that lines that meet go on meeting."""

    def __init__(self, frame: Frame, key: int) -> None:
        self.frame = frame
        self.coarse = frame.at_size(64).widened(16)
        self.shift = [45 * lattice_noise(self.coarse, 700, key + axis) for axis in range(2)]

    def between(self, starts: Line, ends: Line) -> NDArray[np.float64]:
        """Lines (lines, points, 2) in pixels of the frame, from starts to ends (lines, 2) in metres."""
        part = np.linspace(0, 1, _BENDS)[:, None]
        way = starts[:, None] * (1 - part) + ends[:, None] * part
        col = ((way[..., 0] - self.coarse.west) / self.coarse.pixel).clip(0, self.coarse.size - 1).astype(int)
        row = ((self.coarse.north - way[..., 1]) / self.coarse.pixel).clip(0, self.coarse.size - 1).astype(int)
        bent = way + np.stack([shift[row, col] for shift in self.shift], axis=-1)
        return np.stack([bent[..., 0] - self.frame.west, self.frame.north - bent[..., 1]], axis=-1) / self.frame.pixel


def _scattered(frame: Frame, spacing: float, key: int, *, reach: int) -> NDArray[np.float64]:
    """One random point in every square of a lattice over the frame and `reach` squares around it, metres."""
    side = frame.size * frame.pixel
    col = np.arange(int(frame.west // spacing) - reach, int((frame.west + side) // spacing) + reach + 1)
    row = np.arange(int((frame.north - side) // spacing) - reach, int(frame.north // spacing) + reach + 1)
    cols, rows = (axis.ravel().astype(np.int64) for axis in np.meshgrid(col, row))
    east = (cols + uniform(cols, rows, key=key)) * spacing
    north = (rows + uniform(cols, rows, key=key + 1)) * spacing
    return np.stack([east, north], axis=1)
