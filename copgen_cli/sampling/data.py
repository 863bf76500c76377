"""Records that earlier commands wrote: the packed store, moments or patches, of a region or of a named folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from copgen_cli.data.atomic import hash_file
from copgen_cli.data.store import LatentStore
from copgen_cli.data.store_format import DATA_FILE
from copgen_cli.errors import BrokenInputError, MissingInputError, UsageError
from copgen_cli.layout import Workspace, split_index
from copgen_cli.modalities import Modality, Split
from copgen_cli.model.autoencoder import ImageAutoencoder
from copgen_cli.sampling.images import Frame, read_picture
from copgen_cli.sampling.inputs import Pictures, Record, Source, View, match_names, read_moments, stamp_of
from copgen_cli.sampling.provenance import InputFile

_PICTURES_OF = ("_thumbnail_npy_lmdb", "_thumbnail_npy")
_PICTURES = "_thumbnail_png"


@dataclass(frozen=True, slots=True)
class DataChoice:
    """A folder with one split's records, and what there is to say about the choice."""

    folder: Path
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Moments:
    """npy moments by modality and name, with the patches that they were encoded from where these are at hand."""

    conditions: Mapping[Modality, Mapping[str, Path]]
    truth: Mapping[Modality, Path]
    """Folders with `<name>.npy` of what is generated."""
    pictures: Path | None
    """Folder with the same records as PNG."""
    frame: Frame
    origin: Mapping[str, Any]
    names: Sequence[str]
    lacking: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str) -> Record:
        conditions = {modality: self._view(files[name], modality) for modality, files in self.conditions.items()}
        truth = {
            modality: self._view(folder / f"{name}.npy", modality)
            for modality, folder in self.truth.items()
            if (folder / f"{name}.npy").is_file()
        }
        return Record(name, conditions, truth)

    def stamp(self, name: str) -> str:
        return stamp_of(files[name] for files in self.conditions.values())

    def describe(self) -> dict[str, Any]:
        return dict(self.origin)

    def _view(self, path: Path, modality: Modality) -> View:
        pixels = picture_beside(self.pictures, modality, path.stem, self.frame)
        return View(pixels, read_moments(path), InputFile(path.as_posix(), hash_file(path)))


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Records of a packed store, with the patches that they were encoded from where these are at hand."""

    store: LatentStore
    conditions: Sequence[Modality]
    truth: Sequence[Modality]
    pictures: Path | None
    frame: Frame
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        return self.store.names

    def read(self, name: str) -> Record:
        moments = self.store[self._index(name)][1].float().numpy()
        views = {
            modality: self._view(name, modality, values)
            for modality, values in zip(self.store.modalities, moments, strict=True)
        }
        return Record(name, {m: views[m] for m in self.conditions}, {m: views[m] for m in self.truth})

    def stamp(self, name: str) -> str:
        return self.store.metadata.source[:16]

    def describe(self) -> dict[str, Any]:
        return {"data": self.store.folder.as_posix()}

    def _index(self, name: str) -> int:
        """The place of a name among those of the store, which are sorted."""
        block = self.store.names.block
        index = int(np.searchsorted(block, name.encode()))
        if index == len(block) or self.store.names[index] != name:
            raise BrokenInputError(
                f"The store {self.store.folder} has no record {name}.", hint="Give the store that it came from."
            )
        return index

    def _view(self, name: str, modality: Modality, values: np.ndarray) -> View:
        digest = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
        pixels = picture_beside(self.pictures, modality, name, self.frame)
        return View(pixels, values, InputFile(self.store.folder.as_posix(), digest))


def choose_data(data: Path | None, workspace: Workspace) -> DataChoice:
    """The folder that is named, or the region's: its store, else its moments, else its patches; the test split first.

    Raises:
        MissingInputError: the region has none of them.
        UsageError: the named folder is not there, or holds none of them.
    """
    if data is not None:
        if not data.is_dir():
            raise UsageError(f"There is no folder {data}.", hint="Check the path after --data.")
        found = _split_of(data) or (DataChoice(data) if _kind_of(data) else None)
        if found is None:
            raise UsageError(
                f"{data} holds no records.",
                hint="Give a packed store, or a folder with "
                f"{', '.join(modality.facts.folder for modality in Modality)} inside, or such folders in test/.",
            )
        return found
    for folder in (workspace.store, workspace.moments, workspace.patches):
        found = _split_of(folder)
        if found is not None:
            return found
    raise MissingInputError(
        f"packed store, moments or patches of {workspace.region}", workspace.subset, written_by="pack"
    )


def open_data(
    folder: Path,
    conditions: Sequence[Modality],
    truths: Sequence[Modality],
    frame: Frame,
    autoencoder: ImageAutoencoder,
) -> Source:
    """The records of one split's folder, whichever kind it is; `truths` are read as well where the data has them.

    Raises:
        MismatchError: another autoencoder encoded the store.
        UsageError: the data has no such modality, or a resolution other than the model's is asked of moments.
    """
    kind, origin = _kind_of(folder), {"data": folder.as_posix()}
    if kind == "png":
        listed = {m: _list_files(folder / m.facts.folder, ".png", m, folder) for m in conditions}
        names, lacking = match_names(listed)
        return Pictures(listed, frame, origin, names, lacking, _folders(folder, truths))
    if frame.resolution != frame.side:
        raise UsageError(
            f"--resolution {frame.resolution} can not be asked of {folder}, which holds encoded pictures.",
            hint="Leave it out, or give the pictures with --data or --input.",
        )
    if kind == "lmdb":
        store = LatentStore(folder)
        store.require_autoencoder(autoencoder.fingerprint, f"the model's, {autoencoder.source}")
        there = store.metadata.modalities
        _require(folder, conditions, there)
        known = [modality for modality in truths if modality in there]
        return Stored(store.select([*conditions, *known]), conditions, known, pictures_of(folder), frame)
    if kind == "npy":
        listed = {m: _list_files(folder / m.facts.folder, ".npy", m, folder) for m in conditions}
        names, lacking = match_names(listed)
        return Moments(listed, _folders(folder, truths), pictures_of(folder), frame, origin, names, lacking)
    raise UsageError(f"{folder} holds no records.", hint="Give a folder that `copgen pack`, encode or prepare wrote.")


def table_of(folder: Path) -> Path:
    """The table of patches that belongs to a split's folder; it need not be there."""
    patches = pictures_of(folder) or folder
    return split_index(patches.parent, Split.TRAIN if folder.name == Split.TRAIN else Split.TEST)


