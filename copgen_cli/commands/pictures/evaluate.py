"""`copgen evaluate`: how good generated pictures are, with how much certainty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.evaluation import GROUPS
from copgen_cli.metrics import Metric, parse_metrics
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    WRITTEN_PANEL,
    BatchSizeOption,
    DataDirOption,
    DeviceOption,
    DtypeOption,
    FamilyOption,
    GuidanceOption,
    IgnoredOption,
    JsonOption,
    RegionOption,
    SchedulerOption,
    SeedOption,
    SolverOption,
    StepsOption,
    as_one_list,
    complete_lists,
    complete_names,
    config_file,
    typed_options,
)
from copgen_cli.records import Ignored
from copgen_cli.storage import as_path

if TYPE_CHECKING:
    from copgen_cli.evaluation import Assessment

MODEL_OPTIONS = (
    "model", "region", "family", "data_dir", "pairs", "n_samples", "steps", "solver", "guidance_scale", "ignored",
    "translations", "batch_size", "dtype", "scheduler",
)  # fmt: skip
"""Options that say nothing to two folders."""


def evaluate(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    real: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder of true pictures, matched by file name.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    generated: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder of generated ones, such as `sample` writes.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Pictures that the model was trained on.",
            show_default="the region's train split, of a model trained on it",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use so many places, spread over cells.",
            show_default="all, or 16 of a region",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID_OR_PATH",
            help="Model to sample from on the region's test split, instead of --real and --generated.",
            show_default="the newest trained on the region, else copgen-sim",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help=f"{', '.join(Metric)}.",
            autocompletion=complete_lists(lambda: list(Metric)),
            show_default="all but lpips and cycle",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help=f"What is translated to what: {', '.join(GROUPS)}, or CONDITION:TARGET such as dem+s1_rtc:s2_l2a.",
            autocompletion=complete_lists(lambda: list(GROUPS)),
            show_default="single,unconditional; rest of measurements",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="ID_OR_PATH|inception",
            help="Network that sets of pictures are compared by: an autoencoder, or Inception v3.",
            autocompletion=complete_names(lambda: ("copgen-sim", "inception")),
            show_default="copgen-sim's autoencoder",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    translations: Annotated[
        int | None,
        typer.Option(
            help="Length of the cycles, even, with --metrics cycle.",
            show_default="from settings: 4",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    n_samples: Annotated[
        int | None,
        typer.Option(
            "--n-samples",
            min=1,
            help="Samples of each place.",
            show_default="from settings: 2",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    guidance_scale: GuidanceOption = None,
    ignored: IgnoredOption = Ignored.MARGINALISE,
    seed: SeedOption = None,
    batch_size: BatchSizeOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    scheduler: SchedulerOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder for report.html and metrics.json.",
            show_default="none is written",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Judge generated pictures: a folder of them, or what a model makes of a region's test split.

    Example:  copgen evaluate --region rome --limit 64 --output report

    or:  copgen evaluate --real patches --generated outputs --metrics psnr
    """
    from copgen_cli.errors import UsageError
    from copgen_cli.settings import load_settings

    if (real is None) != (generated is None):
        raise UsageError("--real and --generated belong together.", hint="Give both, or neither and a --model.")
    given = ", ".join(typed_options(context, MODEL_OPTIONS))
    if real is not None and given:
        raise UsageError("--real and --generated are judged without a model.", hint=f"Drop them, or drop {given}.")
    settings = load_settings(
        config_file(context),
        region=region,
        family=family,
        data_dir=data_dir,
        evaluate={
            "metrics": as_one_list(metrics),
            "pairs": as_one_list(pairs),
            "n_samples": n_samples,
            "limit": limit,
            "features": features,
            "translations": translations,
        },
        sample={
            "model": model,
            "steps": steps,
            "solver": solver,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "batch_size": batch_size,
            "device": device,
            "dtype": dtype,
        },
        cluster={"scheduler": scheduler},
    )
    if settings.evaluate.metrics:
        parse_metrics(settings.evaluate.metrics)  # a misspelt name is told before torch is loaded

    from copgen_cli.cluster import open_cluster
    from copgen_cli.evaluation import assess_folders, assess_model, claim_report
    from copgen_cli.model import wants_gpu

    if output:
        output.mkdir(parents=True, exist_ok=True)  # the errors of these are better known before hours of work
        claim_report(output)
    if real is not None and generated is not None:
        assessment = assess_folders(settings, real, generated, training, console.track)
    else:
        with open_cluster(settings.cluster, note=console.note, gpu=wants_gpu(settings.sample.device)) as cluster:
            assessment = assess_model(settings, ignored, training, console.track, cluster)
    _tell(assessment, output, json=json)


def _tell(assessment: Assessment, output: Path | None, *, json: bool) -> None:
    """Print what came of an evaluation, and write the report if there is a folder for it."""
    from copgen_cli.evaluation import as_json, as_text

    report = assessment.report
    written: Mapping[str, Path] = {}
    for text in report.notes:
        console.note(text)
    try:
        if output:
            written = assessment.write(output)
    finally:  # what was computed is told even if the disk is full
        if json:
            console.result_json(as_json(report) | {name: str(file) for name, file in written.items()})
        else:
            for line in as_text(report):
                console.line(line)
    if written and not json:
        console.result("Written", **written)
