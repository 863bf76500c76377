"""All that a run needs to go on as if it had never stopped; and its checkpoints.

step-00000010/
  transformer/          weights as trained, in diffusers layout
  ema/                  averaged weights, likewise: what one samples with
  optimizer.safetensors moments of gradients, by parameter
  state.json            counters, settings, and what data and network they belong to
  manifest.json         size and SHA-256 of every file
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from copgen_cli import __version__
from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.model import WEIGHTS_NAME, CopGenTransformer
from copgen_cli.records import Prediction
from copgen_cli.settings import TrainSettings
from copgen_cli.stages import Claims, World, write_folder
from copgen_cli.training.optimisers import AveragedWeights, LossScale, make_optimizer

FORMAT = 1
_KINDS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


@dataclass(slots=True)
class TrainState:
    """Weights, their average, the optimiser, and how far the run is. Nothing random: that is a function of the step."""

    net: CopGenTransformer
    """Its parameters are what the optimiser changes."""
    model: nn.Module
    """What is called: the network itself, or wrapped for several processes."""
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    loss_scale: LossScale | None = None
    """In float16 only."""
    step: int = 0
    """Steps done, skipped ones included."""
    position: int = 0
    """Samples seen: the place in the endless sequence of epochs where the next step begins."""
    skipped: int = 0
    """Steps left out because loss or gradient was not finite."""
    skipped_in_row: int = 0

    @classmethod
    def begin(cls, net: CopGenTransformer, settings: TrainSettings, world: World | None = None) -> TrainState:
        """The state before the first step, on the network's device; with several processes, wrapped for them."""
        net.train()
        optimizer: torch.optim.Optimizer = make_optimizer(net, settings)
        model: nn.Module = net
        if world is not None and world.accelerator is not None:
            model, optimizer = world.accelerator.prepare(net, optimizer)
            optimizer = getattr(optimizer, "optimizer", optimizer)
        loss_scale = LossScale() if settings.mixed_precision == "fp16" else None
        return cls(net, model, optimizer, AveragedWeights(net), loss_scale)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint belongs to; one of another identity can not be resumed."""

    network: Mapping[str, Any]
    """The network's configuration."""
    data: Mapping[str, Any]
    """Shape, scale and autoencoder of the latents."""


