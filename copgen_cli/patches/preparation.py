"""The stage from a downloaded subset to patches: which cells, which split, and the tables that place them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copgen_cli.layout import split_index
from copgen_cli.modalities import Modality, Split
from copgen_cli.patches.cutting import save_patches, windows
from copgen_cli.patches.scenes import Subset, read_subset
from copgen_cli.patches.split import SplitRule, split_of
from copgen_cli.patches.split_map import MAP_FILE, draw_split_map
from copgen_cli.patches.table import Sizes, patch_table
from copgen_cli.records import Scene
from copgen_cli.stages import Outcome, Place, StageRun, Status, WorkItem, local_executor, require_free_space

if TYPE_CHECKING:
    from copgen_cli.settings import PrepareSettings

Cut = WorkItem[tuple[Scene, Split]]

TYPICAL_BYTES = 80_000
"""Of the PNG of one patch."""
LEFT_OUT = "left out between blocks of train and test"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be cut, before any of it is."""

    subset: Subset
    rule: SplitRule
    center_crop: bool
    units: tuple[Cut, ...]
    left_out: tuple[str, ...]
    """Cells between blocks of different splits."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the patches depend on."""
        return {
            "train_ratio": self.rule.ratio,
            "seed": self.rule.seed,
            "split_block": self.rule.block,
            "center_crop": self.center_crop,
        }

    @property
    def inputs(self) -> dict[str, Any]:
        return {"sources": [modality.facts.source for modality in self.subset.modalities]}

    @property
    def patches_per_cell(self) -> int:
        return len(windows(self.center_crop))

    def bytes_of(self, cells: int) -> int:
        """About what so many cells will take on disk."""
        return cells * self.patches_per_cell * len(self.subset.modalities) * TYPICAL_BYTES


TABLES_AND_MAP = (*(split_index(Path(), split).as_posix() for split in Split), MAP_FILE)
"""What is written beside the patches."""


def plan_patches(subset_folder: Path, settings: PrepareSettings) -> Plan:
    """Look at what has been downloaded, and deal its cells.

    Raises:
        MissingInputError: nothing has been.
        BrokenInputError: an index is damaged.
    """
    subset = read_subset(subset_folder)
    rule = SplitRule(settings.train_ratio, settings.seed, settings.split_block)
    units, left_out = [], []
    for scene in subset.scenes:
        split = split_of(scene.cell, rule)
        if split is None:
            left_out.append(scene.cell)
        else:
            units.append(WorkItem(scene.cell, (scene, split), fingerprint=fingerprint(scene)))
    return Plan(subset, rule, settings.center_crop, tuple(units), tuple(left_out))


def fingerprint(scene: Scene) -> str:
    """Tells another product, or a thumbnail fetched again, from the one that was cut."""
    sizes = (
        (m, scene.products[m], file.stat().st_size if file.is_file() else 0) for m, file in scene.thumbnails.items()
    )
    return "; ".join(f"{m} {product.product_id} {product.crs} {size}" for m, product, size in sizes)


def cut_cells(run: StageRun, plan: Plan, todo: Sequence[Cut], *, workers: int) -> Iterator[Outcome]:
    """Cut what is pending, and note what is not to be cut and why; yield what became of each cell.

    Raises:
        DiskFullError: there is less room than this will take.
    """
    require_free_space(run.output, plan.bytes_of(len(todo)))
    note_absent(run, plan)
    work = functools.partial(save_patches, place=run.place, center_crop=plan.center_crop)
    yield from run.run(todo, work, executor=local_executor(min(workers, max(len(todo), 1)), processes=True))


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
        cells = [(scene, _sizes(run, scene)) for scene, its in cells_cut(run, plan) if its is split]
        table = patch_table(cells, plan.subset.modalities, center_crop=plan.center_crop)
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


def _sizes(run: StageRun, scene: Scene) -> Sizes:
    """Of those thumbnails of a cell that were not of the usual size when they were cut."""
    known = run.recorded(scene.cell)
    assert known is not None
    return {Modality(name): tuple(size) for name, size in known.facts.get("sizes", {}).items()}


def _write_if_changed(place: Place, path: str, data: bytes) -> None:
    file = place.output / path
    if not file.is_file() or file.read_bytes() != data:
        place.write(path, data)
