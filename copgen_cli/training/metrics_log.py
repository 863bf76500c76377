"""The metrics of a run as JSON lines, and for accelerate's trackers where these are installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from copgen_cli.records import TrainReport, without_nan
from copgen_cli.stages import Claims, disk_full_is_an_error, write_atomically

TENSORBOARD = "tensorboard"
_MODULES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def metrics_of(report: TrainReport) -> dict[str, Any]:
    """What a report says, as one flat line."""
    line: dict[str, Any] = {
        "step": report.step,
        "epoch": round(report.epoch, 6),
        "loss": report.loss,
        **{f"loss/{modality}": value for modality, value in report.by_modality.items()},
        "lr": report.lr,
        "grad_norm": report.grad_norm,
        "samples_per_second": round(report.samples_per_second, 3),
        "skipped": report.skipped,
    }
    if report.validation is not None:
        line["validation/loss"] = report.validation.loss
        line["validation/train_loss"] = report.validation.train_loss
        line |= {f"validation/{modality}": value for modality, value in report.validation.by_modality.items()}
        line |= {f"validation/timesteps {name}": value for name, value in report.validation.by_timesteps.items()}
    if report.checkpoint is not None:
        line["checkpoint"] = report.checkpoint.name
    if report.stopped is not None:
        line["stopped"] = str(report.stopped)
    return line


class Metrics:
    """Writes lines to a file that holds one per step at most, whatever was killed and begun again."""

    def __init__(
        self,
        file: Path,
        claims: Claims,
        *,
        from_step: int,
        trackers: Sequence[str] = (),
        settings: Mapping[str, Any],
    ) -> None:
        """Keep the lines up to `from_step`, where the run goes on, and forget the others.

        Raises:
            MismatchError: the claims do not name the file that is there.
        """
        self.file = file
        kept = [line for line in _lines(file) if _step_of(line) <= from_step]
        write_atomically(file, "".join(kept).encode(), claims)
        installed = [name for name in trackers if importlib.util.find_spec(_MODULES[name])]
        before = set(event_files(file.parent))
        self.trackers = [_start(name, file.parent, from_step, settings) for name in installed]
        claims.adopt(file for file in event_files(file.parent) if file not in before)

    def write(self, values: Mapping[str, Any]) -> None:
        with disk_full_is_an_error(self.file), self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(without_nan(values), allow_nan=False) + "\n")
        numbers = {key: value for key, value in values.items() if isinstance(value, float | int) and key != "step"}
        for tracker in self.trackers:
            tracker.log(numbers, step=values["step"])

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.finish()


def is_log(file: Path) -> bool:
    """Whether a file is the log of a run, by its first line."""
    try:
        with file.open(encoding="utf-8") as stream:
            return {"step", "epoch", "loss", "lr", "grad_norm", "samples_per_second"} <= json.loads(next(stream)).keys()
    except (OSError, ValueError, AttributeError, StopIteration):
        return False


def event_files(folder: Path) -> Iterator[Path]:
    """What TensorBoard's writer made: files, or folders of them, whose names hold a process and a time."""
    place = folder / TENSORBOARD
    return chain(place.rglob("events.out.tfevents.*"), place.glob("[0-9]*.[0-9]*/hparams.yml"))


def _start(name: str, folder: Path, from_step: int, settings: Mapping[str, Any]) -> Any:
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    flat = {
        key: value if isinstance(value, int | float | str | bool) else str(value) for key, value in settings.items()
    }
    if name == "tensorboard":
        tracker: Any = TensorBoardTracker(run_name=TENSORBOARD, logging_dir=folder, purge_step=from_step + 1)
    else:
        tracker = WandBTracker(run_name="copgen", dir=str(folder), name=folder.name)
    tracker.start()
    if from_step == 0 or name == "wandb":  # where each continuation is a run of its own
        tracker.store_init_configuration(flat)
    return tracker


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []


def _step_of(line: str) -> float:
    """The step of a line; one that a kill cut short is of none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
