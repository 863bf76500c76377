"""From settings and data to a run that can take its first step, or its next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from copgen_cli.errors import CopgenError, MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.model import (
    PUBLISHED_LAW,
    CopGenTransformer,
    TimestepLaw,
    choose_micro_batch,
    denoising_loss_parts,
    load_transformer,
    modalities_of,
    prediction_of,
    shrink_until_it_fits,
    warn_of_imitation,
)
from copgen_cli.records import LatentSpec, Optimizer, Prediction, ValidationReport
from copgen_cli.settings import TrainSettings
from copgen_cli.stages import World, gradients_stay_here
from copgen_cli.training.data_order import DrawnSamples, MomentsDataset
from copgen_cli.training.distillation.loss import Distillation
from copgen_cli.training.distillation.teacher import begin_distillation, law_of_students
from copgen_cli.training.loop import Run, Validate, autocast, computing_dtype
from copgen_cli.training.new_network import make_network
from copgen_cli.training.resumption import (
    Resumption,
    agree_on_resumption,
    changed_settings,
    find_resumption,
    named_checkpoint,
)
from copgen_cli.training.state import Identity, TrainState, load_state
from copgen_cli.training.validation import validate

VALIDATION_SEED = 0
"""Of the noise and timesteps of validations: the same in every run, so that runs compare."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run, and the state it goes on from."""

    run: Run
    state: TrainState
    resumption: Resumption
    changed: Mapping[str, tuple[Any, Any]]
    """Settings that are not as they were when the run was last at work: name to (then, now)."""


