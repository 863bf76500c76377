"""Where a run goes on from, and what has changed since it was last at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import BrokenInputError, UsageError
from copgen_cli.records import LearningRateDecay
from copgen_cli.settings import TrainSettings
from copgen_cli.stages import Passed, World, list_checkpoints, must_be_whole, newest_whole, step_of
from copgen_cli.storage import local_source
from copgen_cli.training.state import read_facts

PASSES_ON = (
    "workdir", "resume", "save_every", "keep_last", "milestone_every", "validate_every", "validate_samples",
    "preview_every", "preview_samples", "preview_steps", "log_every", "trackers", "max_time", "device", "gpus",
    "num_processes", "micro_batch", "accelerate_config", "workers", "vae", "preset", "stop_after_skipped", "init_from",
    "rendezvous_timeout",
)  # fmt: skip
"""Settings that may change between one part of a run and the next without a word: its course stays, but for rounding
where sums are cut another way."""


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
    named = named_checkpoint(choice)
    step = read_facts(named)["step"]
    later = [folder for folder in there if (step_of(folder) or 0) > step]
    if later:
        raise UsageError(
            f"{checkpoints} goes on to {later[-1].name}, past {named.name}.",
            hint="--resume auto goes on from there; choose another --workdir to branch off anew.",
        )
    return Resumption(named)


def named_checkpoint(name: str) -> Path:
    """The folder that --resume names.

    Raises:
        UsageError: there is none.
        BrokenInputError: it is not whole.
    """
    folder = Path(local_source(name)).expanduser()
    if not folder.is_dir():
        raise UsageError(f"There is no checkpoint {name}.", hint="--resume takes auto, none or a checkpoint's folder.")
    must_be_whole(folder)
    return folder


def agree_on_resumption(found: Resumption | None, world: World) -> Resumption:
    """What the main process found, on every process; the others give None."""
    said = world.tell(None if found is None or found.folder is None else str(found.folder))
    return found or Resumption(None if said is None else Path(said))


def changed_settings(before: Mapping[str, Any], settings: TrainSettings) -> dict[str, tuple[Any, Any]]:
    """Settings that change the course of a run and are not as they were: name to (then, now)."""
    now = settings.model_dump(mode="json")
    before = {**TrainSettings().model_dump(mode="json"), **before}  # settings that are younger than the run
    silent = {*PASSES_ON, *(() if settings.decay is LearningRateDecay.COSINE else ("steps",))}
    return {
        key: (before.get(key), value) for key, value in now.items() if key not in silent and before.get(key) != value
    }
