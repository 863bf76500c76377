"""Map work over the workers of a Dask cluster: a bounded number of tasks at a time, whoever is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from copgen_cli.cluster.connection import ClusterError, Connection, connect
from copgen_cli.cluster.request_budget import share_request_budget
from copgen_cli.cluster.workers import GPU, check_folder, check_versions, threads_of, wait_for_workers
from copgen_cli.settings import ClusterSettings
from copgen_cli.stages import WorkerLostError

if TYPE_CHECKING:
    from distributed import Client, Future

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

TASK_SECONDS = 0.2
"""About how long a task should take; items that are done sooner travel together."""
MOST_ITEMS = 256
"""Of one task."""
LOOK_EVERY = 2.0
"""Seconds between looks at who is there."""
SECONDS_TO_LEAVE = 5.0
"""For tasks under way when a run is stopped, before their workers are started anew."""

_numbers = itertools.count()


@dataclass(eq=False, slots=True)
class _Task:
    """Some items that one worker does in turn, handed out and not yet back."""

    number: int
    items: tuple[Any, ...]
    future: Future | None = None
    lost: int = 0
    """How often the worker that had it was lost."""


class ClusterExecutor:
    """An executor whose workers are those of a Dask scheduler; a context manager that connects when work comes.

    Args:
        settings: the scheduler, and how patiently it is used.
        note: takes a line for the user, such as the dashboard's address.
        gpu: whether the work needs a worker with the resource `GPU`.
    """

    elsewhere = True

    def __init__(self, settings: ClusterSettings, *, note: Callable[[str], None], gpu: bool = False) -> None:
        self._settings, self._note, self._gpu = settings, note, gpu
        self._connecting: AbstractContextManager[Connection] | None = None
        self._connection: Connection | None = None
        self._threads: dict[str, int] = {}
        self._folders: list[Path] = []

    def __enter__(self) -> ClusterExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connecting is not None:
            with contextlib.suppress(OSError):
                self._connecting.__exit__(kind, error, trace)
        self._connecting = self._connection = None

    @property
    def connection(self) -> Connection:
        """The scheduler, whose workers have been looked at.

        Raises:
            ClusterError: nobody answers, or a worker can not be given work.
        """
        if self._connection is None:
            self._connecting = connect(self._settings, gpu=self._gpu)
            self._connection = self._connecting.__enter__()
            client = self._connection.client
            share_request_budget(client)
            self._meet(wait_for_workers(client, self._settings.wait, gpu=self._gpu))
            count = len(self._threads)
            where = f"; dashboard: {client.dashboard_link}" if client.dashboard_link else ""
            self._note(f"Cluster of {count} worker{'s'[: count != 1]}{where}.")
        return self._connection

    def require(self, folder: Path) -> None:
        """Have all workers, also those that join later, see a folder and write there.

        Raises:
            ClusterError: one does not.
        """
        if folder not in self._folders:
            check_folder(self.connection.client, self._threads, folder)
            self._folders.append(folder)

    def map(self, work: Callable[[I], R], items: Iterable[I], *, ordered: bool = False) -> Iterator[R]:
        """Yield `work(item)` for each item, as they get done or in the order of the items.

        Raises:
            WorkerLostError: workers were lost with the same items again and again.
            ClusterError: the scheduler is gone, or there are no workers any more.
        """
        source = iter(items)
        first = list(itertools.islice(source, 1))
        if not first:  # nothing to do needs no cluster
            return
        flow = _Flow(self.connection.client, work, self._settings, gpu=self._gpu)
        try:
            yield from self._drive(flow, itertools.chain(first, source), ordered)
        finally:
            flow.leave()

    def _drive(self, flow: _Flow, source: Iterator[Any], ordered: bool) -> Iterator[Any]:
        early: dict[int, Sequence[Any]] = {}  # results of tasks before which others are still out
        waiting: deque[int] = deque()
        looked = time.monotonic()
        while True:
            while len(flow.out) + len(early) < self._settings.queued * max(1, sum(self._threads.values())):
                task = flow.submit(source)
                if task is None:
                    break
                waiting.append(task.number)
            if not flow.out:
                return
            for task, results in flow.collect(LOOK_EVERY):
                if ordered:
                    early[task.number] = results
                    while waiting and waiting[0] in early:
                        yield from early.pop(waiting.popleft())
                else:
                    waiting.remove(task.number)
                    yield from results
            if time.monotonic() - looked > LOOK_EVERY:
                self._look_again(flow.client)
                looked = time.monotonic()

    def _look_again(self, client: Client) -> None:
        """See who has come and gone.

        Raises:
            ClusterError: the scheduler is gone, or nobody is left for longer than is waited for.
        """
        deadline = time.monotonic() + self._settings.wait
        while True:
            if client.status != "running":
                raise _scheduler_gone()
            try:
                found = threads_of(client, gpu=self._gpu)
                if found:
                    self._meet(found)
                    return
            except OSError as error:
                raise _scheduler_gone() from error
            if time.monotonic() > deadline:
                raise ClusterError(
                    "No worker of the cluster is left.",
                    hint="What is complete is kept. Start workers, and run again to continue.",
                )
            time.sleep(LOOK_EVERY / 4)

    def _meet(self, found: dict[str, int]) -> None:
        """Check those that are new."""
        new = [address for address in found if address not in self._threads]
        if new:
            client = self._connection.client if self._connection else None
            assert client is not None
            answered = check_versions(client, new)
            found = {
                address: threads for address, threads in found.items() if address not in new or address in answered
            }
            new = [address for address in new if address in answered]
            for folder in self._folders:
                check_folder(client, new, folder)
        self._threads = found


@dataclass(eq=False)
class _Flow:
    """The tasks of one map that are out."""

    client: Client
    work: Callable[[Any], Any]
    settings: ClusterSettings
    gpu: bool
    out: dict[int, _Task] = field(default_factory=dict)
    _finished: SimpleQueue[int] = field(default_factory=SimpleQueue)
    _items_of_a_task: int = 1

    def submit(self, source: Iterator[Any]) -> _Task | None:
        """Hand out the next items; None where there are none."""
        items = tuple(itertools.islice(source, self._items_of_a_task))
        if not items:
            return None
        task = _Task(next(_numbers), items)
        self.out[task.number] = task
        self._send(task)
        return task

    def collect(self, seconds: float) -> Iterator[tuple[_Task, Sequence[Any]]]:
        """Tasks that have come back, after waiting for one for so long; an exception of the work is raised."""
        for number in self._drain(seconds):
            task = self.out[number]
            assert task.future is not None
            results = self._result_of(task)
            if results is None:  # it is on its way again
                continue
            del self.out[number]
            task.future = None
            yield task, results

    def leave(self) -> None:
        """Take back what is out, and see to it that nobody goes on with it."""
        if not self.out:
            return
        keys = [str(task.future.key) for task in self.out.values() if task.future is not None]
        with contextlib.suppress(Exception):  # whatever is wrong with the cluster, the run ends for another reason
            self.client.cancel([task.future for task in self.out.values()], force=True)
            deadline = time.monotonic() + SECONDS_TO_LEAVE
            while (busy := _busy(self.client, keys)) and time.monotonic() < deadline:
                time.sleep(0.05)
            if busy:
                self.client.restart_workers(busy, timeout=self.settings.wait, raise_for_error=False)
        self.out.clear()

    def _send(self, task: _Task) -> None:
        task.future = self.client.submit(
            _do,
            self.work,
            task.items,
            os.getcwd(),
            _compute_threads(),
            key=f"copgen-{task.number}-{task.lost}-{id(self):x}",
            pure=False,
            retries=0,
            resources={GPU: 1} if self.gpu else None,
        )
        self._await(task)

    def _await(self, task: _Task) -> None:
        assert task.future is not None
        task.future.add_done_callback(lambda _, number=task.number: self._finished.put(number))

    def _drain(self, seconds: float) -> list[int]:
        try:
            numbers = [self._finished.get(timeout=seconds)]
        except Empty:
            return []
        while True:
            try:
                numbers.append(self._finished.get_nowait())
            except Empty:
                return [number for number in dict.fromkeys(numbers) if number in self.out]

    def _result_of(self, task: _Task) -> Sequence[Any] | None:
        """What came back; None where its worker was lost, and it is done once more."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        assert task.future is not None
        try:
            results, seconds = task.future.result(timeout=LOOK_EVERY)
        except (KilledWorker, CancelledError) as error:
            if self.client.status != "running":
                raise _scheduler_gone() from error
            task.lost += 1
            if task.lost > self.settings.lost_workers:
                raise WorkerLostError(
                    "Workers of the cluster were lost again and again with the same work; the system may have killed "
                    "them for want of memory.",
                    hint="What is complete is kept. Run again to continue, with more memory for each worker.",
                ) from error
            self._send(task)
            return None
        except OSError as error:  # also a time-out
            if task.future.status == "error":
                raise  # by the work itself
            if self.client.status != "running":
                raise _scheduler_gone() from error
            self._await(task)  # lost with its worker after it was done: the scheduler has given it to another
            return None
        each = max(seconds / len(task.items), 1e-6)
        self._items_of_a_task = max(1, min(MOST_ITEMS, 2 * self._items_of_a_task, int(TASK_SECONDS / each)))
        return results


