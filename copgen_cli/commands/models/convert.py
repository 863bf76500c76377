"""`copgen convert`: published weights into a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from copgen_cli import console
from copgen_cli.options import (
    MADE_PANEL,
    JsonOption,
    OverwriteOption,
    as_modalities,
    complete_lists,
    modality_names,
)


def convert(
    source: Annotated[
        str, typer.Argument(help="A .pth, .ckpt or .safetensors file, a folder, or a hub id.", show_default=False)
    ],
    target: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    modalities: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Modalities in the order of the weights.",
            show_default="as configured, else all four",
            autocompletion=complete_lists(modality_names),
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    vae: Annotated[
        str | None,
        typer.Option(
            metavar="ID_OR_PATH",
            help="Make a whole pipeline with this autoencoder.",
            show_default="that of a pipeline's folder, else none",
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
    """
    from dataclasses import asdict

    import torch

    from copgen_cli.pipeline import conversion

    written = conversion.convert(
        source,
        target,
        vae=vae,
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
        console.result("Converted" if written else "Already converted; nothing to do", **facts)
