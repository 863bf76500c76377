"""A folder of prepared patches, read in the units of its files.

B bands, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.layout import split_index
from copgen_cli.modalities import Kind, Modality, Split, as_modality, read_scalar
from copgen_cli.outputs import GeoreferencingTable, read_georeferencing_table
from copgen_cli.patches import PatchTree, read_tree
from copgen_cli.rasters import find_values, is_nodata, read_colour, read_grey, read_values


@dataclass(frozen=True, slots=True)
class PatchFolder:
    """The patches of one split that have every modality asked for."""

    tree: PatchTree
    split: Split
    modalities: tuple[Modality, ...]
    names: tuple[str, ...]
    """Sorted by their bytes, as in a store."""
    places: GeoreferencingTable

    def values(self, name: str, modality: Modality) -> np.ndarray:
        """One patch in one modality.

        Returns:
            Of a picture (1, H, W) uint8 where it is grey, else (3, H, W); of classes (1, H, W) in the file's dtype; of
            a raster (B, H, W) float32 in its unit, nan where it has no value; of a scalar the (3,) float32 that a
            network sees.

        Raises:
            BrokenInputError: the file is damaged, or not of the modality's size and bands.
        """
        file, spec = self.tree.file(self.split, modality, name), modality.spec
        if spec.is_scalar:
            return np.asarray(read_scalar(file, spec), np.float32)
        if spec.is_picture:
            values = read_grey(file)[None] if spec.grey else read_colour(file).transpose(2, 0, 1)
        else:
            values, nodata = read_values(find_values([file]))
            if spec.kind is not Kind.CLASSES:
                missing = None if nodata is None else is_nodata(values, nodata)
                values = values.astype(np.float32)
                if missing is not None:
                    values[missing] = np.nan
        if values.shape != shape_of(modality):
            raise BrokenInputError(
                f"{file} has the shape {values.shape}, not {shape_of(modality)}.",
                hint="Cut it again: `copgen prepare --overwrite`.",
            )
        return values


def shape_of(modality: Modality) -> tuple[int, ...]:
    """Of what `PatchFolder.values` gives."""
    spec = modality.spec
    if spec.is_scalar:
        return (3,)
    bands = (1 if spec.grey else 3) if spec.is_picture else len(spec.bands)
    return (bands, spec.side, spec.side)


def dtype_of(modality: Modality) -> str:
    """Of what `PatchFolder.values` gives."""
    spec = modality.spec
    return "uint8" if spec.is_picture else spec.dtype if spec.kind is Kind.CLASSES else "float32"


def open_folder(folder: str | Path, split: str, modalities: str | Sequence[str] | None) -> PatchFolder:
    """List the patches of a split.

    Args:
        folder: what `copgen prepare` wrote.
        split: `train` or `test`.
        modalities: which ones, in this order; None is all that the folder has.

    Raises:
        MissingInputError: the folder holds no patches.
        MismatchError: it lacks a modality that is asked for.
    """
    tree = read_tree(Path(folder), None, what="patches", written_by="prepare")
    asked = (modalities,) if isinstance(modalities, str) else tuple(modalities or tree.modalities)
    wanted = tuple(as_modality(name) for name in asked)
    lacking = [modality for modality in wanted if modality not in tree.modalities]
    if lacking:
        raise MismatchError(
            f"{folder} has no {', '.join(lacking)}; it has {', '.join(tree.modalities)}.",
            hint="Download and prepare with that source, or ask for others.",
        )
    part = Split(split)
    listed: Mapping[Modality, frozenset[str]] = tree.names[part]
    names = sorted(frozenset.intersection(*(listed[modality] for modality in wanted)), key=str.encode)
    return PatchFolder(tree, part, wanted, tuple(names), read_georeferencing_table(split_index(Path(folder), part)))


def columns_of(folder: PatchFolder, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the split's table in the order of the folder's names; None of patches that are in no table."""
    import pyarrow.parquet as pq

    table = split_index(folder.tree.folder, folder.split)
    if not table.is_file():
        return {column: [None] * len(folder.names) for column in columns}
    there = [column for column in columns if column in pq.read_schema(table).names]
    read = pq.read_table(table, columns=there).to_pydict()
    rows = [folder.places.rows.get(name) for name in folder.names]
    return {c: [None if row is None or c not in read else read[c][row] for row in rows] for c in columns}
