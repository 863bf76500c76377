"""`copgen train`: packed latents in, a pipeline out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen_cli import console
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    RUN_PANEL,
    WRITTEN_PANEL,
    DataDirOption,
    DeviceOption,
    DryRunOption,
    FamilyOption,
    GpusOption,
    JsonOption,
    OverwriteOption,
    ProcessesOption,
    RegionOption,
    SeedOption,
    VaeOption,
    WorkersOption,
    as_modalities,
    complete_lists,
    complete_names,
    config_file,
    modality_names,
)
from copgen_cli.settings import Preset
from copgen_cli.storage import as_local_path, as_path

SETTINGS = "from settings"


def train(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            parser=as_path,
            metavar=PATH,
            help="Packed store, with train/ and test/; or the index.json of its shards.",
            show_default="the region's",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Size of network and run: tiny, small or base.",
            show_default="from settings: small",
            autocompletion=complete_names(lambda: list(Preset)),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    modalities: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Which to train on, in this order.",
            show_default="all of the data",
            autocompletion=complete_lists(modality_names),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="ID_OR_PATH",
            help="Start from this model's weights; it may know fewer modalities.",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    vae: VaeOption = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of the whole run.", show_default=SETTINGS, rich_help_panel=MADE_PANEL),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples per step, over all processes.", show_default=SETTINGS, rich_help_panel=MADE_PANEL
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate after warm-up.", show_default=SETTINGS, rich_help_panel=MADE_PANEL),
    ] = None,
    seed: SeedOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            "--accelerate-config",
            parser=as_local_path,
            metavar=PATH,
            help="Configuration file of accelerate.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    mixed_precision: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="no, fp16, bf16 or auto.",
            show_default="from settings: auto",
            autocompletion=complete_names(lambda: ("no", "fp16", "bf16", "auto")),
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples at a time in one process.", show_default="what fits", rich_help_panel=RUN_PANEL
        ),
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="Compile the network.", show_default=SETTINGS, rich_help_panel=RUN_PANEL
        ),
    ] = None,
    activation_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--activation-checkpointing/--no-activation-checkpointing",
            help="Less memory, but slower.",
            show_default=SETTINGS,
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|none|PATH", help="Where to go on from.", show_default="auto", rich_help_panel=RUN_PANEL
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Save and stop after so long: 45m, 11.5h, 23:30:00.", rich_help_panel=RUN_PANEL
        ),
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            "--workdir",
            parser=as_path,
            metavar=PATH,
            help="Folder of the run.",
            show_default="runs/REGION-PRESET",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps per checkpoint.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(
            min=0, help="Steps per validation; 0 is never.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL
        ),
    ] = None,
    preview_every: Annotated[
        int | None,
        typer.Option(
            min=0, help="Steps per preview; 0 is never.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL
        ),
    ] = None,
    log_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps per metrics line.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL),
    ] = None,
    export: Annotated[
        bool,
        typer.Option(
            "--export",
            help="Only write the model of the newest checkpoint, or of the one in --resume.",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Train a model on a packed store; the same command goes on where it stopped.

    Example:  copgen train --gpus 2

    On a laptop, for an hour:  copgen train --region rome --preset small --max-time 1h

    Exit code 3 says that --max-time was up before the last step.
    """
    from copgen_cli import launching
    from copgen_cli.layout import run_folder
    from copgen_cli.settings import load_settings
    from copgen_cli.stages import expect_others, was_launched

    chosen = {
        "preset": preset, "gpus": gpus, "num_processes": num_processes, "mixed_precision": mixed_precision,
        "steps": steps, "batch_size": batch_size, "micro_batch": micro_batch, "lr": lr, "init_from": init_from,
        "modalities": as_modalities(modalities, option="--modalities"),
        "workdir": workdir, "resume": resume, "save_every": save_every, "validate_every": validate_every,
        "preview_every": preview_every, "log_every": log_every, "max_time": max_time, "compile": compile,
        "activation_checkpointing": activation_checkpointing, "accelerate_config": accelerate_config, "vae": vae,
        "seed": seed, "workers": workers, "device": device,
    }  # fmt: skip
    settings = load_settings(config_file(context), region=region, family=family, data_dir=data_dir, train=chosen)
    recipe, store = settings.train, data or settings.workspace.store
    folder = recipe.workdir or run_folder(settings.runs_dir, settings.region, recipe.preset, settings.family)
    if not (export or dry_run):
        expect_others(recipe.rendezvous_timeout, console.warn)

    from copgen_cli.latents import cache_of
    from copgen_cli.training import run as training_run

    launched = was_launched()
    processes = 1 if launched else launching.count_processes(recipe)
    if export:
        training_run.export(recipe, store, folder, dry_run=dry_run, json=json)
    elif dry_run and data is None and not store.is_dir():
        training_run.tell_network(recipe, settings.chosen_family, store, json=json)
    elif dry_run:
        training_run.tell_plan(recipe, store, folder, processes, overwrite=overwrite, json=json)
    elif processes > 1 or (recipe.accelerate_config is not None and not launched):
        training_run.check(recipe, store, processes)
        raise typer.Exit(launching.launch(processes, recipe))
    else:
        cache = cache_of(settings.data)
        raise typer.Exit(training_run.train(recipe, store, folder, overwrite=overwrite, json=json, cache=cache))
