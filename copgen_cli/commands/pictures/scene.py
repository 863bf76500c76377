"""`copgen scene`: an area goes in, maps come out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    RUN_PANEL,
    WRITTEN_PANEL,
    BatchSizeOption,
    DataDirOption,
    DeviceOption,
    DryRunOption,
    DtypeOption,
    GenerateOption,
    GuidanceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    RegionOption,
    SchedulerOption,
    SeedOption,
    SolverOption,
    StepsOption,
    as_one_list,
    complete_assignments,
    complete_lists,
    complete_names,
    config_file,
    modality_names,
)
from copgen_cli.storage import as_local_path, as_path

if TYPE_CHECKING:
    from copgen_cli.places import SceneOptions
    from copgen_cli.sampling import LoadedModel
    from copgen_cli.settings import Settings

SCENES = Path("outputs/scenes")


def scene(
    context: typer.Context,
    region: RegionOption = None,
    data_dir: DataDirOption = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=RASTER",
            help="A GeoTIFF of your own, or one for each band; repeat it for more modalities.",
            autocompletion=complete_assignments(modality_names),
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="RASTER|clouds",
            help="Not 0 where a generated modality that is given is to be drawn anew; clouds: the archive's masks.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    aoi: Annotated[
        Path | None,
        typer.Option(
            parser=as_local_path,
            metavar="FILE",
            help="The area: GeoJSON, GeoPackage and others.",
            show_default=False,
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="The area, in degrees.", show_default=False, rich_help_panel=MADE_PANEL),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(
            metavar="GRID_CELL",
            help="The area of a cell of the archive.",
            show_default="the extent of --input, else the first of the region",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    generate: GenerateOption = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="What is given, by the region where there is no --input of it.",
            autocompletion=complete_lists(modality_names),
            show_default="the inputs, else nothing",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    model: ModelOption = None,
    crs: Annotated[
        str | None,
        typer.Option(
            metavar="EPSG:CODE",
            help="Projection of what is written, in metres.",
            show_default="the raster's own, else UTM",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="Where a condition has no value: generate without it, or leave-out of what is written.",
            autocompletion=complete_names(lambda: ("generate", "leave-out")),
            rich_help_panel=MADE_PANEL,
        ),
    ] = "generate",
    n_samples: Annotated[
        int | None,
        typer.Option(
            "--n-samples", min=1, help="Maps of each.", show_default="from settings: 1", rich_help_panel=MADE_PANEL
        ),
    ] = None,
    spread: Annotated[
        bool,
        typer.Option(
            "--spread", help="Add mean, deviation and quantiles over the samples.", rich_help_panel=MADE_PANEL
        ),
    ] = False,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Pixels that neighbouring windows share.",
            show_default="from settings: 64",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    guidance_scale: GuidanceOption = None,
    seed: SeedOption = None,
    block: Annotated[
        int | None,
        typer.Option(
            min=128,
            help="Pixels along a side that are drawn at a time: fewer need less memory and more time.",
            show_default="from settings: 4096",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    scheduler: SchedulerOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder to write to.",
            show_default="outputs/scenes/<area>-<given>-to-<generated>",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Draw maps of a whole area, given rasters of it, a region's cells, or nothing.

    From a region:  copgen scene --cell 454U_120R --condition s1_rtc --generate dem,s2_l2a

    Clouds away:  copgen scene --input s2_l2a=cloudy.tif --input s1_rtc=vv_vh.tif --mask clouds.tif --generate s2_l2a

    Example:  copgen scene --input s1_rtc=vv_vh.tif --generate s2_l2a --n-samples 4 --spread
    """
    from copgen_cli.places import Missing, SceneOptions
    from copgen_cli.settings import load_settings

    settings = load_settings(
        config_file(context),
        region=region,
        data_dir=data_dir,
        sample={
            "model": model,
            "n_samples": n_samples,
            "steps": steps,
            "solver": solver,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "batch_size": batch_size,
            "device": device,
            "dtype": dtype,
        },
        scene={"overlap": overlap, "block": block},
        cluster={"scheduler": scheduler},
    )
    try:
        how = Missing(missing)
    except ValueError:
        raise typer.BadParameter(f"--missing {missing} is none of {', '.join(Missing)}") from None
    options = SceneOptions(
        as_one_list(generate), as_one_list(condition), tuple(input or ()), aoi, bbox, cell, crs, mask, how, spread
    )
    raise typer.Exit(_scene(settings, options, output, overwrite=overwrite, dry_run=dry_run, json=json))


def _scene(
    settings: Settings, options: SceneOptions, output: Path | None, *, overwrite: bool, dry_run: bool, json: bool
) -> int:
    from copgen_cli.places import check_scene

    request = check_scene(settings, options)  # what is misspelt is said before torch is imported, which takes a while

    from copgen_cli.cluster import open_cluster
    from copgen_cli.model import wants_gpu
    from copgen_cli.places import (
        counts_of,
        draw_blocks,
        is_whole,
        plan_scene,
        require_pystac,
        seconds_of,
        start_run,
        work_items_of,
        write_scene,
    )

    require_pystac()
    plan = plan_scene(settings, options, request, _load_model(settings), _without_scheduler(sys.argv[1:]))
    for text in (*request.notes, *plan.notes):
        console.note(text)
    for text in request.warnings:
        console.warn(text)
    folder = output or SCENES / request.name
    run_of_scene = start_run(plan, folder, overwrite=overwrite, dry_run=dry_run)
    on_gpu = wants_gpu(settings.sample.device)
    with run_of_scene as run, open_cluster(settings.cluster, note=console.note, gpu=on_gpu) as cluster:
        pending = run.pending(work_items_of(plan), is_done=lambda *_: is_whole(folder))
        if dry_run:
            console.forecast("Would draw", json=json, **counts_of(plan), seconds=round(seconds_of(plan)), folder=folder)
            return 0
        if pending:
            walked = draw_blocks(plan, run, afresh=overwrite, executor=cluster)
            for _ in console.track_counts(walked, total=plan.network_calls, label="Drawing", done=0, unit="calls"):
                pass
            summary = write_scene(plan, run)
        else:
            summary = run.finish()
    console.report("Drawn", summary, json=json, preview=folder / "preview.png")
    return summary.exit_code


def _without_scheduler(words: Sequence[str]) -> list[str]:
    """A command line by what is drawn, whoever draws it."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--scheduler":
            kept.pop()
        elif not word.startswith("--scheduler="):
            kept.append(word)
    return kept


def _load_model(settings: Settings) -> LoadedModel:
    import torch

    from copgen_cli.model import choose_device, choose_sampling_dtypes, wants_gpu
    from copgen_cli.sampling import choose_model, load_model

    choice = choose_model(settings.sample.model, settings.runs_dir, settings.region)
    if choice.reason:
        console.note(f"Model: {choice.source} ({choice.reason}).")
    elsewhere = settings.cluster.scheduler is not None and wants_gpu(settings.sample.device)
    device = torch.device("cuda") if elsewhere else choose_device(settings.sample.device)
    dtype, of_autoencoder = choose_sampling_dtypes(settings.sample.dtype, device)
    here = torch.device("cpu") if elsewhere else device
    return load_model(choice.source, device=here, dtype=dtype, autoencoder_dtype=of_autoencoder)
