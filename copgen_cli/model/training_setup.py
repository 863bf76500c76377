"""From settings and data to a run that can take its first step, or its next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.model.checkpoint import load_transformer, modalities_of
from copgen_cli.model.checkpoint_folder import Passed, list_checkpoints, must_be_whole, newest_whole
from copgen_cli.model.data_order import DrawnSamples, MomentsDataset, derive_seed
from copgen_cli.model.memory import choose_micro_batch
from copgen_cli.model.parallel import World
from copgen_cli.model.training import Run, Validate, autocast
from copgen_cli.model.training_state import Identity, TrainState, load_state, read_facts
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.model.validation import validate
from copgen_cli.records import LearningRateDecay, ValidationReport
from copgen_cli.settings import TrainSettings

VALIDATION_SEED = 0
"""Of the noise and timesteps of validations: the same in every run, so that runs compare."""
PASSES_ON = (
    "workdir", "resume", "save_every", "keep_last", "milestone_every", "validate_every", "validate_samples",
    "preview_every", "preview_samples", "preview_steps", "log_every", "trackers", "max_time", "device", "gpus",
    "num_processes", "accelerate_config", "workers", "vae", "preset", "stop_after_skipped", "init_from",
)  # fmt: skip
"""Settings that may change between one part of a run and the next without a word: they do not change its course."""


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """What the data's latents are: what a network must fit."""

    modalities: tuple[Modality, ...]
    """Those in the store, in its order."""
    channels: int
    side: int
    """In latent pixels."""
    autoencoder: str
    """Where the autoencoder that made them came from."""
    fingerprint: str | None
    """Of its weights; None where the store does not tell."""
    scale_factor: float


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a run goes on from."""

    folder: Path | None
    """None is the beginning."""
    passed: tuple[Passed, ...] = ()
    """Newer checkpoints that are not whole."""

    @property
    def facts(self) -> Mapping[str, Any]:
        return {} if self.folder is None else read_facts(self.folder)


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
) -> Prepared:
    """Make network and optimiser, and fill them from the checkpoint that `settings.resume` stands for.

    Every process of the run calls it; the main one looks for the checkpoint.

    Raises:
        MismatchError: the data lacks a modality.
        CopgenError: as `check_amounts`, `find_resumption`, `make_network` and `load_state` say.
    """
    check_amounts(len(train_data.names), settings, world.size)
    modalities = settings.modalities or spec.modalities
    train_data = train_data.select(modalities)
    found = find_resumption(checkpoints, settings.resume) if world.is_main else None
    resumption = agree_on_resumption(found, world)
    facts = resumption.facts
    settings = settings.model_copy(update={"mixed_precision": choose_precision(settings.mixed_precision, world.device)})
    if resumption.folder is not None and settings.init_from is not None:
        net = load_transformer(resumption.folder / "transformer")  # widened when the run began
    else:
        net = make_network(spec, settings)
    net.to(world.device)
    before = facts.get("settings", {})
    if settings.micro_batch is None and facts.get("processes") == world.size:
        settings = settings.model_copy(update={"micro_batch": before["micro_batch"]})  # sums round the same
    micro_batch = choose_micro_batch(net, settings, settings.batch_size // world.size, world.device)
    settings = settings.model_copy(update={"micro_batch": micro_batch})
    _configure(net, settings)
    state = TrainState.begin(net, settings, world)
    identity = identity_of(net, spec)
    if resumption.folder is not None:
        load_state(resumption.folder, state, identity)
    run = Run(
        samples=DrawnSamples(train_data, spec.scale_factor, settings.seed, settings.timesteps),
        names=train_data.names,
        modalities=modalities,
        identity=identity,
        settings=settings,
        checkpoints=checkpoints,
        world=world,
        workers=settings.workers if settings.workers is not None else 4 if world.device.type == "cuda" else 0,
        validate=_validation(test_data, spec, settings, modalities, world),
    )
    return Prepared(run, state, resumption, changed_settings(before, settings) if before else {})


def choose_precision(name: str, device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """What "auto" stands for on this device; float32 on the CPU, where one process and two then agree best."""
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


def find_resumption(checkpoints: Path, choice: str) -> Resumption:
    """What `--resume` means here.

    Raises:
        UsageError: it asks for a beginning where there are checkpoints, or for an earlier one than the newest.
        BrokenInputError: a named checkpoint is not whole, or none of those here is.
    """
    there = list_checkpoints(checkpoints)
    if choice == "none":
        if there:
            raise UsageError(
                f"{checkpoints} holds checkpoints, the newest {there[-1].name}.",
                hint="Continue with --resume auto, remove them with --overwrite, or choose another --workdir.",
            )
        return Resumption(None)
    if choice == "auto":
        folder, passed = newest_whole(checkpoints)
        if folder is None and there:
            reasons = "; ".join(f"{each.folder.name}: {each.reason}" for each in passed)
            raise BrokenInputError(
                f"No checkpoint in {checkpoints} is whole: {reasons}.",
                hint="Restore one, or start again from the beginning with --overwrite.",
            )
        return Resumption(folder, tuple(passed))
    named = Path(choice).expanduser()
    if not named.is_dir():
        raise UsageError(
            f"There is no checkpoint {choice}.", hint="--resume takes auto, none or a checkpoint's folder."
        )
    must_be_whole(named)
    step = read_facts(named)["step"]
    later = [folder for folder in there if read_step(folder) > step]
    if later:
        raise UsageError(
            f"{checkpoints} goes on to {later[-1].name}, past {named.name}.",
            hint="Choose another --workdir to branch off, or remove the later folders yourself.",
        )
    return Resumption(named)


def read_step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def agree_on_resumption(found: Resumption | None, world: World) -> Resumption:
    """What the main process found, on every process; the others give None."""
    said = world.tell(None if found is None or found.folder is None else str(found.folder))
    return found or Resumption(None if said is None else Path(said))


def make_network(spec: LatentSpec, settings: TrainSettings) -> CopGenTransformer:
    """A new network for the data, its weights a function of the seed, or those of `init_from` where it has them.

    Raises:
        UsageError: the sizes do not fit one another.
        MismatchError: `init_from` is of other latents.
    """
    modalities = settings.modalities or spec.modalities
    if settings.init_from is not None:
        source = load_transformer(settings.init_from)
        return widen(source, modalities, spec, settings.seed, settings.init_from)
    return _fresh(settings.model.model_dump(), modalities, spec, settings.seed)


def widen(
    source: CopGenTransformer, modalities: Sequence[Modality], spec: LatentSpec, seed: int, name: str
) -> CopGenTransformer:
    """A network of these modalities with a source's weights; what the source has no modality for starts fresh.

    Raises:
        MismatchError: the source is of latents of another shape.
    """
    config = source.config
    if (config.in_channels, config.sample_size) != (spec.channels, spec.side):
        raise MismatchError(
            f"{name} is of latents {config.in_channels} x {config.sample_size} x {config.sample_size}, "
            f"the data of {spec.channels} x {spec.side} x {spec.side}.",
            hint="Encode the data with the autoencoder that the model was trained with.",
        )
    known = modalities_of(source)
    sizes = {
        key: config[key]
        for key in ("patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio", "qkv_bias", "mlp_time_embed")
    }
    net = _fresh(sizes, modalities, spec, seed)
    pairs = [(new, known.index(modality)) for new, modality in enumerate(modalities) if modality in known]
    tensors = source.state_dict()
    with torch.no_grad():
        for key, target in net.state_dict().items():
            if key == "pos_embed":
                _copy_positions(target, tensors[key], pairs, net.grid_size**2, len(known))
                continue
            for_modality = _modality_index(key)
            if for_modality is None:
                target.copy_(tensors[key])
                continue
            for new, old in pairs:
                if new == for_modality:
                    target.copy_(tensors[key.replace(f".{new}.", f".{old}.", 1)])
    return net


def changed_settings(before: Mapping[str, Any], settings: TrainSettings) -> dict[str, tuple[Any, Any]]:
    """Settings that change the course of a run and are not as they were: name to (then, now)."""
    now = settings.model_dump(mode="json")
    silent = {*PASSES_ON, *(() if settings.decay is LearningRateDecay.COSINE else ("steps",))}
    return {
        key: (before.get(key), value) for key, value in now.items() if key not in silent and before.get(key) != value
    }


def identity_of(net: CopGenTransformer, spec: LatentSpec) -> Identity:
    """What the checkpoints of this network on this data belong to."""
    network = {key: value for key, value in dict(net.config).items() if not key.startswith("_")}
    data = {
        "latent_channels": spec.channels,
        "latent_side": spec.side,
        "autoencoder_fingerprint": spec.fingerprint,
        "scale_factor": spec.scale_factor,
    }
    return Identity(network, data)


def _configure(net: CopGenTransformer, settings: TrainSettings) -> None:
    if settings.activation_checkpointing:
        net.enable_gradient_checkpointing()
    if settings.compile:
        net.compile()
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")


def _validation(
    data: MomentsDataset | None,
    spec: LatentSpec,
    settings: TrainSettings,
    modalities: Sequence[Modality],
    world: World,
) -> Validate | None:
    """The loss on the test split, as a function of the state; None where there is nothing to look at."""
    if data is None or not len(data.names):
        return None
    samples = DrawnSamples(data.select(modalities), spec.scale_factor, VALIDATION_SEED)
    count = min(len(data.names), settings.validate_samples)

    def look(state: TrainState, interrupted: Callable[[], bool]) -> ValidationReport | None:
        return validate(state, samples, count, modalities, lambda: autocast(settings, world.device), interrupted)

    return look


def _fresh(sizes: Mapping[str, Any], modalities: Sequence[Modality], spec: LatentSpec, seed: int) -> CopGenTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        try:
            return CopGenTransformer(
                sample_size=spec.side,
                in_channels=spec.channels,
                num_modalities=len(modalities),
                modalities=[str(modality) for modality in modalities],
                **sizes,
            )
        except ValueError as error:
            raise UsageError(
                f"No network can be made of these sizes: {error}.", hint="Change train.model in the settings."
            ) from error


def _modality_index(key: str) -> int | None:
    """Which modality a tensor belongs to; None for those of the trunk."""
    head, _, rest = key.partition(".")
    return int(rest.partition(".")[0]) if head in ("patch_embeds", "decoder_preds", "time_img_embeds") else None


def _copy_positions(target: Tensor, source: Tensor, pairs: Sequence[tuple[int, int]], patches: int, known: int) -> None:
    """Positions are one row per modality's time token, then `patches` rows per modality."""
    modalities = target.shape[1] // (1 + patches)
    for new, old in pairs:
        target[:, new] = source[:, old]
        begin, end = modalities + new * patches, modalities + (new + 1) * patches
        target[:, begin:end] = source[:, known + old * patches : known + (old + 1) * patches]
