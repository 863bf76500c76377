"""Reading a packed store: a torch Dataset of moments that workers share and nothing is written beside.

    store = LatentStore(folder).select(("s1_rtc", "s2_l2a"))      # by name, in the order asked for
    loader = DataLoader(store, batch_size=64, shuffle=True, num_workers=4, collate_fn=keep_batch)
    for batch in loader:
        batch.names, batch.moments                                # 64 names, (64, 2, 8, 32, 32)

M modalities, C latent channels, H and W latent pixels.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload
from weakref import WeakValueDictionary

import lmdb
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from copgen_cli.errors import BrokenInputError, MismatchError, MissingInputError
from copgen_cli.latents.store_check import check_tree
from copgen_cli.latents.store_format import DATA_FILE, METADATA_KEY, NAMES_KEY, StoreMetadata
from copgen_cli.modalities import Modality
from copgen_cli.storage import as_path, is_remote, local_copy

_environments: WeakValueDictionary[tuple[int, int, int], lmdb.Environment] = WeakValueDictionary()
# LMDB refuses to open a file twice in a process, so stores of one file share it; by process, device and inode


@dataclass(frozen=True, slots=True)
class MomentsBatch:
    """Some records of a store."""

    names: tuple[str, ...]
    moments: Tensor
    """(B, M, 2 C, H, W) in the store's dtype: mean, then log-variance, unscaled. Where shapes differ (B, N): those of
    all modalities one after the other."""
    shapes: tuple[tuple[int, int, int], ...] | None = None
    """(2 C, H, W) of each modality, where they differ."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """Name and moments of one of them, by which torch's own collation makes a list of names and a tensor of it."""
        return self.names[index], self.moments[index]

    def by_modality(self) -> tuple[Tensor, ...]:
        """(B, 2 C, H, W) of each modality."""
        if self.shapes is None:
            return self.moments.unbind(1)
        pieces = self.moments.split([math.prod(shape) for shape in self.shapes], dim=1)
        return tuple(piece.unflatten(1, shape) for piece, shape in zip(pieces, self.shapes, strict=True))

    def pin_memory(self) -> MomentsBatch:
        """What a DataLoader with `pin_memory` calls."""
        return MomentsBatch(self.names, self.moments.pin_memory(), self.shapes)


class Names(Sequence[str]):
    """The names of a store, kept as one block of bytes, which forked workers share."""

    def __init__(self, block: np.ndarray) -> None:
        self.block = block
        """(N,) zero-padded bytes."""

    def __len__(self) -> int:
        return len(self.block)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return Names(self.block[index])
        return self.block[index].decode()


