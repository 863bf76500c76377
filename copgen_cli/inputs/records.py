"""Records that earlier commands wrote: the packed store, moments or patches, of a region or of a named folder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from copgen_cli.errors import BrokenInputError, MismatchError, MissingInputError, UsageError
from copgen_cli.inputs.conditions import Files, match_names, view_file
from copgen_cli.inputs.pictures import Frame
from copgen_cli.inputs.views import InputFile, Record, Source, View
from copgen_cli.latents import (
    DATA_FILE,
    INDEX_FILE,
    LatentStore,
    StoreCache,
    facts_of_tree,
    index_of,
    open_store,
    read_moments,
)
from copgen_cli.layout import Workspace, patches_beside, split_index
from copgen_cli.modalities import PUBLISHED, Modality, Split
from copgen_cli.model import Autoencoders
from copgen_cli.stages import hash_file
from copgen_cli.storage import names_in, reach


@dataclass(frozen=True, slots=True)
class DataChoice:
    """A folder with one split's records, and what there is to say about the choice."""

    folder: Path
    note: str | None = None


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
        moments = self.store.__getitems__([self._index(name)]).by_modality()
        views = {
            modality: self._view(name, modality, values[0].float().numpy())
            for modality, values in zip(self.store.modalities, moments, strict=True)
        }
        return Record(name, {m: views[m] for m in self.conditions}, {m: views[m] for m in self.truth})

    def stamp(self, name: str) -> str:
        return self.store.metadata.source[:16]

    def describe(self) -> dict[str, Any]:
        return {"data": self.store.named.as_posix()}

    def _index(self, name: str) -> int:
        """The place of a name among those of the store, which are sorted."""
        block = self.store.names.block
        index = int(np.searchsorted(block, name.encode()))
        if index == len(block) or self.store.names[index] != name:
            raise BrokenInputError(
                f"The store {self.store.named} has no record {name}.", hint="Give the store that it came from."
            )
        return index

    def _view(self, name: str, modality: Modality, values: np.ndarray) -> View:
        digest = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
        pixels = _picture_beside(self.pictures, modality, name, self.frame)
        return View(pixels, values, InputFile(self.store.named.as_posix(), digest))


def choose_data(data: Path | None, workspace: Workspace) -> DataChoice:
    """The folder that is named, or the region's: its store, else its moments, else its patches; the test split first.

    Raises:
        MissingInputError: the region has none of them.
        UsageError: the named folder is not there, or holds none of them.
    """
    reach(workspace.data_dir if data is None else data)
    if data is not None:
        if data.name == INDEX_FILE and data.is_file():
            data = data.parent
        if not data.is_dir():
            raise UsageError(f"There is no folder {data}.", hint="Check the path after --data.")
        found = _split_of(data) or (DataChoice(data) if _kind_of(data) else None)
        if found is None:
            raise UsageError(
                f"{data} holds no records.",
                hint="Give a packed store, or a folder with "
                f"{', '.join(modality.spec.folder for modality in PUBLISHED)} inside, or such folders in test/.",
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
    autoencoders: Autoencoders,
    cache: StoreCache | None = None,
) -> Source:
    """The records of one split's folder, whichever kind it is; `truths` are read as well where the data has them.

    Args:
        cache: of shards.

    Raises:
        MismatchError: another autoencoder encoded it.
        UsageError: the data has no such modality, or a resolution other than the model's is asked of moments.
    """
    kind = _kind_of(folder)
    if kind == "patches":
        return _open_files(folder, conditions, truths, functools.partial(view_file, frame), None)
    if frame.resolution != frame.side:
        raise UsageError(
            f"--resolution {frame.resolution} can not be asked of {folder}, which holds encoded pictures.",
            hint="Leave it out, or give the pictures with --data or --input.",
        )
    if kind == "lmdb":
        store = open_store(folder, cache)
        there = store.metadata.modalities
        _require(folder, conditions, there)
        for modality in conditions:
            if modality in autoencoders.of:
                autoencoder = autoencoders.of[modality]
                store.require_autoencoder(modality, autoencoder.fingerprint, f"the model's, {autoencoder.source}")
        known = [modality for modality in truths if modality in there]
        return Stored(store.select([*conditions, *known]), conditions, known, pictures_of(folder), frame)
    if kind == "npy":
        for modality, facts in facts_of_tree(folder.parent, None, conditions).items():
            own = autoencoders.of.get(modality)
            if own is not None and facts.fingerprint not in (None, own.fingerprint):
                raise MismatchError(
                    f"The moments in {folder} were encoded by the autoencoder {facts.id}, not by the model's.",
                    hint="Use a model that was trained with that autoencoder, or encode again with --overwrite.",
                )
        view = functools.partial(_view_moments, pictures_of(folder), frame)
        return _open_files(folder, conditions, truths, view, ".npy")
    raise UsageError(f"{folder} holds no records.", hint="Give a folder that `copgen pack`, encode or prepare wrote.")