def save_state(
    folder: Path,
    state: TrainState,
    identity: Identity,
    settings: TrainSettings,
    world: World | None = None,
    claims: Claims | None = None,
) -> None:
    """Write a checkpoint; every process takes part, the main one writes.

    Raises:
        DiskFullError: there was no room; what was there before is untouched.
        MismatchError: `claims` are given, and do not name what lies there.
    """
    weights = dict(_gathered(_named(state.net)))
    with state.average.in_place():
        average = dict(_gathered(_named(state.net)))
    moments = dict(_gathered(_optimizer_tensors(state)))
    if world is not None and not world.is_main:
        return
    facts = {
        "format": FORMAT,
        "copgen": __version__,
        "step": state.step,
        "processes": 1 if world is None else world.size,
        "position": state.position,
        "skipped": state.skipped,
        "skipped_in_row": state.skipped_in_row,
        "loss_scale": None if state.loss_scale is None else asdict(state.loss_scale),
        **asdict(identity),
        "settings": settings.model_dump(mode="json"),
    }

    def fill(beside: Path) -> None:
        for name, tensors in (("transformer", weights), ("ema", average)):
            _save_config(state.net, beside / name)
            save_file(tensors, beside / name / WEIGHTS_NAME, metadata={"format": "pt"})
        save_file(moments, beside / "optimizer.safetensors")
        (beside / "state.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    write_folder(folder, fill, claims)


def load_state(folder: Path, state: TrainState, identity: Identity) -> Mapping[str, Any]:
    """Put a checkpoint that is known to be whole into a state that was just begun.

    Returns:
        The settings that it was written under.

    Raises:
        BrokenInputError: it is not one of ours.
        MismatchError: it belongs to another network or to other data; the message says in what.
    """
    facts = read_facts(folder)
    _check_identity(folder, facts, identity)
    with torch.no_grad():
        _restore(dict(_named(state.net)), load_file(folder / "ema" / WEIGHTS_NAME), folder)
        state.average = AveragedWeights(state.net)
        _restore(dict(_named(state.net)), load_file(folder / "transformer" / WEIGHTS_NAME), folder)
        _restore_optimizer(state, load_file(folder / "optimizer.safetensors"), folder)
    state.step, state.position = facts["step"], facts["position"]
    state.skipped, state.skipped_in_row = facts["skipped"], facts["skipped_in_row"]
    if state.loss_scale is not None and facts["loss_scale"] is not None:
        state.loss_scale = LossScale(**facts["loss_scale"])
    return facts["settings"]


def read_facts(folder: Path) -> dict[str, Any]:
    """The state.json of a checkpoint.

    Raises:
        BrokenInputError: there is none, or not one of ours.
    """
    try:
        facts = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT or not isinstance(facts["settings"], dict):
            raise ValueError(f"format {facts['format']}, this version reads {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenInputError(
            f"{folder} is no checkpoint of training: state.json: {error}.",
            hint="Give a folder such as WORKDIR/checkpoints/step-00001000; for weights alone there is --init-from.",
        ) from error
    return facts


def _check_identity(folder: Path, facts: Mapping[str, Any], identity: Identity) -> None:
    wanted = json.loads(json.dumps(asdict(identity)))
    written = {part: facts.get(part, {}) for part in wanted}
    before = {  # as it was before there were others
        "prediction_type": Prediction.NOISE,
        "rescale_betas_zero_snr": False,
        "distilled_steps": None,
    }
    written["network"] = before | written["network"]
    differences = [
        f"{key} {written[part].get(key)!r} there, {value!r} here"
        for part, values in wanted.items()
        for key, value in values.items()
        if written[part].get(key) != value
    ]
    if differences:
        raise MismatchError(
            f"The checkpoint {folder} is of another configuration: {'; '.join(differences)}.",
            hint="Give the options that it was trained with, or another --workdir; --init-from takes weights alone.",
        )


def _save_config(net: CopGenTransformer, folder: Path) -> None:
    """Write the network's configuration under its own name: a sharded one calls itself otherwise."""
    with torch.device("meta"):
        CopGenTransformer.from_config(net.config).save_config(folder)


def _named(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from net.named_parameters()


def _optimizer_tensors(state: TrainState) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in state.net.named_parameters():
        moments = state.optimizer.state.get(parameter, {})
        for kind in _KINDS:
            if kind in moments:
                yield f"{name}.{kind}", moments[kind]


def _gathered(named: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Copies on the CPU, those of sharded tensors put together; every process must take part."""
    for name, tensor in named:
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        yield name, whole.detach().to("cpu", copy=True).contiguous()


def _restore(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], folder: Path) -> None:
    if targets.keys() != sources.keys():
        raise BrokenInputError(
            f"{folder} does not hold the tensors of its network.", hint="Resume from another checkpoint."
        )
    for name, target in targets.items():
        target.copy_(_like(target, sources[name]))


def _restore_optimizer(state: TrainState, tensors: Mapping[str, Tensor], folder: Path) -> None:
    parameters = dict(state.net.named_parameters())
    state.optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        if name not in parameters or kind not in _KINDS:
            raise BrokenInputError(f"{folder} holds {key} for no parameter.", hint="Resume from another checkpoint.")
        parameter = parameters[name]
        # fused kernels want the counter beside the weights, the others on the CPU
        beside = parameter.device if state.optimizer.defaults.get("fused") else torch.device("cpu")
        placed = tensor.to(beside) if kind == "step" else _like(parameter, tensor)
        state.optimizer.state[parameter][kind] = placed


def _like(target: Tensor, source: Tensor) -> Tensor:
    """A whole tensor as its target has it: on its device, or this process's shard of it."""
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(source.to(target.device), target.device_mesh, target.placements)  # type: ignore[attr-defined]
    return source.to(target.device)
