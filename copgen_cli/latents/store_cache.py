"""Copies of files on a disk of this machine, made when a file is first used, within a limit of bytes.

    StoreCache(Path("/scratch")).hold(source, size, sha256).folder     # /scratch/3f/3f9c…, which holds data.mdb

A copy is called by its SHA-256, and comes under that name only when its size and hash are right; so it is whole or
absent, and processes that want it at once share it. Whoever reads a copy holds a shared `flock` on it until it is
closed, also by a kill: where room is needed, the copies go that nobody holds, the one first that was taken longest ago.
A copy under way takes its whole size from the beginning, so that several at once keep to the limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from uuid import uuid4

from copgen_cli.errors import BrokenInputError
from copgen_cli.latents.store_format import DATA_FILE
from copgen_cli.stages import ExclusiveLock, disk_full_is_an_error

if TYPE_CHECKING:
    from copgen_cli.settings import DataSettings

_CHUNK = 4 << 20
_UNDER_WAY = "under-way"


class Stat(Protocol):
    @property
    def st_size(self) -> int: ...


class SourceFile(Protocol):
    """What a cache needs of the file that it copies: a `Path`, or what behaves like one, of another machine."""

    def open(self, mode: str) -> IO[bytes]: ...
    def stat(self) -> Stat: ...


class HeldCopy:
    """A copy that stays as long as this object is not released; also by processes forked meanwhile."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        """It is the file `data.mdb` in this folder."""
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # and with it the lock, unless a forked process has it still
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class StoreCache:
    """A cache in a folder that is its own; picklable, and shared by all processes that name the same folder."""

    folder: Path
    limit: int | None = None
    """Bytes of all copies together; None is what the disk holds."""

    def hold(self, source: SourceFile, size: int, sha256: str) -> HeldCopy | None:
        """The copy of a file, made now where there is none; None where those in use leave no room for it.

        Raises:
            BrokenInputError: there is no such file, or it has another size or other bytes than it should.
            DiskFullError: the disk is full, though the limit is not reached.
        """
        folder = self.folder / sha256[:2] / sha256
        held = _take(folder, size)
        if held is not None:
            return held
        folder.mkdir(parents=True, exist_ok=True)
        with ExclusiveLock(folder.with_name(f"{sha256}.lock")):  # whoever else wants it waits for this copy
            held = _take(folder, size)
            return held if held is not None else self._make(folder, source, size, sha256)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _make(self, folder: Path, source: SourceFile, size: int, sha256: str) -> HeldCopy | None:
        _require_size(source, size)
        with self._alone():
            if not self._make_room(size):
                return None
            part = self._reserve(size)
            descriptor = os.open(part, os.O_RDONLY)
            _lock(descriptor, fcntl.LOCK_EX)  # says that whoever fills it is alive
        try:
            _copy(source, part, size, sha256)
            with self._alone():  # nobody makes room while the lock changes
                os.replace(part, folder / DATA_FILE)
                _lock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            part.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return HeldCopy(folder, descriptor)

    def _alone(self) -> ExclusiveLock:
        return ExclusiveLock(self.folder / "lock")

    def _reserve(self, size: int) -> Path:
        part = self.folder / _UNDER_WAY / uuid4().hex
        part.parent.mkdir(exist_ok=True)
        with part.open("xb") as stream:
            stream.truncate(size)
        return part

    def _make_room(self, size: int) -> bool:
        """Remove copies that nobody uses until so many bytes fit; whether they do."""
        for part in (self.folder / _UNDER_WAY).glob("*"):
            _remove_unused(part)
        if self.limit is None:
            return True
        copies = sorted(((f.stat().st_mtime_ns, f.stat().st_size, f) for f in self._copies()), key=lambda c: c[:2])
        parts = sum(part.stat().st_size for part in (self.folder / _UNDER_WAY).glob("*"))
        total = parts + sum(taken for _, taken, _ in copies)
        for _, taken, file in copies:
            if total + size <= self.limit:
                break
            total -= taken if _remove_unused(file) else 0
        return total + size <= self.limit

    def _copies(self) -> Iterator[Path]:
        yield from self.folder.glob(f"??/*/{DATA_FILE}")


def cache_of(settings: DataSettings) -> StoreCache | None:
    """The cache that settings ask for."""
    return None if settings.cache_dir is None else StoreCache(settings.cache_dir, settings.cache_bytes)


def _take(folder: Path, size: int) -> HeldCopy | None:
    """Hold a copy that is there; None where there is none, or one of another size."""
    file = folder / DATA_FILE
    while True:
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        _lock(descriptor, fcntl.LOCK_SH)
        status = os.fstat(descriptor)
        if status.st_nlink and status.st_size == size:
            with suppress(OSError):
                os.utime(descriptor)
            return HeldCopy(folder, descriptor)
        os.close(descriptor)
        if status.st_nlink and not _remove_unused(file):  # else it was removed meanwhile
            return None


def _lock(descriptor: int, kind: int) -> None:
    with suppress(OSError):  # a disk without locks: nothing is ever removed
        fcntl.flock(descriptor, kind)


def _remove_unused(file: Path) -> bool:
    """Remove a file unless somebody holds it; whether it is gone."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _require_size(source: SourceFile, size: int) -> None:
    try:
        there = source.stat().st_size
    except FileNotFoundError:
        raise unusable_shard(source, "is missing") from None
    if there != size:
        raise unusable_shard(source, f"is damaged: it has {there:,} bytes, not {size:,}")


def _copy(source: SourceFile, part: Path, size: int, sha256: str) -> None:
    digest = hashlib.sha256()
    with disk_full_is_an_error(part, size), source.open("rb") as stream, part.open("r+b") as copy:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
        told = copy.tell()
    if told != size or digest.hexdigest() != sha256:
        raise unusable_shard(source, "is damaged: its bytes are not those that the index tells")


def unusable_shard(source: object, reason: str) -> BrokenInputError:
    """The error for a shard that is missing, or not what the index says."""
    return BrokenInputError(
        f"The shard {source} {reason}.",
        hint="Copy it again from where the store was packed, or run `copgen pack` again, with --overwrite where sizes "
        "are right.",
    )
