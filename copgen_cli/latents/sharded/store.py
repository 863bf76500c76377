"""Reading the shards of a packed store as one, in the global order of their records.

Shards are opened when a record of theirs is first read, at most `MOST_OPEN` in a process at a time, and with a cache
from copies on a disk of this machine, as far as it has room. What is read does not depend on any of that: the same
index gives the same bytes as a single file.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from copgen_cli.errors import BrokenInputError, CopgenError
from copgen_cli.latents.sharded.index import IndexedFile, ShardIndex, index_of, read_index
from copgen_cli.latents.store import LatentStore, Names, check_store, names_in, open_environment
from copgen_cli.latents.store_cache import HeldCopy, StoreCache, unusable_shard
from copgen_cli.latents.store_format import METADATA_KEY, StoreMetadata
from copgen_cli.storage import as_path, cache_folder, is_remote

MOST_OPEN = 128
"""Shards of a store that a process keeps open: each takes a file descriptor, of which many systems give 1024."""


def open_store(path: Path, cache: StoreCache | None = None) -> LatentStore:
    """The records of one split: in one file, or in shards where `path` is an index or a folder that holds one.

    Raises:
        MissingInputError: there is no store.
        BrokenInputError: it is damaged, or no store of copgen.
        MismatchError: it is of another version.
    """
    index = index_of(as_path(path))
    if index is None:
        return LatentStore(path)
    if cache is None and is_remote(index):  # what is mapped must be here
        cache = StoreCache(cache_folder() / "shards")
    return ShardedStore(index, cache)


class ShardedStore(LatentStore):
    """A `LatentStore` whose records lie in several files."""

    def __init__(self, index: Path, cache: StoreCache | None = None) -> None:
        """Read an index and the names of all records; shards are opened later.

        Raises:
            MissingInputError: there is no index.
            BrokenInputError: index or names are damaged.
            MismatchError: the index is of another version.
        """
        self.folder = self.named = index.parent
        self.index = read_index(index)
        self.metadata = self.index.metadata
        self.modalities = self.metadata.modalities
        self.names = _read_names(self.folder, self.index.names, self.metadata.count)
        self._rows = None
        self._ends = np.cumsum([shard.records for shard in self.index.shards])
        self._open = OpenShards(self.folder, self.index, cache)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        count = len(self)
        wanted = [operator.index(index) for index in indices]
        if any(not -count <= index < count for index in wanted):
            raise IndexError(f"the store has {count:,} records")
        return super().__getitems__([index + count if index < 0 else index for index in wanted])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _files_of(self, indices: Sequence[int]) -> Sequence[int]:
        files: list[int] = np.searchsorted(self._ends, np.asarray(indices, np.int64), side="right").tolist()
        return files

    def _rounds(self, files: Sequence[int]) -> Iterable[Sequence[int]]:
        different = sorted(set(files))
        if len(different) <= self._open.together:
            yield range(len(files))
            return
        for start in range(0, len(different), self._open.together):
            own = set(different[start : start + self._open.together])
            yield [place for place, file in enumerate(files) if file in own]

    def _folder_of(self, file: int) -> Path:
        return (self.folder / self.index.shards[file].file.path).parent

    def _environment(self, file: int) -> lmdb.Environment:
        return self._open.environment(file)


class OpenShards:
    """The shards of one store that are open in this process; those used longest ago are closed first."""

    def __init__(self, folder: Path, index: ShardIndex, cache: StoreCache | None) -> None:
        self.most = MOST_OPEN
        self._folder, self._index, self._cache = folder, index, cache
        self._process = os.getpid()
        self._environments: OrderedDict[int, tuple[lmdb.Environment, HeldCopy | None]] = OrderedDict()
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return len(self._environments) if self._process == os.getpid() else 0

    @property
    def together(self) -> int:
        """How many may be read at once: those used last stay open, but where copies have to give way to one another."""
        gives_way = self._cache is not None and self._cache.limit is not None and not isinstance(self._folder, Path)
        return 1 if gives_way else self.most

    def environment(self, number: int) -> lmdb.Environment:
        """A shard, opened if it is not.

        Raises:
            BrokenInputError: it is missing, or not what the index says.
            CopgenError: it can not be copied, for want of room.
        """
        if self._process != os.getpid():
            self._forget()
        known = self._environments.get(number)
        if known is not None:
            self._environments.move_to_end(number)
            return known[0]
        while len(self._environments) >= self.most:
            self._close_oldest()
        opened = self._open_copy(number) or (self._open_there(number), None)
        self._environments[number] = opened
        return opened[0]

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker gets: it opens shards itself."""
        return self.__dict__ | {"_environments": OrderedDict(), "_checked": set()}

    # -- inside ------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Close what was inherited through a fork; the parent's stays open."""
        while self._environments:
            environment, held = self._environments.popitem()[1]
            environment.close()
            if held is not None:
                held.release()
        self._process = os.getpid()

    def _close_oldest(self) -> None:
        """Another store may have the same file open in this process: the last one closes it."""
        _, (environment, held) = self._environments.popitem(last=False)
        del environment
        if held is not None:
            held.release()

    def _open_there(self, number: int) -> lmdb.Environment:
        shard = self._index.shards[number]
        file = self._folder / shard.file.path
        try:
            there = file.stat().st_size
        except OSError:
            raise unusable_shard(file, "is missing") from None
        if there != shard.file.bytes:
            raise unusable_shard(file, f"is damaged: it has {there:,} bytes, not {shard.file.bytes:,}")
        return self._open_folder(number, file.parent)

    def _open_copy(self, number: int) -> tuple[lmdb.Environment, HeldCopy] | None:
        """A shard's copy in the cache; None where there is none to be had, but the shard can be read where it is.

        That is better than to close others for it: an epoch visits shards in no order, and would copy without end.
        """
        if self._cache is None:
            return None
        file = self._index.shards[number].file
        held = self._cache.hold(self._folder / file.path, file.bytes, file.sha256)
        if held is None and isinstance(self._folder, Path):
            return None
        while held is None and self._environments:
            self._close_oldest()
            held = self._cache.hold(self._folder / file.path, file.bytes, file.sha256)
        if held is None:
            raise CopgenError(
                f"The cache {self._cache.folder} has no room for a shard of {file.bytes:,} bytes: its limit is "
                f"{self._cache.limit or 0:,}, and what it holds is in use.",
                hint="Raise data.cache_bytes: every process that loads data holds at least one shard.",
            )
        return self._open_folder(number, held.folder), held

    def _open_folder(self, number: int, folder: Path) -> lmdb.Environment:
        shard = self._index.shards[number]
        if number not in self._checked:
            check_store(folder)
        environment = open_environment(folder)
        if number not in self._checked:
            with environment.begin() as transaction:
                data = bytes(transaction.get(METADATA_KEY) or b"{}")
            file = self._folder / shard.file.path
            about = StoreMetadata.from_json(data, file)
            if (about.source, about.count) != (shard.source, shard.records):
                raise unusable_shard(file, "is damaged: it is another than the index tells of")
            self._checked.add(number)
        return environment


def _read_names(folder: Path, file: IndexedFile, count: int) -> Names:
    path = folder / file.path
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise unusable_names(path, "is missing") from None
    if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise unusable_names(path, "is damaged")
    try:
        return names_in(data, count)
    except ValueError as error:
        raise unusable_names(path, f"is damaged: {error}") from None


def unusable_names(file: Path, reason: str) -> BrokenInputError:
    """The error for names of records that are not what the index says."""
    return BrokenInputError(
        f"{file}, the names of a store's records, {reason}.",
        hint="Copy it again from where the store was packed, or run `copgen pack` again.",
    )
