"""One command, several processes: starts accelerate's launcher, passes signals on, and says how it ended.

The processes share a folder with the one that started them. A file in it named like a signal asks them to stop: they
look for it after every step, which needs neither process numbers nor luck with the order of signals.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from copgen_cli.errors import EXIT_FAILED, EXIT_PARTLY, EXIT_SIGINT, EXIT_SIGTERM, EXIT_USAGE, CopgenError, UsageError
from copgen_cli.records import StopReason
from copgen_cli.stages import SHARED_FOLDER

if TYPE_CHECKING:
    from copgen_cli.settings import SampleSettings, TrainSettings

T = TypeVar("T")

EXIT_CODES = {
    StopReason.FINISHED: 0,
    StopReason.TIME: EXIT_PARTLY,
    StopReason.SIGINT: EXIT_SIGINT,
    StopReason.SIGTERM: EXIT_SIGTERM,
    StopReason.SIGUSR1: EXIT_SIGTERM,
}
_SIGNALS = {
    signal.SIGINT: StopReason.SIGINT,
    signal.SIGTERM: StopReason.SIGTERM,
    signal.SIGUSR1: StopReason.SIGUSR1,
}
_TOLD = {EXIT_FAILED, EXIT_USAGE, EXIT_PARTLY, EXIT_SIGINT, EXIT_SIGTERM}
"""Exit codes of a process that has said itself what happened."""


class LaunchError(CopgenError):
    """A process of the run ended without a word."""


def count_processes(settings: TrainSettings | SampleSettings) -> int:
    """How many processes of this machine a run asks for; 1 leaves it to a configuration file, where there is one.

    Raises:
        UsageError: `gpus` and `num_processes` contradict one another, or there are not so many GPUs.
    """
    gpus, processes = settings.gpus, settings.num_processes
    if gpus is not None and processes not in (None, gpus):
        raise UsageError(
            f"{gpus} GPUs and {processes} processes: a GPU has one process.", hint="Give --gpus or --num-processes."
        )
    wanted = gpus or processes or 1
    if gpus is not None or (wanted > 1 and settings.device != "cpu"):
        import torch

        found = torch.cuda.device_count()
        if found < wanted:
            there = "There is no GPU" if found == 0 else "There is one GPU" if found == 1 else f"There are {found} GPUs"
            raise UsageError(
                f"{there} here, {wanted} {'was' if wanted == 1 else 'were'} asked for.",
                hint="Give --gpus what is there, or work on the CPU: --device cpu --num-processes 2.",
            )
    return wanted


def launch(processes: int, settings: TrainSettings | SampleSettings) -> int:
    """Run this very command in several processes through accelerate's launcher.

    Args:
        processes: how many, on this machine; 1 leaves it to the configuration file.
        settings: tell whether processes meet over gloo or NCCL, and name a configuration file of accelerate, which may
            also spread the processes over machines.

    Returns:
        The exit code of the run.

    Raises:
        UsageError: the configuration file is not one.
        LaunchError: a process ended without having said why.
    """
    if settings.accelerate_config is not None:
        _check_configuration(settings.accelerate_config)
    folder = Path(tempfile.mkdtemp(prefix="copgen-"))
    told = {
        SHARED_FOLDER: str(folder),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // processes, 1)),
    }
    if settings.device == "cpu":
        told["ACCELERATE_USE_CPU"] = "true"
    os.environ.update(told)
    try:
        with _passing_signals_on(folder):
            return _run_launcher(_arguments(processes, settings.accelerate_config or _own_configuration(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_configuration(file: Path) -> None:
    """Raises UsageError where a configuration of accelerate is not there, or says nothing that can be read."""
    from accelerate.commands.config.config_args import load_config_from_file

    if not file.is_file():
        raise UsageError(f"There is no file {file}.", hint="Check the path after --accelerate-config.")
    try:
        load_config_from_file(str(file))
    except Exception as error:  # the loader passes on whatever its parsers and constructors raise
        raise UsageError(
            f"{file} is no configuration of accelerate: {' '.join(str(error).split())}",
            hint="Write one with `accelerate config --config_file FILE`.",
        ) from error


def _own_configuration(folder: Path) -> Path:
    """One that leaves all to the arguments; without any, accelerate would read the user's default one."""
    file = folder / "accelerate.json"
    file.write_text('{"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "num_machines": 1}')
    return file


