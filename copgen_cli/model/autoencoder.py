"""The frozen image autoencoder: loaded from anywhere; moments, draws from them, and pictures back.

It is the KL autoencoder of latent diffusion (arXiv:2112.10752, section 3.1) as diffusers computes it.

B batch, C latent channels, H and W pixels, f pixels per latent pixel along a side (8 for all released ones).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.model.bundled import BUNDLED_NAME, bundled_folder
from copgen_cli.model.weights import (
    DEFAULT_HUB,
    WEIGHTS_NAME,
    HubOptions,
    fetch_from_hub,
    find_in_folder,
    has_configuration,
    read_tensors,
    weight_patterns,
)
from copgen_cli.storage import local_source

if TYPE_CHECKING:  # diffusers takes as long to load as torch, and encoding that has nothing left to do needs none of it
    from diffusers import AutoencoderKL, AutoencoderTiny

DEFAULT_ID = "stabilityai/sd-vae-ft-ema"
"""Hub id of the autoencoder that the published model was trained with."""
PREVIEW_ID = "madebyollin/taesd"
"""Hub id of a small decoder for the latents of `DEFAULT_ID`."""
PUBLISHED_SCALE = 0.18215
"""Scale of its latents (arXiv:2112.10752, section D.1); a file under CompVis names carries none of its own."""
PUBLISHED_EMA = "model-50-ema.pth"
"""Weights in each folder of the autoencoders of COP-GEN (2026), as the hub has them."""
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")

_FOLDER_ON_THE_HUB = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)/(?P<folder>\w[\w.-]*)")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class ImageAutoencoder:
    """An `AutoencoderKL` as a pair of plain functions, frozen, with its scaling rule and a name for its weights."""

    def __init__(
        self,
        model: AutoencoderKL,
        *,
        source: str = "",
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = torch.float32,
    ) -> None:
        """Freeze `model` and move it to `device`.

        Args:
            model: the network; moved, not copied.
            source: where it came from, for manifests.
            dtype: arithmetic; weights stay in float32 under autocast for half precisions, and are float64 for float64.
                None leaves the weights in the dtype that they have, and computes in it.

        Raises:
            MismatchError: its latents are shifted or scaled by channel, which nothing here does.
        """
        _refuse_other_scalings(model, source)
        self.source = source
        self.dtype = model.dtype if dtype is None else dtype
        self.device = torch.device(device)
        if dtype is not None:
            model = model.double() if dtype == torch.float64 else model.float()
        self.model = model.to(device=self.device, memory_format=torch.channels_last).requires_grad_(False).eval()

    @property
    def scale_factor(self) -> float:
        """What a drawn latent is multiplied by, for about unit variance."""
        return float(self.model.config.scaling_factor)

    @property
    def latent_channels(self) -> int:
        """C."""
        return int(self.model.config.latent_channels)

    @property
    def channels(self) -> int:
        """Of what it encodes."""
        return int(self.model.config.in_channels)

    @property
    def reduction(self) -> int:
        """f: pixels per latent pixel along a side."""
        return reduction_of(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the scale and every tensor by name, in float32: the same whatever format it was loaded from."""
        return fingerprint(self.model)

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """Mean and log-variance of the latents of images.

        Args:
            images: (B, 3, H, W) uint8; H and W are multiples of f.

        Returns:
            (B, 2 C, H / f, W / f) float32 on the autoencoder's device: mean, then log-variance as the network gives it.

        Raises:
            ValueError: `images` is of another shape or dtype.
        """
        _check_images(images, self.reduction)
        return self.encode(to_signed(images.to(self.device)))

    @torch.no_grad()
    def encode(self, signed: Tensor) -> Tensor:
        """Mean and log-variance of the latents of values that are about in [-1, 1].

        Args:
            signed: (B, channels, H, W) on the autoencoder's device; H and W are multiples of f.

        Returns:
            (B, 2 C, H / f, W / f) float32: mean, then log-variance as the network gives it.
        """
        signed = signed.to(self.model.dtype, memory_format=torch.channels_last)
        with self._autocast():
            distribution = self.model.encode(signed).latent_dist
        return distribution.parameters.float().contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of scaled latents.

        Args:
            latents: (B, C, h, w), scaled as `draw_latents` scales them; any float dtype.

        Returns:
            (B, 3, f h, f w) float32 in [0, 1] on the autoencoder's device.
        """
        return to_unit(self.decode_values(latents)).contiguous()

    @torch.no_grad()
    def decode_values(self, latents: Tensor) -> Tensor:
        """As `decode`, but (B, channels, f h, f w) about in [-1, 1], not clipped."""
        unscaled = latents.to(self.device, self.model.dtype) / self.scale_factor
        with self._autocast():
            signed = self.model.decode(unscaled.to(memory_format=torch.channels_last)).sample
        return signed.float()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype in (torch.float16, torch.bfloat16):
            return torch.autocast(self.device.type, dtype=self.dtype)
        return nullcontext()


class PreviewDecoder:
    """A tiny decoder (`AutoencoderTiny`): a fast, rough look at latents while sampling.

    It takes the latents of the autoencoder it was distilled from as these are scaled, times its own `scaling_factor`
    (1 for the released ones); nothing is divided by 0.18215 first.
    """

    def __init__(self, model: AutoencoderTiny, *, source: str = "", device: str | torch.device = "cpu") -> None:
        self.source = source
        self.device = torch.device(device)
        self.model = model.to(self.device).requires_grad_(False).eval()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, f h, f w) float32 in [0, 1] of scaled latents (B, C, h, w)."""
        scaled = latents.to(self.device, self.model.dtype) * self.model.config.scaling_factor
        return to_unit(self.model.decode(scaled).sample.float())


