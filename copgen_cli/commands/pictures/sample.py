"""`copgen sample`: pictures of what was not seen, given what was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.errors import CopgenError, MismatchError, UsageError
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
    FamilyOption,
    GenerateOption,
    GpusOption,
    GuidanceOption,
    IgnoredOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ProcessesOption,
    RegionOption,
    SeedOption,
    SolverOption,
    StepsOption,
    as_one_list,
    complete_assignments,
    complete_lists,
    complete_names,
    config_file,
    modality_names,
    typed_options,
)
from copgen_cli.records import Ignored
from copgen_cli.storage import as_local_path, as_path, require_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from copgen_cli.sampling import Job, RequestOptions
    from copgen_cli.settings import Settings
    from copgen_cli.stages import World

FROM_SETTINGS = "from settings"
SAID_BY_A_PICTURE = (
    "generate", "condition", "given", "region", "family", "resolution", "n_samples", "spread", "steps", "solver",
    "guidance_scale", "seed", "save_as", "limit", "batch_size", "gpus", "num_processes", "dtype", "compile", "preview",
    "ignored", "data_dir", "dry_run", "overwrite",
)  # fmt: skip
"""Options that say nothing beside --like."""


def sample(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Packed store, or tree of npy or png files.",
            show_default="the region's test split",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=IMAGE_OR_FOLDER",
            help="A picture of your own; repeat it for more modalities.",
            autocompletion=complete_assignments(modality_names),
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=VALUE",
            help="A place or a date: place=41.9,12.5, time=2020-07-01.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use so many records.", show_default="all", rich_help_panel=DATA_PANEL)
    ] = None,
    generate: GenerateOption = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="What is given. Without it, and without --input, nothing is.",
            autocompletion=complete_lists(modality_names),
            show_default=False,
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    model: ModelOption = None,
    like: Annotated[
        Path | None,
        typer.Option(
            parser=as_local_path,
            metavar="PICTURE",
            help="Make this picture again, exactly. --model, --input and --data say where these are now.",
            show_default=False,
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    n_samples: Annotated[
        int | None,
        typer.Option(
            "--n-samples", min=1, help="Samples per record.", show_default=FROM_SETTINGS, rich_help_panel=MADE_PANEL
        ),
    ] = None,
    spread: Annotated[
        bool, typer.Option("--spread", help="Add mean and deviation over the samples.", rich_help_panel=MADE_PANEL)
    ] = False,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Use so many pixels from the middle, padded by reflection.",
            show_default="the model's",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    guidance_scale: GuidanceOption = None,
    ignored: IgnoredOption = Ignored.MARGINALISE,
    preview: Annotated[
        str | None,
        typer.Option(
            metavar="tiny|ID_OR_PATH",
            help="Decode roughly and fast with a tiny decoder.",
            autocompletion=complete_names(lambda: ("tiny",)),
            show_default=False,
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    seed: SeedOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    batch_size: BatchSizeOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the network first; pays off in long runs.", rich_help_panel=RUN_PANEL),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder to write to.",
            show_default="outputs/<region>/<given>-to-<generated>",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    save_as: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="grid: labelled pages; pngs or geotiff: one file per picture.",
            autocompletion=complete_names(lambda: ("grid", "pngs", "geotiff")),
            show_default="from settings: grid",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Generate pictures of some modalities, given others or nothing.

    From a picture of your own, and how sure the model is:  copgen sample --input s1_rtc=radar.png --generate s2_l2a
    --n-samples 4 --spread

    Places that do not exist:  copgen sample --generate dem,s2_l2a --n-samples 8

    Example:  copgen sample --condition s1_rtc --generate dem,s2_l2a
    """
    if like is not None:
        _refuse(typed_options(context, SAID_BY_A_PICTURE))
        _repeat(like, model, input or (), data, device, output, json=json)
        return
    from copgen_cli import launching
    from copgen_cli.sampling import RequestOptions, check_request
    from copgen_cli.settings import load_settings
    from copgen_cli.stages import expect_others

    of_sample: dict[str, object] = {
        "model": model,
        "n_samples": n_samples,
        "steps": steps,
        "solver": solver,
        "seed": seed,
    }
    of_sample |= {"guidance_scale": guidance_scale, "save_as": save_as, "batch_size": batch_size, "device": device}
    of_sample |= {"dtype": dtype, "limit": limit, "gpus": gpus, "num_processes": num_processes}
    settings = load_settings(config_file(context), region=region, family=family, data_dir=data_dir, sample=of_sample)
    expect_others(settings.sample.rendezvous_timeout, console.warn)
    options = RequestOptions(
        condition=as_one_list(condition),
        generate=as_one_list(generate),
        inputs=tuple(input or ()),
        given=tuple(given or ()),
        data=data,
        resolution=resolution,
        spread=spread,
        ignored=ignored,
        preview=preview,
        compiled=compile,
    )
    check_request(settings, options)

    from copgen_cli.stages import was_launched

    launched = was_launched()
    processes = 1 if launched or dry_run else launching.count_processes(settings.sample)
    if processes > 1 or (settings.sample.accelerate_config is not None and not launched):
        raise typer.Exit(launching.launch(processes, settings.sample))
    _sample(settings, options, output, overwrite=overwrite, dry_run=dry_run, json=json)


