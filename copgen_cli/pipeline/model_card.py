"""The model card that a saved pipeline carries: what it does, how to use it, what made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from copgen_cli import __version__

UNKNOWN_LICENSE = "other"
"""What the hub calls a licence that is none of its list; whoever publishes a model says which."""

_CARD = """\
---
library_name: diffusers
license: {license}
pipeline_tag: image-to-image
tags:
- copgen
- diffusers
- earth-observation
- remote-sensing
- any-to-any
- synthetic-data
---

# {name}

A joint diffusion model of {count} views of one place: {titles}.
Any of them are generated from any others, from none, or all together; what is neither given nor asked for is
marginalised.

Everything it makes is **synthetic**. It shows what such a place may look like, not what is there: do not measure, map
or decide by it.

## Use

```python
from copgen_cli import CopGenPipeline

pipe = CopGenPipeline.from_pretrained("{name}")
out = pipe(generate=["{generate}"], {condition}num_samples=4)
out.images["{generate}"]  # PIL images of {side} x {side} px
```

or `copgen sample --model {name} {options}`.

## What it is

| | |
|---|---|
| modalities, in order | {modalities} |
| transformer | {parameters:,} parameters: width {hidden_size}, depth {depth}, {num_heads} heads, patch {patch_size} |
| latents | {in_channels} x {sample_size} x {sample_size}, scaled by {scaling_factor:.6g} |
| autoencoder | {autoencoder_parameters:,} parameters, SHA-256 `{fingerprint}` |
| written by | copgen {version} |

The architecture is that of COP-GEN-Beta (arXiv:2504.08548): a U-ViT (arXiv:2209.12152) with one timestep per modality
(UniDiffuser, arXiv:2303.06555) on the latents of a KL autoencoder (arXiv:2112.10752).
{notes}"""


def render_card(
    *,
    name: str,
    modalities: Sequence[str],
    titles: Sequence[str],
    transformer: Mapping[str, Any],
    parameters: int,
    autoencoder_parameters: int,
    scaling_factor: float,
    fingerprint: str,
    side: int,
    license: str = UNKNOWN_LICENSE,
    notes: str = "",
) -> str:
    """The text of a `README.md` with the hub's header.

    Args:
        name: hub id, or name of the folder.
        modalities, titles: names in the model's order, and how people call them.
        transformer: its configuration.
        parameters, autoencoder_parameters: how many weights there are.
        scaling_factor, fingerprint: of the autoencoder.
        side: of the pictures, in pixels.
        license: the hub's name of the weights' licence.
        notes: Markdown to end with: data, recipe, measures.
    """
    generate = modalities[-1]
    given = modalities[0] if len(modalities) > 1 else None
    return _CARD.format(
        name=name,
        license=license,
        count=len(modalities),
        titles=", ".join(titles),
        generate=generate,
        condition=f'condition={{"{given}": image}}, ' if given else "",
        options=f"--condition {given} --generate {generate}" if given else f"--generate {generate}",
        modalities=", ".join(f"`{modality}`" for modality in modalities),
        side=side,
        parameters=parameters,
        autoencoder_parameters=autoencoder_parameters,
        scaling_factor=scaling_factor,
        fingerprint=fingerprint,
        version=__version__,
        notes=f"\n{notes.strip()}\n" if notes.strip() else "",
        **{key: transformer[key] for key in _SIZES},
    )


_SIZES = ("hidden_size", "depth", "num_heads", "patch_size", "in_channels", "sample_size")
