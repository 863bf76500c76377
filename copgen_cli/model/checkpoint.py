"""A transformer from its weights.

Sizes are read off the tensors, so that a file needs no configuration beside it, and one that has a configuration is
held to it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from copgen_cli.errors import BrokenInputError, MismatchError, UnknownNameError
from copgen_cli.modalities import (
    COPGEN_2026,
    PUBLISHED,
    Family,
    Modality,
    ModalitySpec,
    families,
    family as family_of_name,
    modalities_in,
)
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.model.weights import (
    DEFAULT_HUB,
    PUBLISHED_ID,
    HubOptions,
    find_weights,
    has_configuration,
    read_tensors,
)
from copgen_cli.records import Prediction

_HEAD_WIDTH = 64


def load_transformer(
    source: str | Path = PUBLISHED_ID,
    num_heads: int | None = None,
    *,
    modalities: Sequence[str] | None = None,
    prediction_type: str | None = None,
    latent_shapes: Sequence[Sequence[int]] | None = None,
    family: str | None = None,
    variant: str | None = None,
    hub: HubOptions = DEFAULT_HUB,
) -> CopGenTransformer:
    """Load a transformer, in float32 and eval mode, without a second copy of its weights in memory.

    Args:
        source: a `.pth`, `.pt`, `.ckpt` or `.safetensors` file; a diffusers folder; a pipeline's folder; a training
            checkpoint (its EMA is taken); a hub id; or the built-in name of the model in the package.
        num_heads: attention heads, which no tensor tells; None means as configured, else heads of 64.
        modalities: names of the modalities in the order of the weights; None means as configured, else the four of the
            registry where there are four.
        prediction_type: "epsilon" or "v_prediction", what the network tells of a latent; None means as configured, else
            noise, as the published weights do.
        latent_shapes: (C, H, W) of each modality, which tensors do not tell where modalities differ; None means as
            configured, else one shape for all, or those of the twelve of COP-GEN (2026) where sizes are theirs.
        family: name of the family whose order and shapes they are, such as "copgen-2026"; None recognises them.
        variant, hub: see `find_weights`.

    Raises:
        CopgenError: there is no such source, or the hub cannot be reached and has not been before.
        BrokenInputError: a file is cut short, of another format, or needs more than weights.
        MismatchError: the tensors are not those of one transformer, or of the family, or of the configuration beside.
    """
    if family is not None:
        told = family_of_name(family)
        modalities = _names_of(told) if modalities is None else modalities
        latent_shapes = _shapes_of(told) if latent_shapes is None else latent_shapes
    weights = find_weights(source, variant, hub)
    configured = _read_config(weights.parent / "config.json") if has_configuration(weights) else {}
    tensors = _check_family(read_tensors(weights), family, weights)
    sizes = _sizes_of(tensors, weights, latent_shapes or configured.get("latent_shapes"))
    if round(configured.get("mlp_ratio", 0) * sizes["hidden_size"]) == round(sizes["mlp_ratio"] * sizes["hidden_size"]):
        sizes["mlp_ratio"] = configured["mlp_ratio"]  # the tensors tell it to a rounding only
    for name in sizes:
        if name in configured and configured[name] != sizes[name]:
            raise MismatchError(
                f"{weights.parent}: the configuration says {name} {configured[name]}, the tensors say {sizes[name]}.",
                hint="Restore the config.json that was written with these weights.",
            )
    net = _without_weights(
        weights,
        **sizes,
        num_heads=_choose_heads(num_heads, configured.get("num_heads"), sizes["hidden_size"], weights),
        modalities=_choose_names(modalities if modalities is not None else configured.get("modalities"), sizes),
        prediction_type=_choose_prediction(prediction_type, configured.get("prediction_type"), weights),
        rescale_betas_zero_snr=configured.get("rescale_betas_zero_snr", False),
        distilled_steps=configured.get("distilled_steps"),
    )
    _check_fit(tensors, {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}, weights)
    net.load_state_dict({name: tensor.float().contiguous() for name, tensor in tensors.items()}, assign=True)
    return net.eval()


def _without_weights(weights: Path, **sizes: Any) -> CopGenTransformer:
    """A network of no memory and no initialisation: the tensors of the file become its parameters."""
    try:
        with torch.device("meta"):
            return CopGenTransformer(**sizes)
    except ValueError as error:
        raise MismatchError(
            f"{weights}: {error}.", hint="Pass the num_heads, modalities and prediction_type that it was trained with."
        ) from error


def modalities_of(net: CopGenTransformer) -> tuple[Modality, ...]:
    """The modalities of a model, in its order.

    Raises:
        MismatchError: its configuration does not name them, or names one that is not in the registry.
    """
    names = net.config.modalities
    if names is None and net.config.num_modalities == len(PUBLISHED):
        names = list(PUBLISHED)
    hint = f"Give their names in its order, out of {', '.join(Modality)}."
    if names is None:
        raise MismatchError(
            f"The model's configuration does not name its {net.config.num_modalities} modalities.", hint=hint
        )
    try:
        return tuple(Modality(name) for name in names)
    except UnknownNameError as error:
        raise MismatchError(f"The model's configuration names {error.name}.", hint=hint) from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BrokenInputError(f"{path} is not JSON: {error}.", hint="Fetch or convert the model again.") from error
    kinds = {
        "num_heads": int,
        "mlp_ratio": int | float,
        "modalities": list | None,
        "prediction_type": str,
        "rescale_betas_zero_snr": bool,
        "distilled_steps": int | None,
        "latent_shapes": list | None,
        "patch_sizes": list | None,
    }
    if (
        not isinstance(config, dict)
        or not all(isinstance(config[key], kind) for key, kind in kinds.items() if key in config)
        or not math.isfinite(config.get("mlp_ratio", 1))
    ):
        raise BrokenInputError(
            f"{path} is not the configuration of a transformer.", hint="Fetch or convert the model again."
        )
    return config


def _choose_names(named: Sequence[str] | None, sizes: Mapping[str, Any]) -> list[str] | None:
    """The modalities of weights in their order; where nobody names them, those of the family that has such sizes."""
    if named is not None:
        return [str(name) for name in named]
    if sizes.get("latent_shapes") == _shapes_of(COPGEN_2026):
        return _names_of(COPGEN_2026)
    is_beta = "latent_shapes" not in sizes and sizes["num_modalities"] == len(PUBLISHED)
    return [str(name) for name in PUBLISHED] if is_beta else None


def _choose_prediction(asked: str | None, configured: str | None, weights: Path) -> str:
    if asked is not None and configured not in (None, str(asked)):
        raise MismatchError(
            f"{weights.parent} is configured with prediction_type {configured}, not {asked}.",
            hint="Leave prediction_type out.",
        )
    return str(asked or configured or Prediction.NOISE)


def _choose_heads(asked: int | None, configured: int | None, width: int, weights: Path) -> int:
    if asked is not None and configured is not None and asked != configured:
        raise MismatchError(
            f"{weights.parent} is configured with {configured} heads, not {asked}.", hint="Leave num_heads out."
        )
    if asked is not None or configured is not None:
        return asked if asked is not None else configured  # type: ignore[return-value]
    if width % _HEAD_WIDTH:
        raise MismatchError(
            f"{weights} is {width} wide, which heads of {_HEAD_WIDTH} do not divide.",
            hint="Say how many heads it has (num_heads): the tensors do not tell.",
        )
    return width // _HEAD_WIDTH


def _sizes_of(
    tensors: Mapping[str, Tensor], weights: Path, latent_shapes: Sequence[Sequence[int]] | None
) -> dict[str, Any]:
    """The constructor's settings that tensors tell, all but `num_heads` and `modalities`.

    Args:
        latent_shapes: of each modality, where they are known to differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        width, channels, patch, _ = shapes["patch_embeds.0.proj.weight"]
        hidden, _ = shapes["mid_block.mlp.fc1.weight"]
        _, tokens, _ = shapes["pos_embed"]
        if not all((width, patch, hidden, tokens)):
            raise ValueError("a tensor without values")
    except (KeyError, ValueError) as error:
        raise MismatchError(
            f"{weights} is not a transformer of this kind: patch_embeds.0.proj.weight, mid_block.mlp.fc1.weight and "
            "pos_embed are not all there with the dimensions they have.",
            hint=f"It has {len(shapes)} tensors, such as {', '.join(list(shapes)[:3])}.",
        ) from error
    modalities = _count(shapes, "patch_embeds", "decoder_preds")
    kernels = [shapes.get(f"patch_embeds.{i}.proj.weight", (width, 0, 0, 0)) for i in range(modalities)]
    if latent_shapes is None and len(set(kernels)) > 1:
        latent_shapes = _guess_shapes(kernels, tokens, weights)
    grid = math.isqrt(max(tokens // modalities - 1, 0))
    if latent_shapes is None:
        own: dict[str, Any] = {"sample_size": grid * patch, "in_channels": channels, "patch_size": patch}
    else:
        own = {"latent_shapes": [list(shape) for shape in latent_shapes], "patch_sizes": [k[2] for k in kernels]}
    return own | {
        "hidden_size": width,
        "depth": 2 * _count(shapes, "in_blocks", "out_blocks"),
        "mlp_ratio": hidden / width,
        "qkv_bias": "mid_block.attn.qkv.bias" in shapes,
        "mlp_time_embed": any(name.startswith("time_img_embeds.") for name in shapes),
        "num_modalities": modalities,
    }


def _specs_of(family: Family) -> list[ModalitySpec]:
    return [modality.spec for modality in modalities_in(family)]


def _names_of(family: Family) -> list[str]:
    """As its checkpoints call them."""
    return [spec.published or spec.name for spec in _specs_of(family)]


def _shapes_of(family: Family) -> list[list[int]] | None:
    """(C, H, W) of each modality; None where the family leaves them to the autoencoder."""
    shapes = [list(spec.latent) for spec in _specs_of(family) if spec.latent is not None]
    return shapes if len(shapes) == len(family.modalities) else None


def _check_family(tensors: dict[str, Tensor], named: str | None, weights: Path) -> dict[str, Tensor]:
    """The tensors, if they have as many modalities as a family, cut into patches as it says; of no family, as they are.

    Raises:
        MismatchError: they are of another.
    """
    if named is None:
        return tensors
    family = family_of_name(named)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    kernels = [shapes.get(f"patch_embeds.{i}.proj.weight", ())[1:3] for i in range(_count(shapes, "patch_embeds"))]
    told = zip(kernels, _specs_of(family), strict=False)
    fits = [spec.latent is None or kernel == (spec.latent[0], spec.patch_size) for kernel, spec in told]
    if len(kernels) != len(family.modalities) or not all(fits):
        raise MismatchError(
            f"{weights} holds no network of the family {family.name}: its {len(kernels)} modalities are not these "
            f"{len(family.modalities)}.",
            hint="Leave --family out: what tensors tell is recognised.",
        )
    return tensors


def _guess_shapes(kernels: Sequence[tuple[int, ...]], tokens: int, weights: Path) -> list[list[int]]:
    """Shapes of latents where channels and patches are those of a family that is known.

    Raises:
        MismatchError: they are of none.
    """
    for family in families():
        shapes = _shapes_of(family)
        if shapes is None:
            continue
        patches = [spec.patch_size or 0 for spec in _specs_of(family)]
        theirs = [(shape[0], patch) for shape, patch in zip(shapes, patches, strict=True)]
        if theirs != [(kernel[1], kernel[2]) for kernel in kernels]:
            continue
        if tokens == len(shapes) + sum(h // p * (w // p) for (_, h, w), p in zip(shapes, patches, strict=True)):
            return shapes
    raise MismatchError(
        f"{weights} is of modalities whose latents differ, and the tensors do not tell how large these are.",
        hint="Pass the latent_shapes that it was trained with, or give its folder with config.json.",
    )


def _count(names: Mapping[str, Any], *lists: str) -> int:
    """How many different indices the tensors of these module lists have."""
    pattern = re.compile(rf"({'|'.join(lists)})\.(\d+)\.")
    return len({match[2] for match in map(pattern.match, names) if match})


def _check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], weights: Path) -> None:
    """Raise with what is missing, unexpected, mis-shaped or not made of floats, a few by name and all by count."""
    misshaped = [
        f"{name} is {_by(tensors[name].shape)}, expected {_by(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    complaints = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "mis-shaped": misshaped,
        "not floating point": [name for name, tensor in tensors.items() if not tensor.is_floating_point()],
    }
    said = [f"{len(names)} {kind} ({_few(names)})" for kind, names in complaints.items() if names]
    if said:
        raise MismatchError(
            f"The tensors of {weights} are not those of one transformer: {'; '.join(said)}.",
            hint="Give the weights of a COP-GEN transformer, complete and under their own names.",
        )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape) or "a scalar"


def _few(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
