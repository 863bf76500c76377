"""`copgen studio`: a page with a map where one tries it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from copgen_cli import console
from copgen_cli.options import (
    RUN_PANEL,
    WRITTEN_PANEL,
    DataDirOption,
    DeviceOption,
    DtypeOption,
    FamilyOption,
    ModelOption,
    RegionOption,
    config_file,
)


def studio(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    model: ModelOption = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; any but this machine's own needs a token, printed once.",
            show_default="from settings: 127.0.0.1",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="0 takes a free one.", show_default="from settings: 7860", rich_help_panel=RUN_PANEL
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page.", rich_help_panel=RUN_PANEL)
    ] = True,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results and uploads.",
            show_default="from settings: outputs/studio",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
) -> None:
    """Try it in a browser: a map, a place, what is given and what is wanted, and the pictures that come of it.

    Example:  copgen studio
    """
    from copgen_cli.settings import load_settings
    from copgen_cli.studio import require_studio

    require_studio()  # before what imports the packages that it asks for
    console.note("Starting; the page opens when the model is loaded.")
    from copgen_cli.studio import create_app, listen, make_server, open_browser, open_model

    config = config_file(context)
    settings = load_settings(
        config,
        region=region,
        family=family,
        data_dir=data_dir,
        sample={"model": model, "device": device, "dtype": dtype},
        studio={"host": host, "port": port, "folder": output},
    )
    bound, address = listen(settings.studio.host, settings.studio.port)
    with bound:
        loaded, reason = open_model(settings)
        console.note(f"Model: {loaded.source}{f' ({reason})' if reason else ''}.")

        def opened() -> None:
            console.result("The studio is open; Ctrl-C ends it.", address=address.url)
            sys.stdout.flush()  # who reads it through a pipe waits for it
            if browser:
                open_browser(address)

        app = create_app(settings, loaded, token=address.token, config=config)
        make_server(app, opened=opened).run(sockets=[bound])
