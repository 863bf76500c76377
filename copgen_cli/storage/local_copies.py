"""Copies on this machine of what has to be mapped or opened by name: packed stores, models.

A copy is made once for each version of the object, as its store tells them apart, and is complete or absent. It lies in
`~/.cache/copgen` (`$XDG_CACHE_HOME/copgen`), and may be removed at any time that no command runs.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from copgen_cli.storage.paths import as_path, is_remote
from copgen_cli.storage.problems import explain, reach
from copgen_cli.storage.transfer import fetch_file, fetch_folder


def cache_folder() -> Path:
    """Where copies lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "copgen"


def local_copy(file: Path) -> Path:
    """A file of this machine with the bytes of a remote one, under the same name; a local one as it is.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the store does not give it.
    """
    if not is_remote(file):
        return file
    reach(file)
    with explain(file):
        version = file.fs.ukey(file.path)  # type: ignore[attr-defined]
    copy = _copy_of(file, str(version)) / file.name
    if not copy.is_file():
        fetch_file(file, copy)
    return copy


def local_source(source: str | Path) -> str | Path:
    """A model's folder or file that is remote, copied here; all else as it is, also the id of a hub's repository."""
    if not is_remote(source):
        return source
    folder = as_path(source)
    reach(folder)
    if folder.is_file():
        return local_copy(folder)
    with explain(folder):
        found = folder.fs.find(folder.path, detail=True)  # type: ignore[attr-defined]
    copy = _copy_of(folder, repr(sorted(found.items()))) / folder.name
    fetch_folder(folder, copy)
    return copy


def _copy_of(path: Path, version: str) -> Path:
    return cache_folder() / "copies" / hashlib.sha256(f"{path}\n{version}".encode()).hexdigest()[:24]
