"""`copgen convert`: published weights into a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from copgen_cli import console
from copgen_cli.options import (
    MADE_PANEL,
    PATH,
    JsonOption,
    OverwriteOption,
    as_modalities,
    complete_lists,
    complete_names,
    family_names,
    modality_names,
)
from copgen_cli.storage import as_local_path, as_path


def convert(
    source: Annotated[
        str, typer.Argument(help="A .pth, .ckpt or .safetensors file, a folder, or a hub id.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Argument(parser=as_local_path, metavar="TARGET", help="The folder to make.", show_default=False)
    ],
    modalities: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Modalities in the order of the weights.",
            show_default="as configured, else those of the family",
            autocompletion=complete_lists(modality_names),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Family of the weights; `copgen modalities` lists them.",
            show_default="recognised by the tensors",
            autocompletion=complete_names(family_names),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    vae: Annotated[
        str | None,
        typer.Option(
            metavar="ID_OR_PATH",
            help="Make a whole pipeline with this autoencoder of pictures.",
            show_default="that of a pipeline's folder, else none",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    vae_dir: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="A folder with an autoencoder for each raster, named like it or as published.",
            show_default="those of a model's folder, else the published ones",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    num_heads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Attention heads.", show_default="as configured, else heads of 64", rich_help_panel=MADE_PANEL
        ),
    ] = None,
    prediction_type: Annotated[
        Literal["epsilon", "v_prediction"] | None,
        typer.Option(
            help="What the network predicts.",
            show_default="as configured, else epsilon: noise",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Of the transformer that is written.", rich_help_panel=MADE_PANEL),
    ] = "float32",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Turn weights of any known form into a diffusers folder of safetensors; nothing in them is ever executed.

    Example:  copgen convert nnet_ema_114000.pth cop-gen-beta --vae stabilityai/sd-vae-ft-ema

    then:  copgen sample --model cop-gen-beta --condition s1_rtc --generate dem,s2_l2a

    COP-GEN (2026):  copgen convert copgen_base.pth cop-gen --family copgen-2026 --vae-dir copgen-vaes
    """
    from dataclasses import asdict

    import torch

    from copgen_cli.pipeline import conversion

    written = conversion.convert(
        source,
        target,
        vae=vae,
        vae_dir=vae_dir,
        family=family,
        num_heads=num_heads,
        modalities=as_modalities(modalities, option="--modalities"),
        prediction_type=prediction_type,
        dtype=getattr(torch, dtype),
        overwrite=overwrite,
    )
    made = conversion.read_manifest(target)
    assert made is not None
    facts = {"folder": str(target), "written": written} | asdict(made)
    if json:
        console.result_json(facts)
    else:
        facts["vaes"] = tuple(made.vaes)
        told = {name: fact for name, fact in facts.items() if name != "vaes" or fact}
        console.result("Converted" if written else "Already converted; nothing to do", **told)
