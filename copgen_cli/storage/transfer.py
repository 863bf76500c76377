"""Whole files from here to a store and back."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import IO, Any

from copgen_cli.storage.paths import is_remote
from copgen_cli.storage.problems import StorageError, explain

TRIES = 4
"""Of one file whose transfer ends early though the store's own library has tried again."""


def put_file(file: Path, target: Path) -> None:
    """Upload a file as one whole object, over what may be there: readers see the old one or the new one.

    Raises:
        StorageError: the store does not take it.
    """
    with explain(target):
        _again(lambda: target.fs.put_file(str(file), target.path))  # type: ignore[attr-defined]


def fetch_file(source: Path, target: Path) -> None:
    """Copy a file here, and make sure that all of it came; `target` is complete or absent.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the store does not give it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_remote(source):
        shutil.copyfile(source, target)
        return
    beside = target.with_name(f".{target.name}.part")

    def get() -> None:
        size = source.stat().st_size
        source.fs.get_file(source.path, str(beside))  # type: ignore[attr-defined]
        if beside.stat().st_size != size:
            raise OSError(f"{beside.stat().st_size:,} bytes of {size:,} came")

    try:
        with explain(source):
            _again(get)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def fetch_folder(source: Path, target: Path) -> None:
    """Copy all files below a remote folder here, those that are here in the same size left alone."""
    with explain(source):
        found = source.fs.find(source.path, detail=True)  # type: ignore[attr-defined]
    start = len(str(source.path).rstrip("/")) + 1  # type: ignore[attr-defined]
    for name, facts in found.items():
        path = name[start:]
        if ".." in path.split("/"):
            raise StorageError(f"{name} leaves its folder.", hint="The store holds names that no tool of ours wrote.")
        file = target / path
        if not (file.is_file() and file.stat().st_size == facts["size"]):
            fetch_file(source / path, file)


def readable(file: Path) -> Path | IO[bytes]:
    """What a library that opens local paths or file objects can read: the path, or the object's bytes in memory.

    Raises:
        FileNotFoundError: there is no such object.
    """
    return io.BytesIO(read_whole(file)) if is_remote(file) else file


def read_whole(file: Path) -> bytes:
    """The bytes of a file; of a remote one in a single request, which asks for no size before.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not is_remote(file):
        return file.read_bytes()
    with explain(file):
        data: bytes = file.fs.cat_file(file.path)  # type: ignore[attr-defined]
        return data


def _again(transfer: Any) -> None:
    """Try a transfer again that a dropped connection ended; what the store refuses is raised at once."""
    for left in range(TRIES - 1, -1, -1):
        try:
            transfer()
            return
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if not left:
                raise
