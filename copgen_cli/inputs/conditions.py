"""Where conditions come from: pictures that a user names, patches or moments on disk, the packed store, or nowhere.

Every source lists the names of its records and reads one at a time, so that a folder of any size costs no memory.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from copgen_cli.errors import UsageError
from copgen_cli.inputs.names import modality_in, place_of
from copgen_cli.inputs.pictures import SUFFIXES, Frame, read_picture_and_size, read_place
from copgen_cli.inputs.rasters import view_values
from copgen_cli.inputs.views import InputFile, Record, View
from copgen_cli.modalities import Modality, as_modality
from copgen_cli.stages import hash_file
from copgen_cli.storage import as_path, is_remote, names_in, reach


@dataclass(frozen=True, slots=True)
class Nothing:
    """No condition: records are numbered."""

    count: int
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        return _Numbered(self.count)

    def read(self, name: str) -> Record:
        return Record(name)

    def stamp(self, name: str) -> str:
        return ""

    def describe(self) -> dict[str, Any]:
        return {}


class _Numbered(Sequence[str]):
    """sample_1, sample_2, … without a list of them."""

    def __init__(self, count: int) -> None:
        self._numbers = range(1, count + 1)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [f"sample_{number}" for number in self._numbers[index]]
        return f"sample_{self._numbers[index]}"


NOT_UTF_8 = "the name of its file is not UTF-8: rename it"


@dataclass(frozen=True, slots=True)
class Files:
    """One file per modality and name."""

    conditions: Mapping[Modality, Mapping[str, Path]]
    view: Callable[[Path, Modality], View]
    """How one is read."""
    origin: Mapping[str, Any]
    names: Sequence[str]
    lacking: Mapping[str, str]
    truth: Mapping[Modality, Path] = field(default_factory=dict)
    """Folders with files of what is generated, of the same names."""
    suffix: str | None = None
    """Of the files in these folders; None is that of patches of the modality."""

    def read(self, name: str) -> Record:
        true = {m: folder / f"{name}{self.suffix or m.spec.suffix}" for m, folder in self.truth.items()}
        return Record(
            name,
            {modality: self.view(files[name], modality) for modality, files in self.conditions.items()},
            {modality: self.view(file, modality) for modality, file in true.items() if file.is_file()},
        )

    def stamp(self, name: str) -> str:
        """Sizes and times of change of the files, shortened."""
        states = [files[name].stat() for files in self.conditions.values()]
        return hashlib.sha256(repr([(s.st_size, s.st_mtime_ns) for s in states]).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        return dict(self.origin)


def view_picture(frame: Frame, path: Path, modality: Modality) -> View:
    """A picture, fitted to the frame."""
    pixels, size = read_picture_and_size(path, modality, frame)
    return View(pixels, None, InputFile(path.as_posix(), hash_file(path)), read_place(path, frame), size=size)


def view_file(frame: Frame, path: Path, modality: Modality) -> View:
    """A file of any modality: a picture, or a raster in its unit."""
    if modality.spec.is_picture:
        return view_picture(frame, path, modality)
    return view_values(path, modality)


def open_pictures(inputs: Mapping[Modality, Path], frame: Frame) -> Files:
    """The pictures that a user names, a file or a folder for each modality; those of a name belong together.

    Files alone make one record, whatever their names. In a folder that mixes modalities, names tell them apart.

    Raises:
        UsageError: a folder has no pictures, a name is there twice, or a path is no text in UTF-8.
    """
    for path in inputs.values():
        if not _is_text(str(path)):
            raise UsageError(f"The name of {path} is not UTF-8.", hint="What is drawn tells its origin: rename it.")
    origin = {"input": {str(modality): path.as_posix() for modality, path in inputs.items()}}
    view = functools.partial(view_file, frame)
    if all(path.is_file() for path in inputs.values()):
        name = place_of(next(iter(inputs.values())))
        return Files({m: {name: path} for m, path in inputs.items()}, view, origin, [name], {})
    listed = {modality: _list_pictures(path, modality) for modality, path in inputs.items()}
    names, lacking = match_names(listed)
    unnamed = {os.fsencode(name).decode(errors="replace"): NOT_UTF_8 for name in names if not _is_text(name)}
    return Files(listed, view, origin, list(filter(_is_text, names)), lacking | unnamed)


def _is_text(name: str) -> bool:
    """False for names of files in another encoding than UTF-8, of which Python keeps the bytes."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def parse_inputs(texts: Sequence[str]) -> dict[Modality, Path]:
    """Read `s1_rtc=radar.png` and the like.

    Raises:
        UsageError: one is not MODALITY=PATH, names a modality again, or a path that is not there.
        UnknownNameError: there is no such modality.
    """
    inputs: dict[Modality, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(
                f"--input {text} is not MODALITY=IMAGE_OR_FOLDER.", hint="For instance: --input s1_rtc=radar.png"
            )
        modality = as_modality(name)
        if modality in inputs:
            raise UsageError(f"--input names {modality} twice.", hint="Give one picture or folder for each modality.")
        inputs[modality] = as_path(path).expanduser()
        reach(inputs[modality])
        if not inputs[modality].exists():
            raise UsageError(f"There is no picture or folder {path}.", hint=f"Check the path after --input {name}=")
    return {modality: inputs[modality] for modality in Modality if modality in inputs}


def match_names(listed: Mapping[Modality, Mapping[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """The names that all have, sorted; and of the others, which modalities lack them."""
    every = sorted(set().union(*listed.values()))
    lacking = {}
    for name in every:
        without = [str(modality) for modality, names in listed.items() if name not in names]
        if without:
            lacking[name] = f"no {' and no '.join(without)} of that name"
    return [name for name in every if name not in lacking], lacking


def _list_pictures(path: Path, modality: Modality) -> dict[str, Path]:
    if path.is_file():
        return {place_of(path): path}
    found: dict[str, Path] = {}
    files = sorted(path / name for name in names_in(path) if Path(name).suffix.lower() in SUFFIXES)
    if not is_remote(path):
        files = [file for file in files if file.is_file()]
    for file in files:
        if modality_in(file.stem) not in (None, modality) or file.name.startswith("."):
            continue
        name = place_of(file)
        if name in found:
            raise UsageError(
                f"{found[name]} and {file} are both called {name}.", hint="Keep one picture of a name in a folder."
            )
        found[name] = file
    if not found:
        raise UsageError(
            f"There is no picture for {modality} in {path}.", hint=f"Pictures end with {', '.join(sorted(SUFFIXES))}."
        )
    return found
