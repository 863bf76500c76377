"""The stage from a downloaded subset to patches: which cells, which split, and the tables that place them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from copgen_cli.errors import MissingInputError, UsageError
from copgen_cli.layout import THUMBNAIL_FILE, product_path, split_index
from copgen_cli.modalities import BETA, Family, Kind, Modality, Split, archived_in, modalities_in
from copgen_cli.patches.cutting import Cutting, save_patches
from copgen_cli.patches.scenes import Subset, read_subset
from copgen_cli.patches.split import SplitRule, read_hold_out, split_of
from copgen_cli.patches.split_map import MAP_FILE, draw_split_map
from copgen_cli.patches.table import CellFacts, patch_table
from copgen_cli.patches.tiles import stamp
from copgen_cli.records import Georeferencing, Scene
from copgen_cli.stages import Executor, Outcome, Place, StageRun, Status, WorkItem, local_executor, require_free_space
from copgen_cli.storage import Sizes, as_path, require_local, sizes_in

if TYPE_CHECKING:
    from copgen_cli.settings import PrepareSettings

NO_FILES: Mapping[Modality, Path] = MappingProxyType({})

Cut = WorkItem[tuple[Scene, Split]]

TYPICAL_BYTES = {Kind.PICTURE: 1.25, Kind.RASTER: 1.6, Kind.CLASSES: 0.2, Kind.SCALAR: 64.0}
"""Of the file of a patch, per pixel and band."""
LEFT_OUT = "left out between blocks of train and test"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be cut, before any of it is."""

    subset: Subset
    rule: SplitRule
    cutting: Cutting
    absent: tuple[Modality, ...]
    """Modalities of the family that there is nothing of."""
    units: tuple[Cut, ...]
    left_out: tuple[str, ...]
    """Cells between blocks of different splits."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the patches depend on."""
        cutting = self.cutting
        settings: dict[str, Any] = {
            "train_ratio": self.rule.ratio,
            "seed": self.rule.seed,
            "split_block": self.rule.block,
            "center_crop": cutting.center_crop,
        }
        if self.rule.held_out is not None:
            cells = "\n".join(sorted(self.rule.held_out))
            settings["hold_out"] = hashlib.sha256(cells.encode()).hexdigest()
        if cutting.family != BETA:
            settings |= {"family": cutting.family.name, "modalities": [str(m) for m in cutting.modalities]}
            settings |= {"max_nodata": cutting.max_nodata, "max_clouds": cutting.max_clouds}
        return settings

    @property
    def inputs(self) -> dict[str, Any]:
        files = {str(modality): str(folder) for modality, folder in self.cutting.files.items()}
        return {"sources": [modality.source.name for modality in self.subset.modalities]} | (
            {"files": files} if files else {}
        )

    @property
    def patches_per_cell(self) -> int:
        return self.cutting.patches

    def bytes_of(self, cells: int) -> int:
        """About what so many cells will take on disk."""
        specs = [modality.spec for modality in self.cutting.modalities]
        patch = sum(spec.side**2 * len(spec.bands) * TYPICAL_BYTES[spec.kind] for spec in specs)
        return round(cells * self.patches_per_cell * patch)


TABLES_AND_MAP = (*(split_index(Path(), split).as_posix() for split in Split), MAP_FILE)
"""What is written beside the patches."""


def plan_patches(
    subset_folder: Path, settings: PrepareSettings, family: Family = BETA, files: Mapping[Modality, Path] = NO_FILES
) -> Plan:
    """Look at what has been downloaded, and deal its cells.

    Args:
        subset_folder: what was downloaded.
        settings: of the cut and the split.
        family: says what is cut, and how.
        files: folders of modalities that are not in the archive, beside those that their settings name.

    Raises:
        MissingInputError: nothing has been downloaded.
        BrokenInputError: an index is damaged.
        UsageError: files of a modality that the family does not have, or of one that comes from the archive; or a list
            of held-out cells that is not there.
    """
    subset = read_subset(subset_folder, archived_in(family) or None)
    folders = _folders(family, files)
    there = [m for m in modalities_in(family) if _is_there(m, subset, folders)]
    if all(modality.spec.is_scalar for modality in there):
        raise MissingInputError(f"data of the family {family.name}", subset_folder, written_by="download")
    cutting = Cutting(
        family, tuple(there), subset_folder, folders, settings.center_crop, settings.max_nodata, settings.max_clouds
    )
    held_out = None if settings.hold_out is None else read_hold_out(settings.hold_out)
    rule = SplitRule(settings.train_ratio, settings.seed, settings.split_block, held_out)
    units, left_out, sizes = [], [], sizes_in(subset_folder)
    for scene in subset.scenes:
        split = split_of(scene.cell, rule)
        if split is None:
            left_out.append(scene.cell)
        else:
            told = fingerprint(scene, sizes), stamp(scene, there, sizes, folders)
            units.append(WorkItem(scene.cell, (scene, split), fingerprint="; ".join(filter(None, told))))
    absent = tuple(modality for modality in modalities_in(family) if modality not in there)
    return Plan(subset, rule, cutting, absent, tuple(units), tuple(left_out))