def reduction_of(model: AutoencoderKL) -> int:
    """f: pixels per latent pixel along a side."""
    return int(2 ** (len(model.config.block_out_channels) - 1))


def draw_latents(moments: Tensor, noise: Tensor, scale_factor: float) -> Tensor:
    """Draw scaled latents from moments: `scale (mean + exp(clip(logvar, -30, 20) / 2) noise)`.

    Args:
        moments: (..., 2 C, h, w) mean, then log-variance.
        noise: (..., C, h, w) standard normal.
        scale_factor: the autoencoder's.

    Returns:
        (..., C, h, w) in the dtype of `moments`.

    Raises:
        ValueError: `noise` does not have half the channels of `moments`.
    """
    mean, log_variance = moments.chunk(2, dim=-3)
    if noise.shape != mean.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {tuple(mean.shape)}")
    deviation = (log_variance.clamp(-30.0, 20.0) / 2).exp()
    return scale_factor * (mean + deviation * noise)


def to_signed(images: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1], as the networks take them: v / 127.5 - 1."""
    return images.float().div(127.5).sub(1.0)


def to_unit(signed: Tensor) -> Tensor:
    """[-1, 1], and what a decoder overshoots, to [0, 1]."""
    return signed.add(1.0).mul(0.5).clamp(0.0, 1.0)


def to_uint8(unit: Tensor) -> Tensor:
    """[0, 1] to uint8, rounding half up: floor(255 u + 0.5)."""
    return unit.mul(255.0).add(0.5).clamp(0.0, 255.0).to(torch.uint8)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 in hexadecimal of an autoencoder's scale and its tensors in float32, sorted by name."""
    digest = hashlib.sha256(f"scaling_factor={float(model.config.scaling_factor)!r}\n".encode())  # type: ignore[union-attr, arg-type]
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_autoencoder(
    source: str | Path = DEFAULT_ID,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    scale_factor: float | None = None,
) -> ImageAutoencoder:
    """Load the autoencoder, frozen and ready.

    Args:
        source: a hub id, also with a folder of the repository (`owner/name/folder`); a diffusers folder, also a
            pipeline's with a `vae/`; a `.safetensors`, `.pth`, `.pt` or `.ckpt` file under CompVis tensor names, read
            without executing anything, and of a training checkpoint the average; a folder that holds one such file; or
            "copgen-sim", the one in the package.
        device: where it runs.
        dtype: arithmetic; see `ImageAutoencoder`.
        scale_factor: of its latents, where the file does not say; None is as configured, or the published one.

    Raises:
        CopgenError: there is no such source, or the hub cannot be reached and has not been before.
        BrokenInputError: a file is cut short, of another format, or needs more than weights.
        MismatchError: the tensors are not those of one autoencoder.
    """
    model = read_autoencoder(source)
    if scale_factor is not None:
        model.register_to_config(scaling_factor=scale_factor)
    return ImageAutoencoder(model, source=str(source), device=device, dtype=dtype)


