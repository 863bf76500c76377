"""The command line in processes of its own that start at once: forked from a server that has torch imported already."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch


@functools.cache
def server() -> ForkServerContext:
    """Of a server that has `warm.py` imported; it looks for modules where PYTHONPATH says, and nowhere else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), before)))
    try:
        first = context.Process(target=int)
        first.start()
        first.join()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return context


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
    context = server()
    read, write = context.Pipe(duplex=False)
    process = context.Process(target=_enter, args=(write, environment or {}, function, arguments))
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
