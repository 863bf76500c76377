"""`copgen prepare`: downloaded thumbnails in, aligned patches and their splits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.errors import UsageError
from copgen_cli.layout import Workspace
from copgen_cli.modalities import BETA, Modality, Split, as_modality
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    WRITTEN_PANEL,
    DataDirOption,
    DryRunOption,
    FamilyOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    SchedulerOption,
    SeedOption,
    WorkersOption,
    complete_assignments,
    config_file,
    modality_names,
)
from copgen_cli.storage import as_path

if TYPE_CHECKING:
    from copgen_cli.patches import Plan


def prepare(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    subset_path: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder that `download` wrote, instead of a region's.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=FOLDER",
            help="GeoTIFFs of what is not in the archive, such as land_cover.",
            autocompletion=complete_assignments(modality_names),
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    train_ratio: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of cells for train.",
            show_default="from settings: 0.95",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    split_block: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side in cells of blocks that are split together.",
            show_default="from settings: 1",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    hold_out: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar="FILE",
            help="Text with the cells for test, one a line; all others are for train.",
            show_default="from settings: dealt by ratio and seed",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    center_crop: Annotated[
        bool | None,
        typer.Option(
            "--center-crop/--no-center-crop",
            help="One patch from the middle of a cell instead of all.",
            show_default="from settings: no",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Where patches go.",
            show_default="<subset>/<name>_thumbnail_png",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    visualize: Annotated[
        bool,
        typer.Option("--visualize", help="Also draw a map of train and test cells.", rich_help_panel=WRITTEN_PANEL),
    ] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Cut every cell into aligned patches, split into train and test: thumbnails, or the bands of another family.

    Example:  copgen prepare --region rome
    """
    from copgen_cli.cluster import open_cluster
    from copgen_cli.patches import (
        TABLES_AND_MAP,
        cut_cells,
        plan_patches,
        require_matplotlib,
        unrecorded_files,
        write_map,
        write_tables,
    )
    from copgen_cli.settings import load_settings
    from copgen_cli.stages import StageRun

    options = {"train_ratio": train_ratio, "seed": seed, "split_block": split_block, "hold_out": hold_out}
    options |= {"center_crop": center_crop, "workers": workers}
    settings = load_settings(
        config_file(context),
        region=region,
        family=family,
        data_dir=data_dir,
        prepare=options,
        cluster={"scheduler": scheduler},
    )
    where = Workspace.around(subset_path, settings.family) if subset_path else settings.workspace
    if visualize:
        require_matplotlib()
    plan = plan_patches(where.subset, settings.prepare, settings.chosen_family, _folders(files or ()))
    if plan.absent and settings.chosen_family != BETA:
        console.note(f"Left out, for there is nothing of it: {', '.join(plan.absent)}.")
    run_of_stage = StageRun(
        "prepare",
        output_dir or where.patches,
        settings=plan.settings,
        inputs=plan.inputs,
        overwrite=overwrite,
        prune=True,
        beside=TABLES_AND_MAP,
        unrecorded=partial(unrecorded_files, suffix=None, stage="prepare"),
        dry_run=dry_run,
    )
    with run_of_stage as run, open_cluster(settings.cluster, note=console.note) as cluster:
        todo = run.pending(plan.units)
        if dry_run:
            _forecast(plan, len(todo), json=json)
            return
        outcomes = cut_cells(run, plan, todo, workers=settings.prepare.workers, executor=cluster)
        before = len(plan.units) - len(todo)
        for _ in console.track(outcomes, total=len(plan.units), done=before, label="Cutting", unit="cells"):
            pass
        cells = write_tables(run, plan)
        if visualize:
            console.note(f"Map: {write_map(run, plan, where.region)}")
        summary = run.finish()
    _warn_of_empty_splits(cells, settings.prepare.train_ratio)
    console.report("Prepared", summary, json=json, **{f"{split}_cells": count for split, count in cells.items()})
    raise typer.Exit(summary.exit_code)


def _folders(texts: Sequence[str]) -> dict[Modality, Path]:
    """Read `land_cover=FOLDER` and the like."""
    folders: dict[Modality, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise UsageError(f"--files {text} is not MODALITY=FOLDER.", hint="For instance: --files land_cover=lulc")
        folders[as_modality(name)] = as_path(folder).expanduser()
    return folders


def _forecast(plan: Plan, cells: int, *, json: bool) -> None:
    before, patches = len(plan.units) - cells, cells * plan.patches_per_cell
    size = plan.bytes_of(cells)
    console.forecast("Would cut", json=json, cells=cells, done_before=before, patches=patches, bytes=size)


def _warn_of_empty_splits(cells: Mapping[Split, int], ratio: float) -> None:
    for split in (split for split, count in cells.items() if not count):
        console.warn(
            f"no cell fell into {split}: with {sum(cells.values())} cells and --train-ratio {ratio:g} that happens. "
            "Another --train-ratio or --seed, with --overwrite, deals them anew."
        )
