"""What lies below a folder, in as few requests as the store needs: a page of a listing has a thousand objects."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from copgen_cli.storage.paths import is_remote
from copgen_cli.storage.problems import explain


class Sizes(Protocol):
    """Sizes of files below a folder."""

    def of(self, path: str) -> int | None:
        """Bytes of the file of this name relative to the folder; None where there is none."""
        ...


class _LocalSizes:
    """Asked of the disk, file by file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, path: str) -> int | None:
        try:
            return (self._folder / path).stat().st_size
        except OSError:
            return None


class _ListedSizes:
    """As the store lists them, a folder of the first level at a time, once: what is written later does not show."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, int]] = {}

    def of(self, path: str) -> int | None:
        first, inner, _ = path.partition("/")
        part = first if inner else ""
        if part not in self._listed:
            self._listed[part] = _find(self._folder, part) if part else _find(self._folder, "", depth=1)
        return self._listed[part].get(path)


def sizes_in(folder: Path) -> Sizes:
    """The sizes of files below a folder, for many questions."""
    return _ListedSizes(folder) if is_remote(folder) else _LocalSizes(folder)


def names_in(folder: Path) -> list[str]:
    """Names of the entries of a folder, in no order; none where there is no such folder."""
    try:
        if is_remote(folder):
            with explain(folder):
                return [entry.rstrip("/").rpartition("/")[2] for entry in _fs(folder).ls(_key(folder), detail=False)]
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_there(path: Path) -> bool:
    """Whether something has this name; also a link that leads nowhere."""
    return path.exists() if is_remote(path) else os.path.lexists(path)


def append_lines(file: Path, lines: Iterable[str]) -> None:
    """Add lines to a text file, each after a newline: one that a kill cut short spoils no other.

    An object is written anew as a whole; for few lines that one process alone adds.
    """
    text = "".join(f"\n{line}" for line in lines)
    if not is_remote(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
        return
    with explain(file):
        before = file.read_bytes() if file.exists() else b""
        _fs(file).pipe_file(_key(file), before + text.encode(errors="surrogateescape"))


def list_output(folder: Path, *, private: str, manifests: str) -> dict[str, int]:
    """Name relative to the folder, and size, of what lies below a remote output.

    Args:
        folder: of the output.
        private: a folder in it that is left out.
        manifests: pattern of the names of manifests; a folder below that has one is an output of its own, and left out.
    """
    with explain(folder):
        found = _find(folder, "", depth=1)
        for entry in _listed(folder):
            name = _name(entry)
            if entry["type"] == "directory" and name != private:
                inner = _listed(folder / name)
                if not any(fnmatch(_name(each), manifests) for each in inner):
                    found |= _find(folder, name)
    return found


def remove_tree(folder: Path) -> None:
    """Remove all objects below a remote folder, many in one request."""
    with explain(folder):
        files = _fs(folder).find(_key(folder))
        if files:
            _fs(folder).rm(files)


def _find(folder: Path, part: str, depth: int | None = None) -> dict[str, int]:
    root = _key(folder)
    with explain(folder):
        try:
            if depth == 1:
                entries = [entry for entry in _listed(folder) if entry["type"] == "file"]
            else:
                entries = list(_fs(folder).find(f"{root}/{part}", detail=True).values())
        except FileNotFoundError:
            return {}
    start = len(root) + 1
    return {str(entry["name"])[start:]: int(entry["size"]) for entry in entries if len(str(entry["name"])) > start}


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(_fs(folder).ls(_key(folder), detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _fs(path: Path) -> Any:
    return path.fs  # type: ignore[attr-defined]  # of a UPath


def _key(path: Path) -> str:
    """A remote path as its file system calls it."""
    return str(path.path).rstrip("/")  # type: ignore[attr-defined]
