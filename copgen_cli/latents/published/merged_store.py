"""Merged databases of the workflow of COP-GEN (2026).

A key is `<cell>_patch_<k>`, k from 0 to 35; a value is a pickled dict from the published name of a modality to its
moments, (16, h, w) float32: mean, then log-variance. Place and time are not among them: they come from caches.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import lmdb
import numpy as np

from copgen_cli.errors import BrokenInputError, MissingInputError
from copgen_cli.latents.published.pickles import parse_arrays
from copgen_cli.latents.published.published_store import open_databases
from copgen_cli.latents.published.scalars import PER_SIDE, ScalarCache
from copgen_cli.latents.store_format import DATA_FILE
from copgen_cli.modalities import COPGEN_2026, Modality, Split, modalities_in, scalar_moments

_KEY = re.compile(rb"(?P<cell>\d+[UD]_\d+[LR])_patch_(?P<k>0|[1-9]\d?)")
_HINT = "Export the database again."
_RASTERS = {m.spec.published: m for m in modalities_in(COPGEN_2026) if not m.spec.is_scalar}


def is_merged(folder: Path) -> bool:
    """Whether the databases of a folder are of this kind, by their first keys.

    Raises:
        BrokenInputError: one is damaged.
    """
    for environment in open_databases(folder).values():
        with environment, environment.begin() as transaction:
            cursor = transaction.cursor()
            if cursor.first():
                return _KEY.fullmatch(cursor.key()) is not None
    return False


class MergedStore:
    """The databases `train/` and `test/` of a folder, or a single one, which counts as train; a `MomentSource`."""

    readers = 1

    def __init__(self, folder: Path, scalars: Mapping[Modality, ScalarCache]) -> None:
        """Open and check them.

        Args:
            folder: of the databases.
            scalars: what is known of places and times; a modality without a cache is not among those of the store.

        Raises:
            MissingInputError: there is no database, or none with records.
            BrokenInputError: one is damaged, or its first value is not of this kind.
        """
        self._environments = open_databases(folder)
        self._scalars = dict(scalars)
        self._keys = {split: _keys(environment) for split, environment in self._environments.items()}
        first = next(((split, name) for split, keys in self._keys.items() for name in keys), None)
        if first is None:
            raise MissingInputError("merged database of COP-GEN (2026)", folder, written_by="pack --input-type npy")
        self._published = frozenset(self._value(*first))
        unknown = sorted(self._published - _RASTERS.keys())
        if unknown:
            raise BrokenInputError(
                f"The database holds {unknown[0]}, which is no modality of {COPGEN_2026.name}.",
                hint=f"Known: {', '.join(map(str, _RASTERS))}.",
            )
        known = {_RASTERS[name] for name in self._published} | set(scalars)
        self.modalities = tuple(modality for modality in modalities_in(COPGEN_2026) if modality in known)
        latents = [modality.spec.latent for modality in self.modalities]
        self.shapes = tuple((2 * shape[0], shape[1], shape[2]) for shape in latents if shape is not None)

    def names(self, split: Split) -> list[str]:
        """`<cell>_<k>`, of all whose places and times are known where these are asked for."""
        return [name for name in self._keys.get(split, ()) if name not in self.incomplete(split)]

    def incomplete(self, split: Split) -> dict[str, str]:
        return self._incomplete.get(split, {})

    @cached_property
    def _incomplete(self) -> dict[Split, dict[str, str]]:
        return {
            split: {
                name: f"its cell is not in the cache of {modality}"
                for name in keys
                for modality, cache in self._scalars.items()
                if cache.find(*_cell_and_number(name)) is None
            }
            for split, keys in self._keys.items()
        }

    def fingerprint(self, split: Split) -> str:
        """The names, the size of the file, and the caches: its own bytes tell no more of where they come from."""
        size = Path(self._environments[split].path(), DATA_FILE).stat().st_size if split in self._environments else 0
        caches = [f"{modality} {cache.fingerprint}" for modality, cache in sorted(self._scalars.items())]
        return hashlib.sha256("\n".join([str(size), *caches, *self.names(split)]).encode()).hexdigest()

    def reader(self) -> None:
        """The caches of places and times are too large to hand to every worker."""

    def read_into(self, out: Sequence[np.ndarray], split: Split, name: str) -> None:
        """Fill one (2 C, h, w) float32 array a modality with one record.

        Raises:
            BrokenInputError: the value is dangerous, or of other modalities or sizes.
        """
        value = self._value(split, name)
        if value.keys() != self._published:
            raise BrokenInputError(f"{name} has {', '.join(sorted(value))}, not what the first record has", hint=_HINT)
        for place, modality in zip(out, self.modalities, strict=True):
            if modality.spec.is_scalar:
                numbers = self._scalars[modality].find(*_cell_and_number(name))
                assert numbers is not None
                place[...] = scalar_moments(numbers)
                continue
            moments = value[str(modality.spec.published)]
            if moments.shape != place.shape:
                raise BrokenInputError(f"{name}: {modality} is {moments.shape}, not {place.shape}", hint=_HINT)
            place[...] = moments

    def _value(self, split: Split, name: str) -> dict[str, np.ndarray]:
        with self._environments[split].begin() as transaction:
            return parse_arrays(bytes(transaction.get(self._keys[split][name]) or b""), name, hint=_HINT)


def _keys(environment: lmdb.Environment) -> dict[str, bytes]:
    """Names of records, sorted by their bytes, with their keys; others are left alone."""
    with environment.begin() as transaction:
        found = [_KEY.fullmatch(bytes(key)) for key in transaction.cursor().iternext(values=False)]
    keys = {
        f"{match['cell'].decode()}_{int(match['k'])}": match[0]
        for match in found
        if match and int(match["k"]) < PER_SIDE**2
    }
    return dict(sorted(keys.items(), key=lambda pair: pair[0].encode()))


def _cell_and_number(name: str) -> tuple[str, int]:
    cell, _, number = name.rpartition("_")
    return cell, int(number)
