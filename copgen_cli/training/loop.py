"""Training: one step, and the run that repeats it; what it does is a function of settings, data and the step's number.

The loss is that of UniDiffuser (arXiv:2303.06555, eq. 6).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from copgen_cli.errors import CopgenError, NotFiniteError
from copgen_cli.modalities import Modality
from copgen_cli.model import Denoiser, denoising_loss_parts
from copgen_cli.records import StopReason, TrainReport, ValidationReport
from copgen_cli.settings import TrainSettings
from copgen_cli.stages import Claims, World, gradients_stay_here, noticing_a_lost_process, prune, step_folder
from copgen_cli.training.data_order import DrawnSamples, Plan, TrainBatch, load_batches
from copgen_cli.training.optimisers import ema_decay, gradient_norm, learning_rate, scale_gradients
from copgen_cli.training.state import Identity, TrainState, save_state

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


Loss = Callable[[Denoiser, TrainBatch], Tensor]
"""What training makes smaller: of a network on a batch that lies on its device, (M, B) by modality and sample."""


def denoising(settings: TrainSettings) -> Loss:
    """The loss of ordinary training, as the settings weigh it."""

    def loss(net: Denoiser, batch: TrainBatch) -> Tensor:
        return denoising_loss_parts(
            net,
            batch.latents,
            batch.timesteps.unbind(),
            batch.noise,
            min_snr_gamma=settings.min_snr_gamma,
            pure_last_step=settings.pure_last_step,
        )

    return loss


class LostLoaderError(CopgenError):
    """A process that loads data ended without a word."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step computed, over all processes."""

    losses: tuple[float, ...]
    """Mean over the global batch, per modality."""
    grad_norm: float
    lr: float
    applied: bool
    """False where loss or gradient was not finite, and nothing was changed."""


def training_step(
    state: TrainState,
    batches: Iterable[TrainBatch],
    settings: TrainSettings,
    world: World | None = None,
    loss: Loss | None = None,
) -> StepResult:
    """One update from one global batch: gradients of the mean loss, the optimiser, then the averaged weights.

    Args:
        state: changed in place, its counters included.
        batches: this process's micro-batches, which over all processes make up `settings.batch_size` samples.
        settings: of the run; `mixed_precision` says in what the network computes.
        world: the processes of the run; None is this one alone.
        loss: None is the ordinary one of the settings.

    Returns:
        Losses and gradient norm as they are before the update.

    A loss or gradient that is not finite leaves weights, average and optimiser as they are, and is counted.
    """
    world = world or World(next(state.net.parameters()).device)
    loss = loss or denoising(settings)
    lr = learning_rate(state.step, settings)
    scale = state.loss_scale.value if state.loss_scale is not None else 1.0
    weight = world.size * scale / settings.batch_size  # processes average their gradients
    sums = torch.zeros(state.net.num_modalities, device=world.device)
    for batch, last in _marking_the_last(batches):
        moved = batch.to(world.device)
        with gradients_stay_here(state.model, world, last=last):
            with autocast(settings, world.device):
                parts = loss(state.model, moved)
            (parts.sum() * weight).backward()
        sums += parts.detach().sum(1)
    losses = tuple((world.sum(sums) / settings.batch_size).tolist())
    norm = float(gradient_norm(state.net)) / scale
    finite = isfinite(norm) and all(map(isfinite, losses))
    if finite:
        clipping = min(settings.clip / norm, 1.0) if settings.clip is not None and norm > 0 else 1.0
        scale_gradients(state.net, clipping / scale)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.step()
        state.average.update(ema_decay(state.step, settings))
    state.optimizer.zero_grad(set_to_none=True)
    if state.loss_scale is not None:
        state.loss_scale.update(overflowed=not finite)
    state.step += 1
    state.position += settings.batch_size
    state.skipped += not finite
    state.skipped_in_row = 0 if finite else state.skipped_in_row + 1
    return StepResult(losses, norm, lr, finite)


Validate = Callable[[TrainState, Callable[[], bool]], ValidationReport | None]
Preview = Callable[[TrainState, Callable[[], bool]], Path | None]
"""What is done between steps, on every process; interrupted, it gives None."""


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same throughout a run."""

    samples: DrawnSamples
    names: Sequence[str]
    """Of the samples, by index."""
    modalities: tuple[Modality, ...]
    """In the model's order."""
    identity: Identity
    settings: TrainSettings
    """Without anything left to choose: `micro_batch` and `mixed_precision` are told."""
    checkpoints: Path
    world: World
    workers: int = 0
    loss: Loss | None = None
    """None is the ordinary one of the settings."""
    validate: Validate | None = None
    preview: Preview | None = None
    record: Callable[[TrainReport], None] | None = None
    """Called with each step's report before its checkpoint is written: whatever was killed when, there is a record of
    every step up to the newest checkpoint."""
    claims: Claims | None = None
    """Of the run's folder: what they do not name is not replaced."""


