"""`copgen train-autoencoder`: small autoencoders of pictures, rasters and classes, trained on prepared patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    FamilyOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    SeedOption,
    as_modalities,
    complete_lists,
    complete_names,
    config_file,
    modality_names,
)
from copgen_cli.storage import as_local_path, require_local

if TYPE_CHECKING:
    from copgen_cli.autoencoding import Training
    from copgen_cli.records import StopReason
    from copgen_cli.settings import AutoencoderSettings


def train_autoencoder(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            parser=as_local_path,
            metavar=PATH,
            help="Prepared patches, with train/ and test/.",
            show_default="the region's",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality",
            metavar="LIST",
            help="Which of the family's modalities.",
            show_default="its rasters and classes; without any, its pictures",
            autocompletion=complete_lists(modality_names),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="ID_OR_PATH",
            help="Start from this autoencoder.",
            show_default=False,
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Updates in all.", show_default="from settings", rich_help_panel=MADE_PANEL),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Crops per update.", show_default="from settings", rich_help_panel=MADE_PANEL),
    ] = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="auto, float32 or bfloat16.",
            show_default="from settings: auto",
            autocompletion=complete_names(lambda: ("auto", "float32", "bfloat16")),
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time",
            metavar="TIME",
            help="Save and stop after so long: 45m, 11.5h, 23:30:00.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            parser=as_local_path,
            metavar=PATH,
            help="Where it is written.",
            show_default="runs/REGION-autoencoder; of rasters beside the patches",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train small autoencoders on prepared patches; the same command goes on where it stopped.

    Pictures share one. Every raster and map of classes of a family gets one of its own, where `encode` finds it.

    Example:  copgen train-autoencoder --region rome --steps 10000 --output small-vae

    then:  copgen encode --region rome --vae small-vae

    or, of rasters:  copgen train-autoencoder --region rome --family copgen-2026

    Exit code 3 says that --max-time was up before the last update.
    """
    from copgen_cli import launching
    from copgen_cli.autoencoding import plan_trainings
    from copgen_cli.layout import run_folder
    from copgen_cli.modalities import family as find_family
    from copgen_cli.settings import load_settings

    chosen = {
        "init_from": init_from,
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "max_time": max_time,
        "device": device,
        "dtype": dtype,
    }
    settings = load_settings(config_file(context), region=region, family=family, data_dir=data_dir, autoencoder=chosen)
    patches = data or settings.workspace.patches
    require_local(patches, "train-autoencoder")
    require_local(settings.runs_dir, "train-autoencoder")
    trainings = plan_trainings(
        patches,
        find_family(settings.family),
        as_modalities(modality, option="--modality"),
        output=output,
        pictures=run_folder(settings.runs_dir, settings.region, "autoencoder", settings.family),
    )
    _check(trainings, settings.autoencoder)
    made: list[dict[str, Any]] = []
    reason: StopReason | None = None
    is_new = False
    with launching.stop_requests(settings.autoencoder.max_time) as asked_to_stop:
        for training in trainings:
            facts, updates, reason = _train(training, settings.autoencoder, asked_to_stop, overwrite=overwrite)
            made.append(facts)
            is_new |= updates > 0
            if reason is not None:
                break
    if not is_new and reason is None:
        console.note(console.NOTHING_TO_DO)
    _report(trainings, made, stopped=reason is not None, json=json)
    raise typer.Exit(0 if reason is None else launching.EXIT_CODES[reason])


def _check(trainings: list[Training], settings: AutoencoderSettings) -> None:
    """What can be said before the first of several is trained.

    Raises:
        UsageError: crops of the size that is set do not fit one of them; or several would start from one autoencoder.
    """
    from copgen_cli.autoencoding import RasterPatches
    from copgen_cli.errors import UsageError

    for training in trainings:
        if isinstance(training.patches, RasterPatches):
            training.patches.sides(settings)
    if settings.init_from is not None and len(trainings) > 1:
        names = ", ".join(training.name for training in trainings)
        raise UsageError(
            f"{names} can not all start from {settings.init_from}.", hint="Choose one of them: --modality NAME."
        )


def _train(
    training: Training, recipe: AutoencoderSettings, asked_to_stop: Callable[[], StopReason | None], *, overwrite: bool
) -> tuple[dict[str, Any], int, StopReason | None]:
    """Train one, or go on with it.

    Returns:
        What is said of it, how many updates were done now, and why it stopped before the last one.
    """
    from copgen_cli.autoencoding import export_autoencoder, finished_steps, is_finished, recipe as steps
    from copgen_cli.model import choose_device, choose_training_dtype, load_autoencoder

    place, target = choose_device(recipe.device), training.folder
    if not (overwrite or training.is_of_pictures) and is_finished(training.patches, recipe, target):
        autoencoder = load_autoencoder(target, device=place)
        known = {"updates": finished_steps(target), "of": recipe.steps, "scaling_factor": autoencoder.scale_factor}
        return known | {"folder": str(target)} | training.quality(autoencoder), 0, None
    before = done = 0 if overwrite else finished_steps(target)
    updates = steps.train_autoencoder(
        training.patches,
        recipe,
        target,
        device=place,
        dtype=choose_training_dtype(recipe.dtype, place),
        overwrite=overwrite,
        asked_to_stop=asked_to_stop,
    )
    label = "Training" if training.is_of_pictures else f"Training {training.name}"
    for update in console.track(updates, total=recipe.steps, label=label, done=done, unit="updates"):
        done = update.step
    reason = asked_to_stop() if done < recipe.steps else None
    facts: dict[str, Any] = {"updates": done, "of": recipe.steps}
    if done or training.is_of_pictures:
        facts |= {"scaling_factor": export_autoencoder(training.patches, recipe, target, place)}
        facts |= {"folder": str(target), **training.quality(load_autoencoder(target, device=place))}
    return facts, done - before, reason


def _report(trainings: list[Training], made: list[dict[str, Any]], *, stopped: bool, json: bool) -> None:
    """Of pictures alone as one document; of others a list, with the modality of each."""
    alone = len(trainings) == 1 and trainings[0].is_of_pictures
    named = [{"modality": one.name, **facts} for one, facts in zip(trainings, made, strict=False)]
    if json:
        console.result_json(made[0] if alone else {"autoencoders": named})
        return
    for number, facts in enumerate(made if alone else named, start=1):
        is_cut_short = stopped and number == len(made)
        console.result("Stopped; run again to go on" if is_cut_short else "Trained an autoencoder", **facts)
