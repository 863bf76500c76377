"""A network to train: fresh, or with the weights of another one, which may know fewer modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from copgen_cli.errors import MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.model import CopGenTransformer, initialise, load_transformer, modalities_of, prediction_of
from copgen_cli.records import LatentSpec, PositionStart, Prediction
from copgen_cli.settings import TrainSettings
from copgen_cli.training.data_order import derive_seed

_LONGEST = 100.0  # ratio of the longest to the shortest wavelength of starting positions
_HEIGHT = 0.5  # of their waves: about that of an embedded patch


def make_network(spec: LatentSpec, settings: TrainSettings) -> CopGenTransformer:
    """A new network for the data, its weights a function of the seed, or those of `init_from` where it has them.

    Raises:
        UsageError: the sizes do not fit one another.
        MismatchError: `init_from` is of other latents.
    """
    modalities = settings.modalities or spec.modalities
    if settings.init_from is not None:
        source = load_transformer(settings.init_from)
        net = widen(source, modalities, spec, settings.seed, settings.init_from, settings.positions)
        asked = settings.model.prediction_type
        if "prediction_type" in settings.model.model_fields_set and asked is not prediction_of(source):
            _tell_something_else(net, asked, settings.seed)
        if "rescale_betas_zero_snr" in settings.model.model_fields_set:  # velocities mean the same in any schedule
            net.register_to_config(rescale_betas_zero_snr=settings.model.rescale_betas_zero_snr)
        if settings.student is not None:  # and one that goes on otherwise is no student any more
            net.register_to_config(distilled_steps=settings.student.calls)
        return net
    return _fresh(settings.model.model_dump(), modalities, spec, settings.seed, settings.positions)


def widen(
    source: CopGenTransformer,
    modalities: Sequence[Modality],
    spec: LatentSpec,
    seed: int,
    name: str,
    positions: PositionStart = PositionStart.NORMAL,
) -> CopGenTransformer:
    """A network of these modalities with a source's weights; what the source has no modality for starts fresh.

    Raises:
        MismatchError: the source is of latents of another shape.
    """
    config = source.config
    known = modalities_of(source)
    for shape, modality in zip(source.latent_shapes, known, strict=True):
        if modality in modalities and spec.of(modality).shape != shape:
            raise MismatchError(
                f"{name} is of latents {_by(shape)}, the data of {_by(spec.of(modality).shape)}, of {modality}.",
                hint="Encode the data with the autoencoder that the model was trained with.",
            )
    sizes = {
        key: config[key]
        for key in ("patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio", "qkv_bias", "mlp_time_embed")
    }
    sizes["prediction_type"] = str(prediction_of(source))
    sizes["rescale_betas_zero_snr"] = bool(config.get("rescale_betas_zero_snr", False))
    sizes["distilled_steps"] = None  # said aloud: diffusers keeps no change of what was left to its default
    if spec.common is None:
        sizes["patch_size"] = max(source.patch_sizes)
    net = _fresh(sizes, modalities, spec, seed, positions)
    pairs = [(new, known.index(modality)) for new, modality in enumerate(modalities) if modality in known]
    tensors = source.state_dict()
    with torch.no_grad():
        for key, target in net.state_dict().items():
            if key == "pos_embed":
                _copy_positions(target, tensors[key], pairs, net.grids, source.grids)
                continue
            for_modality = _modality_index(key)
            if for_modality is None:
                target.copy_(tensors[key])
                continue
            for new, old in pairs:
                if new == for_modality:
                    target.copy_(tensors[key.replace(f".{new}.", f".{old}.", 1)])
    return net


def _fresh(
    sizes: Mapping[str, Any], modalities: Sequence[Modality], spec: LatentSpec, seed: int, positions: PositionStart
) -> CopGenTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        try:
            net = CopGenTransformer(
                num_modalities=len(modalities),
                modalities=[str(modality) for modality in modalities],
                **_sizes_for(spec, modalities, sizes),
            )
        except ValueError as error:
            raise UsageError(
                f"No network can be made of these sizes: {error}.", hint="Change train.model in the settings."
            ) from error
    if positions is PositionStart.SINE:
        _start_with_sines(net)
    return net


def _sizes_for(spec: LatentSpec, modalities: Sequence[Modality], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's settings of latents: one shape for all where they are alike, else one for each modality."""
    if spec.common is not None:
        channels, side, _ = spec.common.shape
        return {"sample_size": side, "in_channels": channels, **sizes}
    shapes = [spec.of(modality).shape for modality in modalities]
    wanted = [modality.spec.patch_size or int(sizes["patch_size"]) for modality in modalities]
    patches = [math.gcd(patch, height, width) for patch, (_, height, width) in zip(wanted, shapes, strict=True)]
    own = {"latent_shapes": [list(shape) for shape in shapes], "patch_sizes": patches}
    return own | {key: value for key, value in sizes.items() if key != "patch_size"}


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


