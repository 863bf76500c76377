"""Everything printed: results to standard output, progress and messages to standard error.

`rich` loads only when something is drawn. Colour follows NO_COLOR and whether standard error is a terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

from copgen_cli.errors import CopgenError
from copgen_cli.records import without_nan

if TYPE_CHECKING:
    from rich.console import Console

    from copgen_cli.stages import Summary

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
NOTHING_TO_DO = "Nothing to do: all of it was done before."
REASONS_SHOWN = 10
SIZES = ("bytes", "memory")
"""Values of a result that are counted in bytes."""


class Verbosity(IntEnum):
    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_verbosity = Verbosity.NORMAL  # of this process; set once by the app before any command runs


def configure(verbosity: Verbosity) -> None:
    """Choose how much goes to standard error; results are printed whatever is chosen."""
    import logging

    global _verbosity
    _verbosity = verbosity
    level = {Verbosity.QUIET: logging.ERROR, Verbosity.NORMAL: logging.WARNING, Verbosity.VERBOSE: logging.DEBUG}
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s", level=logging.WARNING, force=True)
    logging.getLogger("copgen_cli").setLevel(level[verbosity])


def verbosity_options() -> tuple[str, ...]:
    """What gives another `copgen` process the verbosity of this one."""
    return {Verbosity.QUIET: ("--quiet",), Verbosity.NORMAL: (), Verbosity.VERBOSE: ("--verbose",)}[_verbosity]


def result(title: str, **values: Any) -> None:
    """One headed block of `name: value` lines on standard output."""
    print(title)  # noqa: T201
    for name, value in values.items():
        told = _size(value) if name in SIZES and isinstance(value, int) else _plain(value)
        print(f"  {name.replace('_', ' ')}: {told}")  # noqa: T201


def result_json(values: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on standard output, for machines."""
    print(json.dumps(without_nan(values), indent=2, default=str, allow_nan=False))  # noqa: T201


def forecast(title: str, *, json: bool, **values: Any) -> None:
    """What a --dry-run says would be done."""
    if json:
        result_json({"dry_run": True, **values})
    else:
        result(title, **values)


def report(title: str, summary: Summary, *, json: bool, **more: Any) -> None:
    """The end of a data stage: what was made and what was not, and why. `more` are values of that stage alone."""
    for outcome in summary.failed[:REASONS_SHOWN]:
        warn(f"set aside {outcome.key!r}: {outcome.reason}")
    if len(summary.failed) > REASONS_SHOWN:
        rest = len(summary.failed) - REASONS_SHOWN
        warn(f"and {rest:,} more, all listed in {summary.output}/copgen_{summary.stage}.json")
    if not (summary.done or summary.failed):
        note(NOTHING_TO_DO)
    if json:
        result_json(summary.as_dict() | more)
        return
    counts = {"done_now": summary.done, "done_before": summary.already}
    counts |= {"skipped": len(summary.skipped)} if summary.skipped else {}
    counts |= {"set_aside": len(summary.failed)} if summary.failed else {}
    result(title, **counts, **more, files=summary.files, bytes=summary.bytes, folder=summary.output)


def line(text: str) -> None:
    """A plain line of a result on standard output."""
    print(text)  # noqa: T201


def note(text: str) -> None:
    """A message that a quiet run leaves out."""
    if _verbosity >= Verbosity.NORMAL:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def detail(text: str) -> None:
    """A message that only a verbose run shows."""
    if _verbosity >= Verbosity.VERBOSE:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """Something the user should know though the command goes on."""
    _styled("warning: ", text, "yellow")


def error(problem: CopgenError) -> None:
    """What is wrong, and what to do about it."""
    _styled("error: ", str(problem), "red")
    print(f"  {problem.hint}", file=sys.stderr, flush=True)  # noqa: T201


def track(
    items: Iterable[T],
    *,
    total: int | None,
    label: str,
    done: int = 0,
    unit: str = "",
    describe: Callable[[T], str] | None = None,
) -> Iterator[T]:
    """Yield `items` unchanged while standard error shows count, rate and time left.

    A bar on a terminal, a plain line every ten seconds elsewhere, nothing when quiet. `done` counts what an earlier
    run had already finished; `describe` adds a few words on the newest item.
    """
    if _verbosity == Verbosity.QUIET:
        yield from items
    elif stderr_is_terminal():
        yield from _draw_bar(items, total, label, done, unit, describe)
    else:
        yield from _print_lines(items, total, label, done, unit, describe)


def track_counts(counts: Iterable[int], *, total: int, label: str, done: int, unit: str) -> Iterator[int]:
    """As `track`, for steps that deal with several items each; yields one number per item."""
    return track((1 for count in counts for _ in range(count)), total=total, label=label, done=done, unit=unit)


def print_any_name() -> None:
    """Escape what the encoding of standard output can not say, rather than fail when the work is done.

    A name with an accent under PYTHONIOENCODING=ascii, or a file's name that is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # a file that became a pipe under it, by dup2: it tries to seek
                stream.reconfigure(errors="backslashreplace")


def stderr_is_terminal() -> bool:
    return sys.stderr.isatty()


def rich_stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _draw_bar(
    items: Iterable[T], total: int | None, label: str, done: int, unit: str, describe: Callable[[T], str] | None
) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.3g} {unit or 'items'}/s" if task.speed else "", style="progress.data.speed")

    whole = [Column(no_wrap=True) for _ in range(4)]  # on a narrow terminal the bar and the words give way
    bar = (
        TextColumn("{task.description}", table_column=whole[0]),
        BarColumn(bar_width=None, table_column=Column(min_width=4, max_width=40, ratio=1)),
        MofNCompleteColumn(table_column=whole[1]),
        Rate(table_column=whole[2]),
        TimeRemainingColumn(table_column=whole[3]),
        TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*bar, console=rich_stderr()) as progress:
        task = progress.add_task(label, total=total, completed=done, words="")
        for item in items:
            yield item
            progress.update(task, advance=1, words=describe(item) if describe else "")


def _print_lines(
    items: Iterable[T], total: int | None, label: str, done: int, unit: str, describe: Callable[[T], str] | None
) -> Iterator[T]:
    started = first = last = time.monotonic()
    for new, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if new == 1:
            first = now
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (new - 1) / (now - first) if new > 1 else 1 / (now - started)  # the first waits for what is prepared
            left = f", {_duration((total - done - new) / rate)} left" if total and new > 1 else ""
            words = f", {describe(item)}" if describe else ""
            print(  # noqa: T201
                f"{label}: {done + new}{f'/{total}' if total else ''}, {rate:.3g} {unit or 'items'}/s{left}{words}",
                file=sys.stderr,
                flush=True,
            )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _styled(prefix: str, text: str, colour: str) -> None:
    if stderr_is_terminal():
        from rich.text import Text

        rich_stderr().print(Text.assemble((prefix, f"bold {colour}"), text), soft_wrap=True)
    else:
        print(f"{prefix}{text}", file=sys.stderr, flush=True)  # noqa: T201


def _size(number: int) -> str:
    """Bytes in the unit that leaves three digits, by powers of 1000."""
    value, units = float(number), ["kB", "MB", "GB", "TB"]
    if number < 1000:
        return f"{number} bytes"
    while (value := value / 1000) >= 999.5 and len(units) > 1:
        units.pop(0)
    return f"{value:,.3g} {units[0]}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)
