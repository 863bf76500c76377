"""`copgen distill`: a trained model in, its student out, which samples in a few network calls."""

from __future__ import annotations

from typing import Annotated

import typer

from copgen_cli.commands.models.recipe import follow
from copgen_cli.commands.models.recipe_options import (
    AccelerateConfigOption,
    CompileOption,
    ExportOption,
    GlobalBatchOption,
    LearningRateOption,
    LogEveryOption,
    MaxTimeOption,
    MicroBatchOption,
    MixedPrecisionOption,
    ModalitiesOption,
    PreviewEveryOption,
    ResumeOption,
    SaveEveryOption,
    StoreOption,
    StudentWorkdirOption,
    TrainingStepsOption,
    ValidateEveryOption,
)
from copgen_cli.options import (
    MADE_PANEL,
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
    complete_names,
    config_file,
)
from copgen_cli.settings import Preset


def distill(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    data: StoreOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="ID_OR_PATH",
            help="The model to distil; its student starts with its weights.",
            show_default="from settings: none",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    calls: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=8,
            help="Network calls that the student needs for a sample.",
            show_default="from settings: 4",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    teacher_calls: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Calls of the teacher for each of the student's.",
            show_default="from settings: 4",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Guidance that the student takes over; 0 is off.",
            show_default="from settings: 0",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Size of the run: tiny, small or base; the network is the teacher's.",
            show_default="from settings: small",
            autocompletion=complete_names(lambda: list(Preset)),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    modalities: ModalitiesOption = None,
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
    resume: ResumeOption = None,
    max_time: MaxTimeOption = None,
    workdir: StudentWorkdirOption = None,
    save_every: SaveEveryOption = None,
    validate_every: ValidateEveryOption = None,
    preview_every: PreviewEveryOption = None,
    log_every: LogEveryOption = None,
    export: ExportOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Train a student of a model, which samples in a few network calls; the same command goes on where it stopped.

    Example:  copgen distill --teacher runs/rome-small/model --calls 4 --lr 1e-4

    The teacher predicts velocities, and its noise schedule ends in noise alone. These options have settings under
    [distill]; all else is as in `copgen train`, its settings under [train] too.

    Exit code 3 says that --max-time was up before the last step.
    """
    from copgen_cli.layout import student_folder
    from copgen_cli.settings import StudentSettings, load_settings

    asked = {"teacher": teacher, "calls": calls, "teacher_calls": teacher_calls, "guidance_scale": guidance_scale}
    chosen = {
        "preset": preset, "gpus": gpus, "num_processes": num_processes, "mixed_precision": mixed_precision,
        "steps": steps, "batch_size": batch_size, "micro_batch": micro_batch, "lr": lr,
        "modalities": as_modalities(modalities, option="--modalities"),
        "workdir": workdir, "resume": resume, "save_every": save_every, "validate_every": validate_every,
        "preview_every": preview_every, "log_every": log_every, "max_time": max_time, "compile": compile,
        "accelerate_config": accelerate_config, "vae": vae, "seed": seed, "workers": workers, "device": device,
    }  # fmt: skip
    settings = load_settings(
        config_file(context), region=region, family=family, data_dir=data_dir, train=chosen, distill=asked
    )
    recipe = StudentSettings.of(settings.train, settings.distill)
    folder = recipe.workdir or student_folder(settings.runs_dir, settings.region, recipe.preset, settings.family)
    follow(settings, recipe, data, folder, export=export, overwrite=overwrite, dry_run=dry_run, json=json)
