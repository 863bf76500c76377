"""`copgen pack`: moments in, one packed store per split out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.errors import UsageError
from copgen_cli.layout import split_store, store_beside
from copgen_cli.modalities import Modality, Split
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    WRITTEN_PANEL,
    DataDirOption,
    DryRunOption,
    FamilyOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    SchedulerOption,
    VaeOption,
    WorkersOption,
    complete_names,
    config_file,
)
from copgen_cli.storage import as_local_path, as_path, require_local

if TYPE_CHECKING:
    from copgen_cli.cluster import ClusterExecutor
    from copgen_cli.latents import Forecast, Packed, Packing
    from copgen_cli.settings import Settings


def pack(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    input_dir: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="What to pack, instead of a region's moments.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    input_type: Annotated[
        str | None,
        typer.Option(
            metavar="npy|png|lmdb",
            help="Moments, patches to encode on the way, or a database of the published workflow to import.",
            show_default="from settings: npy",
            autocompletion=complete_names(lambda: ("npy", "png", "lmdb")),
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    place_cache: Annotated[
        Path | None,
        typer.Option(
            parser=as_local_path,
            metavar=PATH,
            help="Places of the cells of a COP-GEN (2026) database: a folder with latlon_patches.npy.",
            show_default="no place in the store",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    time_cache: Annotated[
        Path | None,
        typer.Option(
            parser=as_local_path,
            metavar=PATH,
            help="Times of the cells of such a database: a pickled file, read without unpickling.",
            show_default="no time in the store",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    vae: VaeOption = None,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Deal the larger split to so many files, and the other to files of that size.",
            show_default="from settings: one file a split",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    shard_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Or to files of at most this size: 8GB, 512MiB.",
            show_default="from settings",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float32|float16",
            help="Type of what is stored; float16 halves the size.",
            show_default="from settings: float32",
            autocompletion=complete_names(lambda: ("float32", "float16")),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Where the store goes.",
            show_default="beside the input",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Pack moments into one LMDB store per split, ready for training.

    Example:  copgen pack --region rome --dtype float16

    In files that several machines can share:  copgen pack --shard-bytes 8GB --workers 16

    COP-GEN (2026):  copgen pack --input-type lmdb --input-dir merged --output-dir store --place-cache latlon
    """
    from copgen_cli.cluster import open_cluster
    from copgen_cli.latents import Sharding, pack as pack_all
    from copgen_cli.model import wants_gpu
    from copgen_cli.settings import load_settings

    options = {"input_type": input_type, "dtype": dtype, "workers": workers}
    options |= {"shards": shards, "shard_bytes": shard_bytes}
    settings = load_settings(
        config_file(context),
        region=region,
        family=family,
        data_dir=data_dir,
        pack=options,
        encode={"vae": vae},
        cluster={"scheduler": scheduler},
    )
    kind = settings.pack.input_type
    where = settings.workspace
    source = input_dir or {"npy": where.moments, "png": where.patches, "lmdb": where.store}[kind]
    if kind == "lmdb":
        require_local(source, "--input-type lmdb")
    output = output_dir or store_beside(source)
    places = [output, *(split_store(output, split) for split in Split)]
    if kind == "lmdb" and (output_dir is None or source.resolve() in map(Path.resolve, places)):
        raise UsageError(
            "An imported database needs a folder of its own to go to.", hint=f"Name one: --output-dir {output}."
        )
    on_gpu = kind == "png" and wants_gpu(settings.encode.device)
    with open_cluster(settings.cluster, note=console.note, gpu=on_gpu) as cluster:
        if kind == "png":
            _refuse_caches(place_cache, time_cache)
            packing = _open_patches(source, output, settings, cluster, overwrite=overwrite, dry_run=dry_run)
        else:
            packing = _open_moments(settings, source, vae, place_cache, time_cache, cluster)
        if packing is None:
            return
        packed = pack_all(
            packing,
            output,
            dtype=settings.pack.dtype,
            input_type=kind,
            overwrite=overwrite,
            dry_run=dry_run,
            draw=console.track_counts,
            sharding=Sharding(settings.pack.shards, settings.pack.shard_bytes),
        )
    raise typer.Exit(report_packed(packed, did="Packed", would="Would pack", json=json))


def _open_moments(
    settings: Settings,
    source: Path,
    vae: str | None,
    place_cache: Path | None,
    time_cache: Path | None,
    cluster: ClusterExecutor | None,
) -> Packing:
    from copgen_cli.latents import (
        MergedStore,
        MomentPacking,
        NpyMoments,
        PlaceCache,
        PublishedStore,
        TimeCache,
        facts_of_tree,
        is_merged,
    )
    from copgen_cli.stages import local_executor

    kind, workers = settings.pack.input_type, settings.pack.workers
    moments: MergedStore | NpyMoments | PublishedStore
    if kind == "lmdb" and is_merged(source):
        caches: dict[Modality, PlaceCache | TimeCache] = {}
        if place_cache is not None:
            caches[Modality("place")] = PlaceCache(place_cache)
        if time_cache is not None:
            caches[Modality("time")] = TimeCache(time_cache)
        moments = MergedStore(source, caches)
    else:
        _refuse_caches(place_cache, time_cache)
        moments = NpyMoments(source) if kind == "npy" else PublishedStore(source)
    facts = facts_of_tree(source, vae, moments.modalities)
    return MomentPacking(moments, facts, cluster or local_executor(workers, processes=True))


def _refuse_caches(*caches: Path | None) -> None:
    if any(cache is not None for cache in caches):
        raise UsageError(
            "Caches of places and times go with a merged database of COP-GEN (2026).",
            hint="Name one with --input-type lmdb --input-dir, or leave --place-cache and --time-cache out.",
        )


def _open_patches(
    source: Path,
    output: Path,
    settings: Settings,
    cluster: ClusterExecutor | None,
    *,
    overwrite: bool,
    dry_run: bool,
) -> Packing | None:
    """None in a process that only helped another one, which packs."""
    from copgen_cli.latents import PACK, open_patches

    patches = open_patches(source, output, PACK, settings.encode, overwrite=overwrite, executor=cluster)
    if patches.world.is_main:
        return patches
    if not dry_run:
        patches.help()
    return None


def report_packed(packed: Packed | Forecast, *, did: str, would: str, json: bool) -> int:
    """Print what was packed or would be, under the title that fits; returns the exit code."""
    from dataclasses import asdict

    from copgen_cli.latents import Forecast

    if isinstance(packed, Forecast):
        console.forecast(would, json=json, **asdict(packed))
        return 0
    records = {f"{split}_records": count for split, count in packed.records.items()}
    console.report(did, packed.summary, json=json, **records)
    return packed.summary.exit_code
