"""Options that `copgen train` and `copgen distill` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    RUN_PANEL,
    WRITTEN_PANEL,
    complete_lists,
    complete_names,
    modality_names,
)
from copgen_cli.settings import Preset
from copgen_cli.storage import as_local_path, as_path

SETTINGS = "from settings"

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        parser=as_path,
        metavar=PATH,
        help="Packed store, with train/ and test/; or the index.json of its shards.",
        show_default="the region's",
        rich_help_panel=DATA_PANEL,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Size of network and run: tiny, small or base.",
        show_default="from settings: small",
        autocompletion=complete_names(lambda: list(Preset)),
        rich_help_panel=MADE_PANEL,
    ),
]
ModalitiesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIST",
        help="Which to train on, in this order.",
        show_default="all of the data",
        autocompletion=complete_lists(modality_names),
        rich_help_panel=MADE_PANEL,
    ),
]
InitFromOption = Annotated[
    str | None,
    typer.Option(
        metavar="ID_OR_PATH",
        help="Start from this model's weights; it may know fewer modalities.",
        rich_help_panel=MADE_PANEL,
    ),
]
TrainingStepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Steps of the whole run.", show_default=SETTINGS, rich_help_panel=MADE_PANEL),
]
GlobalBatchOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Samples per step, over all processes.", show_default=SETTINGS, rich_help_panel=MADE_PANEL
    ),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(help="Learning rate after warm-up.", show_default=SETTINGS, rich_help_panel=MADE_PANEL),
]
AccelerateConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--accelerate-config",
        parser=as_local_path,
        metavar=PATH,
        help="Configuration file of accelerate.",
        rich_help_panel=RUN_PANEL,
    ),
]
MixedPrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="no, fp16, bf16 or auto.",
        show_default="from settings: auto",
        autocompletion=complete_names(lambda: ("no", "fp16", "bf16", "auto")),
        rich_help_panel=RUN_PANEL,
    ),
]
MicroBatchOption = Annotated[
    int | None,
    typer.Option(min=1, help="Samples at a time in one process.", show_default="what fits", rich_help_panel=RUN_PANEL),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile", help="Compile the network.", show_default=SETTINGS, rich_help_panel=RUN_PANEL
    ),
]
ActivationCheckpointingOption = Annotated[
    bool | None,
    typer.Option(
        "--activation-checkpointing/--no-activation-checkpointing",
        help="Less memory, but slower.",
        show_default=SETTINGS,
        rich_help_panel=RUN_PANEL,
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(metavar="auto|none|PATH", help="Where to go on from.", show_default="auto", rich_help_panel=RUN_PANEL),
]
MaxTimeOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Save and stop after so long: 45m, 11.5h, 23:30:00.", rich_help_panel=RUN_PANEL),
]
WorkdirOption = Annotated[
    Path | None,
    typer.Option(
        "--workdir",
        parser=as_path,
        metavar=PATH,
        help="Folder of the run.",
        show_default="runs/REGION-PRESET",
        rich_help_panel=WRITTEN_PANEL,
    ),
]
StudentWorkdirOption = Annotated[
    Path | None,
    typer.Option(
        "--workdir",
        parser=as_path,
        metavar=PATH,
        help="Folder of the run.",
        show_default="runs/REGION-PRESET-student",
        rich_help_panel=WRITTEN_PANEL,
    ),
]
SaveEveryOption = Annotated[
    int | None,
    typer.Option(min=1, help="Steps per checkpoint.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL),
]
ValidateEveryOption = Annotated[
    int | None,
    typer.Option(min=0, help="Steps per validation; 0 is never.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL),
]
PreviewEveryOption = Annotated[
    int | None,
    typer.Option(min=0, help="Steps per preview; 0 is never.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL),
]
LogEveryOption = Annotated[
    int | None,
    typer.Option(min=1, help="Steps per metrics line.", show_default=SETTINGS, rich_help_panel=WRITTEN_PANEL),
]
ExportOption = Annotated[
    bool,
    typer.Option(
        "--export",
        help="Only write the model of the newest checkpoint, or of the one in --resume.",
        rich_help_panel=WRITTEN_PANEL,
    ),
]