def table_of(folder: Path) -> Path:
    """The table of patches that belongs to a split's folder; it need not be there."""
    patches = pictures_of(folder) or folder
    return split_index(patches.parent, Split.TRAIN if folder.name == Split.TRAIN else Split.TEST)


def pictures_of(folder: Path) -> Path | None:
    """Where the PNG patches of a split's moments or store lie, by the names of the workspace; None if not there."""
    tree = folder.absolute().parent
    if not tree.name:  # a split in the root of a disk
        return None
    pictures = patches_beside(tree) / folder.name
    return pictures if pictures.is_dir() else None


def _picture_beside(pictures: Path | None, modality: Modality, name: str, frame: Frame) -> np.ndarray | None:
    """(S, S, 3) uint8 of a record's patch, or None."""
    file = pictures / modality.spec.folder / f"{name}{modality.spec.suffix}" if pictures else None
    return view_file(frame, file, modality).pixels if file is not None and file.is_file() else None


def _split_of(folder: Path) -> DataChoice | None:
    """The test split in a folder; the train split where test is empty."""
    if _kind_of(folder / Split.TEST):
        return DataChoice(folder / Split.TEST)
    if _kind_of(folder / Split.TRAIN):
        return DataChoice(
            folder / Split.TRAIN, f"There is nothing in the test split of {folder}; the train split is used."
        )
    return None


def _kind_of(folder: Path) -> str | None:
    """lmdb, npy or patches, by the first record found; None where there is none."""
    if (folder / DATA_FILE).is_file() or index_of(folder) is not None:
        return "lmdb" if len(open_store(folder)) else None
    for modality in Modality:
        inner = folder / modality.spec.folder
        for name in names_in(inner):
            if name.endswith(".npy"):
                return "npy"
            if name.endswith(modality.spec.suffix):
                return "patches"
    return None


def _view_moments(pictures: Path | None, frame: Frame, path: Path, modality: Modality) -> View:
    pixels = _picture_beside(pictures, modality, path.stem, frame)
    return View(pixels, read_moments(path), InputFile(path.as_posix(), hash_file(path)))


def _open_files(
    folder: Path,
    conditions: Sequence[Modality],
    truths: Sequence[Modality],
    view: Callable[[Path, Modality], View],
    suffix: str | None,
) -> Files:
    there = [modality for modality in Modality if (folder / modality.spec.folder).is_dir()]
    _require(folder, conditions, there)
    listed = {m: _list_files(folder / m.spec.folder, suffix or m.spec.suffix) for m in conditions}
    names, lacking = match_names(listed)
    true = {modality: folder / modality.spec.folder for modality in truths if modality in there}
    return Files(listed, view, {"data": folder.as_posix()}, names, lacking, true, suffix)


def _list_files(folder: Path, suffix: str) -> dict[str, Path]:
    names = [name for name in names_in(folder) if name.endswith(suffix)]
    return {name.removesuffix(suffix): folder / name for name in names}


def _require(data: Path, wanted: Sequence[Modality], there: Sequence[Modality]) -> None:
    lacking = [str(modality) for modality in wanted if modality not in there]
    if lacking:
        raise UsageError(f"{data} has no {', '.join(lacking)}.", hint=f"It has {', '.join(there)}.")
