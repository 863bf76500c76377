"""`copgen train-autoencoder`: a small image autoencoder, trained on prepared patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    RUN_PANEL,
    WRITTEN_PANEL,
    DataDirOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    SeedOption,
    complete_names,
    config_file,
)

if TYPE_CHECKING:
    from copgen_cli.modalities import Modality, Split


def train_autoencoder(
    context: typer.Context,
    region: RegionOption = None,
    data_dir: DataDirOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Prepared patches, with train/ and test/.",
            show_default="the region's",
            rich_help_panel=DATA_PANEL,
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
            help="Where it is written.",
            show_default="runs/REGION-autoencoder",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train a small image autoencoder on prepared patches; the same command goes on where it stopped.

    Example:  copgen train-autoencoder --region rome --steps 10000 --output small-vae

    then:  copgen encode --region rome --vae small-vae

    Exit code 3 says that --max-time was up before the last update.
    """
    from copgen_cli import launching
    from copgen_cli.autoencoding import finished_steps, recipe as training
    from copgen_cli.layout import run_folder
    from copgen_cli.modalities import Split
    from copgen_cli.model import choose_device, choose_training_dtype, load_autoencoder
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
    settings = load_settings(config_file(context), region=region, data_dir=data_dir, autoencoder=chosen)
    recipe = settings.autoencoder
    patches = data or settings.workspace.patches
    target = output or run_folder(settings.runs_dir, settings.region, "autoencoder")
    images = _images(patches, Split.TRAIN)
    place = choose_device(recipe.device)
    before = done = 0 if overwrite else finished_steps(target)
    with launching.stop_requests(recipe.max_time) as asked_to_stop:
        updates = training.train_autoencoder(
            images,
            recipe,
            target,
            device=place,
            dtype=choose_training_dtype(recipe.dtype, place),
            overwrite=overwrite,
            asked_to_stop=asked_to_stop,
        )
        for update in console.track(updates, total=recipe.steps, label="Training", done=done, unit="updates"):
            done = update.step
        reason = asked_to_stop() if done < recipe.steps else None
    if done == before and reason is None:
        console.note(console.NOTHING_TO_DO)
    scale = training.export_autoencoder(images, recipe, target, place)
    autoencoder = load_autoencoder(target, device=place)
    held_out = _images(patches, Split.TEST) if (patches / Split.TEST).is_dir() else {}
    quality = {
        f"{m}_psnr_db": training.reconstruction_psnr(autoencoder, training.spread(f)) for m, f in held_out.items()
    }
    facts = {"updates": done, "of": recipe.steps, "scaling_factor": scale, "folder": str(target)} | quality
    if json:
        console.result_json(facts)
    else:
        console.result("Trained an autoencoder" if reason is None else "Stopped; run again to go on", **facts)
    raise typer.Exit(0 if reason is None else launching.EXIT_CODES[reason])


def _images(patches: Path, split: Split) -> dict[Modality, list[Path]]:
    """The patches of a split by modality, in a stable order; modalities without any are left out."""
    from copgen_cli.errors import MissingInputError
    from copgen_cli.modalities import Modality

    found = {m: sorted((patches / split / m.spec.folder).glob("*.png")) for m in Modality}
    if not any(found.values()):
        raise MissingInputError("patches", patches / split, written_by="prepare")
    return {modality: files for modality, files in found.items() if files}
