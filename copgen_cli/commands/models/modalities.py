"""`copgen modalities`: what can be given and generated, by family."""

from __future__ import annotations

from typing import Any

import typer

from copgen_cli import console
from copgen_cli.options import FamilyOption, JsonOption, config_file


def modalities(
    context: typer.Context,
    family: FamilyOption = None,
    json: JsonOption = False,
) -> None:
    """List the families and their modalities, those of copgen.toml among them.

    Example:  copgen modalities --family copgen-2026
    """
    from copgen_cli.modalities import families
    from copgen_cli.settings import load_settings

    settings = load_settings(config_file(context), family=family)
    chosen = families() if family is None else (settings.chosen_family,)
    rows = [row for one in chosen for row in _rows(one)]
    if json:
        console.result_json(rows)
        return
    for one in chosen:
        console.line(f"{one.name}: {one.title}, patches of {one.patch_metres:g} m")
        table = [
            (r["name"], r["kind"], _bands(r["bands"]), r["pixels"], r["unit"], r["source"], r["autoencoder"])
            for r in rows
            if r["family"] == one.name
        ]
        table.insert(0, ("name", "kind", "bands", "pixels", "unit", "source", "autoencoder"))
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        for line in table:
            console.line("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rows(family: Any) -> list[dict[str, Any]]:
    from copgen_cli.modalities import modalities_in

    return [
        {
            "family": family.name,
            "name": str(modality),
            "published": spec.published,
            "kind": str(spec.kind),
            "bands": list(spec.bands),
            "pixels": "" if spec.is_scalar else f"{spec.side} of {spec.pixel_size:g} m",
            "unit": spec.unit,
            "source": spec.source.name if spec.source is not None else spec.files or "",
            "autoencoder": spec.autoencoder
            or ("none" if spec.is_scalar else "encode.vae" if spec.is_picture else "train-autoencoder"),
        }
        for modality in modalities_in(family)
        for spec in (modality.spec,)
    ]


def _bands(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 6 else f"{len(names)} bands"
