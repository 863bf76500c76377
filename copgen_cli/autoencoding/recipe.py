"""The recipe of a small autoencoder: one update, and a loop that can stop and go on anywhere.

A KL autoencoder (arXiv:2112.10752, section 3.1): what its subject says is minimised (see `pictures` and `rasters`), a
light pull of the latents towards a standard normal, and, for pictures that ask for it, an adversary. The learning rate
is held and then lowered over the last fifth (arXiv:2405.18392), so that a finished run can be prolonged from where it
stands.

What is drawn depends on the seed and the number of the update alone: an interrupted run goes on as if it never was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from copgen_cli.autoencoding.discriminator import Verdict, judge, with_adversary
from copgen_cli.autoencoding.pictures import Images, subject_of
from copgen_cli.autoencoding.state import (
    METRICS_NAME,
    TrainingState,
    adversarial_weight,
    alone_in,
    append_metrics,
    forget_metrics_after,
    forget_run,
    recipe_of,
    restore_state,
    save_state,
)
from copgen_cli.autoencoding.subject import Subject
from copgen_cli.errors import NotFiniteError

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings

GIVE_UP_AFTER = 20
"""Updates in a row without a finite loss and gradient."""

_WARM_UP = 100  # updates
_FINISH = 0.2  # share of the updates that lower the learning rate
_EMA_RATE = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of the weights, and what it cost."""

    step: int
    loss: float
    """Of all that is minimised but the adversary's, which is weighed anew in every update."""
    absolute: float | None = None
    """Mean absolute error in [-1, 1]; None, here and below, of what is not minimised."""
    colour: float | None = None
    """The same of averages over what one latent pixel covers."""
    linear: float | None = None
    """What is left of these averages by the best linear function of the latents."""
    structure: float | None = None
    """1 - structural similarity."""
    spectrum: float | None = None
    """Mean absolute difference of log10 power over spatial frequencies."""
    entropy: float | None = None
    """Cross-entropy of classes in nats per pixel."""
    divergence: float
    """Mean nats per latent value."""
    adversarial: float | None = None
    """How true the discriminator takes decoded pictures for, negated; None where there is none."""
    discriminator: float | None = None
    """Hinge loss of the discriminator: 1 is undecided, 0 tells all apart."""
    lr: float
    is_finite: bool
    """False where loss or gradient were not, and the weights were left alone."""


def learning_rate(step: int, steps: int, peak: float, *, since: int = 0) -> float:
    """Linear warm-up, constant, then a linear fall to nothing over the last fifth; `step` counts from 0.

    Args:
        since: the step at which the warm-up begins.
    """
    left = (steps - step) / max(1.0, _FINISH * steps)
    return peak * min(1.0, (step - since + 1) / _WARM_UP, left)


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
    subject = subject_of(patches)
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
    waits = 0 if state.adversary is None else settings.adversarial_after
    learns = state.step >= waits  # the autoencoder, not the discriminator alone

    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32), torch.set_grad_enabled(learns):
        with torch.set_grad_enabled(learns and not settings.frozen_encoder):
            posterior = state.model.encode(target).latent_dist
        drawn = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise).to(posterior.mean)
        decoded = state.model.decode(drawn).sample.float()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    errors, weights = subject.errors(decoded, target, mean, settings), subject.weights(settings)
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
    loss = settings.kl_weight * divergence + sum(weights[name] * error for name, error in errors.items())

    verdict, minimised = None, loss
    if state.adversary is not None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            verdict = judge(state.adversary.network, decoded, target)
        if learns:
            last_layer = state.model.decoder.conv_out.weight
            weight = adversarial_weight(settings, subject)
            minimised = with_adversary(loss, decoded, verdict, last_layer, weight)
    lr = learning_rate(state.step, settings.steps, settings.lr, since=waits if learns else 0)
    is_finite = _step(state, minimised if learns else None, verdict, lr)
    state.step += 1
    if is_finite and learns:
        _follow(state.ema, state.model, min(_EMA_RATE, (1 + state.step) / (10 + state.step)))
    told = {name: error.item() for name, error in errors.items()}
    if verdict is not None:
        told |= {"adversarial": verdict.adversarial.item(), "discriminator": verdict.hinge.item()}
    return Update(step=state.step, loss=loss.item(), divergence=divergence.item(), lr=lr, is_finite=is_finite, **told)


def _step(state: TrainingState, minimised: Tensor | None, verdict: Verdict | None, lr: float) -> bool:
    """Move all weights that learn, or none where a loss or a gradient is not finite.

    Returns:
        Whether they were moved.
    """
    learners: list[tuple[nn.Module, torch.optim.Optimizer, Tensor]] = []
    if minimised is not None:
        learners.append((state.model, state.optimizer, minimised))
    if verdict is not None and state.adversary is not None:
        learners.append((state.adversary.network, state.adversary.optimizer, verdict.hinge))
    is_finite = True
    for network, optimizer, loss in learners:
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss.backward(inputs=[weight for weight in network.parameters() if weight.requires_grad])
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        is_finite &= bool(loss.isfinite() & norm.isfinite())
    for _, optimizer, _ in learners:
        if is_finite:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return is_finite


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, rate: float) -> None:
    for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - rate)
