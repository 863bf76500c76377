"""Runs of `copgen` that kill themselves with SIGKILL on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from copgen_processes import running


class Moment(StrEnum):
    """What is counted; the run dies just before it happens for the n-th time."""

    FILE = "file"
    """A file goes to its place."""
    UNIT = "unit"
    """A unit goes into a store under construction."""
    STORE = "store"
    """A shard that is complete goes to its place."""
    NOTE = "note"
    """A shard that is in its place is noted."""


def forked_and_killed_at(moment: Moment, number: int, *arguments: object) -> int:
    """`copgen ARGUMENTS` in a process of its own; its exit code, -9 where it was killed."""
    with running(_die, moment, number, [str(argument) for argument in arguments]) as process:
        return process.end()


def _die(moment: Moment, number: int, arguments: Sequence[str]) -> None:
    if moment is Moment.FILE:
        from copgen_cli.stages import atomic

        mine = type(sys)("os")  # a copy, so that nobody else's `os` changes
        mine.__dict__.update(os.__dict__)
        mine.replace = _fatal(os.replace, number)
        atomic.os = mine
    elif moment in (Moment.STORE, Moment.NOTE):
        from copgen_cli.latents import packing

        name = "put_store" if moment is Moment.STORE else "record_shard"
        setattr(packing, name, _fatal(getattr(packing, name), number))
    else:
        from copgen_cli.latents.store_builder import StoreBuilder

        StoreBuilder.append = _fatal(StoreBuilder.append, number)
    from copgen_cli.app import main

    sys.argv = ["copgen", *arguments]
    main()


def _fatal(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The function, whose n-th call is the end."""
    count = 0

    def counting(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return counting
