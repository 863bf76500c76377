"""Databases of the published workflow, whose values are Python pickles: read without ever unpickling.

A key is a file name with `.npy`; a value is a pickled dict from the folder of a modality to its raw float32 bytes, read
opcode by opcode (`published.pickles`), so that nothing a value may hold can call anything; and the file itself is
checked page by page before LMDB maps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import lmdb.verify
import numpy as np

from copgen_cli.errors import BrokenInputError, MissingInputError, UnknownNameError
from copgen_cli.latents.published.pickles import parse_bytes
from copgen_cli.latents.store import open_environment
from copgen_cli.latents.store_format import DATA_FILE
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches import is_plain_name

SHAPE = (8, 32, 32)
"""Of every modality; the databases do not say it."""

_HINT = "Export the database again, or pack from npy or png."


class PublishedStore:
    """The databases `train/` and `test/` of a folder, or a single one, which counts as train."""

    readers = 1

    def __init__(self, folder: Path) -> None:
        """Open and check them.

        Raises:
            MissingInputError: there is no database.
            BrokenInputError: one is damaged, or its first value is not of the published kind.
        """
        self._environments = open_databases(folder)
        self._keys = {split: _keys(environment) for split, environment in self._environments.items()}
        first = next(((split, keys[0]) for split, keys in self._keys.items() if keys), None)
        if first is None:
            raise MissingInputError("database of the published workflow", folder, written_by="pack --input-type npy")
        self.modalities = _modalities(self._value(*first))
        self.shapes = (SHAPE,) * len(self.modalities)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker gets that reads records by their names: it opens the databases itself."""
        paths = {split: Path(environment.path()).absolute() for split, environment in self._environments.items()}
        return {"_paths": paths, "modalities": self.modalities, "shapes": self.shapes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.modalities, self.shapes = state["modalities"], state["shapes"]
        self._environments = {split: open_environment(path) for split, path in state["_paths"].items()}
        self._keys = {}

    def reader(self) -> PublishedStore:
        return self

    def names(self, split: Split) -> list[str]:
        return self._keys.get(split, [])

    def incomplete(self, split: Split) -> dict[str, str]:
        return {}

    def fingerprint(self, split: Split) -> str:
        """The names and the size of the file: its own bytes tell no more of where they come from."""
        import hashlib

        size = Path(self._environments[split].path(), DATA_FILE).stat().st_size if split in self._environments else 0
        return hashlib.sha256("\n".join([str(size), *self.names(split)]).encode()).hexdigest()

    def read_into(self, out: Sequence[np.ndarray], split: Split, name: str) -> None:
        """Fill one (8, 32, 32) float32 array a modality with one record.

        Raises:
            BrokenInputError: the value is dangerous, or of other modalities or sizes.
        """
        value = self._value(split, name)
        expected = {modality.spec.folder for modality in self.modalities}
        if value.keys() != expected:
            raise BrokenInputError(f"{name} has {', '.join(sorted(value))}, not {', '.join(expected)}", hint=_HINT)
        size = 4 * int(np.prod(SHAPE))
        wrong = [folder for folder, data in value.items() if not isinstance(data, bytes) or len(data) != size]
        if wrong:
            raise BrokenInputError(f"{name}: {', '.join(wrong)} is not {size:,} bytes long", hint=_HINT)
        for place, modality in zip(out, self.modalities, strict=True):
            place[...] = np.frombuffer(value[modality.spec.folder], "<f4").reshape(SHAPE)

    def _value(self, split: Split, name: str) -> dict[str, Any]:
        with self._environments[split].begin() as transaction:
            return parse_value(bytes(transaction.get(f"{name}.npy".encode()) or b""), name)


def parse_value(data: bytes, name: str) -> dict[str, bytes]:
    """Build the dict of a value by the few opcodes that it may consist of.

    Raises:
        BrokenInputError: it holds another opcode, or is damaged.
    """
    return parse_bytes(data, name, hint=_HINT)


def open_databases(folder: Path) -> dict[Split, lmdb.Environment]:
    """Those in `train/` and `test/` of a folder, or the single one in it, which counts as train.

    Raises:
        BrokenInputError: one is damaged.
    """
    found = {split: _open(folder / split) for split in Split if (folder / split / DATA_FILE).is_file()}
    if not found and (folder / DATA_FILE).is_file():
        return {Split.TRAIN: _open(folder)}
    return found


def _modalities(value: dict[str, Any]) -> tuple[Modality, ...]:
    """Those of the folders, sorted by folder name as the published reader does; that is index order."""
    try:
        return tuple(Modality.of_folder(folder) for folder in sorted(value))
    except UnknownNameError as error:
        raise BrokenInputError(
            f"The database holds a modality that is not known here: {error}", hint=error.hint
        ) from None


def _open(folder: Path) -> lmdb.Environment:
    try:
        problems = lmdb.verify.verify(str(folder))
        if not problems:
            return lmdb.open(str(folder), readonly=True, lock=False, create=False)
    except (lmdb.verify.VerifyError, lmdb.Error, OSError) as error:
        problems = [str(error)]
    raise BrokenInputError(f"{folder / DATA_FILE} is no sound LMDB database: {problems[0]}.", hint=_HINT)


def _keys(environment: lmdb.Environment) -> list[str]:
    """Names of records, without `.npy`, sorted by their bytes."""
    with environment.begin() as transaction:
        keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
    names = [key.decode(errors="replace").removesuffix(".npy") for key in keys if key.endswith(b".npy")]
    return sorted((name for name in names if is_plain_name(name) and name[0].isalnum()), key=str.encode)
