"""What a run of training an autoencoder carries from update to update, and how it lies on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL

from copgen_cli.autoencoding.discriminator import Adversary, new_adversary
from copgen_cli.autoencoding.subject import Architecture, Subject
from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.layout import autoencoder_recipe
from copgen_cli.modalities import PUBLISHED, differences, spec_from_dict
from copgen_cli.model import WEIGHTS_NAME, read_autoencoder
from copgen_cli.records import without_nan
from copgen_cli.stages import PRIVATE_FOLDER, Claims, PrivateFolder, disk_full_is_an_error, write_atomically

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings

PATCH = PUBLISHED[0].spec.side
"""Side in pixels of pictures that an autoencoder is for."""
STATE_NAME = "training_state.pt"
METRICS_NAME = "metrics.jsonl"
_BEFORE_THEM: dict[str, Any] = {"spectrum_weight": 0.0, "adversarial_weight": 0.0, "adversarial_after": 0}
"""Settings that recipes of earlier versions do not name, as what those versions did."""


@dataclass(slots=True)
class TrainingState:
    """What a run carries from update to update."""

    model: AutoencoderKL
    ema: AutoencoderKL
    optimizer: torch.optim.AdamW
    step: int = 0
    adversary: Adversary | None = None
    """None where the recipe asks for none."""


def build_autoencoder(sizes: Architecture, seed: int) -> AutoencoderKL:
    """An untrained autoencoder with one layer per block and no attention.

    Raises:
        ValueError: the channels of a level are no multiple of 8.
    """
    channels = sizes.widths
    if any(width % 8 for width in channels):
        raise ValueError(f"channels {tuple(channels)} are not all multiples of 8, the number of norm groups")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=sizes.channels,
            out_channels=sizes.channels,
            down_block_types=["DownEncoderBlock2D"] * len(channels),
            up_block_types=["UpDecoderBlock2D"] * len(channels),
            block_out_channels=list(channels),
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=sizes.latent_channels,
            sample_size=sizes.side,
            scaling_factor=1.0,
            force_upcast=False,
            mid_block_add_attention=False,
        )


def restore_state(output: Path, settings: AutoencoderSettings, subject: Subject, device: torch.device) -> TrainingState:
    """The state that a run left in `output`, or a new one.

    Raises:
        MismatchError: it was made by another recipe, or what a new one starts from has another architecture.
        BrokenInputError: it cannot be read.
    """
    sizes = subject.architecture(settings)
    model = build_autoencoder(sizes, settings.seed).to(device)
    ema = build_autoencoder(sizes, settings.seed).to(device).requires_grad_(False)
    state = TrainingState(model, ema, torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01))
    if adversarial_weight(settings, subject):
        state.adversary = new_adversary(settings.seed, device)
    file = output / STATE_NAME
    if not file.is_file():
        if settings.init_from is not None:
            _start_from(state, settings.init_from)
        return state
    saved = read_state(file)
    check_recipe(saved["recipe"], recipe_of(settings, subject), output)
    model.load_state_dict(saved["model"])
    ema.load_state_dict(saved["ema"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step = saved["step"]
    if state.adversary is not None:
        if "discriminator" not in saved:
            raise BrokenInputError(f"{file} holds no discriminator.", hint="Start afresh with --overwrite.")
        state.adversary.network.load_state_dict(saved["discriminator"])
        state.adversary.optimizer.load_state_dict(saved["discriminator_optimizer"])
    return state


def adversarial_weight(settings: AutoencoderSettings, subject: Subject) -> float:
    """Weight of the adversary's loss; 0 is no adversary, as of rasters and classes."""
    return 0.0 if "adversarial_weight" in subject.unused else settings.adversarial_weight


def _start_from(state: TrainingState, source: str) -> None:
    """Give a new run the weights of an autoencoder."""
    weights = read_autoencoder(source).state_dict()
    try:
        for model in (state.model, state.ema):
            model.load_state_dict(weights)
    except RuntimeError as error:  # names or shapes differ
        raise MismatchError(
            f"{source} is no autoencoder of this architecture.",
            hint="Give the channels that it was trained with, or leave init_from out.",
        ) from error


def finished_steps(output: Path) -> int:
    """How many updates the run in `output` has behind it; 0 where there is none."""
    return int(read_state(output / STATE_NAME)["step"]) if (output / STATE_NAME).is_file() else 0


