"""Single values out of a Parquet file that stays where it is: its tail once, then the column chunks of chosen rows.

Made for files with one row per row group and a large binary value per column, of which only a few are wanted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from copgen_cli.archive.parquet_pages import unpacked_size
from copgen_cli.archive.remote import RemoteFile
from copgen_cli.errors import BrokenInputError

MAGIC = b"PAR1"
TAIL_END = 8
"""Bytes after the footer: its length and the magic."""
LARGEST_FOOTER = 16 << 20
"""Bytes; those of the archive have up to 1.4 million."""
LARGEST_CHUNK = 32 << 20
"""Bytes of one column chunk, packed or unpacked; the largest bands have 5 MB."""
LARGEST_GAP = 4 << 10
"""Bytes between two chunks that are cheaper to fetch along than to ask twice."""
GUESS_DIVISOR = 5000
"""A footer takes more than this share of its file; the rest of it costs a second request, too much would cost bytes."""
SMALLEST_GUESS = 1 << 10


class PartReader:
    """One remote Parquet file with its footer in memory.

    Args:
        file: the file; read by ranges only.
        name: how messages call it.

    Raises:
        BrokenInputError: it is no Parquet file, or its footer lies about its size.
    """

    def __init__(self, file: RemoteFile, name: str) -> None:
        self._file, self.name = file, name
        tail = _read_tail(file, name)
        self._data_end = file.size - len(tail)
        try:
            self._metadata = pq.ParquetFile(pa.BufferReader(tail)).metadata
            self._columns = {self._metadata.schema.column(i).path: i for i in range(self._metadata.num_columns)}
        except (pa.ArrowException, OSError, ValueError) as error:  # also of text that is not UTF-8
            raise self._broken(f"its footer can not be read: {_first_line(error)}") from None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._columns)

    @property
    def binary_columns(self) -> tuple[str, ...]:
        """Columns of raw bytes: thumbnails and bands, but no text."""
        fields = self._metadata.schema.to_arrow_schema()
        return tuple(field.name for field in fields if field.name in self._columns and _is_bytes(field.type))

    def read_row(self, row_group: int, columns: Sequence[str]) -> dict[str, bytes | str | None]:
        """The values of some columns in the one row of a row group; chunks that lie together come in one request.

        Raises:
            BrokenInputError: there is no such row group or column, it has several rows, or its chunks make no sense.
        """
        if not 0 <= row_group < self._metadata.num_row_groups:
            raise self._broken(f"it has {self._metadata.num_row_groups} rows, and row {row_group} is not among them")
        if self._metadata.row_group(row_group).num_rows != 1:
            raise self._broken(
                f"its row group {row_group} has {self._metadata.row_group(row_group).num_rows} rows, not 1"
            )
        chunks = {column: self._chunk(row_group, column) for column in columns}
        ranges = merge_ranges(list(chunks.values()), LARGEST_GAP)
        sparse = _SparseFile(self._file.size, {r.start: self._file.read(r.start, r.stop) for r in ranges})
        try:
            for column, chunk in chunks.items():
                if unpacked_size(sparse.piece(chunk)) > LARGEST_CHUNK:
                    raise self._broken(f"{column} of row {row_group} would unpack to over {LARGEST_CHUNK:,} bytes")
            table = self._decode(sparse, row_group, columns)
            return {column: table.column(column)[0].as_py() for column in columns}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._broken(f"row {row_group} can not be decoded: {_first_line(error)}") from None

    def close(self) -> None:
        self._file.close()

    def _decode(self, file: _SparseFile, row_group: int, columns: Sequence[str]) -> pa.Table:
        source = pq.ParquetFile(
            pa.PythonFile(file, mode="r"),
            metadata=self._metadata,
            pre_buffer=False,  # it would read what lies between two chunks as well
            page_checksum_verification=True,
        )
        return source.read_row_group(row_group, columns=list(columns), use_threads=False)

    def _check_description(self, row_group: int, column: str) -> None:
        """Have Arrow look at what the footer says of a chunk on its way to reading it, where it can refuse.

        Asked for the description directly, it ends the process if that makes no sense to it.
        """
        try:
            self._decode(_SparseFile(self._file.size, {}), row_group, [column])
        except _OutsideError:  # it would go on to read
            return
        except (pa.ArrowException, OSError, ValueError) as error:
            problem = f"its footer can not be read where it speaks of {column} in row {row_group}"
            raise self._broken(f"{problem}: {_first_line(error)}") from None

    def _chunk(self, row_group: int, column: str) -> range:
        """The bytes of one column chunk; they start at the dictionary page where there is one."""
        if column not in self._columns:
            raise self._broken(f"it has no column {column!r}; it has {', '.join(self._columns)}")
        self._check_description(row_group, column)
        chunk = self._metadata.row_group(row_group).column(self._columns[column])
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
            start = min(start, chunk.dictionary_page_offset)
        stop = start + chunk.total_compressed_size
        if not len(MAGIC) <= start < stop <= self._data_end:
            raise self._broken(f"its footer says that {column} of row {row_group} lies at bytes {start} to {stop}")
        if max(chunk.total_compressed_size, chunk.total_uncompressed_size) > LARGEST_CHUNK:
            raise self._broken(f"its footer says that {column} of row {row_group} has over {LARGEST_CHUNK:,} bytes")
        return range(start, stop)

    def _broken(self, problem: str) -> BrokenInputError:
        return BrokenInputError(f"{self.name}: {problem}.", hint="The part is damaged, or the index is of another one.")


def merge_ranges(ranges: Sequence[range], gap: int) -> list[range]:
    """Ranges of bytes in order, those with at most `gap` bytes between them joined."""
    merged: list[range] = []
    for piece in sorted(ranges, key=lambda r: r.start):
        if merged and piece.start - merged[-1].stop <= gap:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, piece.stop))
        else:
            merged.append(piece)
    return merged


def _read_tail(file: RemoteFile, name: str) -> bytes:
    """The footer with what follows it, in one or two requests and hardly a byte too many."""
    guess = min(file.size, max(SMALLEST_GUESS, file.size // GUESS_DIVISOR))
    tail = file.read(file.size - guess, file.size)
    length = int.from_bytes(tail[-TAIL_END : -len(MAGIC)], "little") + TAIL_END
    if tail[-len(MAGIC) :] != MAGIC or length > min(LARGEST_FOOTER, file.size - len(MAGIC)):
        raise BrokenInputError(f"{name} is no Parquet file, or a damaged one.", hint="Check the endpoint; run again.")
    if length > guess:
        tail = file.read(file.size - length, file.size - guess) + tail
    return tail[-length:]


class _OutsideError(OSError):
    """Bytes are wanted that are not here."""


@dataclass(slots=True)
class _SparseFile(io.RawIOBase):
    """A file of which only some pieces are here; reading beyond them is an error."""

    size: int
    pieces: dict[int, bytes]
    position: int = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size < 0 else min(self.position + size, self.size)
        data = self.piece(range(self.position, stop))
        self.position = stop
        return data

    def piece(self, wanted: range) -> bytes:
        for start, data in self.pieces.items():
            if start <= wanted.start and wanted.stop <= start + len(data):
                return data[wanted.start - start : wanted.stop - start]
        place = f"bytes {wanted.start} to {wanted.stop}"
        raise _OutsideError(f"{place} are outside of the column chunks that the footer names")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))