def train(run: Run, state: TrainState, asked_to_stop: Callable[[], StopReason | None]) -> Iterator[TrainReport]:
    """Take steps until the run is done or asked to stop; a checkpoint is written then, and every so often before.

    Args:
        run: what stays the same.
        state: where to go on from; changed in place.
        asked_to_stop: looked at after every step, in every process; what one says, all do.

    Yields:
        A report per step, on every process; the last one says why the run stops.

    Raises:
        NotFiniteError: `stop_after_skipped` steps in a row had no finite loss and gradient.
        DiskFullError: a checkpoint did not fit; older ones are untouched.
        LostProcessError: another process is gone.
    """
    settings, world = run.settings, run.world
    share = settings.batch_size // world.size
    micro_batch = settings.micro_batch or share
    plan = Plan(settings.seed, len(run.names), settings.batch_size, micro_batch, rank=world.rank, processes=world.size)
    batches = load_batches(
        run.samples,
        plan.slots(state.step + 1, settings.steps, state.position),
        workers=run.workers,
        pin_memory=world.device.type == "cuda",
    )
    while state.step < settings.steps:
        started = time.monotonic()
        names = tuple(run.names[index] for index in plan.indices(state.position))
        with noticing_a_lost_process():
            result = training_step(state, _take(batches, plan.micro_batches), settings, world, run.loss)
        seconds = time.monotonic() - started
        report = TrainReport(
            step=state.step,
            steps=settings.steps,
            epoch=state.position / plan.size,
            names=names,
            loss=sum(result.losses),
            by_modality=dict(zip(run.modalities, result.losses, strict=True)),
            lr=result.lr,
            grad_norm=result.grad_norm,
            seconds=seconds,
            samples_per_second=settings.batch_size / seconds,
            skipped=state.skipped,
        )
        report = _between_steps(run, state, report, asked_to_stop)
        yield report
        if report.stopped is not None:
            return


def _take(batches: Iterator[TrainBatch], count: int) -> Iterator[TrainBatch]:
    for _ in range(count):
        try:
            yield next(batches)
        except (ConnectionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader"):
                raise
            raise LostLoaderError(
                "A process that loads data was killed, or hands over nothing any more.",
                hint="Too little memory or /dev/shm is a common cause: fewer --workers. The same command goes on.",
            ) from error


def _between_steps(
    run: Run, state: TrainState, report: TrainReport, asked_to_stop: Callable[[], StopReason | None]
) -> TrainReport:
    """Validate, draw a preview, record and save when it is time, and stop when anyone is asked to."""
    settings = run.settings
    give_up = state.skipped_in_row >= settings.stop_after_skipped
    stopped = _agree(asked_to_stop(), run.world) or (StopReason.FINISHED if state.step == settings.steps else None)
    if give_up:  # the last checkpoint stays the newest: this state would only fail again
        raise NotFiniteError(
            f"{state.skipped_in_row} steps in a row up to step {state.step} had no finite loss and gradient.",
            hint="Lower --lr, set clip, or train with --mixed-precision bf16; the weights were not touched by them.",
        )
    due_to_save = state.step % settings.save_every == 0 and not state.skipped_in_row  # none from a run of bad steps
    checkpoint = step_folder(run.checkpoints, state.step) if stopped is not None or due_to_save else None
    hurried = stopped not in (None, StopReason.FINISHED)

    def interrupted() -> bool:
        asked = asked_to_stop()
        return (_agree(asked, run.world) if run.world.is_sharded else asked) is not None  # shards work together

    def due(every: int) -> bool:
        return every > 0 and not hurried and (state.step % every == 0 or stopped is StopReason.FINISHED)

    try:
        validation = run.validate(state, interrupted) if run.validate and due(settings.validate_every) else None
        preview = run.preview(state, interrupted) if run.preview and due(settings.preview_every) else None
        report = replace(report, validation=validation, preview=preview, checkpoint=checkpoint, stopped=stopped)
        if run.record is not None:
            run.record(report)
    finally:  # what cannot be looked at, or recorded, is no reason to lose the steps
        if checkpoint is not None:
            save_checkpoint(run, state, checkpoint)
    return report


def save_checkpoint(run: Run, state: TrainState, folder: Path) -> None:
    """Write the state to the folder, then remove checkpoints that are no longer kept; all processes take part."""
    save_state(folder, state, run.identity, run.settings, run.world, run.claims)
    if run.world.is_main:
        prune(
            run.checkpoints,
            state.step,
            keep_last=run.settings.keep_last,
            milestone_every=run.settings.milestone_every,
            claims=run.claims,
        )
    run.world.wait()


def _agree(reason: StopReason | None, world: World) -> StopReason | None:
    """The reason that any process has to stop, the same on all of them."""
    if world.size == 1:
        return reason
    reasons = list(StopReason)
    votes = torch.zeros(len(reasons), device=world.device)
    if reason is not None:
        votes[reasons.index(reason)] = 1
    said = world.sum(votes).tolist()
    return next((each for each, votes_for in zip(reasons, said, strict=True) if votes_for), None)


def autocast(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """The context in which a network computes as `settings.mixed_precision` says."""
    dtype = _DTYPES.get(settings.mixed_precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def computing_dtype(settings: TrainSettings) -> torch.dtype:
    """In what a network that is not trained computes beside one that is."""
    return _DTYPES.get(settings.mixed_precision, torch.float32)


def _marking_the_last(batches: Iterable[TrainBatch]) -> Iterator[tuple[TrainBatch, bool]]:
    iterator = iter(batches)
    current = next(iterator)
    for following in iterator:
        yield current, False
        current = following
    yield current, True
