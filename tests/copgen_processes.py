"""The command line in processes of its own that start at once: forked from a server that has torch imported already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import PIL
import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "accelerate",
        "torch.utils.tensorboard",
        "pandas",  # pyarrow imports it where it is installed, for its first list of values
        "pyarrow.parquet",
        "pydantic_settings",
        "rasterio.warp",
        "pystac",
        "lmdb",
        "typer._completion_classes",
        *(f"PIL.{plugin}" for plugin in PIL._plugins),
        "copgen_cli.app",
        "copgen_cli.training.run",
        "copgen_cli.pipeline.pipeline",
        "copgen_cli.archive.download",
        "copgen_cli.patches.cutting",
        "copgen_cli.settings.loading",
    ]
)
"""What a command imports; each process would do so anew."""


@dataclass(slots=True)
class Running:
    """A process, and what it says, results and messages alike."""

    process: BaseProcess
    stream: Any
    said: str = ""

    def wait_for(self, text: str) -> str:
        """Read until a line holds `text`; that line.

        Raises:
            AssertionError: it ended without saying it.
        """
        for line in self.stream:
            self.said += line
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}:\n{self.said}")

    def end(self) -> int:
        """Read to the end; the exit code, negative for a signal."""
        self.said += self.stream.read()
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


@contextlib.contextmanager
def running(
    function: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None
) -> Iterator[Running]:
    """Call a function in another process; it is killed at the end of the block should it still run."""
    read, write = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_enter, args=(write, environment or {}, function, arguments))
    process.start()
    write.close()
    with open(read.fileno(), encoding="utf-8", errors="replace", closefd=False) as stream:
        try:
            yield Running(process, stream)
        finally:
            process.kill()
            process.join()
            read.close()


@contextlib.contextmanager
def copgen(*arguments: object, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """`copgen ARGUMENTS` in another process."""
    with running(_main, [str(argument) for argument in arguments], environment=environment) as process:
        yield process


@contextlib.contextmanager
def ranks(count: int, *arguments: object) -> Iterator[list[Running]]:
    """`copgen ARGUMENTS` in several processes that know of one another, as torchrun starts them."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(copgen(*arguments, environment=place)) for place in places(count)]


def places(count: int) -> list[dict[str, str]]:
    """What torchrun tells each of several processes of one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _enter(
    output: Connection, environment: dict[str, str], function: Callable[..., None], arguments: Sequence[Any]
) -> None:
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    os.environ.update({"OMP_NUM_THREADS": "1"} | environment)  # for processes that this one starts
    torch.set_num_threads(1)
    function(*arguments)


def _main(arguments: list[str]) -> None:
    from copgen_cli.app import main

    sys.argv = ["copgen", *arguments]
    main()