def read_autoencoder(
    source: str | Path,
    variant: str | None = None,
    hub: HubOptions = DEFAULT_HUB,
) -> AutoencoderKL:
    """The network that `load_autoencoder` wraps, in float32 and eval mode; of a variant, see `find_weights`."""
    path = Path(local_source(source)).expanduser()
    if str(source) == BUNDLED_NAME:
        return _read_folder(bundled_folder())
    if path.is_file():
        return _read_folder(path.parent, variant) if path.name == WEIGHTS_NAME else _read_compvis(path)
    if path.is_dir():
        return _read_folder(path, variant)
    names = ["config.json", *weight_patterns(variant)]
    if (inside := _FOLDER_ON_THE_HUB.fullmatch(str(source))) is not None:
        wanted = [f"{inside['folder']}/{name}" for name in (PUBLISHED_EMA, *names)]
        return _read_folder(fetch_from_hub(inside["id"], wanted, hub) / inside["folder"], variant)
    inner = [] if str(source) == DEFAULT_ID else [f"vae/{name}" for name in names]
    return _read_folder(fetch_from_hub(str(source), [*names, *inner], hub), variant)


def load_preview_decoder(source: str | Path = PREVIEW_ID, *, device: str | torch.device = "cpu") -> PreviewDecoder:
    """Load an `AutoencoderTiny` for previews from a hub id or a diffusers folder.

    Raises:
        CopgenError: there is no such source, or the hub cannot be reached and has not been before.
        BrokenInputError: the folder does not hold one.
    """
    from diffusers import AutoencoderTiny

    path = Path(local_source(source)).expanduser()
    folder = path if path.is_dir() else fetch_from_hub(str(source), ["config.json", WEIGHTS_NAME])
    config = _read_config(folder / "config.json", "AutoencoderTiny")
    model = AutoencoderTiny.from_config(config)
    _fill(model, read_tensors(folder / WEIGHTS_NAME), folder)
    return PreviewDecoder(model, source=str(source), device=device)


def _read_folder(folder: Path, variant: str | None = None) -> AutoencoderKL:
    home = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    weights = find_in_folder(home, variant)
    if weights is None:
        return _read_compvis(_only_file(folder, variant))
    if not (home / "config.json").is_file():
        raise _no_autoencoder(folder, variant)
    config = _read_config(home / "config.json", "AutoencoderKL")
    tensors = {_new_name(name): tensor for name, tensor in read_tensors(weights).items()}
    return _assemble(config, tensors, weights)


def _only_file(folder: Path, variant: str | None) -> Path:
    """The one file of weights in a folder that is none of diffusers'.

    Raises:
        BrokenInputError: there is none, or there are several.
    """
    files = sorted(file for file in folder.glob("*") if file.suffix in WEIGHT_SUFFIXES and not has_configuration(file))
    if len(files) > 1:
        raise BrokenInputError(
            f"{folder} holds several files of weights: {', '.join(file.name for file in files[:3])}.",
            hint="Give the one that is meant.",
        )
    if not files:
        raise _no_autoencoder(folder, variant)
    return files[0]


def _no_autoencoder(folder: Path, variant: str | None) -> BrokenInputError:
    return BrokenInputError(
        f"{folder} holds no autoencoder.",
        hint=f"Looked for config.json and {weight_patterns(variant)[0]}, there and in vae/, and for one file of "
        "weights under CompVis names.",
    )