def _arguments(processes: int, config_file: Path) -> list[str]:
    chosen = ["--config_file", str(config_file)]
    if processes > 1:
        chosen += ["--num_processes", str(processes)]
    own = ["--mixed_precision", "no", "--dynamo_backend", "no"]  # both are ours to do
    return [*chosen, *own, "--main_process_port", "0", "--module", "copgen_cli", *sys.argv[1:]]


def _run_launcher(arguments: Sequence[str]) -> int:
    import logging
    from subprocess import CalledProcessError

    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # its reports repeat ours at length
    chosen = launch_command_parser().parse_args(list(arguments))
    chosen.signals_to_handle = "SIGHUP,SIGQUIT"  # of torchrun; the others are passed on by the folder
    try:
        launch_command(chosen)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _code_of(rank, failure.exitcode)
    except CalledProcessError as error:
        return _code_of(0, error.returncode)
    except (ValueError, KeyError, TypeError, AttributeError, ConnectionError) as error:
        raise UsageError(f"accelerate can not launch this: {error}", hint="Check its configuration file.") from error
    return 0


def _code_of(rank: int, exitcode: int) -> int:
    if exitcode in _TOLD:
        return exitcode
    how = f"was killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with code {exitcode}"
    raise LaunchError(
        f"Process {rank} of the run {how}; the others were stopped.",
        hint="Out of memory is a common cause. The same command continues from the last checkpoint.",
    )


@contextmanager
def _passing_signals_on(folder: Path) -> Iterator[None]:
    """The first signal asks the processes to stop, a second one ends them."""

    def handle(number: int, frame: FrameType | None) -> None:
        if any((folder / reason).exists() for reason in _SIGNALS.values()):
            raise SystemExit(EXIT_CODES[_SIGNALS[signal.Signals(number)]])
        (folder / signal.Signals(number).name).touch()

    with _handling(handle):
        yield


@contextmanager
def stop_requests(max_time: float | None = None) -> Iterator[Callable[[], StopReason | None]]:
    """Yield a function that tells whether this process was asked to stop: by a signal, its starter, or the clock.

    Inside the block SIGINT, SIGTERM and SIGUSR1 are requests; a second SIGINT is an interrupt as usual.
    """
    import time

    heard: list[StopReason] = []
    deadline = None if max_time is None else time.monotonic() + max_time
    folder = Path(os.environ[SHARED_FOLDER]) if SHARED_FOLDER in os.environ else None
    parent = os.getppid()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and heard:
            raise KeyboardInterrupt
        heard.append(_SIGNALS[signal.Signals(number)])

    def asked_to_stop() -> StopReason | None:
        if heard:
            return heard[0]
        if folder is not None:
            for reason in _SIGNALS.values():
                if (folder / reason).exists():
                    return reason
            if os.getppid() != parent or not folder.exists():  # whoever started this process is gone
                return StopReason.SIGTERM
        return StopReason.TIME if deadline is not None and time.monotonic() >= deadline else None

    with _handling(handle):
        yield asked_to_stop
    if folder is not None:  # the launcher ends all processes of a run once one has ended, also those about to
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def until_asked_to_stop(items: Iterator[T]) -> Iterator[T]:
    """Pass items on, and leave with the exit code of the request once whoever launched this process asks it to stop.

    A process that was not launched by this module gets its signals itself.
    """
    with closing(items):  # type: ignore[type-var]
        if SHARED_FOLDER not in os.environ:
            yield from items
            return
        with stop_requests() as asked_to_stop:
            for item in items:
                yield item
                reason = asked_to_stop()
                if reason is not None:
                    raise SystemExit(EXIT_CODES[reason])


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
