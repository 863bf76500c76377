"""Who does the work: this thread, a pool of threads, or a pool of processes.

An executor maps a plain function over items. Anything like `Executor` can take the place of the local pools, as the
Dask cluster of `cluster` does: `work` and the items are picklable, and `work` touches no global state.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from copgen_cli.errors import CopgenError

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
Submit = Callable[[Callable[[I], R], I], "Future[R]"]

QUEUED_PER_WORKER = 2
SECONDS_TO_LEAVE = 1.0


class WorkerLostError(CopgenError):
    """A worker process ended without an answer: killed by the system, or by a user."""


class Executor(Protocol):
    elsewhere: bool
    """Workers may be on other machines: they put files in place, and whoever asked notes them."""

    def map(self, work: Callable[[I], R], items: Iterable[I], *, ordered: bool = False) -> Iterator[R]:
        """Yield `work(item)` for each item, as they get done or in the order of the items.

        Takes from `items` only a few more than it has workers, so that memory stays bounded. An exception of `work`
        is raised here, and the rest of the items is given up.
        """
        ...

    def require(self, folder: Path) -> None:
        """Make sure that all workers see a folder and can write there.

        Raises:
            CopgenError: one does not.
        """
        ...


class _Here:
    """Workers of this machine, which see what this process sees."""

    elsewhere = False

    def require(self, folder: Path) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Inline(_Here):
    """One item after the other, in the thread that asks."""

    def map(self, work: Callable[[I], R], items: Iterable[I], *, ordered: bool = False) -> Iterator[R]:
        return map(work, items)


@dataclass(frozen=True, slots=True)
class Threads(_Here):
    """For work that waits: for the network, for a disk."""

    workers: int

    def map(self, work: Callable[[I], R], items: Iterable[I], *, ordered: bool = False) -> Iterator[R]:
        pool = _ThreadPool(self.workers)
        try:
            yield from _windowed(pool.submit, work, items, self.workers * QUEUED_PER_WORKER, ordered)
        finally:
            pool.leave()


@dataclass(frozen=True, slots=True)
class Processes(_Here):
    """For work that computes. Processes are spawned: `work` must be importable, and so must what it is made of.

    Each ends by itself as soon as the process that started it is gone, however that ended.
    """

    workers: int

    def map(self, work: Callable[[I], R], items: Iterable[I], *, ordered: bool = False) -> Iterator[R]:
        pool = ProcessPoolExecutor(
            self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
        )
        finished = False
        try:
            yield from _windowed(pool.submit, work, items, self.workers * QUEUED_PER_WORKER, ordered)
            finished = True
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "A worker process ended without an answer; the system may have killed it for want of memory.",
                hint="What is complete is kept. Run again to continue, with fewer --workers if memory is short.",
            ) from error
        finally:
            if not finished:
                _terminate(pool)
            pool.shutdown(wait=True, cancel_futures=True)


def local_executor(workers: int, *, processes: bool) -> Executor:
    """The pool for so many workers on this machine; one worker needs no pool."""
    if workers == 1:
        return Inline()
    return Processes(workers) if processes else Threads(workers)


class OncePerProcess(Generic[R]):
    """What each worker process opens once and keeps, such as a model: travels as the recipe, not as the thing.

    Args:
        factory: a function of a module.
        arguments: what it is called with; picklable, and all that tells one such thing from others.
    """

    def __init__(self, factory: Callable[..., R], *arguments: Any) -> None:
        self._factory, self._arguments = factory, arguments
        self._key = pickle.dumps((factory, arguments))

    def get(self) -> R:
        with _opening:
            if self._key not in _opened:
                _opened.clear()  # what another run opened in this process, such as its model, is in the way
                _opened[self._key] = self._factory(*self._arguments)
            result: R = _opened[self._key]
        return result


_opening = threading.RLock()
_opened: dict[bytes, Any] = {}


def _windowed(submit: Submit, work: Callable[[I], R], items: Iterable[I], window: int, ordered: bool) -> Iterator[R]:
    source = iter(items)
    waiting: deque[Future[R]] = deque()
    exhausted = False
    while True:
        while not exhausted and len(waiting) < window:
            try:
                waiting.append(submit(work, next(source)))
            except StopIteration:
                exhausted = True
        if not waiting:
            return
        if ordered:
            yield waiting.popleft().result()
            continue
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        waiting = deque(future for future in waiting if future not in done)
        for future in done:
            yield future.result()


class _ThreadPool:
    """Daemon threads: the standard pool keeps a stopped program alive until its last request has timed out."""

    def __init__(self, workers: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[Any], Any], Any] | None] = SimpleQueue()
        self._leaving = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[I], R], item: I) -> Future[R]:
        future: Future[R] = Future()
        self._tasks.put((future, work, item))
        return future

    def leave(self) -> None:
        """Start nothing more, and give what is under way a moment to end."""
        self._leaving = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(SECONDS_TO_LEAVE / len(self._threads))

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None and not self._leaving:
            future, work, item = task
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)


def _prepare_worker() -> None:
    """Ctrl-C reaches the whole process group, and the parent alone decides what it means; no parent, no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _terminate(pool: ProcessPoolExecutor) -> None:
    """What `ProcessPoolExecutor.terminate_workers` does from Python 3.14 on."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.terminate()
