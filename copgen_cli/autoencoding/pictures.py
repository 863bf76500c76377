"""An autoencoder of pictures: how crops are drawn, what is minimised, how good it is.

Mean absolute error, structural similarity over three scales, and where asked for the difference of power spectra. The
mean absolute error counts a second time for averages over what one latent pixel covers: without that, four channels go
to light and shade, and the colours that tell one ground from another come out grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from copgen_cli.autoencoding.power_spectrum import spectral_loss
from copgen_cli.autoencoding.state import PATCH
from copgen_cli.autoencoding.structural_similarity import structural_loss
from copgen_cli.autoencoding.subject import Architecture, Subject
from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import Modality
from copgen_cli.model import ImageAutoencoder, to_signed, to_uint8
from copgen_cli.storage import readable

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings

T = TypeVar("T")

Images = Mapping[Modality, Sequence[Path]]
"""RGB files by modality; every modality is drawn equally often."""

CROP = 128
"""Side in pixels of what most updates see."""

MEASURED = 32
"""Images per modality that the scale and the quality are measured on."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of any modalities for one autoencoder; see `Subject`."""

    images: Images

    @property
    def unused(self) -> frozenset[str]:
        return frozenset({"raster_latent_channels", "raster_crop"})

    @property
    def counts(self) -> Mapping[str, int]:
        return {str(modality): len(files) for modality, files in sorted(self.images.items())}

    def identity(self) -> dict[str, Any]:
        return {}

    def architecture(self, settings: AutoencoderSettings) -> Architecture:
        return Architecture(settings.channels, channels=3, latent_channels=4, side=PATCH)

    def sides(self, settings: AutoencoderSettings) -> tuple[int, int]:
        return CROP, PATCH

    def draw(self, count: int, size: int, settings: AutoencoderSettings, generator: np.random.Generator) -> Tensor:
        return to_signed(draw_crops(self.images, count, size, generator, recoloured=settings.recoloured))

    def errors(
        self, decoded: Tensor, target: Tensor, means: Tensor, settings: AutoencoderSettings
    ) -> dict[str, Tensor]:
        reduction = target.shape[-1] // means.shape[-1]
        wanted = F.avg_pool2d(target, reduction)
        found = {
            "absolute": F.l1_loss(decoded, target),
            "colour": F.l1_loss(F.avg_pool2d(decoded, reduction), wanted),
            "linear": unexplained(wanted, means),
            "structure": structural_loss(decoded, target),
        }
        return found | ({"spectrum": spectral_loss(decoded, target)} if settings.spectrum_weight else {})

    def weights(self, settings: AutoencoderSettings) -> Mapping[str, float]:
        return {
            "absolute": 1.0,
            "colour": settings.colour_weight,
            "linear": settings.linear_weight,
            "structure": settings.structure_weight,
            "spectrum": settings.spectrum_weight,
        }

    def measured(self, count: int, generator: np.random.Generator) -> Iterator[Tensor]:
        for name, files in sorted(self.images.items()):
            yield to_signed(draw_crops({name: files}, count, PATCH, generator))


def subject_of(patches: Images | Subject) -> Subject:
    """Pictures by modality as a subject; another subject as it is."""
    return Pictures(patches) if isinstance(patches, Mapping) else patches


def draw_crops(
    images: Images, count: int, size: int, generator: np.random.Generator, *, recoloured: float = 0.0
) -> Tensor:
    """Square crops at random places of random images of random modalities, turned and mirrored at random.

    Args:
        images: RGB files by modality, of at least `PATCH` px a side, however small the crops: the last ones are whole.
        count, size: crops, and pixels of their sides.
        generator: of what is drawn.
        recoloured: share of them that go through `recolour`.

    Returns:
        (count, 3, size, size) uint8.

    Raises:
        BrokenInputError: an image cannot be read or is too small.
    """
    modalities = sorted(images)
    crops = []
    for _ in range(count):
        files = images[modalities[int(generator.integers(len(modalities)))]]
        pixels = read_image(files[int(generator.integers(len(files)))], at_least=PATCH)
        top, left = (generator.integers(side - size + 1) for side in pixels.shape[:2])
        crop = np.rot90(pixels[top : top + size, left : left + size], int(generator.integers(4)))
        crop = crop[:, ::-1] if generator.random() < 0.5 else crop
        crops.append(recolour(crop, generator) if recoloured and generator.random() < recoloured else crop)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def recolour(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 with its channels in another order and half to four times its saturation.

    Colours are few and pale beside light and shade, and nearly a function of them; so little is lost by making them up
    that an autoencoder learns them last.
    """
    exchanged = pixels[..., generator.permutation(3)].astype(np.float32)
    grey = exchanged.mean(axis=-1, keepdims=True)
    saturated = grey + (exchanged - grey) * np.float32(2 ** generator.uniform(-1, 2))
    return np.clip(np.rint(saturated), 0, 255).astype(np.uint8)


def read_image(file: Path, *, at_least: int = 1, at_most: int = 4096) -> np.ndarray:
    """(H, W, 3) uint8 of an image file.

    Raises:
        BrokenInputError: it is no image, or a side is not within the limits in pixels.
    """
    try:
        with Image.open(readable(file)) as image:
            if not (at_least <= min(image.size) and max(image.size) <= at_most):
                raise BrokenInputError(
                    f"{file} is {image.size[0]} x {image.size[1]} px.", hint=f"Sides of {at_least} to {at_most} fit."
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenInputError(f"{file} cannot be read as an image: {error}.", hint="Prepare it again.") from error


def unexplained(colours: Tensor, latents: Tensor) -> Tensor:
    """Mean absolute error of colours as an affine function of the latents at the same place, the best for this batch.

    Colours are a small part of an image's variance, and at first neither coder knows a way to pass them on. Fitted anew
    for each batch, in closed form, such a function shows the encoder one at once.

    Args:
        colours: (B, 3, h, w).
        latents: (B, C, h, w); the gradient is with regard to them.
    """
    known = F.pad(latents.movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)
    wanted = colours.movedim(1, -1).flatten(0, 2)
    with torch.no_grad():  # the normal equations, in float64: five unknowns, thousands of places
        exact = known.double()
        damping = 1e-9 * len(exact) * torch.eye(exact.shape[1], dtype=exact.dtype, device=exact.device)
        best = torch.linalg.solve(exact.T @ exact + damping, exact.T @ wanted.double())
    return F.l1_loss(known @ best.to(known.dtype), wanted)


def reconstruction_psnr(autoencoder: ImageAutoencoder, files: Sequence[Path]) -> float:
    """Mean over images of the peak signal-to-noise ratio in decibels of bytes encoded (mean latent) and decoded.

    Args:
        files: RGB images whose sides are multiples of the autoencoder's reduction.
    """
    return float(np.mean([_psnr(autoencoder, read_image(file)) for file in files]))


def _psnr(autoencoder: ImageAutoencoder, pixels: np.ndarray) -> float:
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    mean, _ = autoencoder.moments(image).chunk(2, dim=1)
    decoded = to_uint8(autoencoder.decode(autoencoder.scale_factor * mean)).cpu()
    error = (decoded.float() - image.float()).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-2))


def spread(files: Sequence[T], count: int = MEASURED) -> list[T]:
    """At most `count` of the files, evenly over their order."""
    every = max(1, len(files) // count)
    return list(files[::every])[:count]