def open_cluster(
    settings: ClusterSettings, *, note: Callable[[str], None], gpu: bool = False
) -> AbstractContextManager[ClusterExecutor | None]:
    """The executor that settings ask for; None where they name no scheduler, and work stays on this machine."""
    if settings.scheduler is None:
        return contextlib.nullcontext()
    return ClusterExecutor(settings, note=note, gpu=gpu)


def _scheduler_gone() -> ClusterError:
    return ClusterError(
        "The scheduler of the cluster no longer answers.",
        hint="What is complete is kept. Start it again, and run again to continue.",
    )


def _compute_threads() -> int | None:
    """Threads that PyTorch computes with here; None where it is not in use."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _do(work: Callable[[Any], Any], items: Sequence[Any], folder: str, threads: int | None) -> tuple[list[Any], float]:
    """Runs in a worker: the results of some items, and the seconds that they took.

    Args:
        work, items: what is called with what.
        folder: that relative paths start from.
        threads: that PyTorch computes with, as in the driver, since kernels round by their number.
    """
    if os.getcwd() != folder:
        try:
            os.chdir(folder)
        except OSError as error:
            raise ClusterError(
                f"A worker on {socket.gethostname()} can not use {folder}: {error.strerror}.",
                hint="Workers need the same folders under the same names: use a shared disk, or object storage.",
            ) from None
    if threads is not None:
        import torch

        torch.set_num_threads(threads)  # for this thread of the worker; Dask starts workers with one
    started = time.perf_counter()
    return [work(item) for item in items], time.perf_counter() - started


def _busy(client: Client, keys: Sequence[str]) -> list[str]:
    """Addresses of workers that still do one of these tasks."""
    wanted = set(keys)

    def look(dask_worker: Any) -> bool:
        return any(str(task.key) in wanted for task in dask_worker.state.executing | dask_worker.state.long_running)

    return [address for address, busy in client.run(look, on_error="ignore").items() if busy]
