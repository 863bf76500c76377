"""A network to train: fresh, or with the weights of another one, which may know fewer modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    if (config.in_channels, config.sample_size) != (spec.channels, spec.side):
        raise MismatchError(
            f"{name} is of latents {config.in_channels} x {config.sample_size} x {config.sample_size}, "
            f"the data of {spec.channels} x {spec.side} x {spec.side}.",
            hint="Encode the data with the autoencoder that the model was trained with.",
        )
    known = modalities_of(source)
    sizes = {
        key: config[key]
        for key in ("patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio", "qkv_bias", "mlp_time_embed")
    }
    sizes["prediction_type"] = str(prediction_of(source))
    net = _fresh(sizes, modalities, spec, seed, positions)
    pairs = [(new, known.index(modality)) for new, modality in enumerate(modalities) if modality in known]
    tensors = source.state_dict()
    with torch.no_grad():
        for key, target in net.state_dict().items():
            if key == "pos_embed":
                _copy_positions(target, tensors[key], pairs, net.grids[0][0] ** 2, len(known))
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
                sample_size=spec.side,
                in_channels=spec.channels,
                num_modalities=len(modalities),
                modalities=[str(modality) for modality in modalities],
                **sizes,
            )
        except ValueError as error:
            raise UsageError(
                f"No network can be made of these sizes: {error}.", hint="Change train.model in the settings."
            ) from error
    if positions is PositionStart.SINE:
        _start_with_sines(net)
    return net


@torch.no_grad()
def _start_with_sines(net: CopGenTransformer) -> None:
    """Add 2-D sines and cosines to the positions of patches, so that attention can tell from the first step which
    patches of two modalities lie at the same place (arXiv:2111.06377, section A.1).

    Wavelengths go from about 6 patches to the width of the grid and beyond.
    """
    side, width = net.grids[0][0], int(net.config.hidden_size)
    count = width // 4
    rates = _LONGEST ** -(torch.arange(count) / count)
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    place = torch.cat([rows, columns], dim=2).reshape(side * side, -1)
    place = torch.nn.functional.pad(place, (0, width - place.shape[1]))
    modalities = net.config.num_modalities
    net.pos_embed[:, modalities:] += _HEIGHT * place.repeat(modalities, 1)


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


def _copy_positions(target: Tensor, source: Tensor, pairs: Sequence[tuple[int, int]], patches: int, known: int) -> None:
    """Positions are one row per modality's time token, then `patches` rows per modality."""
    modalities = target.shape[1] // (1 + patches)
    for new, old in pairs:
        target[:, new] = source[:, old]
        begin, end = modalities + new * patches, modalities + (new + 1) * patches
        target[:, begin:end] = source[:, known + old * patches : known + (old + 1) * patches]
