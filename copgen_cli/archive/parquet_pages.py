"""How large the pages of a Parquet column chunk say they are, before anything is unpacked.

A footer's totals bind nobody: what a decoder allocates is what each page's own header says. Headers are Thrift structs
in the compact protocol (parquet-format, `PageHeader`; thrift-compact-protocol.md), of which two fields are read here.
"""

from __future__ import annotations

from dataclasses import dataclass

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 2, 3
_MOST_NESTED = 8


class PageError(ValueError):
    """The bytes are no pages."""


def unpacked_size(chunk: bytes) -> int:
    """The sum of what the pages of a chunk unpack to, in bytes.

    Raises:
        PageError: a header is cut, nested without end, or its page reaches beyond the chunk.
    """
    reader, total = _Reader(chunk), 0
    try:
        while reader.position < len(chunk):
            sizes = reader.page_header()
            unpacked, packed = sizes.get(_UNCOMPRESSED_SIZE, -1), sizes.get(_COMPRESSED_SIZE, -1)
            if unpacked < 0 or not 0 <= packed <= len(chunk) - reader.position:
                raise PageError("a page reaches beyond its column chunk")
            reader.position += packed
            total += unpacked
    except IndexError:
        raise PageError("a page header is cut") from None
    return total


@dataclass(slots=True)
class _Reader:
    data: bytes
    position: int = 0

    def page_header(self) -> dict[int, int]:
        """The integer fields of a struct, by number."""
        found: dict[int, int] = {}
        field = 0
        while (head := self._byte()) != _STOP:
            kind = head & 15
            field = field + (head >> 4) if head >> 4 else self._integer()
            if kind in (_I16, _I32, _I64):
                found[field] = self._integer()
            else:
                self._skip(kind, _MOST_NESTED)
        return found

    def _byte(self) -> int:
        value = self.data[self.position]
        self.position += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise PageError("a number in a page header has no end")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, kind: int, depth: int) -> None:
        if not depth:
            raise PageError("a page header is nested too deep")
        if kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _BYTE:
            self.position += 1
        elif kind == _DOUBLE:
            self.position += 8
        elif kind == _BINARY:
            length = self._varint()  # which moves the position itself
            self.position += length
        elif kind in (_LIST, _SET):
            self._skip_list(depth)
        elif kind == _STRUCT:
            while (head := self._byte()) != _STOP:
                if not head >> 4:
                    self._varint()
                self._skip(head & 15, depth - 1)
        elif kind not in (_TRUE, _FALSE):
            raise PageError("a page header has a field of unknown type")

    def _skip_list(self, depth: int) -> None:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > len(self.data):
            raise PageError("a list in a page header has no end")
        for _ in range(count):
            if head & 15 in (_TRUE, _FALSE):
                self.position += 1  # in a list they take a byte
            else:
                self._skip(head & 15, depth - 1)