class LatentStore(Dataset[tuple[str, Tensor]]):
    """The records of one split, in the order of their names.

    Opened lazily and once per process, forked or spawned; read-only, without a lock, so that a read-only folder does.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open the store in `folder`, the one that holds `data.mdb`.

        Raises:
            MissingInputError: there is none.
            BrokenInputError: it is damaged, or no store of copgen.
            MismatchError: it is of another version.
        """
        self.named = as_path(folder)
        """Where it was asked for: in an object store, too."""
        self.folder = _on_this_machine(self.named)
        check_store(self.folder)
        self.metadata = self._read_metadata()
        self.modalities = self.metadata.modalities
        """Those of every record that is read, in this order."""
        self.names = self._read_names()
        self._rows: list[int] | None = None  # all, as stored

    def select(self, modalities: Iterable[str]) -> LatentStore:
        """The same records with these modalities only, in this order.

        Raises:
            MismatchError: the store lacks one.
        """
        wanted = (modalities,) if isinstance(modalities, str) else tuple(modalities)
        lacking = [str(modality) for modality in wanted if modality not in self.metadata.modalities]
        if lacking:
            raise MismatchError(
                f"The store in {self.named} has no {', '.join(lacking)}; it has {', '.join(self.modalities)}.",
                hint="Download, prepare, encode and pack with that source, or use a model of other modalities.",
            )
        chosen = object.__new__(type(self))
        chosen.__dict__ |= self.__dict__
        chosen.modalities = tuple(Modality(modality) for modality in wanted)
        rows = [self.metadata.modalities.index(modality) for modality in chosen.modalities]
        chosen._rows = None if rows == list(range(len(self.metadata.modalities))) else rows
        return chosen

    def require_autoencoder(self, modality: Modality, fingerprint: str, name: str) -> None:
        """Check that an autoencoder is the one that encoded a modality of the store, where the store knows.

        Raises:
            MismatchError: it is another.
        """
        mine = self.metadata.parts[self.metadata.modalities.index(modality)].autoencoder
        if mine.fingerprint is not None and mine.fingerprint != fingerprint:
            raise MismatchError(
                f"The store in {self.named} was encoded by the autoencoder {mine.id} "
                f"({mine.fingerprint[:12]}), not by {name} ({fingerprint[:12]}).",
                hint="Use that autoencoder, or encode and pack again with --overwrite.",
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """Name and moments of one record, (M, 2 C, H, W), or one after the other where shapes differ."""
        batch = self.__getitems__([operator.index(index)])
        return batch.names[0], batch.moments[0]

    def __getitems__(self, indices: Sequence[int]) -> MomentsBatch:
        """A batch of records, each copied once, from the mapped file to its place in the batch.

        Raises:
            BrokenInputError: a record is missing or of another size.
        """
        whole = self.metadata.shape
        shape = (
            (sum(stop - start for start, stop in self._ranges()),)
            if whole is None
            else (len(self.modalities), *whole[1:])
        )
        moments = np.empty((len(indices), *shape), self.metadata.dtype)  # NumPy asks for huge pages, torch does not
        keys = self.names.block
        files = self._files_of(indices)
        for places in self._rounds(files):
            with ExitStack() as stack:
                opened = {file: stack.enter_context(self._reading(file)) for file in {files[i] for i in places}}
                for place in places:  # in their order: what is new in memory is filled while it is near
                    index, file = indices[place], files[place]
                    record = self._as_array(opened[file].get(bytes(keys[index])), index, file)
                    if self._rows is None:
                        moments[place] = record
                    elif whole is None:
                        np.concatenate([record[start:stop] for start, stop in self._ranges()], out=moments[place])
                    else:
                        moments[place] = record[self._rows]
        names = tuple(self.names[index] for index in indices)
        return MomentsBatch(names, torch.from_numpy(moments), self.shapes if whole is None else None)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(2 C, H, W) of each modality that is read."""
        parts = self.metadata.parts
        return tuple(parts[row].shape for row in self._chosen())

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker gets: it opens the file itself."""
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    # -- inside: what a store of several files does otherwise ----------------------------------------------------------

    def _files_of(self, indices: Sequence[int]) -> Sequence[int]:
        """The number of the file that each record of a batch is in."""
        return (0,) * len(indices)

    def _rounds(self, files: Sequence[int]) -> Iterable[Sequence[int]]:
        """The places of a batch, by what is read while the files that it takes are open together."""
        yield range(len(files))

    def _folder_of(self, file: int) -> Path:
        """The folder that holds it."""
        return self.folder

    def _environment(self, file: int) -> lmdb.Environment:
        opened = self.__dict__.get("_opened")
        if opened is not None and opened[0] == os.getpid():
            environment: lmdb.Environment = opened[1]
            return environment
        if opened is not None:
            opened[1].close()  # inherited through a fork: the parent's stays open
        environment = open_environment(self.folder)
        self._opened = (os.getpid(), environment)
        return environment

    # -- inside ------------------------------------------------------------------------------------------------------

    def _chosen(self) -> Sequence[int]:
        return range(len(self.metadata.modalities)) if self._rows is None else self._rows

    def _ranges(self) -> list[tuple[int, int]]:
        """Where the numbers of each modality that is read begin and end in a record whose shapes differ."""
        ends = list(accumulate(part.numbers for part in self.metadata.parts))
        return [(ends[row] - self.metadata.parts[row].numbers, ends[row]) for row in self._chosen()]

    @contextmanager
    def _reading(self, file: int = 0) -> Iterator[lmdb.Transaction]:
        """A transaction whose values are views of the mapped file."""
        try:
            with self._environment(file).begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise _broken(self._folder_of(file), str(error)) from error

    def _as_array(self, value: bytes | memoryview | None, index: int, file: int) -> np.ndarray:
        if value is None or len(value) != self.metadata.record_bytes:
            size = "missing" if value is None else f"{len(value):,} bytes long, not {self.metadata.record_bytes:,}"
            raise _broken(self._folder_of(file), f"the record {self.names[index]} is {size}")
        return np.frombuffer(value, self.metadata.dtype).reshape(self.metadata.shape or (-1,))

    def _read_metadata(self) -> StoreMetadata:
        with self._reading() as transaction:
            data = bytes(transaction.get(METADATA_KEY) or b"")
        if not data:
            raise BrokenInputError(
                f"{self.named} holds a database, but not one that copgen packed.",
                hint="If the published workflow made it, import it: `copgen pack --input-type lmdb`.",
            )
        return StoreMetadata.from_json(data, self.folder / DATA_FILE)

    def _read_names(self) -> Names:
        with self._reading() as transaction:
            data = bytes(transaction.get(NAMES_KEY) or b"")
        try:
            return names_in(data, self.metadata.count)
        except ValueError as error:
            raise _broken(self.named, str(error)) from None


def names_in(data: bytes, count: int) -> Names:
    """The names in a block of so many, each padded with zero bytes to one width.

    Raises:
        ValueError: it is no such block.
    """
    if count < 0 or bool(data) != bool(count) or (count and len(data) % count):
        raise ValueError(f"it does not list the names of its {count:,} records")
    try:
        data.decode()
    except UnicodeDecodeError:
        raise ValueError("its names are no text") from None
    return Names(np.frombuffer(data, f"S{len(data) // count}" if count else "S1"))


def keep_batch(batch: Any) -> MomentsBatch:
    """The `collate_fn` for a DataLoader over a store: its batches, lists to torch's types, are made in one piece."""
    return batch


def _on_this_machine(folder: Path) -> Path:
    """The folder of a store that can be mapped: a remote one is copied here on first use.

    Raises:
        MissingInputError: there is none.
    """
    try:
        return local_copy(folder / DATA_FILE).parent if is_remote(folder) else folder
    except FileNotFoundError:
        raise MissingInputError("packed store", folder, written_by="pack") from None


def check_store(folder: Path) -> None:
    """Make sure that a database can be mapped.

    Raises:
        MissingInputError: there is none.
        BrokenInputError: it is no LMDB database, cut short, or its tree leads astray.
    """
    try:
        check_tree(folder / DATA_FILE)
    except OSError:
        raise MissingInputError("packed store", folder, written_by="pack") from None
    except ValueError as error:
        raise _broken(folder, str(error)) from error


def open_environment(folder: Path) -> lmdb.Environment:
    """Open a database for reading, without a lock and without writing anything.

    Raises:
        BrokenInputError: LMDB does not take it.
    """
    status = (folder / DATA_FILE).stat()
    key = (os.getpid(), status.st_dev, status.st_ino)
    environment = _environments.get(key)
    if environment is not None:
        return environment
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, create=False)
    except lmdb.Error as error:
        raise _broken(folder, str(error)) from error
    _environments[key] = environment
    return environment


def _broken(folder: Path, reason: str) -> BrokenInputError:
    return BrokenInputError(
        f"The store {folder / DATA_FILE} is damaged: {reason}.", hint="Pack it again with `copgen pack --overwrite`."
    )
