"""Which model answers, and how it is loaded and told from others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from copgen_cli.errors import CopgenError
from copgen_cli.layout import model_folder, run_folder
from copgen_cli.modalities import BETA, Modality
from copgen_cli.model import (
    BUNDLED_NAME,
    Autoencoders,
    CopGenTransformer,
    ImageAutoencoder,
    bundled_folder,
    modalities_of,
)
from copgen_cli.pipeline import INDEX_NAME, find_parts
from copgen_cli.settings import Preset
from copgen_cli.storage import as_path, is_remote, reach


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model, and why it is this one."""

    source: str
    reason: str | None = None
    """None where the user named it."""
    of_region: bool = False
    """Whether a run of the region made it."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    source: str
    net: CopGenTransformer
    autoencoders: Autoencoders
    modalities: tuple[Modality, ...]
    sha256: str
    """Of all weights, whatever format they came in."""

    @property
    def autoencoder(self) -> ImageAutoencoder:
        """Of a model that knows pictures alone.

        Raises:
            MismatchError: it knows others.
        """
        return self.autoencoders.require_pictures(self.source)

    @property
    def picture_side(self) -> int:
        """Pixels along a side of its pictures, or of the largest raster where it has none."""
        sides = {
            modality.spec.is_picture: self.autoencoders.side_of(modality, shape[1])
            for modality, shape in sorted(
                zip(self.modalities, self.net.latent_shapes, strict=True), key=lambda pair: pair[1][1]
            )
        }
        return sides.get(True) or sides[False]


def choose_model(named: str | None, runs_dir: Path, region: str, family: str = BETA.name) -> ModelChoice:
    """The named model; else the newest finished one trained on the region; else the one in the package.

    A run counts as the region's where it lies in a folder that --workdir did not name: other names say nothing.

    Raises:
        CopgenError: none is named, none was trained, and the package comes without one.
    """
    runs = [run_folder(runs_dir, region, preset, family) for preset in Preset]
    if named is not None:
        place = as_path(named).expanduser().resolve()
        of_region = any(place.is_relative_to(run.resolve()) for run in runs if is_remote(run) == is_remote(place))
        return ModelChoice(named, of_region=of_region)
    reach(runs_dir)
    folders = [model_folder(run) for run in runs]
    trained = [folder for folder in folders if (folder / INDEX_NAME).is_file()]
    if trained:
        newest = max(trained, key=lambda folder: ((folder / INDEX_NAME).stat().st_mtime_ns, folder.name))
        return ModelChoice(newest.as_posix(), f"the newest model trained on {region}", of_region=True)
    if family != BETA.name:
        raise CopgenError(
            f"There is no model of the family {family} that was trained on {region}.",
            hint="Train one, or name it with --model.",
        )
    bundled_folder()
    return ModelChoice(
        BUNDLED_NAME, f"no model trained on {region} in {runs_dir}; the package's own knows a simulated Earth alone"
    )


_YOUNGER = {"latent_shapes": None, "patch_sizes": None, "rescale_betas_zero_snr": False, "distilled_steps": None}
"""Settings of networks that models had not when the first of their hashes were written down, as they were then."""


def _settings_of(net: CopGenTransformer) -> list[tuple[str, Any]]:
    """What a network is made with, for the hash of a model: younger settings count where they say something."""
    settings = {key: value for key, value in net.config.items() if not key.startswith("_")}
    return sorted((key, value) for key, value in settings.items() if key not in _YOUNGER or value != _YOUNGER[key])


def load_model(
    source: str, *, device: torch.device, dtype: torch.dtype, autoencoder_dtype: torch.dtype | None = None
) -> LoadedModel:
    """The network in `dtype` on `device`, its autoencoder (in the same where None), and the modalities it knows.

    Raises:
        CopgenError: there is no such model.
        MismatchError: it does not say which modalities it has.
    """
    parts = find_parts(source)
    net = parts.load_transformer()
    modalities = modalities_of(net)
    autoencoders = parts.load_autoencoders(modalities, device=device, dtype=autoencoder_dtype or dtype)
    digest = hashlib.sha256(autoencoders.fingerprint(modalities).encode())
    digest.update(json.dumps(_settings_of(net), default=list).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    nn.Module.to(net, device, dtype)  # the method of diffusers warns of modules to keep in float32; this has none
    return LoadedModel(source, net, autoencoders, modalities, digest.hexdigest())