@torch.no_grad()
def _start_with_sines(net: CopGenTransformer) -> None:
    """Add 2-D sines and cosines to the positions of patches, so that attention can tell from the first step which
    patches of two modalities lie at the same place (arXiv:2111.06377, section A.1).

    Wavelengths go from about 6 patches to the width of the grid and beyond.
    """
    width = int(net.config.hidden_size)
    rates = _LONGEST ** -(torch.arange(width // 4) / (width // 4))
    most = max(rows for rows, _ in net.grids)
    start = net.config.num_modalities
    for rows, columns in net.grids:
        if rows > 1:  # a scalar has no place within its patch
            net.pos_embed[:, start : start + rows * columns] += _HEIGHT * _waves(rows, columns, most, rates, width)
        start += rows * columns


def _waves(rows: int, columns: int, most: int, rates: Tensor, width: int) -> Tensor:
    """(rows * columns, width) sines and cosines of the middles of patches, in units of those of the finest grid."""
    down, right = (((torch.arange(count) + 0.5) * (most / count) - 0.5)[:, None] * rates for count in (rows, columns))
    of_rows = torch.cat([down.sin(), down.cos()], dim=1)[:, None].expand(-1, columns, -1)
    of_columns = torch.cat([right.sin(), right.cos()], dim=1)[None].expand(rows, -1, -1)
    place = torch.cat([of_rows, of_columns], dim=2).reshape(rows * columns, -1)
    return torch.nn.functional.pad(place, (0, width - place.shape[1]))


def _tell_something_else(net: CopGenTransformer, prediction: Prediction, seed: int) -> None:
    """Have a network predict something else: its trunk stays, its heads, which spoke of the former, start fresh."""
    net.register_to_config(prediction_type=str(prediction))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "heads"))
        net.decoder_preds.apply(initialise)


def _modality_index(key: str) -> int | None:
    """Which modality a tensor belongs to; None for those of the trunk."""
    head, _, rest = key.partition(".")
    return int(rest.partition(".")[0]) if head in ("patch_embeds", "decoder_preds", "time_img_embeds") else None


def _copy_positions(
    target: Tensor,
    source: Tensor,
    pairs: Sequence[tuple[int, int]],
    grids: Sequence[tuple[int, int]],
    known: Sequence[tuple[int, int]],
) -> None:
    """Positions are one row per modality's time token, then those of the patches of each modality.

    Args:
        target, source: (1, N, D).
        pairs: place of a modality in the target and in the source.
        grids, known: patches down and across of each modality of the target, and of the source.
    """
    begins, sources = (list(accumulate([len(g), *(rows * columns for rows, columns in g)])) for g in (grids, known))
    for new, old in pairs:
        target[:, new] = source[:, old]
        target[:, begins[new] : begins[new + 1]] = source[:, sources[old] : sources[old + 1]]
