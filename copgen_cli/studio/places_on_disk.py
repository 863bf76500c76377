"""What there is to start from: regions below the data folder, their cells and patches, as GeoJSON for a map."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pyarrow import ArrowException

from copgen_cli.archive import FOOTPRINT_METRES, footprint, from_utm, parse_cell
from copgen_cli.errors import CopgenError
from copgen_cli.layout import Workspace, patch_file, split_index, subset_index
from copgen_cli.modalities import Modality, Split, archived, family_with
from copgen_cli.outputs import read_georeferencing_table
from copgen_cli.patches import read_subset
from copgen_cli.settings import Settings
from copgen_cli.studio.problems import NotThereError
from copgen_cli.studio.results.pictures import corners_of
from copgen_cli.studio.schemas import Corners, Place, RegionInfo

DOWNLOADED = "downloaded"
"""In place of a split: cells that are there, and not prepared."""


@dataclass(frozen=True, slots=True)
class PatchOnDisk:
    """A patch by its table."""

    cell: str
    split: Split


@dataclass(frozen=True, slots=True)
class RegionOnDisk:
    """A subset, and the patches that were cut of it for the model's family."""

    workspace: Workspace
    patches: Mapping[str, PatchOnDisk] = field(default_factory=dict)
    downloaded: frozenset[str] = frozenset()
    """Cells of which there are no patches."""

    @property
    def cells(self) -> dict[str, str]:
        """Split, or `DOWNLOADED`, of each cell."""
        prepared = {patch.cell: str(patch.split) for patch in self.patches.values()}
        return dict(sorted({**dict.fromkeys(self.downloaded, DOWNLOADED), **prepared}.items()))


@dataclass(frozen=True, slots=True, eq=False)
class PlacesOnDisk:
    """The data folder, as far as a model has use for it."""

    settings: Settings
    modalities: tuple[Modality, ...]
    """Of the model."""

    @property
    def family(self) -> str:
        """That which the settings name, where it has all that the model knows; else the first that has."""
        chosen = self.settings.chosen_family
        found = family_with(self.modalities)
        return chosen.name if found is None or set(self.modalities) <= set(chosen.modalities) else found.name

    def regions(self) -> list[RegionInfo]:
        """All that hold anything, by name."""
        try:
            names = sorted(entry.name for entry in self.settings.data_dir.iterdir() if entry.is_dir())
        except OSError:
            return []
        return [_described(region, self._there(region)) for name in names if (region := self._find(name)) is not None]

    def cells(self, region: str) -> dict[str, Any]:
        """A feature for each cell, with its split and number of patches."""
        found = self._region(region)
        counts: dict[str, int] = {}
        for patch in found.patches.values():
            counts[patch.cell] = counts.get(patch.cell, 0) + 1
        return _collection(
            _feature(corners_of_cell(cell), cell=cell, split=split, patches=counts.get(cell, 0))
            for cell, split in found.cells.items()
        )

    def patches(self, region: str, cell: str) -> dict[str, Any]:
        """A feature for each patch of a cell, with the modalities that it has."""
        found = self._region(region)
        if cell not in found.cells:
            raise NotThereError.of("cell", cell)
        own = {name: patch for name, patch in found.patches.items() if patch.cell == cell}
        features = []
        for name, patch in own.items():
            corners = self._corners(found, name, patch.split)
            there = [m for m in self.modalities if _file(found, name, m).is_file()]
            features.append(_feature(corners, patch=name, cell=cell, split=str(patch.split), modalities=there))
        return _collection(features)

    def file(self, place: Place, modality: Modality) -> Path | None:
        """Of a patch in a modality; None where there is none.

        Raises:
            NotThereError: there is no such region or patch.
        """
        found = self._region(place.region)
        if place.patch not in found.patches:
            raise NotThereError.of("patch", place.patch)
        file = _file(found, place.patch, modality)
        return file if file.is_file() else None

    def times(self, place: Place, modalities: Iterable[Modality]) -> dict[Modality, str]:
        """When a patch was seen, as its table has it; without those of which nothing is known.

        Raises:
            NotThereError: there is no such region or patch.
        """
        found = self._region(place.region)
        if place.patch not in found.patches:
            raise NotThereError.of("patch", place.patch)
        table = split_index(found.workspace.patches, found.patches[place.patch].split)
        there = set(pq.read_schema(table).names)
        names = {m: f"{m}_timestamp" for m in modalities if f"{m}_timestamp" in there}
        columns = pq.read_table(table, columns=["patch", *names.values()], filters=[("patch", "=", place.patch)])
        row: dict[str, Any] = next(iter(columns.to_pylist()), {})
        return {m: str(row[name]) for m, name in names.items() if row.get(name)}

    def _corners(self, region: RegionOnDisk, patch: str, split: Split) -> Corners | None:
        table = _places_of(*_state_of(split_index(region.workspace.patches, split)))
        for modality in self.modalities:
            place = None if modality.spec.is_scalar else table.of(patch, modality)
            if place is not None:
                return corners_of(place, modality.spec.side, modality.spec.side)
        return None

    def _there(self, region: RegionOnDisk) -> list[str]:
        folders = [region.workspace.patches / split for split in Split]
        return [str(m) for m in self.modalities if any((folder / m.spec.folder).is_dir() for folder in folders)]

    def _region(self, name: str) -> RegionOnDisk:
        """By a name that is compared with those of folders, never joined to a path before it is found among them."""
        known = {entry.name for entry in self.settings.data_dir.iterdir()} if self.settings.data_dir.is_dir() else set()
        found = self._find(name) if name in known else None
        if found is None:
            raise NotThereError.of("region", name)
        return found

    def _find(self, name: str) -> RegionOnDisk | None:
        workspace = Workspace(self.settings.data_dir, name, self.family)
        tables = tuple(_state_of(split_index(workspace.patches, split)) for split in Split)
        indices = tuple(_state_of(subset_index(workspace.subset, modality)) for modality in archived())
        if not any(time for _, time in (*tables, *indices)):
            return None
        return _read_region(workspace, tables, indices)


