"""`copgen encode`: patches in, autoencoder moments out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen_cli import console
from copgen_cli.layout import moments_beside, store_beside
from copgen_cli.options import (
    DataDirOption,
    DeviceOption,
    DryRunOption,
    DtypeOption,
    JsonOption,
    OverwriteOption,
    RegionOption,
    VaeOption,
    complete_names,
    config_file,
)

if TYPE_CHECKING:
    from copgen_cli.data.encoding import Encoder
    from copgen_cli.data.patch_tree import PatchTree
    from copgen_cli.model.parallel import World


def encode(
    context: typer.Context,
    region: RegionOption = None,
    data_dir: DataDirOption = None,
    path: Annotated[
        Path | None, typer.Option(help="Folder that `prepare` wrote, instead of a region's.", show_default=False)
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where moments go.", show_default="beside the patches")
    ] = None,
    vae: VaeOption = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time.", show_default="from settings: 16")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="npy|lmdb",
            help="One file per patch, or straight into the packed store.",
            show_default="from settings: npy",
            autocompletion=complete_names(lambda: ("npy", "lmdb")),
        ),
    ] = None,
    json: JsonOption = False,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Encode every patch with the frozen autoencoder.

    Several processes or GPUs share the work: accelerate launch --num_processes 4 -m copgen_cli encode

    Example:  copgen encode --region rome --batch-size 64
    """
    from copgen_cli.data.encoding import STAGE, help_encoding, open_encoder
    from copgen_cli.data.packing import STAGE as PACKING
    from copgen_cli.data.patch_tree import read_tree
    from copgen_cli.settings import load_settings

    options = {"vae": vae, "batch_size": batch_size, "device": device, "dtype": dtype, "to": to}
    settings = load_settings(config_file(context), region=region, data_dir=data_dir, encode=options)
    straight = settings.encode.to == "lmdb"
    source = path or settings.workspace.patches
    output = output_dir or (store_beside(source) if straight else moments_beside(source))
    tree = read_tree(source, ".png", what="patches", written_by="prepare")
    encoder, world = open_encoder(settings.encode, output, PACKING if straight else STAGE, overwrite=overwrite)
    job = EncodeCall(tree, encoder, world, settings.encode.batch_size, output, json, dry_run, overwrite)
    if not world.is_main:
        if not dry_run:
            help_encoding(tree, encoder, world)
    elif straight:
        raise typer.Exit(_into_store(job, settings.pack.dtype))
    else:
        raise typer.Exit(_into_files(job))


@dataclass(frozen=True, slots=True)
class EncodeCall:
    """One call of the command, with its inputs opened."""

    tree: PatchTree
    encoder: Encoder
    world: World
    batch_size: int
    output: Path
    json: bool
    dry_run: bool
    overwrite: bool


def _into_files(call: EncodeCall) -> int:
    from copgen_cli.data.driver import StageRun
    from copgen_cli.data.encoding import STAGE, encode_to_files, units_of

    modalities = list(call.tree.modalities)
    with StageRun(
        STAGE,
        call.output,
        settings={"modalities": modalities, **call.encoder.settings()},
        overwrite=call.overwrite,
        prune=True,
        dry_run=call.dry_run,
    ) as run:
        units = units_of(call.tree)
        todo = run.pending(units)
        before = len(units) - len(todo)
        if call.dry_run:
            size = len(todo) * len(modalities) * call.encoder.patch_bytes
            console.forecast("Would encode", json=call.json, patches=len(todo), done_before=before, bytes=size)
            return 0
        steps = encode_to_files(run, call.tree, call.encoder, call.world, todo=todo, batch_size=call.batch_size)
        for _ in console.track_counts(steps, total=len(units), done=before, label="Encoding", unit="patches"):
            pass
        summary = run.finish()
    console.report("Encoded", summary, json=call.json, autoencoder=call.encoder.source)
    return summary.exit_code


def _into_store(call: EncodeCall, dtype: str) -> int:
    from dataclasses import asdict

    from copgen_cli.data.packing import Forecast, pack
    from copgen_cli.data.store_parts import PatchPacking

    packed = pack(
        PatchPacking(call.tree, call.encoder, call.world, call.batch_size),
        call.output,
        dtype=dtype,
        input_type="png",
        overwrite=call.overwrite,
        dry_run=call.dry_run,
        draw=console.track_counts,
    )
    if isinstance(packed, Forecast):
        console.forecast("Would encode and pack", json=call.json, **asdict(packed))
        return 0
    records = {f"{split}_records": count for split, count in packed.records.items()}
    console.report("Encoded and packed", packed.summary, json=call.json, **records)
    return packed.summary.exit_code
