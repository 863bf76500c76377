"""Places and times of cells as the workflow of COP-GEN (2026) keeps them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

import numpy as np

from copgen_cli.errors import BrokenInputError, MissingInputError
from copgen_cli.latents.published.pickles import parse_arrays

PER_SIDE = 6
"""Patches along a side of a cell; the k-th of it is of row k // 6 from the north and column k % 6."""

_FILES = ("cells.npy", "latlon_patches.npy", "meta.json")


class ScalarCache(Protocol):
    """The numbers of a scalar modality by cell and patch."""

    fingerprint: str
    """SHA-256 of its files."""

    def find(self, cell: str, k: int) -> np.ndarray | None:
        """(3,) float32 of the k-th patch of a cell; None of a cell that is not there."""
        ...


class PlaceCache:
    """A folder of `cells.npy`, names; `latlon_patches.npy`, (N, 6, 6, 3) float32 unit vectors; and `meta.json`."""

    def __init__(self, folder: Path) -> None:
        """Open it; nothing in it is unpickled.

        Raises:
            MissingInputError: one of the files is not there.
            BrokenInputError: one is not what it should be.
        """
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise MissingInputError(f"cache of places ({', '.join(missing)})", folder, written_by="download")
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            cells = np.load(folder / "cells.npy", allow_pickle=False)
            self._vectors = np.load(folder / "latlon_patches.npy", mmap_mode="r", allow_pickle=False)
            sides = (meta.get("side", PER_SIDE), meta.get("vec_dim", 3))
            told = (cells.dtype.kind, cells.ndim, self._vectors.dtype, self._vectors.shape[1:], sides)
            if told != ("U", 1, np.dtype("<f4"), (PER_SIDE, PER_SIDE, 3), (PER_SIDE, 3)):
                raise ValueError("its arrays are of other shapes or types")
            if len(cells) != len(self._vectors):
                raise ValueError(f"it names {len(cells)} cells and has places of {len(self._vectors)}")
        except (OSError, ValueError, AttributeError, EOFError, RecursionError) as error:
            raise BrokenInputError(f"{folder} is no cache of places: {error}.", hint="Export it again.") from error
        self._rows = {str(cell): row for row, cell in enumerate(cells)}
        self.fingerprint = _hash(*(folder / name for name in _FILES[:2]))

    def find(self, cell: str, k: int) -> np.ndarray | None:
        row = self._rows.get(cell)
        return None if row is None else np.array(self._vectors[row, k // PER_SIDE, k % PER_SIDE])


class TimeCache:
    """A file with the pickled dict of cell to (3,) float32, all patches of a cell alike; it is not unpickled."""

    def __init__(self, file: Path) -> None:
        """Read it.

        Raises:
            MissingInputError: there is no such file.
            BrokenInputError: it holds something else.
        """
        if not file.is_file():
            raise MissingInputError("cache of times", file, written_by="download")
        self._times = parse_arrays(file.read_bytes(), str(file), hint="Export it again.", is_table=True)
        if any(numbers.shape != (3,) for numbers in self._times.values()):
            raise BrokenInputError(f"{file} holds something else than three numbers a cell.", hint="Export it again.")
        self.fingerprint = _hash(file)

    def find(self, cell: str, k: int) -> np.ndarray | None:
        return self._times.get(cell)


def _hash(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
