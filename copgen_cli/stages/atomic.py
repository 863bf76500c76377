"""Files that are complete or absent: written beside, flushed, hashed and renamed into place."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

from copgen_cli.errors import BrokenInputError, DiskFullError
from copgen_cli.stages.claims import Claims
from copgen_cli.storage import explain, is_remote, put_file

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that a stage wrote, as its manifest records it."""

    path: str
    """Relative to the output folder, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str
    """Empty where hashing the file would take as long as making it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage writes; small and picklable, so that workers of a pool get a copy."""

    output: Path
    temporary: Path
    """A folder that this run alone writes to: of the same file system, or of this machine for an output in a store."""
    claims: Claims | None = None
    """Of the output: without them, what lies under a name is replaced."""

    def write(self, path: str, data: bytes, *, durable: bool = False) -> WrittenFile:
        """Put `data` at `path` below the output, atomically; `durable` waits until it would survive a power cut.

        Raises:
            DiskFullError: there is no room for it.
            BrokenInputError: the path leaves the output folder.
        """
        written = WrittenFile(path, len(data), hashlib.sha256(data).hexdigest())
        with self.writing(path, needed=len(data)) as beside, beside.open("wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        return written  # without delay: a run that is killed before it notes this makes the file again

    @contextmanager
    def writing(self, path: str, *, needed: int | None = None) -> Iterator[Path]:
        """Yield a temporary path to write to; what is there when the block ends becomes `path`, or nothing does.

        For writers that want a file name, such as Pillow and pyarrow; `describe` gives the size and hash afterwards.
        `needed` is the size in bytes, for the message should the disk be full.
        """
        target = self.output / safe_path(path)
        if is_remote(self.output):  # of each machine that works its own
            self.temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self.temporary / f"{uuid4().hex}{target.suffix}"
        with disk_full_is_an_error(target, needed), _removed_on_failure(beside):
            yield beside
            if _held.files is not None:
                _held.files[target] = beside
            else:
                put_in_place({target: beside}, self.claims)

    def describe(self, path: str) -> WrittenFile:
        """Size and hash of a file that is in place, or held back by this thread."""
        target = self.output / safe_path(path)
        file = (_held.files or {}).get(target, target)
        return WrittenFile(path, file.stat().st_size, hash_file(file))


class _Held(threading.local):
    files: dict[Path, Path] | None = None


_held = _Held()


@contextmanager
def held_back() -> Iterator[dict[Path, Path]]:
    """Hold back what this thread writes in the block: complete, but beside. Yields target and place of each.

    What is not in place when the block ends is removed.
    """
    before = _held.files
    files: dict[Path, Path] = {}
    _held.files = files
    try:
        yield files
    finally:
        _held.files = before
        throw_away(files)


def put_in_place(files: dict[Path, Path], claims: Claims | None) -> None:
    """Claim the names that files go to, and rename each from where it is.

    Raises:
        MismatchError: under one of the names lies what copgen did not write; then none is renamed.
    """
    if claims is not None:
        claims.take(files)
    for target, beside in files.items():
        with disk_full_is_an_error(target):
            if not is_remote(target):  # a store has no folders
                target.parent.mkdir(parents=True, exist_ok=True)
            _move(beside, target)
    files.clear()


def _move(file: Path, target: Path) -> None:
    """Rename; where a link leads the target's folder to another disk, by way of a complete copy there.

    Into an object store, one upload.
    """
    if is_remote(target):
        put_file(file, target)
        file.unlink()
        return
    try:
        os.replace(file, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.{uuid4().hex}.part")
        with _removed_on_failure(beside):
            shutil.copyfile(file, beside)
            with beside.open("rb+") as copy:
                os.fsync(copy.fileno())
            os.replace(beside, target)
        file.unlink()


def move_folder(beside: Path, target: Path, *, last: str, keep: Collection[str] = ()) -> None:
    """Make the finished folder `beside` the folder `target`; one that is there gets its files, each atomically.

    Args:
        beside: on the same disk.
        target: what it holds besides is left alone.
        last: the file that goes there after all others.
        keep: names of files that are not replaced.
    """
    if not target.exists():  # also an empty one stays: a shell may stand in it
        os.rename(beside, target)
        return
    files = (file for file in beside.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file.name == last):
        place = target / file.relative_to(beside)
        if not (place.exists() and place.relative_to(target).as_posix() in keep):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)


def throw_away(files: dict[Path, Path]) -> None:
    for beside in files.values():
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    files.clear()


def write_atomically(file: Path, data: bytes, claims: Claims | None = None) -> None:
    """Replace one file that belongs to no stage's tree, through a temporary name in the same folder.

    A kill leaves that name behind; inside of a stage's run `Place.write` does not.

    Raises:
        MismatchError: `claims` are given, and do not name the file that is there.
    """
    if is_remote(file):
        if claims is not None:
            claims.take([file])
        with explain(file):
            file.write_bytes(data)  # whole or not at all
        return
    beside = file.with_name(f".{file.name}.{uuid4().hex}.part")
    with disk_full_is_an_error(file, len(data)), _removed_on_failure(beside):
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if claims is not None:
            claims.take([file])
        os.replace(beside, file)


@contextmanager
def disk_full_is_an_error(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" inside the block into a DiskFullError.

    Args:
        path: what was to be written; the message names it.
        needed: bytes, where they are known.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _number_told_by(error)
        if number not in DISK_FULL:
            raise
        raise DiskFullError(path, needed=needed, free=free_space(path)) from error


def _number_told_by(error: Exception) -> int | None:
    """The number of a system's error that safetensors tells in its text alone."""
    from safetensors import SafetensorError

    number = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return int(number[1]) if number else None


def flush_folder(folder: Path) -> None:
    """Have the system write a folder's entries down, where its disk can: CIFS and FUSE answer EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def share_files(folder: Path) -> None:
    """Give every file in a folder the permissions that the folder itself was made with, by the user's umask.

    safetensors makes files that their owner alone can read.
    """
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def require_free_space(folder: Path, needed: int) -> None:
    """Fail before the work rather than in the middle of it.

    Raises:
        DiskFullError: the disk that holds `folder` has fewer than `needed` bytes free.
    """
    free = free_space(folder)
    if free < needed:
        raise DiskFullError(folder, needed=needed, free=free)


def free_space(path: Path) -> int:
    """Bytes free on the disk that holds `path`, which need not exist yet; a store has no end."""
    if is_remote(path):
        return sys.maxsize
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def hash_file(file: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def safe_path(path: str) -> PurePosixPath:
    """A relative path that stays below the folder it is joined to.

    Raises:
        BrokenInputError: it is absolute, climbs with `..`, or holds a control character or backslash.
    """
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.isprintable():
        raise BrokenInputError(
            f"{path!r} is no path inside a folder.", hint="The input is damaged or hostile; fetch it again."
        )
    return pure


@contextmanager
def _removed_on_failure(beside: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
