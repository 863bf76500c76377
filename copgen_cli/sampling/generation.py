"""From what is given of some samples to the pictures that a model makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from copgen_cli.errors import BrokenInputError
from copgen_cli.inputs import Picture, View
from copgen_cli.modalities import Modality
from copgen_cli.model import (
    Autoencoders,
    CopGenTransformer,
    OnStep,
    SampleNoise,
    draw_latents,
    sample_latents,
    sample_noise,
    to_uint8,
)
from copgen_cli.rasters import show
from copgen_cli.records import Ignored, SampleRequest

Values = np.ndarray
"""What a modality is like: see `Autoencoders.decode`."""


class Decoder(Protocol):
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] of scaled latents (B, C, h, w)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One sample to be drawn."""

    sample: str
    """Its id: with the seed and a modality's name, all that its noise depends on."""
    record: str
    moments: Mapping[Modality, Tensor]
    """(2 C, h, w) of every condition."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureGenerator:
    """A model ready to answer one request."""

    net: CopGenTransformer
    modalities: tuple[Modality, ...]
    """Of the model, in its order."""
    autoencoders: Autoencoders
    decoder: Decoder | None
    """In place of the autoencoder of pictures."""
    request: SampleRequest
    ignored: Ignored = Ignored.MARGINALISE

    def generate(self, tasks: Sequence[Task], on_step: OnStep | None = None) -> list[dict[Modality, Values]]:
        """What each generated modality is like, of every task; each depends on its own task alone."""
        latents = self.draw(tasks, on_step)
        decoded = {modality: self._decode(modality, latent) for modality, latent in latents.items()}
        return [{modality: values[i] for modality, values in decoded.items()} for i in range(len(tasks))]

    def _decode(self, modality: Modality, latents: Tensor) -> Sequence[Values]:
        if self.decoder is not None and modality.spec.is_picture:
            return list(_to_pictures(self.decoder.decode(latents)))
        return self.autoencoders.decode(modality, latents)

    def draw(self, tasks: Sequence[Task], on_step: OnStep | None = None) -> dict[Modality, Tensor]:
        """(B, C, h, w) scaled latents of every generated modality."""
        samples = tuple(task.sample for task in tasks)
        position = {modality: index for index, modality in enumerate(self.modalities)}
        given = {
            position[modality]: self._draw_condition(modality, samples, [task.moments[modality] for task in tasks])
            for modality in self.request.conditions
        }
        latents = sample_latents(
            self.net,
            generate=[position[modality] for modality in self.request.generated],
            condition=given,
            steps=self.request.steps,
            solver=self.request.solver,
            guidance_scale=self.request.guidance_scale,
            noise_source=SampleNoise(self.request.seed, samples, tuple(map(str, self.modalities))),
            ignored=self.ignored,
            callback=on_step,
        )
        return {self.modalities[index]: latent for index, latent in latents.items()}

    def moments_of(self, view: View, modality: Modality) -> Tensor:
        """(2 C, h, w) moments of a view, on the autoencoder's device.

        Pictures are encoded one at a time, so that no other picture has a say in how a value is rounded.

        Raises:
            BrokenInputError: moments from disk are not of the model's size.
        """
        if view.moments is None:
            if view.values is not None:
                autoencoder = self.autoencoders.of[modality]
                return autoencoder.encode(torch.from_numpy(view.values)[None].to(autoencoder.device))[0]
            assert view.pixels is not None
            return self.autoencoders.of[modality].moments(torch.from_numpy(view.pixels).permute(2, 0, 1)[None])[0]
        channels, height, width = self.net.latent_shapes[self.modalities.index(modality)]
        expected = (2 * channels, height, width)
        if view.moments.shape != expected:
            raise BrokenInputError(
                f"{view.file.path} holds moments of shape {view.moments.shape}; the model takes {expected}.",
                hint="Encode with the autoencoder and the picture size that the model was trained with.",
            )
        return torch.from_numpy(view.moments).to(self.autoencoders.device)

    def picture_of(self, view: View, modality: Modality) -> Picture:
        """The view as a picture; moments alone are decoded from their mean."""
        if view.pixels is not None:
            return view.pixels
        mean = self.moments_of(view, modality).chunk(2)[0]
        (values,) = self.autoencoders.decode(modality, self.autoencoders.scale_of(modality) * mean[None])
        return show(values, modality.spec)

    def _draw_condition(self, modality: Modality, samples: Sequence[str], moments: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(moments)).float()
        channels, height, width = stacked.shape[1] // 2, *stacked.shape[2:]
        noise = sample_noise(self.request.seed, samples, modality, (channels, height, width), purpose="condition")
        return draw_latents(stacked, noise.to(stacked.device), self.autoencoders.scale_of(modality))


def _to_pictures(images: Tensor) -> np.ndarray:
    """(B, 3, S, S) in [0, 1] to (B, S, S, 3) uint8."""
    return to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