def corners_of_cell(cell: str) -> Corners:
    """Of the square of a cell's pictures."""
    place = footprint(parse_cell(cell))
    east = np.array([place.west, place.west + FOOTPRINT_METRES, place.west + FOOTPRINT_METRES, place.west])
    north = np.array([place.north, place.north, place.north - FOOTPRINT_METRES, place.north - FOOTPRINT_METRES])
    lat, lon = from_utm(east, north, zone=place.zone, south=place.south)
    return [(round(float(x), 6), round(float(y), 6)) for x, y in zip(lon, lat, strict=True)]


def _file(region: RegionOnDisk, patch: str, modality: Modality) -> Path:
    split = region.patches[patch].split
    return patch_file(region.workspace.patches, split, modality, patch, modality.spec.suffix)


def _state_of(file: Path) -> tuple[Path, int]:
    """A file and its time of change, by which what was read of it is remembered; 0 where there is none."""
    try:
        return file, file.stat().st_mtime_ns
    except OSError:
        return file, 0


@functools.lru_cache(maxsize=64)
def _read_region(
    workspace: Workspace, tables: Sequence[tuple[Path, int]], indices: Sequence[tuple[Path, int]]
) -> RegionOnDisk:
    patches: dict[str, PatchOnDisk] = {}
    for split, (table, time) in zip(Split, tables, strict=True):
        if not time:
            continue
        try:
            columns = pq.read_table(table, columns=["grid_cell", "patch"]).to_pydict()
        except (ArrowException, OSError, ValueError, KeyError):
            continue  # what cannot be read is not offered; `copgen prepare` says what is wrong
        for cell, patch in zip(columns["grid_cell"], columns["patch"], strict=True):
            patches[str(patch)] = PatchOnDisk(str(cell), split)
    known = {patch.cell for patch in patches.values()}
    downloaded: set[str] = set()
    if any(time for _, time in indices):
        with contextlib.suppress(CopgenError):  # as above
            downloaded = {scene.cell for scene in read_subset(workspace.subset).scenes}
    return RegionOnDisk(workspace, patches, frozenset(downloaded - known))


@functools.lru_cache(maxsize=64)
def _places_of(table: Path, time: int) -> Any:
    return read_georeferencing_table(table)


def _described(region: RegionOnDisk, modalities: list[str]) -> RegionInfo:
    corners = np.array([point for cell in region.cells for point in corners_of_cell(cell)])
    bounds = None
    if len(corners):
        (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
        bounds = (float(west), float(south), float(east), float(north))
    return RegionInfo(
        name=region.workspace.region,
        cells=len(region.cells),
        patches=len(region.patches),
        modalities=modalities,
        bounds=bounds,
        prepared=bool(region.patches),
    )


def _feature(corners: Corners | None, **properties: Any) -> dict[str, Any]:
    ring = None if corners is None else [corners[0], corners[3], corners[2], corners[1], corners[0]]  # anticlockwise
    geometry = None if ring is None else {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": {**properties, "corners": corners}}


def _collection(features: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}
