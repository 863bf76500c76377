"""The autoencoders of a model: one for all of its pictures, one for each of its rasters, none for scalars."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from copgen_cli.errors import MismatchError
from copgen_cli.modalities import Modality, to_values
from copgen_cli.model.autoencoder import WEIGHT_SUFFIXES, ImageAutoencoder, to_uint8


class Autoencoders:
    """What decodes each modality of a model."""

    def __init__(self, of: Mapping[Modality, ImageAutoencoder]) -> None:
        self.of = dict(of)

    @property
    def of_all(self) -> ImageAutoencoder | None:
        """The one of a model that knows pictures alone; None of others."""
        pictures = {id(autoencoder): autoencoder for autoencoder in self.of.values()}
        is_alone = len(pictures) == 1 and all(modality.spec.is_picture for modality in self.of)
        return next(iter(pictures.values())) if is_alone else None

    @property
    def distinct(self) -> list[ImageAutoencoder]:
        return list({id(autoencoder): autoencoder for autoencoder in self.of.values()}.values())

    @property
    def device(self) -> torch.device:
        return self.distinct[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of all of them."""
        return self.distinct[0].dtype

    def fingerprint(self, modalities: Iterable[Modality]) -> str:
        """SHA-256 of all weights; of a model of pictures, that of its one autoencoder."""
        alone = self.of_all
        if alone is not None and all(modality in self.of for modality in modalities):
            return alone.fingerprint
        told = [f"{m} {self.of[m].fingerprint if m in self.of else 'none'}" for m in modalities]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def scale_of(self, modality: Modality) -> float:
        """What a drawn latent is multiplied by; 1 of scalars."""
        return self.of[modality].scale_factor if modality in self.of else 1.0

    def side_of(self, modality: Modality, latent_side: int) -> int:
        """Pixels along a side of what so many latent pixels are decoded to."""
        return latent_side * (self.of[modality].reduction if modality in self.of else 1)

    def decode(self, modality: Modality, latents: Tensor) -> list[np.ndarray]:
        """What scaled latents (B, C, h, w) stand for.

        Returns:
            B arrays: of a picture (S, S, 3) uint8; of a raster (bands, S, S) float32 in its unit; of classes (1, S, S)
            int64; of a scalar its (3,) numbers.
        """
        spec = modality.spec
        if spec.is_scalar:
            return list(latents.float().cpu().numpy().reshape(len(latents), -1))
        if spec.is_picture:
            images = to_uint8(self.of[modality].decode(latents))
            return list(images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        return list(to_values(self.of[modality].decode_values(latents).cpu().numpy(), spec))

    def require_pictures(self, model: str) -> ImageAutoencoder:
        """The one autoencoder of a model of pictures.

        Raises:
            MismatchError: it knows others.
        """
        alone = self.of_all
        if alone is None:
            raise MismatchError(
                f"{model} generates measurements, not pictures alone.", hint="`copgen sample` writes them as GeoTIFF."
            )
        return alone


def find_autoencoder(folder: Path, modality: Modality) -> Path | None:
    """The autoencoder of a raster in a folder of some: a folder or a file of weights called like the modality, as
    published checkpoints call it, or as its autoencoder was published; None where there is none."""
    spec = modality.spec
    published = [spec.published, (spec.autoencoder or "").rpartition("/")[2]] if spec.published else []
    for name in filter(None, (str(modality), *published)):
        if (folder / name).is_dir():
            return folder / name
        for suffix in WEIGHT_SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None
