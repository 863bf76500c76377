"""Variables of the environment by which torchrun, accelerate, MPI or Slurm tell a process that it is one of several."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable

from copgen_cli.errors import UsageError

SHARED_FOLDER = "_COPGEN_LAUNCH_FOLDER"
"""Names the folder that processes share with the `copgen` that launched them."""

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")
_RANKS = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_PLACE = ("MASTER_ADDR", "MASTER_PORT")


def was_launched() -> bool:
    """Whether this process was started as one of several.

    Raises:
        UsageError: a variable that says so is no number.
    """
    adopt_slurm()
    return SHARED_FOLDER in os.environ or any((_number(name) or 1) > 1 for name in _COUNTS)


def refuse_launch(option: str) -> None:
    """Raises UsageError where this process is one of several: with that option, one alone gives out the work."""
    if was_launched():
        raise UsageError(
            f"{option} is for one process, and this is one of several that torchrun, srun or MPI started.",
            hint=f"Start it once, or leave out {option}.",
        )


def adopt_slurm() -> None:
    """Where `srun` started several tasks, tell them to torch as torchrun would; what is set already stands."""
    if (_number("SLURM_STEP_NUM_TASKS") or 1) < 2 or "WORLD_SIZE" in os.environ:
        return
    job = int(re.sub(r"\D", "", os.environ.get("SLURM_JOB_ID", "")) or 0)
    told = {
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "RANK": str(_number("SLURM_PROCID") or 0),
        "LOCAL_RANK": str(_number("SLURM_LOCALID") or 0),
        "LOCAL_WORLD_SIZE": os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0].partition(",")[0],
        "MASTER_ADDR": first_host(os.environ.get("SLURM_STEP_NODELIST", "localhost")),
        "MASTER_PORT": str(20_000 + job % 20_000),
    }
    for name, value in told.items():
        os.environ.setdefault(name, value)


def first_host(hosts: str) -> str:
    """The first of a list as Slurm writes it: `gpu[007-009,012],login1` begins with `gpu007`."""
    match = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?", hosts)
    if match is None:
        raise UsageError(f"SLURM_STEP_NODELIST is {hosts!r}.", hint="Set MASTER_ADDR to the host of the first task.")
    return "".join(part for part in match.groups() if part)


def require_a_place() -> None:
    """Check that the variables say which of the processes this one is, and where they meet.

    Raises:
        UsageError: one of them is missing or makes no sense; the message names it.
    """
    if _number("WORLD_SIZE") is None:  # of MPI, which accelerate asks
        return
    for name in (*_RANKS, "MASTER_PORT"):
        _number(name)
    rank, size = _number("RANK"), _number("WORLD_SIZE") or 1
    if rank is None or "MASTER_ADDR" not in os.environ:
        missing = "RANK" if rank is None else "MASTER_ADDR"
        raise UsageError(f"WORLD_SIZE is {size}, and {missing} is not set.", hint=alone_hint())
    if not 0 <= rank < size:
        raise UsageError(
            f"RANK is {rank}, which is none of the {size} processes that WORLD_SIZE tells of.", hint=alone_hint()
        )


SECONDS_BEFORE_TELLING = 6.0
_watch: threading.Timer | None = None  # of this process, which waits for others once


def expect_others(timeout: float, tell: Callable[[str], None]) -> None:
    """Have it told for whom this process waits, unless it has met them in time.

    For commands to call before torch is loaded, which may take as long. Those that `copgen` itself started do come.

    Raises:
        UsageError: the variables of the environment make no sense.
    """
    if SHARED_FOLDER not in os.environ:
        tell_of_waiting(timeout, tell, SECONDS_BEFORE_TELLING)


def tell_of_waiting(timeout: float, tell: Callable[[str], None], seconds: float) -> None:
    """Have it told for whom this process waits, unless it has met them within some seconds, or is already to be told.

    Args:
        timeout: seconds that it will wait for the others.
        tell: is told.
        seconds: until then.

    Raises:
        UsageError: the variables of the environment make no sense.
    """
    global _watch
    if _watch is None and was_launched():
        require_a_place()
        others = (_number("WORLD_SIZE") or 2) - 1
        text = (
            f"Waiting up to {timeout:g} s for {others} other process{'es' * (others > 1)} of this run, which the "
            f"environment tells of: {what_is_told()}. {alone_hint()}"
        )
        _watch = threading.Timer(seconds, tell, [text])
        _watch.daemon = True
        _watch.start()


def stop_telling() -> None:
    """The others are here, or not waited for any more."""
    global _watch
    if _watch is not None:
        _watch.cancel()
        _watch = None


def what_is_told() -> str:
    """The variables as they stand, for a message."""
    names = (*_SLURM, *_COUNTS, *_RANKS[:2], *_PLACE)
    return ", ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))


def alone_hint() -> str:
    """What to do where one process was meant."""
    names = ("SLURM_STEP_NUM_TASKS", *_COUNTS)
    counts = [name for name in names if os.environ.get(name, "") not in ("", "1")]
    return f"Start all processes, with torchrun or srun; or for one process alone: unset {' '.join(counts)}"


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if not value:
        return None
    try:
        return int(value)
    except ValueError:
        raise UsageError(
            f"The variable {name} of the environment is {value!r}, which is no number.",
            hint=f"It tells of several processes; for one process alone: unset {name}",
        ) from None