def _sample(
    settings: Settings, options: RequestOptions, output: Path | None, *, overwrite: bool, dry_run: bool, json: bool
) -> None:
    """Draw in this process, alone or as one of several."""
    from copgen_cli import launching
    from copgen_cli.model import choose_device
    from copgen_cli.sampling import draw, finish, plan_job, start_run, steps_of, work_items_of
    from copgen_cli.stages import join_world

    chosen = choose_device(settings.sample.device)
    world = join_world(chosen, settings.sample.rendezvous_timeout, console.warn)
    if not world.is_main:
        raise typer.Exit(_help(settings, options, world))
    plan = plan_job(settings, options, world.device)
    for text in plan.notes:
        console.note(text)
    folder = output or plan.output
    with start_run(plan.job, folder, overwrite=overwrite, dry_run=dry_run) as run:
        units = work_items_of(plan.job)
        pending = run.pending(units)
        if dry_run:
            _forecast(plan.job, folder, len(pending), json=json)
            return
        steps = steps_of(plan.job, pending)
        told = launching.until_asked_to_stop(draw(plan.job, run, units, pending, world))
        shown = console.track(told, total=steps, label="Sampling", unit="steps")
        report = finish(plan.job, run, shown, done_before=len(units) - len(pending))
    world.leave()
    console.report("Sampled", report.summary, json=json, samples=report.samples, listing=report.listing)
    raise typer.Exit(report.summary.exit_code)


def _help(settings: Settings, options: RequestOptions, world: World) -> int:
    """The part of a process that is not the main one: it draws its share and says nothing."""
    from copgen_cli import launching
    from copgen_cli.sampling import help_drawing, plan_job

    try:
        job = plan_job(settings, options, world.device).job
    except CopgenError as error:
        return error.exit_code  # the main process says it
    for _ in launching.until_asked_to_stop(help_drawing(job, world)):
        pass
    world.leave()
    return 0


def _refuse(options: Sequence[str]) -> None:
    if options:
        raise UsageError(
            f"--like leaves nothing for {', '.join(options)} to say.", hint="Leave these out, or leave --like out."
        )


def _repeat(
    picture: Path,
    model: str | None,
    inputs: Sequence[str],
    data: Path | None,
    device: str | None,
    output: Path | None,
    *,
    json: bool,
) -> None:
    from copgen_cli.sampling import repeat_picture

    require_local(output, "--output of --like")
    made = repeat_picture(picture, model=model, inputs=inputs, data=data, device=device or "auto", output=output)
    values = {"file": made.file, "identical": not made.differing, "differing_pixels": made.differing}
    console.result_json(values) if json else console.result("Repeated", **values)
    if made.differing:
        raise MismatchError(
            f"The pictures differ in {made.differing:,} pixels, by up to {made.most} levels.",
            hint=f"The first was made on {made.device}; another kind of device, or of processor, rounds otherwise.",
        )


def _forecast(job: Job, folder: Path, pending: int, *, json: bool) -> None:
    values = {
        "model": job.recipe.model,
        "records": len(job.names),
        "samples": job.samples,
        "batch_size": job.batch_size,
        "pictures_or_pages_to_write": pending,
        "folder": folder,
    }
    console.result_json(values) if json else console.result("Would sample", **values)