def own_files(output: Path) -> Claims:
    """The claims to names in a run's folder, those included that a run of an earlier version did not write down.

    Raises:
        MismatchError: under a name that a run writes lies what copgen did not write.
    """
    claims = Claims(output)
    claims.look_anew()
    files = [output / name for name in (STATE_NAME, METRICS_NAME, "config.json", WEIGHTS_NAME)]
    files.append(autoencoder_recipe(output))
    if not claims.owns(files[0]) and _is_state(files[0]):
        claims.adopt(files)
    claims.require(*files)
    return claims


def forget_run(output: Path, claims: Claims) -> None:
    """Remove the state and metrics of the run in `output`, if there is one."""
    claims.remove(output / STATE_NAME, output / METRICS_NAME)


def save_state(state: TrainingState, recipe: Mapping[str, Any], output: Path, claims: Claims) -> None:
    """Write everything that the next update needs, complete or not at all."""
    values = {
        "step": state.step,
        "recipe": dict(recipe),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    if state.adversary is not None:
        values["discriminator"] = state.adversary.network.state_dict()
        values["discriminator_optimizer"] = state.adversary.optimizer.state_dict()
    beside = output / PRIVATE_FOLDER / STATE_NAME
    try:
        with disk_full_is_an_error(output / STATE_NAME), beside.open("wb") as stream:
            torch.save(values, stream)
            stream.flush()
            os.fsync(stream.fileno())
        claims.take([output / STATE_NAME])
        os.replace(beside, output / STATE_NAME)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def alone_in(output: Path) -> Iterator[Claims]:
    """Hold the lock of a run's folder, and look after what lies there.

    Raises:
        BusyError: another process trains into it.
        MismatchError: it holds what copgen did not write, under a name that a run writes.
    """
    private = PrivateFolder(output, "train-autoencoder")
    private.take()
    try:
        yield own_files(output)
    finally:
        private.leave()


def recipe_of(settings: AutoencoderSettings, subject: Subject) -> dict[str, Any]:
    """What decides the result; where and how often it is written does not."""
    left_out = {"steps", "save_every", "max_time", "device", "dtype", *subject.unused}
    recipe: dict[str, Any] = json.loads(settings.model_dump_json(exclude=left_out))
    return recipe | json.loads(json.dumps(subject.identity()))


def check_recipe(saved: Mapping[str, Any], recipe: Mapping[str, Any], output: Path) -> None:
    """Raises MismatchError where the run in `output` was begun with another recipe, or on another modality."""
    saved = _BEFORE_THEM | dict(saved)
    changed = [
        f"{name} {saved.get(name)}, now {recipe[name]}"
        for name in recipe
        if name != "modality" and recipe[name] != saved.get(name)
    ]
    before, now = saved.get("modality"), recipe.get("modality")
    if before is None or now is None:
        names = ["pictures" if spec is None else spec["name"] for spec in (before, now)]
        changed += [f"it learned {names[0]}, now {names[1]}"] if before != now else []
    else:
        changed += differences(spec_from_dict(now), spec_from_dict(before))
    if changed:
        raise MismatchError(
            f"The run in {output} was begun with another recipe: {', '.join(changed)}.",
            hint="Use the same settings, another --output, or --overwrite.",
        )


def _is_state(file: Path) -> bool:
    try:
        return bool(read_state(file))
    except (OSError, BrokenInputError):
        return False


def read_state(file: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU.

    Raises:
        BrokenInputError: it is something else.
    """
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if {"step", "recipe", "model", "ema", "optimizer"} <= saved.keys():
            return saved
    except OSError:
        raise
    except Exception as error:  # on foreign bytes the unpickler raises whatever it stumbles over
        raise BrokenInputError(f"{file} is not a training state.", hint="Start afresh with --overwrite.") from error
    raise BrokenInputError(f"{file} is not a training state.", hint="Start afresh with --overwrite.")


def append_metrics(file: Path, values: Mapping[str, Any]) -> None:
    with disk_full_is_an_error(file), file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(without_nan(values), allow_nan=False) + "\n")


def forget_metrics_after(file: Path, step: int, claims: Claims) -> None:
    """Drop the metrics of updates that will be done again."""
    before = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    kept = [line for line in before if _step_of(line) <= step]
    write_atomically(file, "".join(f"{line}\n" for line in kept).encode(), claims)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that a kill cut short
