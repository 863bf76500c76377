"""Trees of one file per patch and modality, patches or npy: what is in them, and which patches are complete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from copgen_cli.errors import MissingInputError
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.stages import hash_file, settings_of, units_file
from copgen_cli.storage import Sizes, names_in, reach, sizes_in


@dataclass(frozen=True, slots=True)
class PatchTree:
    """The files of a tree by split and modality."""

    folder: Path
    suffix: str | None
    """`.npy` of moments; None of patches, whose files are of their modality's kind."""
    modalities: tuple[Modality, ...]
    """Those that have any file, in index order."""
    names: Mapping[Split, Mapping[Modality, frozenset[str]]]
    """Names of patches, without suffix."""
    sizes: Sizes
    """Of its files."""

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
            name: [m.spec.folder for m in self.modalities if name not in self.names[split][m]]
            for name in self.all(split)
        }
        return {name: f"no {', '.join(folders)}" for name, folders in lacking.items() if folders}

    def has(self, split: Split, name: str) -> tuple[Modality, ...]:
        """The modalities that there are of a patch, in index order."""
        return tuple(modality for modality in self.modalities if name in self.names[split][modality])

    def only(self, split: Split, names: Iterable[str]) -> PatchTree:
        """The same tree with some patches of one split, small enough to travel."""
        wanted = frozenset(names)
        there = {modality: wanted & self.names[split][modality] for modality in self.modalities}
        return replace(self, names={split: there})

    def size(self, split: Split, modality: Modality, name: str) -> int:
        """Bytes of a patch in one modality; 0 where it went since the tree was listed."""
        path = patch_file(Path(), split, modality, name, self.suffix or modality.spec.suffix)
        return self.sizes.of(path.as_posix()) or 0

    def file(self, split: Split, modality: Modality, name: str) -> Path:
        return patch_file(self.folder, split, modality, name, self.suffix or modality.spec.suffix)


def read_tree(folder: Path, suffix: str | None, *, what: str, written_by: str) -> PatchTree:
    """List a tree. Files of other kinds, hidden ones, and folders that are no modality's are left alone.

    Raises:
        MissingInputError: there is not one file; `what` and `written_by` are for the message.
    """
    reach(folder)
    names = {
        split: {m: _stems(folder / split / m.spec.folder, suffix or m.spec.suffix) for m in Modality} for split in Split
    }
    modalities = _in_order(folder, [m for m in Modality if any(names[split][m] for split in Split)])
    if not modalities:
        raise MissingInputError(what, folder, written_by=written_by)
    return PatchTree(folder, suffix, modalities, names, sizes_in(folder))


def _in_order(folder: Path, there: list[Modality]) -> tuple[Modality, ...]:
    """Modalities as the family that a tree was cut for has them, which its manifest tells; others by index."""
    recorded = settings_of(folder, "prepare") or settings_of(folder, "encode") or {}
    order = [str(name) for name in recorded.get("modalities", ())]
    return tuple(sorted(there, key=lambda m: order.index(m) if m in order else len(order) + m.order))


def unrecorded_files(folder: Path, suffix: str | None, stage: str) -> Iterator[Path]:
    """The files of a tree in which no finished run of the stage has left its record."""
    if not units_file(folder, stage).is_file():
        for split in Split:
            for modality in Modality:
                its = suffix or modality.spec.suffix
                for name in _stems(folder / split / modality.spec.folder, its):
                    yield patch_file(folder, split, modality, name, its)


def fingerprint(names: Iterable[str], folder: Path, stage: str) -> str:
    """SHA-256 of a list of patches, and of the record that the stage before left of their files, where it left one."""
    digest = hashlib.sha256("\n".join(names).encode())
    record = units_file(folder, stage)
    if record.is_file():
        digest.update(hash_file(record).encode())
    return digest.hexdigest()


def _stems(folder: Path, suffix: str) -> frozenset[str]:
    files = names_in(folder)
    return frozenset(name[: -len(suffix)] for name in files if name.endswith(suffix) and name[0].isalnum())