def prepare_run(
    train_data: MomentsDataset,
    test_data: MomentsDataset | None,
    spec: LatentSpec,
    settings: TrainSettings,
    checkpoints: Path,
    world: World,
    *,
    afresh: bool = False,
) -> Prepared:
    """Make network and optimiser, and fill them from the checkpoint that `settings.resume` stands for.

    Every process of the run calls it; the main one looks for the checkpoint. `afresh` takes those in `checkpoints` for
    gone, as they will be.

    Raises:
        MismatchError: the data lacks a modality, or the run was trained with other ones, another optimiser or another
            prediction.
        UsageError: the run began with another `init_from`, or the settings do not fit one another.
        CopgenError: as `check_amounts`, `find_resumption`, `make_network` and `load_state` say.
    """
    check_amounts(len(train_data.names), settings, world.size)
    modalities = settings.modalities or spec.modalities
    law = timestep_law(settings, modalities)
    train_data = train_data.select(modalities)
    found = _where_to_begin(checkpoints, settings.resume, afresh=afresh) if world.is_main else None
    resumption = agree_on_resumption(found, world)
    facts = resumption.facts
    settings = settings.model_copy(update={"mixed_precision": choose_precision(settings.mixed_precision, world.device)})
    before = facts.get("settings", {})
    net = _make_network(resumption, before, spec, settings, modalities).to(world.device)
    _check_optimizer(before, settings, world)
    distillation = begin_distillation(settings, modalities, world.device, computing_dtype(settings))
    if settings.optimizer is Optimizer.MUON:
        warn_of_imitation(world.device)  # torch orthogonalises in bfloat16
    finds_what_fits = settings.micro_batch is None and world.device.type == "cuda" and not world.is_sharded
    if settings.micro_batch is None and facts.get("processes") == world.size:
        settings = settings.model_copy(update={"micro_batch": before["micro_batch"]})  # sums round the same
    micro_batch = choose_micro_batch(net, settings, settings.batch_size // world.size, world.device)
    _configure(net, settings)
    state = TrainState.begin(net, settings, world)
    if finds_what_fits:  # also where the run was on a larger device before
        micro_batch = shrink_until_it_fits(micro_batch, lambda size: _try_once(state, settings, world, size))
    settings = settings.model_copy(update={"micro_batch": world.smallest(micro_batch)})
    identity = identity_of(net, spec)
    if resumption.folder is not None:
        load_state(resumption.folder, state, identity)
    run = Run(
        samples=DrawnSamples(train_data, spec.scales(modalities), settings.seed, law),
        names=train_data.names,
        modalities=modalities,
        identity=identity,
        settings=settings,
        checkpoints=checkpoints,
        world=world,
        workers=settings.workers if settings.workers is not None else 4 if world.device.type == "cuda" else 0,
        loss=distillation,
        validate=_validation(train_data, test_data, spec, settings, modalities, world, distillation),
    )
    return Prepared(run, state, resumption, changed_settings(before, settings) if before else {})


def _make_network(
    resumption: Resumption,
    before: Mapping[str, Any],
    spec: LatentSpec,
    settings: TrainSettings,
    modalities: Sequence[Modality],
) -> CopGenTransformer:
    """The network of a run that begins, or one of the shape that its checkpoint has."""
    if resumption.folder is not None and settings.init_from is not None:
        _check_source(before, settings)
        net = load_transformer(resumption.folder / "transformer")  # widened when the run began
        _check_network(net, settings, modalities)
    else:
        net = make_network(spec, settings)
    if settings.pure_last_step and prediction_of(net) is Prediction.NOISE:
        raise UsageError(
            "pure_last_step needs a network that predicts velocities: the noise it would only have to repeat.",
            hint='Set prediction_type = "v_prediction" under [train.model], or leave pure_last_step out.',
        )
    return net


def _where_to_begin(checkpoints: Path, choice: str, *, afresh: bool) -> Resumption:
    if not afresh:
        return find_resumption(checkpoints, choice)
    return Resumption(None if choice in ("auto", "none") else named_checkpoint(choice))


def timestep_law(settings: TrainSettings, modalities: Sequence[Modality]) -> TimestepLaw:
    """The settings' law, with odds in the order of a model's modalities.

    Raises:
        UsageError: odds of a modality that the model does not have.
    """
    unknown = settings.given_odds.keys() - set(modalities)
    if unknown:
        raise UsageError(
            f"train.given_odds names {', '.join(sorted(unknown))}, which the run does not train.",
            hint=f"Leave it out, or add it to train.modalities: {', '.join(modalities)}.",
        )
    odds = tuple(settings.given_odds.get(modality, 1.0) for modality in modalities) if settings.given_odds else ()
    law = TimestepLaw(settings.timesteps, settings.timestep_shift, settings.one_given, odds)
    return law if settings.student is None else law_of_students(law, settings.student)


def choose_precision(name: str, device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """What "auto" stands for on this device; float32 on the CPU, where one process and two then agree best."""
    if name == "bf16":
        warn_of_imitation(device)
    if name != "auto":
        return name  # type: ignore[return-value]
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "no"


def check_amounts(samples: int, settings: TrainSettings, processes: int) -> None:
    """Raises UsageError or CopgenError where the data is too little, or the processes do not divide the batch."""
    if samples < 2:
        found = "no sample" if samples == 0 else "one sample"
        raise CopgenError(
            f"The train split has {found}: there is nothing to learn from.",
            hint="Download more cells, or give `copgen prepare` a larger --train-ratio.",
        )
    if settings.batch_size % processes:
        lower = settings.batch_size // processes * processes
        near = f"{lower} or {lower + processes}" if lower else str(processes)
        raise UsageError(
            f"A global batch of {settings.batch_size} can not be shared by {processes} processes.",
            hint=f"Give a --batch-size that {processes} divides, such as {near}.",
        )


def _check_source(before: Mapping[str, Any], settings: TrainSettings) -> None:
    """Raises UsageError where a run is told to begin from another model than it did."""
    source = before.get("init_from")
    if source is None or not _are_the_same(source, str(settings.init_from)):
        option = "--init-from" if settings.student is None else "--teacher"
        began, remedy = (f"from {source}", f"Give {option} {source}") if source else ("afresh", "Leave it out")
        raise UsageError(
            f"The run began {began}, and {option} {settings.init_from} would change nothing.",
            hint=f"{remedy} to go on, or begin another --workdir.",
        )


def _are_the_same(one: str, other: str) -> bool:
    """Whether two names stand for the same model: a folder may be called in several ways."""
    here, there = Path(one).expanduser(), Path(other).expanduser()
    return one == other or (here.exists() and there.exists() and here.samefile(there))


def _check_network(net: CopGenTransformer, settings: TrainSettings, modalities: Sequence[Modality]) -> None:
    """Raises MismatchError where a checkpoint's network is not the one that the settings ask for."""
    trained = modalities_of(net)
    if tuple(trained) != tuple(modalities):
        raise MismatchError(
            f"The run was trained on {', '.join(trained)}, and can not go on with {', '.join(modalities)}.",
            hint="Set train.modalities as it was, or begin another --workdir with --init-from.",
        )
    asked = settings.model.prediction_type
    if "prediction_type" in settings.model.model_fields_set and asked is not prediction_of(net):
        raise MismatchError(
            f"The run predicts {prediction_of(net)}, and can not go on with {asked}.",
            hint="Set train.model.prediction_type as it was, or begin another --workdir with --init-from.",
        )
    ends = settings.model.rescale_betas_zero_snr
    if "rescale_betas_zero_snr" in settings.model.model_fields_set and ends != net.config.rescale_betas_zero_snr:
        raise MismatchError(
            f"The run's noise schedule {'does not end' if ends else 'ends'} in noise alone, and can not change that.",
            hint="Set train.model.rescale_betas_zero_snr as it was, or begin another --workdir with --init-from.",
        )
    calls = None if settings.student is None else settings.student.calls
    if net.config.distilled_steps != calls:
        told, wanted = (f"a student of {n} calls" if n else "no student" for n in (net.config.distilled_steps, calls))
        raise MismatchError(
            f"The run trains {told}, and can not go on with {wanted}.",
            hint="Go on with the command and the number of calls that it began with, or begin another --workdir.",
        )


def _check_optimizer(before: Mapping[str, Any], settings: TrainSettings, world: World) -> None:
    """Raises MismatchError where a checkpoint has moments of another optimiser, UsageError where matrices are cut."""
    earlier = Optimizer(before.get("optimizer", Optimizer.ADAMW)) if before else settings.optimizer
    if earlier is not settings.optimizer:
        raise MismatchError(
            f"The run was trained with {earlier}, and can not go on with {settings.optimizer}.",
            hint=f'Set train.optimizer = "{earlier}", or begin another --workdir with --init-from.',
        )
    if settings.optimizer is Optimizer.MUON and world.is_sharded:
        raise UsageError(
            "Muon needs whole matrices, and FSDP cuts them.",
            hint=f'Set train.optimizer = "{Optimizer.ADAMW}", or train without FSDP.',
        )


def identity_of(net: CopGenTransformer, spec: LatentSpec) -> Identity:
    """What the checkpoints of this network on this data belong to."""
    network = {key: value for key, value in dict(net.config).items() if not key.startswith("_")}
    common = spec.common
    if common is None:
        return Identity(network, {str(m): asdict(spec.of(m)) for m in modalities_of(net)})
    channels, side, _ = common.shape
    data = {
        "latent_channels": channels,
        "latent_side": side,
        "autoencoder_fingerprint": common.fingerprint,
        "scale_factor": common.scale_factor,
    }
    return Identity(network, data)


def _configure(net: CopGenTransformer, settings: TrainSettings) -> None:
    if settings.activation_checkpointing:
        net.enable_gradient_checkpointing()
    if settings.compile:
        net.compile()
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")


def _try_once(state: TrainState, settings: TrainSettings, world: World, samples: int) -> None:
    """One forward and backward pass, of which nothing is kept."""
    latents = [torch.zeros(samples, *shape, device=world.device) for shape in state.net.latent_shapes]
    try:
        with gradients_stay_here(state.model, world, last=False), autocast(settings, world.device):
            denoising_loss_parts(state.model, latents, noise=latents).sum().backward()
    finally:
        state.optimizer.zero_grad(set_to_none=True)


def _validation(
    train_data: MomentsDataset,
    test_data: MomentsDataset | None,
    spec: LatentSpec,
    settings: TrainSettings,
    modalities: Sequence[Modality],
    world: World,
    distillation: Distillation | None,
) -> Validate | None:
    """The loss on the test split, and beside it on the train split, as a function of the state; None without a test.

    That of a student is its own, on steps of its own.
    """
    if test_data is None or not len(test_data.names):
        return None
    law = PUBLISHED_LAW if distillation is None else timestep_law(settings, modalities)
    unseen, seen = (
        DrawnSamples(data.select(modalities), spec.scales(modalities), VALIDATION_SEED, law)
        for data in (test_data, train_data)
    )
    count = min(len(test_data.names), len(train_data.names), settings.validate_samples)

    def look(state: TrainState, interrupted: Callable[[], bool]) -> ValidationReport | None:
        computing = partial(autocast, settings, world.device)
        return validate(state, unseen, seen, count, modalities, computing, interrupted, distillation)

    return look
