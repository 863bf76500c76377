"""Building a packed store beside its place, unit by unit, so that a run that is killed goes on where it stopped.

Each unit of records is one transaction of a database that is opened for it and closed after it. With the same units
the file gets the same bytes however often the work was interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import lmdb
import numpy as np
import torch

from copgen_cli.errors import BrokenInputError, BusyError, DiskFullError
from copgen_cli.latents.store_format import DATA_FILE, METADATA_KEY, NAMES_KEY, Part, StoreMetadata
from copgen_cli.modalities import Split
from copgen_cli.stages import disk_full_is_an_error, free_space, local_executor
from copgen_cli.storage import is_remote, put_file

PAGE = 4096
"""Bytes of a page of LMDB; a record takes whole pages."""

_PAGE_HEADER = 16
_SLACK = 64 << 20  # of the address space that is reserved; costs nothing on disk


def store_bytes(records: int, record_bytes: int) -> int:
    """About what a store of so many records takes on disk."""
    return records * -(-(record_bytes + _PAGE_HEADER) // PAGE) * PAGE + 16 * PAGE


class StoreBuilder:
    """A store under construction in a folder of its own."""

    def __init__(self, folder: Path, *, source: str, unit_records: int, records: int, record_bytes: int) -> None:
        """Go on with what is in `folder`, if it was begun from the same source in the same units, or begin anew.

        Args:
            folder: only builders of this store write there.
            source: tells the records from others.
            unit_records: how many make a unit.
            records: how many there will be at most.
            record_bytes: size of each.
        """
        self.folder = folder
        self.source = source
        self.unit_records = unit_records
        self._unit_bytes = store_bytes(unit_records, record_bytes)
        self._map_size = store_bytes(records, record_bytes) + records * PAGE + _SLACK
        self.units_done, self.finished = self._look()
        """How many units are in the store, and whether it is complete."""

    @property
    def file(self) -> Path:
        return self.folder / DATA_FILE

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def append(self, names: Sequence[str], values: np.ndarray) -> None:
        """Add the next unit in one transaction.

        Args:
            names: sorted by their UTF-8 bytes, all after those of the units before.
            values: (N, ...) their records, contiguous.

        Raises:
            DiskFullError: there is no room for it; the store is as before.
            BusyError: another process has finished or removed the store meanwhile.
        """
        with self._writing() as transaction:
            there = int(_note_in(transaction).get("units", 0))
            if there < self.units_done:
                raise _taken_away(self.folder)
            if there == self.units_done:  # else another process, which the run's lock did not stop, was here first
                for name, value in zip(names, values, strict=True):
                    if not transaction.put(name.encode(), value.data.cast("B"), append=True):
                        raise ValueError(f"{name!r} does not come after the names before it")
                self._note(transaction, self.units_done + 1)
        self.units_done += 1

    def finish(self, describe: Callable[[int], StoreMetadata]) -> StoreMetadata:
        """Add the two records that describe the others; the file is complete then.

        Args:
            describe: from the number of records to the metadata.
        """
        with self._writing() as transaction:
            if int(_note_in(transaction).get("units", 0)) != self.units_done:
                raise _taken_away(self.folder)
            names = [key for key in transaction.cursor().iternext(values=False) if key != METADATA_KEY]
            metadata = describe(len(names))
            transaction.put(NAMES_KEY, np.array(names, "S").tobytes())
            transaction.put(METADATA_KEY, metadata.as_json())
        self.finished = True
        return metadata

    def move_to(self, folder: Path) -> None:
        """Put the finished file in its place, over what may be there."""
        move_store(self.folder, folder)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _look(self) -> tuple[int, bool]:
        if self.file.is_file():
            try:
                with self._writing() as transaction:
                    known = _note_in(transaction)
                finished = "format" in known
                if known.get("source") == self.source and (finished or known.get("unit") == self.unit_records):
                    return int(known.get("units", 0)), finished
            except (lmdb.Error, ValueError):
                pass
        shutil.rmtree(self.folder, ignore_errors=True)  # begun for other records, or damaged
        with self._writing() as transaction:
            self._note(transaction, 0)  # whatever else comes to lie in the folder belongs to this source
        return 0, False

    def _note(self, transaction: lmdb.Transaction, units: int) -> None:
        """Remember in the store itself how far it is, with the unit that it speaks of."""
        note = {"source": self.source, "unit": self.unit_records, "units": units}
        transaction.put(METADATA_KEY, json.dumps(note).encode())

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with (
                lmdb.open(str(self.folder), map_size=self._map_size) as environment,
                environment.begin(write=True) as t,
            ):
                yield t
        except lmdb.DiskError as error:
            raise DiskFullError(self.file) from error
        except lmdb.Error as error:
            # to LMDB it is an input/output error where a disk takes only part of what is written before it is full
            free = free_space(self.folder)
            if os.strerror(errno.EIO) in str(error) and free < self._unit_bytes:
                raise DiskFullError(self.file, needed=self._unit_bytes, free=free) from error
            raise


def move_store(built: Path, folder: Path) -> None:
    """Put the finished file of a builder in its place, over what may be there."""
    with disk_full_is_an_error(folder):
        if is_remote(folder):
            put_file(built / DATA_FILE, folder / DATA_FILE)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            os.replace(built / DATA_FILE, folder / DATA_FILE)
    shutil.rmtree(built, ignore_errors=True)


class MomentReader(Protocol):
    """Reads the moments of records."""

    readers: int
    """How many are read at a time."""

    def read_into(self, out: Sequence[np.ndarray], split: Split, name: str) -> None:
        """Fill one (2 C, H, W) float32 array a modality with one record; raises BrokenInputError."""
        ...


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """Records as a store takes them in, in one transaction."""

    names: Sequence[str]
    values: np.ndarray
    """(N, numbers of a record) in the type of the store."""
    failed: Mapping[str, str]
    """Record that is left out to reason."""


def read_unit(
    names: Sequence[str], split: Split, parts: Sequence[Part], dtype: str, reader: MomentReader
) -> StoredUnit:
    """Read some records, each once into its place."""
    values = np.empty((len(names), sum(part.numbers for part in parts)), np.float32)
    ends = list(accumulate(part.numbers for part in parts))
    failed = {}

    def read(number: int) -> None:
        out = [values[number, e - part.numbers : e].reshape(part.shape) for e, part in zip(ends, parts, strict=True)]
        try:
            reader.read_into(out, split, names[number])
        except BrokenInputError as error:
            failed[names[number]] = str(error)

    for _ in local_executor(reader.readers, processes=False).map(read, range(len(names))):
        pass
    return as_stored(names, values, dtype, failed)


def as_stored(names: Sequence[str], values: np.ndarray, dtype: str, failed: Mapping[str, str]) -> StoredUnit:
    """Leave out records that failed, are not finite, or are beyond what float16 can hold; convert the others.

    Args:
        values: (N, numbers of a record) float32; of records that failed, anything.
    """
    limit = np.finfo(dtype).max
    peaks = np.maximum(values.max(axis=1), -values.min(axis=1))  # not a number where one value is none
    unfit = {
        name: "it holds values that are not finite" if not peak < np.inf else f"it holds values beyond {dtype}"
        for name, peak in zip(names, peaks, strict=True)
        if name not in failed and not peak <= limit
    }
    failed = {**failed, **unfit}
    kept = [place for place, name in enumerate(names) if name not in failed]
    if failed:
        values = values[kept]
    if dtype == "float16":
        values = torch.from_numpy(values).half().numpy()  # fifty times as fast as NumPy's conversion
    return StoredUnit([names[place] for place in kept], values, failed)


def _note_in(transaction: lmdb.Transaction) -> dict[str, Any]:
    """What the metadata record says, of a store that is finished or not."""
    return dict(json.loads(bytes(transaction.get(METADATA_KEY) or b"{}")))


def _taken_away(folder: Path) -> BusyError:
    return BusyError(f"Another process is packing in {folder}.", hint="Wait for it to end, then run again.")
