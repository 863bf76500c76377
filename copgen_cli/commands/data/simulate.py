"""`copgen simulate`: cells of the simulated Earth in the format of a Major TOM archive."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from copgen_cli import console
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    RUN_PANEL,
    WRITTEN_PANEL,
    DryRunOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    config_file,
)
from copgen_cli.storage import as_local_path


def simulate(
    context: typer.Context,
    *,
    region: RegionOption = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            "--bbox",
            metavar="W S E N",
            help="A box in degrees instead of a region.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    start_date: Annotated[
        datetime | None,
        typer.Option(
            "--start-date",
            formats=["%Y-%m-%d"],
            help="First day of visits.",
            show_default="2017-01-03",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    end_date: Annotated[
        datetime | None,
        typer.Option(
            "--end-date",
            formats=["%Y-%m-%d"],
            help="Last day of visits.",
            show_default="2024-12-11",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    cells: Annotated[
        int, typer.Option("--cells", min=1, help="How many cells to draw from the box.", rich_help_panel=DATA_PANEL)
    ] = 12,
    rugged: Annotated[
        float,
        typer.Option(
            "--rugged",
            min=0,
            max=1,
            help="Only cells at least so rugged: 0 is any, 0.85 mountains.",
            show_default=False,
            rich_help_panel=MADE_PANEL,
        ),
    ] = 0.0,
    gaps: Annotated[
        bool,
        typer.Option(
            "--gaps/--no-gaps",
            help="With the irregularities of the real archive: missing rows, repeats.",
            rich_help_panel=MADE_PANEL,
        ),
    ] = True,
    bands: Annotated[
        bool,
        typer.Option(
            "--bands",
            help="Add raw bands of true size, cloud masks and maps of land cover: some 30 MB a cell.",
            rich_help_panel=MADE_PANEL,
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Seed of the world: another seed is another Earth.", rich_help_panel=MADE_PANEL),
    ] = 0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes at a time.", rich_help_panel=RUN_PANEL)
    ] = 1,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            parser=as_local_path,
            metavar=PATH,
            help="Folder to hold the archive.",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ],
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Simulate cells of the Earth, offline, as an archive that `copgen download` reads.

    Example:  copgen simulate --region rome --cells 12 --seed 0 --output earth

    then:  copgen download --region rome --endpoint file://$PWD/earth
    """
    from copgen_cli.errors import UsageError
    from copgen_cli.settings import load_settings
    from copgen_cli.simulation import REAL_GAPS, cells_of_region, days_between, write_archive

    if bbox is not None and region is not None:
        raise UsageError("--bbox and --region both say where.", hint="Give one of them.")
    settings = load_settings(config_file(context), region=region)
    chosen = cells_of_region(bbox or settings.region_settings().bbox, cells, seed, least_rugged=rugged)
    write = partial(
        write_archive,
        output,
        chosen,
        seed,
        gaps=REAL_GAPS if gaps else None,
        bands=bands,
        days=days_between(start_date, end_date),
        workers=workers,
        overwrite=overwrite,
    )
    before = len(list(write(dry_run=True)))
    facts = {"cells": chosen, "seed": seed, "output": str(output), "endpoint": output.resolve().as_uri()}
    shown = facts if json else facts | {"cells": len(chosen)}
    if dry_run:
        console.forecast("Would simulate", json=json, **shown, done_before=before)
        return
    for _ in console.track(write(), total=len(chosen), label="Simulating", unit="cells"):
        pass
    if before == len(chosen):
        console.note(console.NOTHING_TO_DO)
    if json:
        console.result_json(shown)
    else:
        console.result("Simulated", **shown)
