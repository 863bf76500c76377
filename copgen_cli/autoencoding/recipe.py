"""The recipe of a small autoencoder: what is minimised of pictures, and a loop that can stop and go on anywhere.

A KL autoencoder (arXiv:2112.10752, section 3.1) without its adversary: mean absolute error, structural similarity over
three scales (Wang et al. 2003) and a light pull of the latents towards a standard normal. The mean absolute error
counts a second time for averages over what one latent pixel covers: without that, four channels go to light and shade,
and the colours that tell one ground from another come out grey. The learning rate is held and then lowered over the
last fifth (arXiv:2405.18392), so that a finished run can be prolonged from where it stands.

What is drawn depends on the seed and the number of the update alone: an interrupted run goes on as if it never was.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from copgen_cli import __version__
from copgen_cli.autoencoding.state import (
    METRICS_NAME,
    PATCH,
    STATE_NAME,
    TrainingState,
    alone_in,
    append_metrics,
    check_recipe,
    forget_metrics_after,
    forget_run,
    read_state,
    recipe_of,
    restore_state,
    save_state,
)
from copgen_cli.autoencoding.structural_similarity import structural_loss
from copgen_cli.autoencoding.subject import Architecture, Subject
from copgen_cli.errors import BrokenInputError, NotFiniteError
from copgen_cli.layout import autoencoder_recipe
from copgen_cli.modalities import Modality
from copgen_cli.model import WEIGHTS_NAME, ImageAutoencoder, read_autoencoder, to_signed, to_uint8
from copgen_cli.stages import (
    PRIVATE_FOLDER,
    Claims,
    disk_full_is_an_error,
    put_in_place,
    share_files,
    write_atomically,
)
from copgen_cli.storage import readable

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings

T = TypeVar("T")

Images = Mapping[Modality, Sequence[Path]]
"""RGB files by modality; every modality is drawn equally often."""

CROP = 128
"""Side in pixels of what most updates see."""

GIVE_UP_AFTER = 20
"""Updates in a row without a finite loss and gradient."""

_WARM_UP = 100  # updates
_FINISH = 0.2  # share of the updates that lower the learning rate
_EMA_RATE = 0.999
_MEASURED = 32  # images per modality that the scale and the quality are measured on


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of the weights, and what it cost."""

    step: int
    loss: float
    absolute: float | None = None
    """Mean absolute error in [-1, 1]; None, here and below, of what is not minimised."""
    colour: float | None = None
    """The same of averages over what one latent pixel covers."""
    linear: float | None = None
    """What is left of these averages by the best linear function of the latents."""
    structure: float | None = None
    """1 - structural similarity."""
    entropy: float | None = None
    """Cross-entropy of classes in nats per pixel."""
    divergence: float
    """Mean nats per latent value."""
    lr: float
    is_finite: bool
    """False where loss or gradient were not, and the weights were left alone."""


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

    def errors(self, decoded: Tensor, target: Tensor, means: Tensor) -> dict[str, Tensor]:
        reduction = target.shape[-1] // means.shape[-1]
        wanted = F.avg_pool2d(target, reduction)
        return {
            "absolute": F.l1_loss(decoded, target),
            "colour": F.l1_loss(F.avg_pool2d(decoded, reduction), wanted),
            "linear": unexplained(wanted, means),
            "structure": structural_loss(decoded, target),
        }

    def weights(self, settings: AutoencoderSettings) -> Mapping[str, float]:
        return {
            "absolute": 1.0,
            "colour": settings.colour_weight,
            "linear": settings.linear_weight,
            "structure": settings.structure_weight,
        }

    def measured(self, count: int, generator: np.random.Generator) -> Iterator[Tensor]:
        for name, files in sorted(self.images.items()):
            yield to_signed(draw_crops({name: files}, count, PATCH, generator))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, constant, then a linear fall to nothing over the last fifth; `step` counts from 0."""
    left = (steps - step) / max(1.0, _FINISH * steps)
    return peak * min(1.0, (step + 1) / _WARM_UP, left)


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


def train_autoencoder(
    patches: Images | Subject,
    settings: AutoencoderSettings,
    output: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    overwrite: bool = False,
    asked_to_stop: Callable[[], object] = lambda: None,
) -> Iterator[Update]:
    """Train, yielding every update; go on from the state in `output` if there is one.

    The state is written every `settings.save_every` updates and at the end; the autoencoder itself by
    `export_autoencoder`, which reads the state.

    Args:
        patches: RGB files by modality, of at least `PATCH` px a side; or those of a raster.
        settings: the recipe; `steps` may grow between runs, nothing else may change.
        output: folder of state and metrics.
        device, dtype: where and in which arithmetic; weights are float32.
        overwrite: forget the run in `output` first.
        asked_to_stop: looked at after every update; anything true ends the run, with its state written.

    Raises:
        NotFiniteError: `GIVE_UP_AFTER` updates in a row had no finite loss and gradient; they are not in the state.
        DiskFullError: there is no room for the state; the last one is untouched.
        MismatchError: the state in `output` was made by another recipe.
        BrokenInputError: a patch or the state cannot be read.
        BusyError: another process trains into `output`.
        MismatchError: `output` holds what copgen did not write, under a name that a run writes.
    """
    subject = _subject_of(patches)
    recipe = recipe_of(settings, subject)
    with alone_in(output) as claims:
        if overwrite:
            forget_run(output, claims)
        state = restore_state(output, settings, subject, device)
        saved, skipped = state.step, 0
        forget_metrics_after(output / METRICS_NAME, state.step, claims)
        while state.step < settings.steps and not asked_to_stop():
            started = time.monotonic()
            update = _train_once(state, subject, settings, device, dtype)
            skipped = 0 if update.is_finite else skipped + 1
            if skipped == GIVE_UP_AFTER:
                raise NotFiniteError(
                    f"{skipped} updates in a row up to {state.step} had no finite loss and gradient.",
                    hint="Lower autoencoder.lr; the same command goes on from the last state that was saved.",
                )
            told = {name: value for name, value in asdict(update).items() if value is not None}
            append_metrics(output / METRICS_NAME, told | {"seconds": round(time.monotonic() - started, 3)})
            if state.step % settings.save_every == 0 and not skipped:
                save_state(state, recipe, output, claims)
                saved = state.step
            yield update
        if saved < state.step:
            save_state(state, recipe, output, claims)


def _subject_of(patches: Images | Subject) -> Subject:
    return Pictures(patches) if isinstance(patches, Mapping) else patches


def _train_once(
    state: TrainingState, subject: Subject, settings: AutoencoderSettings, device: torch.device, dtype: torch.dtype
) -> Update:
    generator = np.random.default_rng([settings.seed, state.step])
    crop, whole = subject.sides(settings)
    finishing = state.step >= (1 - _FINISH) * settings.steps
    smaller = max(1, settings.batch_size * crop**2 // whole**2)  # about as many pixels
    count, size = (smaller, whole) if finishing else (settings.batch_size, crop)
    target = subject.draw(count, size, settings, generator).to(device)
    noise = torch.Generator().manual_seed(int(generator.integers(2**63)))
    lr = learning_rate(state.step, settings.steps, settings.lr)

    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        with torch.set_grad_enabled(not settings.frozen_encoder):
            posterior = state.model.encode(target).latent_dist
        drawn = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise).to(posterior.mean)
        decoded = state.model.decode(drawn).sample
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    errors, weights = subject.errors(decoded.float(), target, mean), subject.weights(settings)
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
    loss = settings.kl_weight * divergence + sum(weights[name] * error for name, error in errors.items())

    for group in state.optimizer.param_groups:
        group["lr"] = lr
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    is_finite = bool(loss.isfinite() & norm.isfinite())
    if is_finite:
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if is_finite:
        _follow(state.ema, state.model, min(_EMA_RATE, (1 + state.step) / (10 + state.step)))
    return Update(
        step=state.step,
        loss=loss.item(),
        divergence=divergence.item(),
        lr=lr,
        is_finite=is_finite,
        **{name: error.item() for name, error in errors.items()},
    )


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


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, rate: float) -> None:
    for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - rate)


def is_finished(patches: Images | Subject, settings: AutoencoderSettings, output: Path) -> bool:
    """Whether the run in `output` has all updates behind it, and the autoencoder that they made is written.

    Raises:
        MismatchError: it was made by another recipe.
        BrokenInputError: its state cannot be read.
    """
    if not (output / STATE_NAME).is_file():
        return False
    saved = read_state(output / STATE_NAME)
    check_recipe(saved["recipe"], recipe_of(settings, _subject_of(patches)), output)
    try:
        written = json.loads(autoencoder_recipe(output).read_text(encoding="utf-8"))["recipe"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(saved["step"] == written and written >= settings.steps and (output / WEIGHTS_NAME).is_file())


def export_autoencoder(
    patches: Images | Subject, settings: AutoencoderSettings, output: Path, device: torch.device
) -> float:
    """Write the averaged weights of the state in `output` as a diffusers folder there, with their measured scale.

    They are rounded to float16 first, which halves the file and is far below what training resolves, so that whatever
    folder they are copied to later, they are the same weights. `recipe.json` beside them says how they were made.

    Returns:
        The scaling factor: one over the standard deviation of latents drawn for training images (arXiv:2112.10752,
        section D.1).
    """
    with alone_in(output) as claims:
        return _export(_subject_of(patches), settings, output, device, claims)


def _export(
    subject: Subject, settings: AutoencoderSettings, output: Path, device: torch.device, claims: Claims
) -> float:
    state = restore_state(output, settings, subject, device)
    ema = state.ema.half().float()
    generator = np.random.default_rng([settings.seed, 1 << 40])  # beyond any update's
    autoencoder = ImageAutoencoder(ema, device=device)
    pieces = (piece for drawn in subject.measured(_MEASURED, generator) for piece in drawn.split(8))
    moments = torch.cat([autoencoder.encode(piece.to(device)) for piece in pieces])
    mean, log_variance = moments.chunk(2, dim=1)
    variance = mean.var() + log_variance.clamp(-30, 20).exp().mean()  # of a draw: between and within posteriors
    scale = 1 / math.sqrt(variance.item())
    if settings.frozen_encoder and settings.init_from is not None:
        scale = float(read_autoencoder(settings.init_from).config.scaling_factor)  # of the same latents
    ema.register_to_config(scaling_factor=scale)
    with disk_full_is_an_error(output), tempfile.TemporaryDirectory(dir=output / PRIVATE_FOLDER) as folder:
        beside = Path(folder, "vae")  # made with the permissions that the user's umask gives
        ema.half().save_pretrained(beside)
        share_files(beside)
        put_in_place({output / file.name: file for file in beside.iterdir()}, claims)
    recipe = settings.model_dump(mode="json", exclude={"save_every", "max_time", *subject.unused})
    recipe |= {"steps": state.step, "of": settings.steps, **subject.identity()}
    facts = {"copgen": __version__, "recipe": recipe, "images": dict(subject.counts), "scaling_factor": scale}
    write_atomically(autoencoder_recipe(output), (json.dumps(facts, indent=2) + "\n").encode(), claims)
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


def spread(files: Sequence[T], count: int = _MEASURED) -> list[T]:
    """At most `count` of the files, evenly over their order."""
    every = max(1, len(files) // count)
    return list(files[::every])[:count]
