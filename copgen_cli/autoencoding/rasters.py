"""An autoencoder of one raster or one map of classes: how its patches are drawn, what is minimised, how good it is.

Measurements are compared in [-1, 1], as their normalisation gives them: mean absolute error, and once more of averages
over what one latent pixel covers. Structural similarity is left out, because its constants are made for pictures. Of
classes the decoder gives a logit each, and cross-entropy is minimised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from copgen_cli.autoencoding.pictures import CROP, spread
from copgen_cli.autoencoding.subject import Architecture
from copgen_cli.errors import UsageError
from copgen_cli.latents import read_patch
from copgen_cli.modalities import Kind, Modality, ModalitySpec, Split, spec_as_dict, to_values
from copgen_cli.model import ImageAutoencoder
from copgen_cli.patches import PatchTree

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings

_OF_PICTURES = frozenset(
    {"recoloured", "linear_weight", "structure_weight", "spectrum_weight", "adversarial_weight", "adversarial_after"}
)
_LEAST_ERROR = 1e-10  # mean square, so that an exact copy has a finite ratio


@dataclass(frozen=True, slots=True)
class RasterPatches:
    """The patches of one split in one modality that is a raster or classes."""

    tree: PatchTree
    split: Split
    modality: Modality
    names: tuple[str, ...]
    """Of the patches, sorted by their bytes."""

    @classmethod
    def of(cls, tree: PatchTree, split: Split, modality: Modality) -> RasterPatches:
        return cls(tree, split, modality, tuple(sorted(tree.names[split][modality], key=str.encode)))

    @property
    def spec(self) -> ModalitySpec:
        return self.modality.spec

    @property
    def unused(self) -> frozenset[str]:
        return _OF_PICTURES | ({"colour_weight"} if self.spec.kind is Kind.CLASSES else set())

    @property
    def counts(self) -> Mapping[str, int]:
        return {str(self.modality): len(self.names)}

    def identity(self) -> dict[str, Any]:
        return {"modality": spec_as_dict(self.spec)}

    def architecture(self, settings: AutoencoderSettings) -> Architecture:
        """As many of the settings' levels as the side can be halved."""
        widths = settings.channels[: _levels(self.spec.side, len(settings.channels))]
        return Architecture(widths, self.spec.channels, settings.raster_latent_channels, self.spec.side)

    def sides(self, settings: AutoencoderSettings) -> tuple[int, int]:
        """See `Subject.sides`.

        Raises:
            UsageError: the crops asked for are larger than a patch, or no multiple of what one latent pixel covers.
        """
        side, reduction = self.spec.side, 2 ** (len(self.architecture(settings).widths) - 1)
        crop = settings.raster_crop
        if crop is None:
            return min(side, CROP // reduction * reduction), side
        if crop > side or crop % reduction:
            raise UsageError(
                f"Crops of {crop} px do not fit {self.modality}: its patches have {side} px, and a latent pixel covers "
                f"{reduction}.",
                hint=f"Give autoencoder.raster_crop a multiple of {reduction} up to {side}, or choose modalities with "
                "--modality.",
            )
        return crop, side

    def draw(self, count: int, size: int, settings: AutoencoderSettings, generator: np.random.Generator) -> Tensor:
        """See `Subject.draw`. Pixels without data are what `copgen encode` takes them for.

        Raises:
            BrokenInputError: a patch cannot be read.
        """
        return self._draw(count, size, generator)

    def errors(
        self, decoded: Tensor, target: Tensor, means: Tensor, settings: AutoencoderSettings
    ) -> dict[str, Tensor]:
        if self.spec.kind is Kind.CLASSES:
            return {"entropy": F.cross_entropy(decoded, target.argmax(dim=1))}
        reduction = target.shape[-1] // means.shape[-1]
        averages = F.avg_pool2d(decoded, reduction), F.avg_pool2d(target, reduction)
        return {"absolute": F.l1_loss(decoded, target), "colour": F.l1_loss(*averages)}

    def weights(self, settings: AutoencoderSettings) -> Mapping[str, float]:
        return {"entropy": 1.0, "absolute": 1.0, "colour": settings.colour_weight}

    def measured(self, count: int, generator: np.random.Generator) -> Iterator[Tensor]:
        yield self._draw(count, self.spec.side, generator)

    def _draw(self, count: int, size: int, generator: np.random.Generator) -> Tensor:
        crops = []
        for _ in range(count):
            values = read_patch(self.tree, self.split, self.modality, self._any(generator))
            top, left = (int(generator.integers(self.spec.side - size + 1)) for _ in range(2))
            crop = np.rot90(values[:, top : top + size, left : left + size], int(generator.integers(4)), axes=(1, 2))
            crops.append(crop[..., ::-1] if generator.random() < 0.5 else crop)
        return torch.from_numpy(np.stack(crops))

    def _any(self, generator: np.random.Generator) -> str:
        return self.names[int(generator.integers(len(self.names)))]


def _levels(side: int, most: int) -> int:
    """How many levels an autoencoder of patches of that side has: the side is halved between them without rest."""
    return max(levels for levels in range(1, most + 1) if side % 2 ** (levels - 1) == 0)


def reconstruction_quality(autoencoder: ImageAutoencoder, patches: RasterPatches) -> dict[str, float]:
    """How near patches come back that are encoded (mean latent) and decoded; means over some, evenly chosen.

    Returns:
        Of measurements `mae`, in the modality's unit, and `psnr_db`, the peak signal-to-noise ratio in decibels of
        normalised values, whose range is 2; of classes `accuracy`, the share of pixels of the right class.
    """
    each = [_quality_of(autoencoder, patches, name) for name in spread(patches.names)]
    return {key: float(np.mean([one[key] for one in each])) for key in each[0]}


def _quality_of(autoencoder: ImageAutoencoder, patches: RasterPatches, name: str) -> dict[str, float]:
    values = read_patch(patches.tree, patches.split, patches.modality, name)
    mean, _ = autoencoder.encode(torch.from_numpy(values)[None].to(autoencoder.device)).chunk(2, dim=1)
    decoded = autoencoder.decode_values(autoencoder.scale_factor * mean)[0].cpu().numpy()
    there, back = to_values(values, patches.spec), to_values(decoded, patches.spec)
    if patches.spec.kind is Kind.CLASSES:
        return {"accuracy": float((there == back).mean())}
    square = float(np.square(decoded - values).mean())
    return {
        "mae": float(np.abs(back - there).mean()),
        "psnr_db": 10 * math.log10(2**2 / max(square, _LEAST_ERROR)),
    }
