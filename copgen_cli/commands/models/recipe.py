"""What the commands that train do once their settings are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from copgen_cli import console

if TYPE_CHECKING:
    from copgen_cli.settings import Settings, TrainSettings


def follow(
    settings: Settings,
    recipe: TrainSettings,
    data: Path | None,
    folder: Path,
    *,
    export: bool,
    overwrite: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Train as the recipe says, here or in processes that are started for it; or tell what would be done.

    Args:
        settings: all of them.
        recipe: those of the run.
        data: the packed store; None is the region's.
        folder: where the run lives.
        export, overwrite, dry_run, json: as the options say.

    Raises:
        typer.Exit: with the run's exit code.
    """
    from copgen_cli import launching
    from copgen_cli.stages import expect_others, was_launched

    store = data or settings.workspace.store
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
