"""One request budget for a whole cluster: what a server tells one worker, all of them heed.

The scheduler keeps, for each origin, the moment before which it does not want to be asked, and how many requests are
left of its quota; a worker asks for its turn before a request, and tells what the answer said. So a hundred workers
wait as one, and none learns by a refusal of its own what another has been told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from copgen_cli.cluster.connection import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Scheduler, Worker

_PLUGIN = "copgen-request-budget"


class RequestBudget(Protocol):
    """When servers may be asked, by their origin."""

    def take_turn(self, origin: str) -> float:
        """Seconds to wait before asking for a turn again; 0 is a turn."""
        ...

    def hold(self, origin: str, seconds: float) -> None:
        """Nobody asks this origin again before so many seconds have passed."""
        ...

    def note_quota(self, origin: str, left: int, seconds: float) -> None:
        """The origin answers so many more requests within so many seconds."""
        ...


class OwnRequestBudget:
    """That of all threads of one process.

    Args:
        clock: seconds; for tests that do not want to wait.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._not_before: dict[str, float] = {}
        self._quota: dict[str, tuple[int, float]] = {}
        """Requests left, and until when."""

    def take_turn(self, origin: str) -> float:
        with self._lock:
            now = self._clock()
            wait = self._not_before.get(origin, now) - now
            left, until = self._quota.get(origin, (1, now))
            if until <= now:
                self._quota.pop(origin, None)
            elif left <= 0:
                wait = max(wait, until - now)
            elif wait <= 0:
                self._quota[origin] = left - 1, until
        return max(wait, 0.0)

    def hold(self, origin: str, seconds: float) -> None:
        with self._lock:
            until = self._clock() + seconds
            self._not_before[origin] = max(until, self._not_before.get(origin, until))

    def note_quota(self, origin: str, left: int, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            known, until = self._quota.get(origin, (left, 0.0))
            if until > now:  # of the same window; requests that are on their way are not in what the server counts
                left = min(left, known)
            self._quota[origin] = left, now + seconds


class _SchedulersBudget:
    """A plugin of the scheduler that answers for the budget of its cluster."""

    name = _PLUGIN
    idempotent = True  # a second driver on the same cluster shares the budget of the first

    async def start(self, scheduler: Scheduler) -> None:
        budget = OwnRequestBudget()

        async def take_turn(origin: str) -> float:
            return budget.take_turn(origin)

        async def hold(origin: str, seconds: float) -> None:
            budget.hold(origin, seconds)

        async def note_quota(origin: str, left: int, seconds: float) -> None:
            budget.note_quota(origin, left, seconds)

        scheduler.handlers |= {
            "copgen_take_turn": take_turn,
            "copgen_hold": hold,
            "copgen_note_quota": note_quota,
        }


class _SharedRequestBudget:
    """The budget of a cluster, asked for by one of its workers."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def take_turn(self, origin: str) -> float:
        return float(self._ask("copgen_take_turn", origin=origin))

    def hold(self, origin: str, seconds: float) -> None:
        self._ask("copgen_hold", origin=origin, seconds=seconds)

    def note_quota(self, origin: str, left: int, seconds: float) -> None:
        self._ask("copgen_note_quota", origin=origin, left=left, seconds=seconds)

    def _ask(self, handler: str, **values: Any) -> Any:
        from distributed.utils import sync

        return sync(self._worker.loop, getattr(self._worker.scheduler, handler), **values)


def share_request_budget(client: Client) -> None:
    """Have the scheduler of a client keep one request budget for all workers.

    Raises:
        ClusterError: copgen is not installed where the scheduler runs.
    """
    from distributed import SchedulerPlugin

    class Plugin(_SchedulersBudget, SchedulerPlugin):
        pass

    try:
        client.register_plugin(Plugin(), name=_PLUGIN)
    except Exception as error:  # what a scheduler without copgen makes of it comes back as any exception
        raise ClusterError(
            f"The scheduler can not keep the request budget: {error}.",
            hint="Start `dask scheduler` in the environment in which copgen is installed.",
        ) from error


def request_budget() -> RequestBudget:
    """The budget of the cluster whose task this is, or else one of this process."""
    import sys

    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return _SharedRequestBudget(get_worker())
        except ValueError:
            pass
    return OwnRequestBudget()
