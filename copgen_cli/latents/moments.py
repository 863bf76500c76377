"""Moments kept as one npy file per patch and modality: read without ever unpickling."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from copgen_cli.errors import BrokenInputError
from copgen_cli.layout import patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches import PatchTree, fingerprint, read_tree
from copgen_cli.storage import as_path, is_remote, read_whole

READERS_OF_OBJECTS = 16
"""Requests to an object store at a time."""
_HINT = "Encode the patch again: `copgen encode`."


class NpyMoments:
    """A tree that `copgen encode` wrote, or the published workflow."""

    def __init__(self, folder: Path) -> None:
        """List the tree.

        Raises:
            MissingInputError: it holds no npy file.
            BrokenInputError: its first file is none.
        """
        self.tree: PatchTree = read_tree(folder, ".npy", what="encoded patches", written_by="encode")
        self.modalities = self.tree.modalities
        self.shapes = self._find_shapes()
        """(2 C, H, W) of the files of each modality."""
        self._reader = NpyReader(folder, self.modalities, self.shapes)
        self.readers = self._reader.readers

    def names(self, split: Split) -> list[str]:
        return self.tree.complete(split)

    def incomplete(self, split: Split) -> dict[str, str]:
        return self.tree.incomplete(split)

    def fingerprint(self, split: Split) -> str:
        return fingerprint(self.names(split), self.tree.folder, "encode")

    def reader(self) -> NpyReader:
        return self._reader

    def read_into(self, out: Sequence[np.ndarray], split: Split, name: str) -> None:
        self._reader.read_into(out, split, name)

    def _find_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Of each modality that of the first file that can be read; thumbnails have one shape for all."""
        if all(modality.spec.is_picture for modality in self.modalities):
            return (self._find_shape(self.modalities),) * len(self.modalities)
        return tuple(self._find_shape((modality,)) for modality in self.modalities)

    def _find_shape(self, modalities: Sequence[Modality]) -> tuple[int, int, int]:
        problem: BrokenInputError | None = None
        for split in Split:
            for name in self.tree.all(split):
                for modality in self.tree.has(split, name):
                    if modality in modalities:
                        file = self.tree.file(split, modality, name)
                        break
                else:
                    continue
                try:
                    shape = parse_npy(file.read_bytes(), file).shape
                except BrokenInputError as error:
                    problem = problem or error
                    continue
                return shape[0], shape[1], shape[2]
        assert problem is not None  # a tree holds at least one file of each modality
        raise problem


class NpyReader:
    """Reads the files of a tree of known modalities and shapes, without having listed it; small and picklable."""

    def __init__(self, folder: Path, modalities: Sequence[Modality], shapes: Sequence[tuple[int, int, int]]) -> None:
        self.modalities, self.shapes = tuple(modalities), tuple(shapes)
        self._remote = is_remote(folder)
        self.readers = READERS_OF_OBJECTS if self._remote else 1
        self._headers = [_header(shape) for shape in self.shapes]
        self._folders = {
            (split, m): f"{patch_file(folder, split, m, 'x', '.npy').parent}{os.sep}"
            for split in Split
            for m in self.modalities
        }

    def read_into(self, out: Sequence[np.ndarray], split: Split, name: str) -> None:
        """Fill one (2 C, H, W) float32 array a modality with the moments of one patch.

        Raises:
            BrokenInputError: a file is damaged, or of another shape or type.
        """
        for place, modality, shape, header in zip(out, self.modalities, self.shapes, self._headers, strict=True):
            file = f"{self._folders[split, modality]}{name}.npy"
            if self._remote or not self._read_plain(file, place, header):
                values = parse_npy(_bytes_of(as_path(file)), as_path(file))
                if values.shape != shape:
                    raise BrokenInputError(f"{file} has the shape {values.shape}, not {shape}", hint=_HINT)
                place[...] = values

    def _read_plain(self, file: str, out: np.ndarray, usual: bytes) -> bool:
        """Read a file of the usual header straight to its place; NumPy judges the others, at ten times the cost."""
        header, beyond = bytearray(len(usual)), bytearray(1)
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            raise BrokenInputError(f"{file} is missing", hint=_HINT) from None
        try:
            size = os.readv(descriptor, [header, out.data, beyond])
        finally:
            os.close(descriptor)
        return size == len(header) + out.nbytes and header == usual


def _bytes_of(file: Path) -> bytes:
    try:
        return read_whole(file)
    except FileNotFoundError:
        raise BrokenInputError(f"{file} is missing", hint=_HINT) from None


def read_moments(file: Path) -> np.ndarray:
    """The moments of one modality (2 C, H, W) in float32, all of them finite.

    Raises:
        BrokenInputError: the file can not be read, is no npy file, or holds something else.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BrokenInputError(f"{file} can not be read: {error.strerror}", hint=_HINT) from error
    values = parse_npy(data, file)
    if not np.isfinite(values).all():
        raise BrokenInputError(f"{file} holds values that are not finite", hint=_HINT)
    return values


def parse_npy(data: bytes, file: Path) -> np.ndarray:
    """Moments of one modality (2 C, H, W) in float32.

    Raises:
        BrokenInputError: it is no npy file, holds objects, or numbers that are no moments.
    """
    try:
        values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # whatever the parts of Python raise that NumPy takes a header apart with
        raise BrokenInputError(f"{file} is no npy file of numbers: {error}", hint=_HINT) from error
    if values.dtype.kind != "f" or values.ndim != 3 or values.shape[0] % 2 or not values.size:
        kind = f"{values.dtype} {values.shape}"
        raise BrokenInputError(f"{file} holds {kind}, not moments (2 C, H, W) in floating point", hint=_HINT)
    return values.astype(np.float32, copy=False)


def _header(shape: tuple[int, ...]) -> bytes:
    """What an npy file of float32 values in C order begins with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
