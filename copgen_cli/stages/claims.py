"""Which files of a folder are copgen's own. Nothing else is ever replaced or removed, with --overwrite or without.

A name is ours if a manifest, a journal or a claim names it. A claim is a line in `<folder>/.copgen/files`, written
before a file is made under a name that was free: so a run that was killed knows its files, noted as finished or not.
Stages move their claims to the manifest when they finish; folders without a manifest keep them.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from copgen_cli.errors import MismatchError
from copgen_cli.storage import append_lines, is_remote, is_there

PRIVATE_FOLDER = ".copgen"
CLAIMS = "files"
_OLD_EXTRAS = (".json", ".parquet", "split_map.png")
"""Of files that stages wrote beside those of their units before manifests named them."""

_known: dict[Path, Records] = {}


@dataclass(frozen=True, slots=True)
class Records:
    """Names of files below a folder, with forward slashes, as its records tell them."""

    names: frozenset[str]
    old: bool = False
    """There is a manifest of a version that did not name what it wrote beside the files of its units."""

    def name(self, path: str) -> bool:
        return path in self.names or (self.old and path.endswith(_OLD_EXTRAS))


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims to names in one folder; small and picklable."""

    folder: Path
    by_worker: bool = False
    """Several machines note them: each process in a file of its own, for machines can not append to one."""

    @property
    def file(self) -> Path:
        whose = f".{socket.gethostname()}_{os.getpid()}" if self.by_worker else ""
        return self.folder / PRIVATE_FOLDER / f"{CLAIMS}{whose}"

    def take(self, targets: Iterable[Path]) -> None:
        """Claim names that are about to be written.

        Raises:
            MismatchError: under one of them lies what copgen did not write.
        """
        free = []
        for target in targets:
            path = self._relative(target)
            if not is_there(target):
                free.append(path)
            elif not self.owns(target):
                raise foreign_file(target)
        self._note(free)

    def adopt(self, files: Iterable[Path]) -> None:
        """Claim files that are there and known to be ours by other signs than a record: of an older version."""
        self._note([self._relative(file) for file in files if file.is_file() and not self.owns(file)])

    def owns(self, file: Path) -> bool:
        """Whether a record names the file; one that the last look at the records did not show is looked up anew."""
        path = self._relative(file)
        if path.split("/", 1)[0] == PRIVATE_FOLDER:
            return True
        if self.folder not in _known or not _known[self.folder].name(path):
            _known[self.folder] = read_records(self.folder)
        return _known[self.folder].name(path)

    def exist(self) -> bool:
        """Whether a file is there that was claimed."""
        return any((self.folder / name).exists() for name in _claimed(self.folder))

    def foreign(self, folder: Path) -> list[Path]:
        """Files in a folder below this one that no record names, sorted."""
        files = (file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
        return sorted(file for file in files if not self.owns(file))

    def require(self, *paths: Path) -> None:
        """Raises MismatchError where one of these files or folders is, or holds, what copgen did not write."""
        for path in paths:
            strange = self.foreign(path) if path.is_dir() and not path.is_symlink() else []
            if strange or (not path.is_dir() and is_there(path) and not self.owns(path)):
                raise foreign_file(strange[0] if strange else path)

    def remove(self, *paths: Path) -> None:
        """Remove files, and folders with all that is ours in them; what is not stays, with the folders around it."""
        for path in paths:
            if not is_there(path):
                continue
            if not path.is_dir() or path.is_symlink():
                if self.owns(path):
                    path.unlink()
                continue
            self.remove(*path.iterdir())
            if not is_remote(path) and not any(path.iterdir()):  # a store has no folders
                path.rmdir()

    def forget(self) -> None:
        """End all claims: they are told in a manifest, or nothing was made."""
        for file in _files_of_claims(self.folder):
            file.unlink(missing_ok=True)

    @property
    def theirs(self) -> Collection[str]:
        """Names that are known not to be ours; of a disk none are kept, it is asked for each."""
        return ()

    def look_anew(self, told: Iterable[str] | None = None) -> None:
        """Forget what was read of the records: files may have come and gone since.

        Args:
            told: of stores; see `ObjectClaims`.
        """
        _known.pop(self.folder, None)

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _note(self, names: list[str]) -> None:
        ours = [name for name in names if name.split("/", 1)[0] != PRIVATE_FOLDER]
        if not ours:
            return
        append_lines(self.file, ours)


def foreign_file(file: Path) -> MismatchError:
    """The error that ends a command before a file is lost that copgen did not write."""
    return MismatchError(
        f"{file} was not written by copgen, and would be lost.",
        hint="Move it away, or choose another folder for what is to be written.",
    )


def read_records(folder: Path) -> Records:
    """All that is on record in a folder."""
    names = set(_claimed(folder))
    old = False
    for manifest in folder.glob("copgen_*.json"):
        values = _read_manifest(manifest)
        if values is None:
            continue
        units = str(values["units"])
        beside = values.get("beside")
        names |= {manifest.name, units, *(map(str, beside) if isinstance(beside, list) else ())}
        names.update(_files_in(folder / units))
        old |= beside is None
    for journal in (folder / PRIVATE_FOLDER).glob("*.journal"):
        names.update(_files_in(journal))
    return Records(frozenset(names), old)


def _claimed(folder: Path) -> Iterator[str]:
    for file in _files_of_claims(folder):
        yield from _lines(file)


def _files_of_claims(folder: Path) -> list[Path]:
    private = folder / PRIVATE_FOLDER
    return [private / CLAIMS, *sorted(private.glob(f"{CLAIMS}.*"))]


def foreign_files(root: Path) -> Iterator[Path]:
    """Files anywhere below a folder that no record in it or in a folder below names."""
    for folder, _, files in os.walk(root):
        for name in files:
            file = Path(folder, name)
            above = [parent for parent in file.parents if parent == root or root in parent.parents]
            if PRIVATE_FOLDER not in file.parts and not any(Claims(parent).owns(file) for parent in above):
                yield file


def _read_manifest(file: Path) -> dict[str, object] | None:
    try:
        values = json.loads(file.read_bytes())
        return values if {"stage", "settings", "inputs", "units"} <= values.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _files_in(lines: Path) -> Iterator[str]:
    """Names of files in the lines of units."""
    for line in _lines(lines):
        try:
            for path, *_ in json.loads(line).get("files", ()):
                yield str(path)
        except (ValueError, AttributeError, TypeError):
            continue


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", errors="surrogateescape") as stream:
            for line in stream:
                if line.strip():
                    yield line.rstrip("\n")
    except OSError:
        return
