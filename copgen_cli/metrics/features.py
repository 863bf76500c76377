"""The feature networks that pictures are compared by, each under its own name.

A distance in the features of an autoencoder is never called FID: that name belongs to Inception v3 alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copgen_cli.errors import BrokenInputError, CopgenError
from copgen_cli.metrics.confidence import Floats
from copgen_cli.metrics.extras import require
from copgen_cli.model import ImageAutoencoder, load_autoencoder

INCEPTION = "inception"
BATCH = 16
BATCH_PIXELS = BATCH * 256 * 256
"""Together in one batch, so that large pictures need no more memory; a single picture may have more."""
_INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)


class FeatureNetwork(Protocol):
    """One vector per picture."""

    @property
    def name(self) -> str:
        """How reports call it."""

    @property
    def relative(self) -> bool:
        """Whether sets are compared in units of each feature's spread over the true pictures."""

    @property
    def least_side(self) -> int:
        """Pixels that a picture needs along either side."""

    @property
    def frechet_name(self) -> str:
        """How reports call the Fréchet distance in it."""

    @property
    def kernel_name(self) -> str:
        """How reports call the kernel distance in it."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, D) float features of (B, 3, H, W) uint8 images."""


class AutoencoderFeatures:
    """Mean and standard deviation over the picture of the last hidden layer of an image autoencoder's encoder.

    It needs nothing from elsewhere, and it has seen satellite pictures; it has seen no names of things. The means tell
    colour and brightness, the deviations texture; in their own units, a few channels that follow brightness would
    outweigh all others, and blur would go unseen.

    Of a picture whose sides are no multiples of the autoencoder's factor, the largest middle part that has such sides
    counts.
    """

    relative = True

    def __init__(self, autoencoder: ImageAutoencoder) -> None:
        self._autoencoder = autoencoder
        self.least_side = 2 * autoencoder.reduction  # a deviation takes more than one pixel of the hidden layer
        self.name = f"encoder of the autoencoder of {autoencoder.source} ({autoencoder.fingerprint[:8]})"
        self.frechet_name = "AE-FD"
        self.kernel_name = "AE-KD"

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        factor = self._autoencoder.reduction
        top, left = height % factor // 2, width % factor // 2
        middle = images[:, :, top : top + height // factor * factor, left : left + width // factor * factor]
        kept: list[Tensor] = []
        hook = self._autoencoder.model.encoder.conv_act.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            self._autoencoder.moments(middle)
        finally:
            hook.remove()
        hidden = kept[0].float()
        return torch.cat([hidden.mean(dim=(2, 3)), hidden.std(dim=(2, 3))], dim=1)


class InceptionFeatures:
    """The 2048 features of Inception v3 (Heusel et al. 2017), as torch-fidelity computes them."""

    relative = False
    least_side = 1

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """Load the network.

        Raises:
            CopgenError: torch-fidelity is not installed, or its weights can not be had.
            BrokenInputError: the weights hold more than tensors.
        """
        require("torch_fidelity", extra="inception", purpose="Inception")
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        weights = _inception_weights()
        self._device = torch.device(device)
        self._network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        ).to(self._device)
        self.name = "Inception v3 (torch-fidelity)"
        self.frechet_name = "FID"
        self.kernel_name = "KID"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        features: Tensor = self._network(images.to(self._device))[0]
        return features


def load_features(source: str | Path, device: str | torch.device = "cpu") -> FeatureNetwork:
    """The feature network of that name: `inception`, or whatever `load_autoencoder` takes."""
    if str(source) == INCEPTION:
        return InceptionFeatures(device)
    return AutoencoderFeatures(load_autoencoder(source, device=device))


def features_of(network: FeatureNetwork, pictures: NDArray[np.uint8]) -> Floats:
    """(n, D) float64 features of pictures (n, H, W, 3), some at a time."""
    batches = []
    at_once = min(BATCH, max(BATCH_PIXELS // (pictures.shape[1] * pictures.shape[2]), 1))
    for start in range(0, len(pictures), at_once):
        images = torch.from_numpy(np.ascontiguousarray(pictures[start : start + at_once].transpose(0, 3, 1, 2)))
        batches.append(network(images).double().cpu().numpy())
    return np.concatenate(batches)


def in_units_of_truth(truth: Floats, generated: Floats) -> tuple[Floats, Floats]:
    """Both sets of features less the mean of the true ones, over their standard deviation.

    A deviation below a thousandth of the largest counts as that much: the feature is dead.
    """
    spread = truth.std(0)
    spread = np.maximum(spread, max(1e-3 * spread.max(), np.finfo(float).tiny))
    return (truth - truth.mean(0)) / spread, (generated - truth.mean(0)) / spread


def _inception_weights() -> Path:
    """The weights' file in torch's cache, fetched if it is not there, and shown to hold tensors alone.

    torch-fidelity unpickles what it is given; reading it once with `weights_only` proves that there is nothing to run.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / _INCEPTION_URL.rpartition("/")[2]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(_INCEPTION_URL, str(file), hash_prefix="6726825d", progress=False)
        except (OSError, RuntimeError) as error:
            raise CopgenError(
                f"The weights of Inception v3 can not be had: {error}.",
                hint=f"Put {file.name} into {file.parent}, or leave out --features inception.",
            ) from error
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an unpickler raises on a damaged or hostile file
        raise BrokenInputError(f"{file} is no file of weights.", hint="Delete it; it is fetched again.") from error
    return file
