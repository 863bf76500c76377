"""What the benchmarks share: clocks, runs in turns, the memory of a process, and the work that a network is.

Torch is imported where it is needed, so that a benchmark without it tells of memory that holds no torch.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from copgen_cli.model.transformer import CopGenTransformer

Clock = Callable[[], float]
Run = Callable[[], object]

LABEL = 36
"""Characters of a row before its figures."""


# -- time --------------------------------------------------------------------------------------------------------------


def clock_of(kind: str, device: torch.device) -> Clock:
    """Seconds of the wall, or ("cpu") that this process computed, told once the device has done what it was given."""
    tell = time.process_time if kind == "cpu" else time.perf_counter

    def clock() -> float:
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
        return tell()

    return clock


def take_turns(runs: Mapping[str, Run], turns: int, clock: Clock, *, warm_up: bool = False) -> dict[str, float]:
    """Median seconds of every run; they run one after the other, so that what disturbs the machine hits all of them.

    Args:
        runs: what is measured, by name.
        turns: how often each runs.
        clock: tells seconds.
        warm_up: whether a turn that does not count goes before.
    """
    medians = take_turns_by([clock], runs, turns, warm_up=warm_up)
    return {name: seconds for name, (seconds,) in medians.items()}


def take_turns_by(
    clocks: Sequence[Clock], runs: Mapping[str, Run], turns: int, *, warm_up: bool = False
) -> dict[str, tuple[float, ...]]:
    """`take_turns` by several clocks at once: the median by each."""
    taken: dict[str, list[list[float]]] = {name: [] for name in runs}
    for turn in range(-1 if warm_up else 0, turns):
        for name, run in runs.items():
            started = [clock() for clock in clocks]
            run()
            seconds = [clock() - start for clock, start in zip(clocks, started, strict=True)]
            if turn >= 0:
                taken[name].append(seconds)
    return {name: tuple(map(statistics.median, zip(*turns, strict=True))) for name, turns in taken.items()}


# -- memory ------------------------------------------------------------------------------------------------------------


def peak_bytes() -> int:
    """The most memory that this process had; getrusage's peak is inherited from the process that starts another."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def peak_memory(run: Run, device: torch.device, again: Sequence[str]) -> float:
    """MiB that `run` allocates on a GPU; else all that a process of its own has, which prints it.

    Args:
        run: what is measured on a GPU.
        device: where.
        again: options that make this program measure the same on a CPU, added to those it has.
    """
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) / 2**20
    program = [sys.executable, *sys.argv, *again]
    return float(subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()[-1])


# -- work --------------------------------------------------------------------------------------------------------------


def matrix_product_rate(device: torch.device) -> float:
    """FLOP/s of a large bfloat16 matrix product on this device: what utilisation is measured against."""
    import torch

    side = 8192 if device.type == "cuda" else 128  # a CPU is for rehearsals
    left, right = torch.randn(2, side, side, device=device, dtype=torch.bfloat16).unbind()  # zeros would be faster
    clock = clock_of("wall", device)
    return 2 * side**3 / take_turns({"product": lambda: left @ right}, 30, clock, warm_up=True)["product"]


def training_operations(net: CopGenTransformer) -> float:
    """Of the matrix products in a training step, per sample; the backward pass takes twice the forward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        bare = type(net).from_config(net.config)
        latents = [torch.empty(1, *shape) for shape in bare.latent_shapes]
        bare(latents, list(torch.empty(bare.num_modalities, 1)))
    return 3 * counter.get_total_flops()


# -- what is printed ---------------------------------------------------------------------------------------------------


def machine(device: torch.device, threads: int, clock: str) -> str:
    """On what, and by which clock."""
    import torch

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{where}, {threads} threads, torch {torch.__version__}, {clock} clock, load average {load}"


@dataclass
class _Kept:
    file: Path | None = None
    table: str = ""
    rows: list[dict[str, object]] = field(default_factory=list)


_kept = _Kept()


def keep_rows(file: Path | None) -> None:
    """From here on, write every row that is printed to `file` as well, as JSON, as soon as it is known."""
    _kept.file = file


def keep_row(
    label: str, values: Mapping[str, float], shown: Mapping[str, str], times_as_fast: Sequence[float] = ()
) -> None:
    """Write a row that was printed otherwise to the file of `keep_rows`, if there is one."""
    if _kept.file is not None:
        told = {"values": dict(values), "shown": dict(shown), "times_as_fast": list(times_as_fast)}
        _kept.rows.append({"table": _kept.table, "row": label} | told)
        _kept.file.write_text(json.dumps(_kept.rows, indent=1))


def print_title(text: str) -> None:
    """The title of the rows that follow."""
    _kept.table = text
    print(f"\n{text}")


def print_heads(names: Sequence[str]) -> None:
    """The line above the rows of a table with a column per manner."""
    print(f"{'':{LABEL}}" + "".join(f"{name:>{_width(name)}}" for name in names) + "   times as fast")


def print_row(
    label: str, values: Mapping[str, float], form: str, *, unit: str = "", fast: Literal["high", "low"] | None = None
) -> None:
    """One value per manner, and how many times ours, the last, is as fast as each other.

    Args:
        label: what the values are.
        values: by manner.
        form: of a value, as in `format(value, form)`.
        unit: after each value.
        fast: which values are fast, rates ("high") or seconds ("low"); without it nothing is compared.
    """
    cells = "".join(f"{format(value, form) + unit:>{_width(name)}}" for name, value in values.items())
    *others, ours = values.values()
    times = [ours / other if fast == "high" else other / ours for other in others] if fast else []
    told = "   " + " / ".join(f"{ratio:.2f}" for ratio in times) if times else ""
    print(f"{label:{LABEL}}{cells}{told}", flush=True)
    keep_row(label, values, {name: format(value, form) + unit for name, value in values.items()}, times)


def _width(name: str) -> int:
    return max(len(name), 9) + 2
