"""Which half of the data a cell belongs to: a function of its name, a seed and a ratio alone.

No order, no other cell, no process takes part, so that a subset that grows, another modality or another
machine never moves a cell. With a higher ratio cells only move from test to train. A list of cells that are held out
takes the place of the rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from copgen_cli.archive import Cell, columns_in_row, columns_of_row, parse_cell
from copgen_cli.errors import BrokenInputError, UsageError
from copgen_cli.modalities import Split


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How cells are dealt out."""

    ratio: float
    """Share of cells that go to train."""
    seed: int
    block: int = 1
    """Side in cells of the blocks that go to one split together."""
    held_out: frozenset[str] | None = None
    """The cells that go to test, all others to train, whatever the rest says; None deals them by name."""


def read_hold_out(file: Path) -> frozenset[str]:
    """The cells of a text file with one on each line; empty lines are passed over.

    Raises:
        UsageError: there is no such file.
        BrokenInputError: it is no text, or a line is no cell's name.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{file} can not be read: {error.strerror}.", hint="Check --hold-out.") from error
    except UnicodeDecodeError as error:
        raise BrokenInputError(f"{file} is no text.", hint="Give a file with a cell on each line.") from error
    cells = [line.strip() for line in lines if line.strip()]
    for cell in cells:
        try:
            parse_cell(cell)
        except UsageError as error:
            raise BrokenInputError(
                f"{file}: {cell[:40]!r} is no cell.", hint="Give one such as 467U_102R a line."
            ) from error
    return frozenset(cells)


def split_of(cell: str, rule: SplitRule) -> Split | None:
    """The split of a cell.

    Pictures of neighbouring cells overlap by some hundred metres. With blocks (`rule.block` above 1) a test cell beside
    a train cell belongs to neither split, so that nothing in test has been seen in training.

    Returns:
        None for a cell that is left out between two blocks.

    Raises:
        UsageError: the name is no cell's, which matters to blocks alone.
    """
    if rule.held_out is not None:
        return Split.TEST if cell in rule.held_out else Split.TRAIN
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