def _folders(family: Family, named: Mapping[Modality, Path]) -> dict[Modality, Path]:
    """Where a user's files of each modality are."""
    folders = {m: as_path(m.spec.files) for m in modalities_in(family) if m.spec.files is not None} | dict(named)
    for modality, folder in folders.items():
        require_local(folder, f"--files {modality}=…")
        if modality not in modalities_in(family):
            raise UsageError(
                f"The family {family.name} has no {modality}.", hint=f"It has {', '.join(family.modalities)}."
            )
        if modality.spec.source is not None or modality.spec.is_scalar:
            raise UsageError(f"{modality} does not come from files.", hint="Leave it out of --files.")
        if not folder.is_dir():
            raise UsageError(
                f"There is no folder {folder} with files of {modality}.", hint="Check --files, or its files."
            )
    return folders


def _is_there(modality: Modality, subset: Subset, folders: Mapping[Modality, Path]) -> bool:
    if modality.spec.is_scalar:
        return True
    if modality.spec.source is None:
        return modality in folders
    return Modality.of_source(modality.source.name) in subset.modalities


def fingerprint(scene: Scene, sizes: Sizes) -> str:
    """Tells another product, or a thumbnail fetched again, from the one that was cut."""
    told = []
    for modality, product in scene.products.items():
        folder = product_path(modality, scene.cell, product.product_id)
        size = sizes.of(f"{folder}/{THUMBNAIL_FILE}") or 0
        told.append(f"{modality} {product.product_id} {product.crs} {size}")
    return "; ".join(told)


def cut_cells(
    run: StageRun, plan: Plan, todo: Sequence[Cut], *, workers: int, executor: Executor | None = None
) -> Iterator[Outcome]:
    """Cut what is pending, and note what is not to be cut and why; yield what became of each cell.

    Args:
        run: of the output.
        plan: what is cut, and how.
        todo: those of its units that are pending.
        workers: processes of this machine that cut.
        executor: who cuts in their place.

    Raises:
        DiskFullError: there is less room than this will take.
    """
    require_free_space(run.output, plan.bytes_of(len(todo)))
    note_absent(run, plan)
    work = functools.partial(save_patches, place=run.place, cutting=plan.cutting)
    here = local_executor(min(workers, max(len(todo), 1)), processes=True)
    yield from run.run(todo, work, executor=executor or here)


def note_absent(run: StageRun, plan: Plan) -> None:
    """Record the cells of which nothing is cut."""
    for cell, reason in plan.subset.refused.items():
        run.record(Outcome(cell, Status.FAILED, reason=reason))
    skipped = {**plan.subset.incomplete, **dict.fromkeys(plan.left_out, LEFT_OUT)}
    for cell, reason in skipped.items():
        run.record(Outcome(cell, Status.SKIPPED, reason=reason))


def write_tables(run: StageRun, plan: Plan) -> dict[Split, int]:
    """Write the table of each split for the cells that have been cut; returns how many these are."""
    counts = {}
    for split in Split:
        cells = [_facts(run, scene) for scene, its in cells_cut(run, plan) if its is split]
        table = patch_table(cells, plan.cutting)
        _write_if_changed(run.place, split_index(Path(), split).as_posix(), table)
        counts[split] = len(cells)
    return counts


def write_map(run: StageRun, plan: Plan, title: str) -> Path:
    """Draw the cells and their splits beside the patches.

    Raises:
        CopgenError: matplotlib is not installed.
    """
    splits: dict[str, Split | None] = {scene.cell: split for scene, split in cells_cut(run, plan)}
    drawn = draw_split_map(splits | dict.fromkeys(plan.left_out), title)
    _write_if_changed(run.place, MAP_FILE, drawn)
    return run.output / MAP_FILE


def cells_cut(run: StageRun, plan: Plan) -> Iterator[tuple[Scene, Split]]:
    """Those of the plan whose patches are in place."""
    for unit in plan.units:
        known = run.recorded(unit.key)
        if known is not None and known.status is Status.DONE:
            yield unit.item


def _facts(run: StageRun, scene: Scene) -> CellFacts:
    """What was written down of a cell when it was cut."""
    known = run.recorded(scene.cell)
    assert known is not None
    facts = known.facts
    return CellFacts(
        scene,
        {Modality(name): tuple(size) for name, size in facts.get("sizes", {}).items()},
        {Modality(name): Georeferencing(crs, tuple(t)) for name, (crs, *t) in facts.get("grids", {}).items()},
        frozenset(facts.get("left_out", ())),
    )


def _write_if_changed(place: Place, path: str, data: bytes) -> None:
    file = place.output / path
    if not file.is_file() or file.read_bytes() != data:
        place.write(path, data)
