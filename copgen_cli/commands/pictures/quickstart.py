"""`copgen quickstart`: the whole way on a simulated region, offline, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen_cli import console
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    WRITTEN_PANEL,
    OverwriteOption,
    run_line,
)
from copgen_cli.storage import as_local_path

DEFAULT_FOLDER = Path("copgen-quickstart")


def quickstart(
    context: typer.Context,
    cells: Annotated[int, typer.Option("--cells", min=3, help="Cells to simulate.", rich_help_panel=DATA_PANEL)] = 6,
    train_steps: Annotated[
        int, typer.Option("--train-steps", min=1, help="Steps of fine-tuning.", rich_help_panel=MADE_PANEL)
    ] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the simulated region.", rich_help_panel=MADE_PANEL)] = 0,
    output: Annotated[
        Path,
        typer.Option(
            "--output", parser=as_local_path, metavar=PATH, help="Where everything goes.", rich_help_panel=WRITTEN_PANEL
        ),
    ] = DEFAULT_FOLDER,
    overwrite: OverwriteOption = False,
) -> None:
    """Run the whole way on a simulated region: offline, on a CPU, every step a real command.

    Example:  copgen quickstart --output tour
    """
    from copgen_cli.model import bundled_folder
    from copgen_cli.quickstart import claim_folder, run_step, steps, write_page, write_settings

    bundled_folder()
    claim_folder(output, overwrite=overwrite)
    write_settings(output, cells, seed, overwrite=overwrite)
    todo = steps(cells, train_steps, seed)
    console.note(f"Each step is a command that you can run yourself, after\n$ cd {output}")
    for number, step in enumerate(todo, start=1):
        console.note(f"\n[{number}/{len(todo)}] {step.title}\n$ {step.line}")
        code = run_step(output, step, run_line(context), console.verbosity_options())
        if code:
            console.note(f"Step {number} ended with code {code}; the same command goes on from there.")
            raise typer.Exit(code)
    page = write_page(output, todo)
    console.result("Done. All of it is synthetic: a simulated Earth, and pictures drawn of it.", page=page.resolve())