def pictures_of(folder: Path) -> Path | None:
    """Where the PNG patches of a split's moments or store lie, by the names of the workspace; None if not there."""
    for suffix in _PICTURES_OF:
        if folder.parent.name.endswith(suffix):
            pictures = folder.parent.with_name(folder.parent.name.removesuffix(suffix) + _PICTURES) / folder.name
            return pictures if pictures.is_dir() else None
    return None


def picture_beside(pictures: Path | None, modality: Modality, name: str, frame: Frame) -> Any:
    """(S, S, 3) uint8 of a record's PNG, or None."""
    file = pictures / modality.facts.folder / f"{name}.png" if pictures else None
    return read_picture(file, modality, frame) if file is not None and file.is_file() else None


def _split_of(folder: Path) -> DataChoice | None:
    """The test split in a folder; the train split where test is empty."""
    if _kind_of(folder / Split.TEST):
        return DataChoice(folder / Split.TEST)
    if _kind_of(folder / Split.TRAIN):
        return DataChoice(folder / Split.TRAIN, f"The test split of {folder} is empty; the train split is used.")
    return None


def _kind_of(folder: Path) -> str | None:
    """lmdb, npy or png, by the first record found; None where there is none."""
    if (folder / DATA_FILE).is_file():
        return "lmdb" if len(LatentStore(folder)) else None
    for modality in Modality:
        inner = folder / modality.facts.folder
        if inner.is_dir():
            with os.scandir(inner) as entries:
                for entry in entries:
                    for kind in ("npy", "png"):
                        if entry.name.endswith(f".{kind}"):
                            return kind
    return None


def _list_files(folder: Path, suffix: str, modality: Modality, data: Path) -> dict[str, Path]:
    _require(data, [modality], [m for m in Modality if (data / m.facts.folder).is_dir()])
    with os.scandir(folder) as entries:
        return {
            entry.name.removesuffix(suffix): folder / entry.name for entry in entries if entry.name.endswith(suffix)
        }


def _require(data: Path, wanted: Sequence[Modality], there: Sequence[Modality]) -> None:
    lacking = [str(modality) for modality in wanted if modality not in there]
    if lacking:
        raise UsageError(f"{data} has no {', '.join(lacking)}.", hint=f"It has {', '.join(there)}.")


def _folders(folder: Path, modalities: Sequence[Modality]) -> dict[Modality, Path]:
    return {m: folder / m.facts.folder for m in modalities if (folder / m.facts.folder).is_dir()}
