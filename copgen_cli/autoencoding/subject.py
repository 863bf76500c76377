"""What an autoencoder is trained on, as the loop sees it: pictures of any modality, or the patches of one raster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of an autoencoder."""

    widths: tuple[int, ...]
    """Of each level; every further one halves the side of the latents."""
    channels: int
    """Of what it takes and gives."""
    latent_channels: int
    side: int
    """Pixels of a patch along a side."""


class Subject(Protocol):
    """Patches with what is asked of an autoencoder of theirs."""

    @property
    def unused(self) -> frozenset[str]:
        """Keys of the settings that decide nothing here; recipes leave them out."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Patches by the name of their modality."""
        ...

    def identity(self) -> dict[str, Any]:
        """What recipes say of the patches beside the settings."""
        ...

    def architecture(self, settings: AutoencoderSettings) -> Architecture: ...

    def sides(self, settings: AutoencoderSettings) -> tuple[int, int]:
        """Pixels along a side of the crops of most updates, and of the whole patches of the last ones."""
        ...

    def draw(self, count: int, size: int, settings: AutoencoderSettings, generator: np.random.Generator) -> Tensor:
        """Crops for one update, (count, channels, size, size) float32 about in [-1, 1], turned and mirrored."""
        ...

    def errors(
        self, decoded: Tensor, target: Tensor, means: Tensor, settings: AutoencoderSettings
    ) -> dict[str, Tensor]:
        """What is minimised, by the names of `Update`.

        Args:
            decoded, target: (B, channels, size, size) float32; the target about in [-1, 1].
            means: (B, C, h, w) of the latents.
        """
        ...

    def weights(self, settings: AutoencoderSettings) -> Mapping[str, float]:
        """Of these errors in the loss."""
        ...

    def measured(self, count: int, generator: np.random.Generator) -> Iterator[Tensor]:
        """Whole patches for the scale of latents: for each modality (count, channels, side, side) about in [-1, 1]."""
        ...