def _read_compvis(path: Path) -> AutoencoderKL:
    """An autoencoder under CompVis names, alone, with the loss that it was trained by, or inside a latent diffusion
    checkpoint; sizes are read off it."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    tensors = read_tensors(path)
    for prefix in ("first_stage_model.", "vae."):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    config = _config_of(tensors, path)
    return _assemble(config, convert_ldm_vae_checkpoint(tensors, config), path)


def _config_of(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The configuration that CompVis tensors tell; norm groups and activation are those of all released ones."""
    levels = _count(tensors, r"encoder\.down\.(\d+)\.block\.")
    layers = _count(tensors, r"encoder\.down\.0\.block\.(\d+)\.")
    try:
        channels = [
            tensors[f"encoder.down.{level}.block.{layers - 1}.conv2.weight"].shape[0] for level in range(levels)
        ]
        latent_channels = tensors["decoder.conv_in.weight"].shape[1]
        in_channels = tensors["encoder.conv_in.weight"].shape[1]
    except KeyError as error:
        raise MismatchError(
            f"{path} is not an autoencoder under CompVis names: {error.args[0]} is missing.",
            hint=f"It has {len(tensors)} tensors, such as {', '.join(list(tensors)[:3])}; diffusers' own go by folder.",
        ) from error
    return {
        "in_channels": in_channels,
        "out_channels": in_channels,
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": layers,
        "latent_channels": latent_channels,
        "sample_size": 256,
        "scaling_factor": PUBLISHED_SCALE,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in tensors,
    }


def _assemble(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    scale, layers = config.get("scaling_factor", PUBLISHED_SCALE), config.get("layers_per_block", 1)
    known = isinstance(scale, int | float) and isinstance(layers, int)
    if not known or not 0 < scale < math.inf or layers > len(tensors):
        raise MismatchError(
            f"{source}: a scaling_factor of {scale} with {layers} layers per block is no autoencoder's.",
            hint="Restore the configuration of these weights.",
        )
    try:
        with torch.device("meta"):  # no memory and no initialisation: the tensors of the file become the parameters
            model = AutoencoderKL.from_config(dict(config))
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise MismatchError(f"{source}: {error}.", hint="Restore the configuration of these weights.") from error
    _fill(model, tensors, source)
    return model.eval()


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Make the tensors the model's parameters, in float32, if they fit one and all."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    complaints = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "mis-shaped": [n for n, shape in expected.items() if n in tensors and tuple(tensors[n].shape) != shape],
    }
    said = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in complaints.items() if names]
    if said:
        raise MismatchError(
            f"The tensors of {source} are not those of one autoencoder: {'; '.join(said)}.",
            hint="Give its weights complete, with the configuration that was written with them.",
        )
    model.load_state_dict({name: tensor.float().contiguous() for name, tensor in tensors.items()}, assign=True)


def _read_config(path: Path, class_name: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenInputError(f"{path} is not a configuration: {error}.", hint="Fetch the model again.") from error
    if not isinstance(config, dict) or config.get("_class_name", class_name) != class_name:
        found = config.get("_class_name") if isinstance(config, dict) else type(config).__name__
        raise BrokenInputError(f"{path} describes a {found}, not an {class_name}.", hint="Give the autoencoder's own.")
    return config


def _new_name(name: str) -> str:
    """Attention tensors that diffusers before 0.12 saved, sd-vae-ft-ema's among them, have been renamed since."""
    head, dot, tail = name.rpartition(".")
    block, inner_dot, last = head.rpartition(".")
    return f"{block}{inner_dot}{_OLD_ATTENTION.get(last, last)}{dot}{tail}" if ".attentions." in name else name


def _count(names: Mapping[str, Any], pattern: str) -> int:
    return len({match[1] for match in (re.match(pattern, name) for name in names) if match})


def _refuse_other_scalings(model: AutoencoderKL, source: str) -> None:
    if model.config.shift_factor or model.config.latents_mean is not None or model.config.latents_std is not None:
        raise MismatchError(
            f"The latents of the autoencoder {source} are shifted or scaled channel by channel.",
            hint=f"Use one with a single scaling factor, such as {DEFAULT_ID}.",
        )


def _check_images(images: Tensor, reduction: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, expected uint8 (batch, 3, height, width)")
    if images.shape[-1] % reduction or images.shape[-2] % reduction:
        raise ValueError(f"images of {images.shape[-2]} x {images.shape[-1]} are not multiples of {reduction} pixels")
