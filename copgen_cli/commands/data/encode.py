"""`copgen encode`: patches in, autoencoder moments out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.commands.data.pack import report_packed
from copgen_cli.layout import moments_beside, store_beside
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    RUN_PANEL,
    WRITTEN_PANEL,
    DataDirOption,
    DeviceOption,
    DryRunOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    SchedulerOption,
    VaeDirOption,
    VaeOption,
    complete_names,
    config_file,
)
from copgen_cli.storage import as_path

if TYPE_CHECKING:
    from copgen_cli.latents import PatchPacking


def encode(
    context: typer.Context,
    region: RegionOption = None,
    family: FamilyOption = None,
    data_dir: DataDirOption = None,
    path: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Folder that `prepare` wrote, instead of a region's.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    vae: VaeOption = None,
    vae_dir: VaeDirOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="npy|lmdb",
            help="One file per patch, or straight into the packed store.",
            show_default="from settings: npy",
            autocompletion=complete_names(lambda: ("npy", "lmdb")),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images at a time.", show_default="from settings: 16", rich_help_panel=RUN_PANEL),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    scheduler: SchedulerOption = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="Where moments go.",
            show_default="beside the patches",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Encode every patch with the frozen autoencoder.

    Several processes or GPUs share the work: accelerate launch --num_processes 4 -m copgen_cli encode

    Example:  copgen encode --region rome --batch-size 64
    """
    from copgen_cli.cluster import open_cluster
    from copgen_cli.latents import ENCODE, PACK, Sharding, open_patches, pack
    from copgen_cli.model import wants_gpu
    from copgen_cli.settings import load_settings

    options = {"vae": vae, "vae_dir": vae_dir, "batch_size": batch_size, "device": device, "dtype": dtype, "to": to}
    settings = load_settings(
        config_file(context),
        region=region,
        family=family,
        data_dir=data_dir,
        encode=options,
        cluster={"scheduler": scheduler},
    )
    straight, on_gpu = settings.encode.to == "lmdb", wants_gpu(settings.encode.device)
    source = path or settings.workspace.patches
    output = output_dir or (store_beside(source) if straight else moments_beside(source))
    stage = PACK if straight else ENCODE
    with open_cluster(settings.cluster, note=console.note, gpu=on_gpu) as cluster:
        patches = open_patches(source, output, stage, settings.encode, overwrite=overwrite, executor=cluster)
        if not patches.world.is_main:
            if not dry_run:
                patches.help()
            return
        if not straight:
            raise typer.Exit(_into_files(patches, output, json=json, dry_run=dry_run, overwrite=overwrite))
        packed = pack(
            patches,
            output,
            dtype=settings.pack.dtype,
            input_type="png",
            overwrite=overwrite,
            dry_run=dry_run,
            draw=console.track_counts,
            sharding=Sharding(settings.pack.shards, settings.pack.shard_bytes),
        )
    raise typer.Exit(report_packed(packed, did="Encoded and packed", would="Would encode and pack", json=json))


def _into_files(patches: PatchPacking, output: Path, *, json: bool, dry_run: bool, overwrite: bool) -> int:
    from copgen_cli.latents import ENCODE, encode_to_files, encode_to_files_elsewhere, work_items_of
    from copgen_cli.patches import unrecorded_files
    from copgen_cli.stages import StageRun

    tree, encoders = patches.tree, patches.encoders
    with StageRun(
        ENCODE,
        output,
        settings={"modalities": list(tree.modalities), **encoders.settings()},
        overwrite=overwrite,
        prune=True,
        unrecorded=partial(unrecorded_files, suffix=".npy", stage=ENCODE),
        dry_run=dry_run,
    ) as run:
        units = work_items_of(tree)
        todo = run.pending(units)
        before = len(units) - len(todo)
        if not todo:
            encoders.check_weights_here()
        if dry_run:
            size = len(todo) * encoders.patch_bytes
            console.forecast("Would encode", json=json, patches=len(todo), done_before=before, bytes=size)
            return 0
        size = patches.batch_size
        if patches.elsewhere is not None:
            steps = encode_to_files_elsewhere(run, tree, patches.elsewhere, todo=todo, batch_size=size)
        else:
            steps = encode_to_files(run, tree, encoders, patches.world, todo=todo, batch_size=size)
        for _ in console.track_counts(steps, total=len(units), done=before, label="Encoding", unit="patches"):
            pass
        summary = run.finish()
    console.report("Encoded", summary, json=json, autoencoder=encoders.source)
    return summary.exit_code
