"""`copgen download`: the products of a region out of a Major TOM archive, and only the bytes that are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from copgen_cli import console
from copgen_cli.options import (
    DATA_PANEL,
    RUN_PANEL,
    WRITTEN_PANEL,
    DataDirOption,
    DryRunOption,
    FamilyOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    SchedulerOption,
    SeedOption,
    WorkersOption,
    as_modalities,
    complete_lists,
    config_file,
    source_names,
)

if TYPE_CHECKING:
    from copgen_cli.archive import Download
    from copgen_cli.settings import Settings

FROM_SETTINGS = "from settings"
FROM_REGION = "from the region"


def download(
    context: typer.Context,
    region: RegionOption = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="W S E N",
            help="A box in degrees instead of a named region.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    subset_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What to call the subset of --bbox.", show_default=False, rich_help_panel=DATA_PANEL
        ),
    ] = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Modalities; only cells that all of them have are kept.",
            show_default="what the family needs: all four",
            autocompletion=complete_lists(source_names),
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    start_date: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="First day.", show_default=FROM_REGION, rich_help_panel=DATA_PANEL),
    ] = None,
    end_date: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM-DD", help="Last day, as of midnight.", show_default=FROM_REGION, rich_help_panel=DATA_PANEL
        ),
    ] = None,
    cloud_cover: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="MIN MAX", help="Clouds in percent.", show_default=FROM_REGION, rich_help_panel=DATA_PANEL
        ),
    ] = None,
    criteria: Annotated[
        str | None,
        typer.Option(
            metavar="latest",
            help="Which product of a cell is kept.",
            show_default=FROM_REGION,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="https://, http:// or file://; also HF_ENDPOINT.",
            show_default=FROM_SETTINGS,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="For the endpoint alone; better as HF_TOKEN.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    n_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Draw so many of the cells.", show_default=FROM_REGION, rich_help_panel=DATA_PANEL),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="none|all|LIST",
            help="Raw bands to write as GeoTIFF, such as B04,B03,B02,vv,vh,DEM.",
            show_default="what the family needs: none",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare every file with its recorded hash; mend.", rich_help_panel=RUN_PANEL),
    ] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="The same as --dry-run.", hidden=True, rich_help_panel=WRITTEN_PANEL)
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fetch the thumbnails of a region, one per source and cell, and only the bytes that are needed.

    Running it again fetches what is missing, also after more cells, sources or bands are asked for.

    Example:  copgen download --region rome
    """
    from copgen_cli.archive import Download
    from copgen_cli.cluster import open_cluster
    from copgen_cli.errors import UnknownNameError, UsageError
    from copgen_cli.modalities import archived, in_index_order

    if bbox is not None and (region is not None or subset_name is None):
        raise UsageError("--bbox goes with --subset-name, not with --region.", hint="Add --subset-name NAME.")
    if subset_name is not None and bbox is None:
        raise UsageError("--subset-name goes with --bbox.", hint="Add --bbox W S E N, or name a --region.")
    named = as_modalities(sources, option="--sources")
    for modality in named or ():
        if modality not in archived():
            raise UnknownNameError("source", modality, known=source_names())
    settings = _settings(
        context,
        subset_name or region,
        of_region={
            "bbox": bbox,
            "start_date": start_date,
            "end_date": end_date,
            "cloud_cover": cloud_cover,
            "criteria": criteria,
            "n_samples": n_samples,
            "seed": seed,
        },
        family=family,
        data_dir=data_dir,
        download={
            "sources": in_index_order(named) if named is not None else None,
            "workers": workers,
            "endpoint": endpoint,
            "token": token,
            "bands": bands,
        },
        cluster={"scheduler": scheduler},
    )
    looks_only = dry_run or preview
    with (
        open_cluster(settings.cluster, note=console.note) as cluster,
        Download(settings, overwrite=overwrite, verify=verify, dry_run=looks_only, executor=cluster) as task,
    ):
        _draw(task, json=json, dry_run=looks_only)


def _settings(context: typer.Context, name: str | None, *, of_region: dict[str, Any], **options: Any) -> Settings:
    """All settings, with what was given for the region laid over what is known of it."""
    from copgen_cli.settings import load_settings

    if of_region["bbox"] is None:
        known = load_settings(config_file(context), region=name)
        known.region_settings()
        name = known.region
    return load_settings(config_file(context), region=name, regions={name: of_region}, **options)


def _draw(task: Download, *, json: bool, dry_run: bool) -> None:
    for index in console.track(task.refresh(), total=len(task.sources), label="Index", unit="tables"):
        if not index.current:
            console.warn(f"No answer from the endpoint; the index of {index.modality.source.name} may be out of date.")
    task.plan()
    for count in task.counts:
        console.detail(str(count))
    if dry_run:
        console.forecast("Would fetch", json=json, **task.outlook())
        return
    for _ in console.track(task.fetch(), total=task.total, done=task.already, label="Fetching", unit="products"):
        pass
    summary = task.finish()
    console.report("Downloaded", summary, json=json, **task.traffic())
    raise typer.Exit(summary.exit_code)
