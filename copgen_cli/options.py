"""Option types that commands share, and how a shell completes their values. Declared once, imported by commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from copgen_cli.modalities import BETA, Modality, archived, families, parse_modalities
from copgen_cli.records import Ignored, Solver
from copgen_cli.settings import configured, known_regions
from copgen_cli.storage import as_path


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stands before the command's name."""

    config: Path | None = None
    run_line: Callable[[Sequence[str]], None] | None = None
    """Runs another command line in this process, as `copgen` would."""


def config_file(context: typer.Context) -> Path | None:
    """The --config of this call."""
    return context.obj.config if isinstance(context.obj, GlobalOptions) else None


def run_line(context: typer.Context) -> Callable[[Sequence[str]], None]:
    """What runs another command line in this process, for a command that consists of others."""
    assert isinstance(context.obj, GlobalOptions)
    assert context.obj.run_line is not None, "set by the callback of `copgen`"
    return context.obj.run_line


def typed_options(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Those of some options that stand on the command line, rather than being left to their defaults, as typed."""
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]


def complete_names(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion for one name of a list that is made when it is asked for."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def complete_lists(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion for a comma-separated list: the names not yet in it, after what is already there."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = set(before.split(","))
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in taken]

    return complete


def complete_assignments(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion for NAME=VALUE, as far as the equals sign."""

    def complete(incomplete: str) -> list[str]:
        return [f"{name}=" for name in names() if name.startswith(incomplete)]

    return complete


def as_one_list(values: list[str] | None) -> str | None:
    """A comma-separated list that may have been given in several turns of its option, each of which adds to it."""
    return ",".join(values) if values else None


def as_modalities(values: list[str] | None, *, option: str) -> tuple[Modality, ...] | None:
    """The modalities of such a list; None where it was not given."""
    text = as_one_list(values)
    return None if text is None else parse_modalities(text, option=option)


def modality_names() -> list[str]:
    """Of the package, and of the settings file that lies here."""
    return [*map(str, Modality), *configured("modalities")]


def source_names() -> list[str]:
    """Of the datasets that can be downloaded, by their thumbnails."""
    return [str(modality) for modality in archived()]


def family_names() -> list[str]:
    """Of the package, and of the settings file that lies here."""
    return [*(one.name for one in families()), *configured("families")]


DATA_PANEL = "Where data is"
MADE_PANEL = "What is made"
RUN_PANEL = "How it runs"
WRITTEN_PANEL = "What is written and said"
PANELS = (DATA_PANEL, MADE_PANEL, RUN_PANEL, WRITTEN_PANEL)
"""Every command has its options in these, in this order."""

PATH = "PATH"
"""Of options that take a folder or file of this machine, or of an object store: s3://BUCKET/FOLDER."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; ./copgen.toml where none is named.", show_default=False),
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="NAME",
        help="Named region, built in or from copgen.toml.",
        show_default="from settings: rome",
        autocompletion=complete_names(known_regions),
        rich_help_panel=DATA_PANEL,
    ),
]
FamilyOption = Annotated[
    str | None,
    typer.Option(
        "--family",
        metavar="NAME",
        help="Family of modalities; `copgen modalities` lists them.",
        show_default="from settings: beta",
        autocompletion=complete_names(family_names),
        rich_help_panel=DATA_PANEL,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        parser=as_path,
        metavar=PATH,
        help="Where data lies, one folder per region.",
        show_default="from settings",
        rich_help_panel=DATA_PANEL,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="How many work at a time.", show_default="from settings", rich_help_panel=RUN_PANEL
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="WHERE",
        help="Dask cluster that works: tcp://HOST:PORT, local:N, or a scheduler file.",
        show_default="from settings: none, this machine alone",
        rich_help_panel=RUN_PANEL,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of what is drawn.", show_default="from settings", rich_help_panel=MADE_PANEL),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps.",
        show_default="from settings: auto",
        autocompletion=complete_names(lambda: ("auto", "cpu", "cuda", "mps")),
        rich_help_panel=RUN_PANEL,
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="auto, float32, bfloat16 or float16.",
        show_default="from settings: auto",
        autocompletion=complete_names(lambda: ("auto", "float32", "bfloat16", "float16")),
        rich_help_panel=RUN_PANEL,
    ),
]
VaeOption = Annotated[
    str | None,
    typer.Option(
        "--vae",
        metavar="ID_OR_PATH",
        help="The frozen image autoencoder.",
        show_default="from settings",
        rich_help_panel=MADE_PANEL,
    ),
]
VaeDirOption = Annotated[
    Path | None,
    typer.Option(
        "--vae-dir",
        parser=as_path,
        metavar=PATH,
        help="A folder with an autoencoder for each raster.",
        show_default="beside the patches",
        rich_help_panel=MADE_PANEL,
    ),
]
GenerateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--generate",
        metavar="LIST",
        help=f"What to generate: {', '.join(BETA.modalities)}, or what else the model knows.",
        autocompletion=complete_lists(modality_names),
        show_default=False,
        rich_help_panel=MADE_PANEL,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID_OR_PATH",
        help="Folder, file of weights or hub id.",
        show_default="the newest trained on the region, else copgen-sim",
        rich_help_panel=MADE_PANEL,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Network calls per sample.",
        show_default="from settings: what the model is made for, else 15",
        rich_help_panel=MADE_PANEL,
    ),
]
SolverOption = Annotated[
    str | None,
    typer.Option(
        "--solver",
        metavar="SOLVER",
        help=f"{', '.join(Solver)}; the published setting is reference with --steps 50.",
        autocompletion=complete_names(lambda: list(Solver)),
        show_default="from settings: what the model is made for, else dpm++2m",
        rich_help_panel=MADE_PANEL,
    ),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale",
        min=0,
        help="How much to insist on the condition; 0 is off.",
        show_default="from settings: 0",
        rich_help_panel=MADE_PANEL,
    ),
]
IgnoredOption = Annotated[
    Ignored,
    typer.Option(
        "--ignored",
        help="How modalities that are neither given nor generated enter; published is for comparison.",
        rich_help_panel=MADE_PANEL,
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Samples at a time.",
        show_default="by the device's memory",
        rich_help_panel=RUN_PANEL,
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option("--gpus", min=1, help="GPUs of this machine.", show_default="one, if any", rich_help_panel=RUN_PANEL),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        help="Processes; one per GPU, or on the CPU.",
        show_default="1",
        rich_help_panel=RUN_PANEL,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Report as JSON on standard output.", rich_help_panel=WRITTEN_PANEL)
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what would be done, with totals; write nothing.", rich_help_panel=WRITTEN_PANEL
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Start afresh instead of continuing.", rich_help_panel=WRITTEN_PANEL)
]
