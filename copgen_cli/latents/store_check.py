"""Whether a database can be mapped: LMDB follows page numbers and sizes as it finds them, and one that leads beyond the
end of the file kills the process that reads there.

Only the pages of the tree are read, one for about a hundred records. The layout is that of LMDB 0.9 on a 64-bit
little-endian machine (`mdb.c`: MDB_page, MDB_meta, MDB_node).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct("<QHHHH")  # page number, padding, flags, end of the list of nodes, start of free space
_META = struct.Struct("<II16x")  # magic number, version
_TREE = struct.Struct("<I36xQ")  # page size (in the first of two), root
_LAST = struct.Struct("<QQ")  # last page in use, number of the transaction
_NODE = struct.Struct("<HHHH")  # size or page (low, high), flags, length of the key
_PAGE_NUMBER = struct.Struct("<Q")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _BIG = 1, 2, 1
_EMPTY = (1 << 64) - 1
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class _File:
    stream: BinaryIO
    pages: int
    """Whole pages that the file holds."""
    page_size: int

    def page(self, number: int) -> bytes:
        if not 2 <= number < self.pages:
            raise ValueError(f"it refers to page {number} of {self.pages}")
        self.stream.seek(number * self.page_size)
        return self.stream.read(self.page_size)


def check_tree(file: Path) -> None:
    """Follow the tree of a database from its root to its records.

    Raises:
        ValueError: it is no LMDB database of a known layout, or some page or record would lie outside of the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        page_size, root, pages = _newest_meta(stream)
        if pages * page_size > size:
            raise ValueError(f"it has {size:,} of {pages * page_size:,} bytes")
        budget = _walk(_File(stream, size // page_size, page_size), root, _DEEPEST) if root != _EMPTY else iter(())
        for seen, _ in enumerate(budget):
            if seen > size // page_size:
                raise ValueError("its pages refer to one another in circles")


def _newest_meta(stream: BinaryIO) -> tuple[int, int, int]:
    """Page size, root and number of pages after the last transaction; two pages at the beginning take turns."""
    found = []
    page_size = 4096
    for number in (0, 1):
        stream.seek(number * page_size)
        page = stream.read(160)
        if len(page) < 160:
            raise ValueError("it is too short")
        magic, version = _META.unpack_from(page, 16)
        if magic != _MAGIC or version != _VERSION:
            raise ValueError("it is no LMDB database of version 0.9")
        page_size, _ = _TREE.unpack_from(page, 40)
        if page_size not in (1 << power for power in range(9, 17)):
            raise ValueError(f"its pages have {page_size} bytes")
        _, root = _TREE.unpack_from(page, 88)
        last, transaction = _LAST.unpack_from(page, 136)
        found.append((transaction, root, last + 1))
    return page_size, *max(found)[1:]


def _walk(file: _File, number: int, deepest: int) -> Iterator[int]:
    """Check a page and all below; yields the pages of the tree."""
    yield number
    page = file.page(number)
    own, _, flags, lower, _ = _HEADER.unpack_from(page)
    if own != number or flags not in (_BRANCH, _LEAF) or not 16 <= lower <= file.page_size or lower % 2 or not deepest:
        raise ValueError(f"page {number} is none of its tree")
    for (place,) in struct.iter_unpack("<H", page[16:lower]):
        if place + _NODE.size > file.page_size:
            raise ValueError(f"a node of page {number} lies outside of it")
        low, high, node_flags, key = _NODE.unpack_from(page, place)
        end = place + _NODE.size + key
        if flags == _BRANCH:
            yield from _walk(file, low | high << 16 | node_flags << 32, deepest - 1)
        elif node_flags == 0:
            end += low | high << 16
        elif node_flags == _BIG and end + _PAGE_NUMBER.size <= file.page_size:
            (first,) = _PAGE_NUMBER.unpack_from(page, end)
            if first < 2 or first * file.page_size + _HEADER.size + (low | high << 16) > file.pages * file.page_size:
                raise ValueError(f"a record of page {number} lies outside of the file")
        else:
            raise ValueError(f"a node of page {number} is of no kind that a store has")
        if end > file.page_size:
            raise ValueError(f"a node of page {number} lies outside of it")
