"""The recipe of a small image autoencoder: what is minimised, on what, and a loop that can stop and go on anywhere.

A KL autoencoder (arXiv:2112.10752, section 3.1) without its adversary: mean absolute error, structural similarity over
three scales (Wang et al. 2003) and a light pull of the latents towards a standard normal. The learning rate is held and
then lowered over the last fifth (arXiv:2405.18392), so that a finished run can be prolonged from where it stands.

What is drawn depends on the seed and the number of the update alone: an interrupted run goes on as if it never was.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor, nn

from copgen_cli.errors import BrokenInputError, BusyError, MismatchError
from copgen_cli.modalities import Modality
from copgen_cli.model.autoencoder import ImageAutoencoder, to_signed, to_uint8

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings

Images = Mapping[Modality, Sequence[Path]]
"""RGB files by modality; every modality is drawn equally often."""

CROP = 128
"""Side in pixels of what most updates see."""
PATCH = 256
"""Side in pixels of what the last ones see, and of what the autoencoder is for."""
STATE_NAME = "training_state.pt"
METRICS_NAME = "metrics.jsonl"

_WARM_UP = 100  # updates
_FINISH = 0.2  # share of the updates that lower the learning rate
_EMA_RATE = 0.999
_SCALES = 3
_WINDOW = 8  # pixels
_MEASURED = 32  # images per modality that the scale and the quality are measured on


@dataclass(frozen=True, slots=True)
class Update:
    """One update of the weights, and what it cost."""

    step: int
    loss: float
    absolute: float
    """Mean absolute error in [-1, 1]."""
    structure: float
    """1 - structural similarity."""
    divergence: float
    """Mean nats per latent value."""
    lr: float


@dataclass(slots=True)
class TrainingState:
    """What a run carries from update to update."""

    model: AutoencoderKL
    ema: AutoencoderKL
    optimizer: torch.optim.AdamW
    step: int = 0


def build_autoencoder(channels: Sequence[int], seed: int) -> AutoencoderKL:
    """An untrained autoencoder with 4 latent channels, one layer per block and no attention.

    Raises:
        ValueError: the channels of a level are no multiple of 8.
    """
    if any(width % 8 for width in channels):
        raise ValueError(f"channels {tuple(channels)} are not all multiples of 8, the number of norm groups")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * len(channels),
            up_block_types=["UpDecoderBlock2D"] * len(channels),
            block_out_channels=list(channels),
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=4,
            sample_size=PATCH,
            scaling_factor=1.0,
            force_upcast=False,
            mid_block_add_attention=False,
        )


def structural_loss(image: Tensor, target: Tensor) -> Tensor:
    """1 - structural similarity, averaged over three scales.

    Contrast and structure are compared at every scale and brightness at the coarsest one, as Wang, Simoncelli and Bovik
    (2003, "Multiscale structural similarity") do; the scales are averaged rather than multiplied, because a product has
    no useful gradient where a correlation is negative. Windows are 8 px squares, every 4 px.

    Args:
        image, target: (B, C, H, W) in [-1, 1], H and W at least 32.

    Returns:
        Scalar from 0 (equal) to 2.
    """
    similarity = torch.zeros((), device=image.device)
    for scale in range(_SCALES):
        if scale:
            image, target = F.avg_pool2d(image, 2), F.avg_pool2d(target, 2)
        brightness, structure = _compare_windows(image, target)
        similarity = similarity + (structure if scale < _SCALES - 1 else brightness * structure).mean()
    return 1 - similarity / _SCALES


def _compare_windows(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness and contrast-structure terms of SSIM per window, for a data range of 2."""
    moments = torch.cat([image, target, image * image, target * target, image * target], dim=1)
    pooled = F.avg_pool2d(moments, _WINDOW, stride=_WINDOW // 2)
    mean_a, mean_b, square_a, square_b, product = pooled.chunk(5, dim=1)
    variances = square_a - mean_a**2 + square_b - mean_b**2
    covariance = product - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return brightness, (2 * covariance + c2) / (variances + c2)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, constant, then a linear fall to nothing over the last fifth; `step` counts from 0."""
    left = (steps - step) / max(1.0, _FINISH * steps)
    return peak * min(1.0, (step + 1) / _WARM_UP, left)


def draw_crops(images: Images, count: int, size: int, generator: np.random.Generator) -> Tensor:
    """Square crops at random places of random images of random modalities, turned and mirrored at random.

    Returns:
        (count, 3, size, size) uint8.

    Raises:
        BrokenInputError: an image cannot be read or is smaller than `size`.
    """
    modalities = sorted(images)
    crops = []
    for _ in range(count):
        files = images[modalities[int(generator.integers(len(modalities)))]]
        pixels = read_image(files[int(generator.integers(len(files)))], at_least=size)
        top, left = (generator.integers(side - size + 1) for side in pixels.shape[:2])
        crop = np.rot90(pixels[top : top + size, left : left + size], int(generator.integers(4)))
        crops.append(crop[:, ::-1] if generator.random() < 0.5 else crop)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def read_image(file: Path, *, at_least: int = 1, at_most: int = 4096) -> np.ndarray:
    """(H, W, 3) uint8 of an image file.

    Raises:
        BrokenInputError: it is no image, or a side is not within the limits in pixels.
    """
    try:
        with Image.open(file) as image:
            if not (at_least <= min(image.size) and max(image.size) <= at_most):
                raise BrokenInputError(
                    f"{file} is {image.size[0]} x {image.size[1]} px.", hint=f"Sides of {at_least} to {at_most} fit."
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenInputError(f"{file} cannot be read as an image: {error}.", hint="Prepare it again.") from error


def train_autoencoder(
    images: Images,
    settings: AutoencoderSettings,
    output: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    max_seconds: float = math.inf,
) -> Iterator[Update]:
    """Train, yielding every update; go on from the state in `output` if there is one.

    The state is written every `settings.save_every` updates and at the end; the autoencoder itself by
    `export_autoencoder`, which reads the state.

    Args:
        images: RGB files by modality, of at least 256 px a side.
        settings: the recipe; `steps` may grow between runs, nothing else may change.
        output: folder of state and metrics.
        device, dtype: where and in which arithmetic; weights are float32.
        max_seconds: begin no update after so long.

    Raises:
        MismatchError: the state in `output` was made by another recipe.
        BrokenInputError: an image or the state cannot be read.
        BusyError: another process trains into `output`.
    """
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with _alone_in(output):
        state = restore_state(output, settings, device)
        saved = state.step
        _forget_after(output / METRICS_NAME, state.step)
        while state.step < settings.steps and time.monotonic() - began < max_seconds:
            started = time.monotonic()
            update = _train_once(state, images, settings, device, dtype)
            _append(output / METRICS_NAME, asdict(update) | {"seconds": round(time.monotonic() - started, 3)})
            if state.step % settings.save_every == 0:
                save_state(state, settings, output)
                saved = state.step
            yield update
        if saved < state.step:
            save_state(state, settings, output)


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout:
        raise BusyError(
            f"Another process trains into {output}.", hint="Wait for it, or choose another --output."
        ) from None


def _train_once(
    state: TrainingState, images: Images, settings: AutoencoderSettings, device: torch.device, dtype: torch.dtype
) -> Update:
    generator = np.random.default_rng([settings.seed, state.step])
    finishing = state.step >= (1 - _FINISH) * settings.steps
    count, size = (max(1, settings.batch_size // 4), PATCH) if finishing else (settings.batch_size, CROP)
    target = to_signed(draw_crops(images, count, size, generator).to(device))
    noise = torch.Generator().manual_seed(int(generator.integers(2**63)))
    lr = learning_rate(state.step, settings.steps, settings.lr)

    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        posterior = state.model.encode(target).latent_dist
        drawn = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise).to(posterior.mean)
        image = state.model.decode(drawn).sample
    absolute = F.l1_loss(image.float(), target)
    structure = structural_loss(image.float(), target)
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
    loss = absolute + settings.structure_weight * structure + settings.kl_weight * divergence

    for group in state.optimizer.param_groups:
        group["lr"] = lr
    loss.backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    _follow(state.ema, state.model, min(_EMA_RATE, (1 + state.step) / (10 + state.step)))
    return Update(state.step, loss.item(), absolute.item(), structure.item(), divergence.item(), lr)


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, rate: float) -> None:
    for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - rate)


def restore_state(output: Path, settings: AutoencoderSettings, device: torch.device) -> TrainingState:
    """The state that a run left in `output`, or a new one.

    Raises:
        MismatchError: it was made by another recipe.
        BrokenInputError: it cannot be read.
    """
    model = build_autoencoder(settings.channels, settings.seed).to(device)
    ema = build_autoencoder(settings.channels, settings.seed).to(device).requires_grad_(False)
    state = TrainingState(model, ema, torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01))
    file = output / STATE_NAME
    if not file.is_file():
        return state
    saved = _read_state(file)
    _check_recipe(saved["recipe"], settings, output)
    model.load_state_dict(saved["model"])
    ema.load_state_dict(saved["ema"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step = saved["step"]
    return state


def finished_steps(output: Path) -> int:
    """How many updates the run in `output` has behind it; 0 where there is none."""
    return int(_read_state(output / STATE_NAME)["step"]) if (output / STATE_NAME).is_file() else 0


def forget_run(output: Path) -> None:
    """Remove the state and metrics of the run in `output`, if there is one."""
    for name in (STATE_NAME, METRICS_NAME):
        (output / name).unlink(missing_ok=True)


def save_state(state: TrainingState, settings: AutoencoderSettings, output: Path) -> None:
    """Write everything that the next update needs, complete or not at all."""
    values = {
        "step": state.step,
        "recipe": _recipe(settings),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    beside = output / f".{STATE_NAME}.part"
    with beside.open("wb") as stream:
        torch.save(values, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, output / STATE_NAME)


def export_autoencoder(images: Images, settings: AutoencoderSettings, output: Path, device: torch.device) -> float:
    """Write the averaged weights of the state in `output` as a diffusers folder there, with their measured scale.

    Returns:
        The scaling factor: one over the standard deviation of latents drawn for training images (arXiv:2112.10752,
        section D.1).
    """
    ema = restore_state(output, settings, device).ema
    generator = np.random.default_rng([settings.seed, 1 << 40])  # beyond any update's
    crops = [draw_crops({name: files}, _MEASURED, PATCH, generator) for name, files in sorted(images.items())]
    autoencoder = ImageAutoencoder(ema, device=device)
    moments = torch.cat([autoencoder.moments(piece) for crop in crops for piece in crop.split(8)])
    mean, log_variance = moments.chunk(2, dim=1)
    variance = mean.var() + log_variance.clamp(-30, 20).exp().mean()  # of a draw: between and within posteriors
    scale = 1 / math.sqrt(variance.item())
    ema.register_to_config(scaling_factor=scale)
    ema.save_pretrained(output)
    return scale


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


def spread(files: Sequence[Path], count: int = _MEASURED) -> list[Path]:
    """At most `count` of the files, evenly over their order."""
    every = max(1, len(files) // count)
    return list(files[::every])[:count]


def _recipe(settings: AutoencoderSettings) -> dict[str, Any]:
    """What decides the result; where and how often it is written does not."""
    return json.loads(settings.model_dump_json(exclude={"steps", "save_every", "device", "dtype"}))


def _check_recipe(saved: Mapping[str, Any], settings: AutoencoderSettings, output: Path) -> None:
    recipe = _recipe(settings)
    changed = [name for name in recipe if recipe[name] != saved.get(name)]
    if changed:
        told = ", ".join(f"{name} {saved.get(name)}, now {recipe[name]}" for name in changed)
        raise MismatchError(
            f"The run in {output} was begun with another recipe: {told}.",
            hint="Use the same settings, another --output, or --overwrite.",
        )


def _read_state(file: Path) -> dict[str, Any]:
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if {"step", "recipe", "model", "ema", "optimizer"} <= saved.keys():
            return saved
    except OSError:
        raise
    except Exception as error:  # on foreign bytes the unpickler raises whatever it stumbles over
        raise BrokenInputError(f"{file} is not a training state.", hint="Start afresh with --overwrite.") from error
    raise BrokenInputError(f"{file} is not a training state.", hint="Start afresh with --overwrite.")


def _append(file: Path, values: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(values) + "\n")


def _forget_after(file: Path, step: int) -> None:
    """Drop the metrics of updates that will be done again."""
    if not file.is_file():
        return
    kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    beside = file.with_name(f".{file.name}.part")
    beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(beside, file)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that a kill cut short
