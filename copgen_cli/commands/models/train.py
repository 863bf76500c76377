"""`copgen train`: packed latents in, a pipeline out."""

from __future__ import annotations

import typer

from copgen_cli.commands.models.recipe import follow
from copgen_cli.commands.models.recipe_options import (
    AccelerateConfigOption,
    ActivationCheckpointingOption,
    CompileOption,
    ExportOption,
    GlobalBatchOption,
    InitFromOption,
    LearningRateOption,
    LogEveryOption,
    MaxTimeOption,
    MicroBatchOption,
    MixedPrecisionOption,
    ModalitiesOption,
    PresetOption,
    PreviewEveryOption,
    ResumeOption,
    SaveEveryOption,
    StoreOption,
    TrainingStepsOption,
    ValidateEveryOption,
    WorkdirOption,
)
from copgen_cli.options import (
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
    config_file,
)


def train(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    data: StoreOption = None,
    preset: PresetOption = None,
    modalities: ModalitiesOption = None,
    init_from: InitFromOption = None,
    vae: VaeOption = None,
    steps: TrainingStepsOption = None,
    batch_size: GlobalBatchOption = None,
    lr: LearningRateOption = None,
    seed: SeedOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    accelerate_config: AccelerateConfigOption = None,
    mixed_precision: MixedPrecisionOption = None,
    micro_batch: MicroBatchOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    compile: CompileOption = None,
    activation_checkpointing: ActivationCheckpointingOption = None,
    resume: ResumeOption = None,
    max_time: MaxTimeOption = None,
    workdir: WorkdirOption = None,
    save_every: SaveEveryOption = None,
    validate_every: ValidateEveryOption = None,
    preview_every: PreviewEveryOption = None,
    log_every: LogEveryOption = None,
    export: ExportOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Train a model on a packed store; the same command goes on where it stopped.

    Example:  copgen train --gpus 2

    On a laptop, for an hour:  copgen train --region rome --preset small --max-time 1h

    Exit code 3 says that --max-time was up before the last step.
    """
    from copgen_cli.layout import run_folder
    from copgen_cli.settings import load_settings

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
    recipe = settings.train
    folder = recipe.workdir or run_folder(settings.runs_dir, settings.region, recipe.preset, settings.family)
    follow(settings, recipe, data, folder, export=export, overwrite=overwrite, dry_run=dry_run, json=json)
