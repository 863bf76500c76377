"""Trees of one file per patch and modality, PNG or npy: what is in them, and which patches are complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from copgen_cli.errors import MissingInputError
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.stages import hash_file, units_file


@dataclass(frozen=True, slots=True)
class PatchTree:
    """The files of a tree by split and modality."""

    folder: Path
    suffix: str
    """`.png` or `.npy`."""
    modalities: tuple[Modality, ...]
    """Those that have any file, in index order."""
    names: Mapping[Split, Mapping[Modality, frozenset[str]]]
    """Names of patches, without suffix."""

    def all(self, split: Split) -> list[str]:
        """Patches that any modality has, sorted by the bytes of their names."""
        return sorted(frozenset[str]().union(*self.names[split].values()), key=str.encode)

    def complete(self, split: Split) -> list[str]:
        """Patches that every modality has, sorted by the bytes of their names."""
        sets = [self.names[split][modality] for modality in self.modalities]
        return sorted(frozenset.intersection(*sets), key=str.encode)

    def incomplete(self, split: Split) -> dict[str, str]:
        """Patches that some modality lacks, sorted, with what is missing."""
        lacking = {
            name: [m.facts.folder for m in self.modalities if name not in self.names[split][m]]
            for name in self.all(split)
        }
        return {name: f"no {', '.join(folders)}" for name, folders in lacking.items() if folders}

    def has(self, split: Split, name: str) -> tuple[Modality, ...]:
        """The modalities that there are of a patch, in index order."""
        return tuple(modality for modality in self.modalities if name in self.names[split][modality])

    def file(self, split: Split, modality: Modality, name: str) -> Path:
        return patch_file(self.folder, split, modality, name, self.suffix)


def read_tree(folder: Path, suffix: str, *, what: str, written_by: str) -> PatchTree:
    """List a tree. Files of other kinds, hidden ones, and folders that are no modality's are left alone.

    Raises:
        MissingInputError: there is not one file; `what` and `written_by` are for the message.
    """
    names = {
        split: {modality: _stems(folder / split / modality.facts.folder, suffix) for modality in Modality}
        for split in Split
    }
    modalities = tuple(modality for modality in Modality if any(names[split][modality] for split in Split))
    if not modalities:
        raise MissingInputError(what, folder, written_by=written_by)
    return PatchTree(folder, suffix, modalities, names)


def unrecorded_files(folder: Path, suffix: str, stage: str) -> Iterator[Path]:
    """The files of a tree in which no finished run of the stage has left its record."""
    if not units_file(folder, stage).is_file():
        for split in Split:
            for modality in Modality:
                for name in _stems(folder / split / modality.facts.folder, suffix):
                    yield patch_file(folder, split, modality, name, suffix)


def fingerprint(names: Iterable[str], folder: Path, stage: str) -> str:
    """SHA-256 of a list of patches, and of the record that the stage before left of their files, where it left one."""
    digest = hashlib.sha256("\n".join(names).encode())
    record = units_file(folder, stage)
    if record.is_file():
        digest.update(hash_file(record).encode())
    return digest.hexdigest()


def _stems(folder: Path, suffix: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            files = (entry.name for entry in entries)
            return frozenset(name[: -len(suffix)] for name in files if name.endswith(suffix) and name[0].isalnum())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
