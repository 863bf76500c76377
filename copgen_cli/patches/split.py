"""Which half of the data a cell belongs to: a function of its name, a seed and a ratio alone.

No list of cells, no set order, no process takes part, so that a subset that grows, another modality or another
machine never moves a cell. With a higher ratio cells only move from test to train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from copgen_cli.archive import Cell, columns_in_row, columns_of_row, parse_cell
from copgen_cli.modalities import Split


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How cells are dealt out."""

    ratio: float
    """Share of cells that go to train."""
    seed: int
    block: int = 1
    """Side in cells of the blocks that go to one split together."""


def split_of(cell: str, rule: SplitRule) -> Split | None:
    """The split of a cell.

    Pictures of neighbouring cells overlap by some hundred metres. With blocks (`rule.block` above 1) a test cell beside
    a train cell belongs to neither split, so that nothing in test has been seen in training.

    Returns:
        None for a cell that is left out between two blocks.

    Raises:
        UsageError: the name is no cell's, which matters to blocks alone.
    """
    if rule.block == 1:
        return _deal(cell, rule)
    here = parse_cell(cell)
    split = _split_of_block(here, rule)
    if split is Split.TEST and any(_split_of_block(beside, rule) is Split.TRAIN for beside in neighbours(here)):
        return None
    return split


def neighbours(cell: Cell) -> Iterator[Cell]:
    """The cells that share an edge or a corner with this one; columns of two rows line up at Greenwich alone."""
    around = columns_of_row(cell.row)
    yield from (_wrapped(cell.row, cell.col + step) for step in (-1, 1))
    for row in (cell.row - 1, cell.row + 1):
        columns = columns_of_row(row)
        first = -(-cell.col * columns // around) - 1  # exact: edges are compared as fractions of the circle
        last = (cell.col + 1) * columns // around
        yield from (_wrapped(row, col) for col in range(first, last + 1))


def _wrapped(row: int, col: int) -> Cell:
    columns = columns_in_row(row)
    return Cell(row, (col - columns.start) % len(columns) + columns.start)


def _split_of_block(cell: Cell, rule: SplitRule) -> Split:
    return _deal(f"{cell.row // rule.block} {cell.col // rule.block}", rule)


def _deal(name: str, rule: SplitRule) -> Split:
    """Train where the name's hash, as a fraction of its range, lies below the ratio."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=str(rule.seed).encode(), person=b"copgen.split")
    return Split.TRAIN if int.from_bytes(digest.digest(), "big") < rule.ratio * 2**64 else Split.TEST
