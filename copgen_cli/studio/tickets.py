"""One queue of requests before one worker: place in the queue, progress, cancelling, and who is told of it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from copgen_cli.errors import CopgenError
from copgen_cli.studio.problems import NotThereError, QueueFullError
from copgen_cli.studio.schemas import Ask, Problem, RequestState, Result, State

log = logging.getLogger(__name__)

REMEMBERED = 500
"""Finished requests whose state can be asked for."""
TYPICAL_SECONDS = 10.0
"""Of a request, before any has been done."""
STOPPED = Problem(error="The studio was stopped.", hint="Start it again, and ask again.")
BUG = Problem(error="Something went wrong in the studio itself.", hint="Its window on the terminal says what.")


class CancelledError(Exception):
    """The request is wanted no more."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request, from its arrival until it is forgotten. Its queue alone changes it, under the queue's lock."""

    ask: Ask
    key: str
    """Hash of all that the result depends on."""
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    state: State = State.WAITING
    step: int = 0
    steps: int = 0
    previews: Mapping[str, bytes] = field(default_factory=dict)
    """The newest, by modality, as PNG."""
    preview: int = 0
    problem: Problem | None = None
    result: Result | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    version: int = 0
    """Counts changes."""


Work = Callable[[Ticket, "TicketQueue"], Result]


class TicketQueue:
    """First come, first served. All methods may be called from any thread."""

    def __init__(self, work: Work, limit: int) -> None:
        self._work, self._limit = work, limit
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._seconds = TYPICAL_SECONDS
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="copgen-studio", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell everyone who waits that it is over, and end the worker at the next step of the network."""
        with self._changed:
            self._stopping = True
            for ticket in (*self._waiting, *([self._running] if self._running else [])):
                ticket.cancelled.set()
                self._finish(ticket, State.FAILED, problem=STOPPED)
            self._waiting.clear()
            self._tell()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_running(self) -> bool:
        return self._running is not None

    def submit(self, ask: Ask, key: str, known: Result | None) -> Ticket:
        """Take a request; one whose result is `known` is done at once.

        Raises:
            QueueFullError: too many wait.
        """
        ticket = Ticket(ask, key)
        with self._changed:
            if known is not None:
                self._finish(ticket, State.DONE, result=known.model_copy(update={"cached": True}))
            elif self._stopping:
                self._finish(ticket, State.FAILED, problem=STOPPED)
            elif len(self._waiting) >= self._limit:
                raise QueueFullError(len(self._waiting), max(1, round(self._seconds)))
            else:
                self._waiting.append(ticket)
            self._tickets[ticket.id] = ticket
            self._forget()
            self._tell()
        return ticket

    def get(self, name: str) -> Ticket:
        """Raises NotThereError where there is no request of that id."""
        with self._changed:
            if name not in self._tickets:
                raise NotThereError.of("request", name)
            return self._tickets[name]

    def cancel(self, name: str) -> Ticket:
        """Take it out of the queue, or end it at the next step of the network; what is finished stays."""
        ticket = self.get(name)
        with self._changed:
            if not ticket.state.is_final:
                ticket.cancelled.set()
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                self._finish(ticket, State.CANCELLED)
            self._tell()
        return ticket

    def progress(self, ticket: Ticket, step: int, steps: int) -> None:
        """Note how far it is.

        Raises:
            CancelledError: it is wanted no more.
        """
        if ticket.cancelled.is_set():
            raise CancelledError
        with self._changed:
            ticket.step, ticket.steps = step, steps
            ticket.version += 1
            self._tell()

    def show(self, ticket: Ticket, previews: Mapping[str, bytes]) -> None:
        """Note what it looks like so far."""
        with self._changed:
            ticket.previews, ticket.preview = previews, ticket.preview + 1
            ticket.version += 1
            self._tell()

    def state_of(self, ticket: Ticket) -> RequestState:
        with self._changed:
            position = self._waiting.index(ticket) + self.is_running if ticket in self._waiting else None
            return RequestState(
                id=ticket.id,
                state=ticket.state,
                position=position,
                step=ticket.step,
                steps=ticket.steps,
                preview=ticket.preview,
                problem=ticket.problem,
                result=ticket.result,
            )

    async def states_of(self, ticket: Ticket, heartbeat: float) -> AsyncIterator[RequestState | None]:
        """Its state now and whenever it changes, up to its end; None where nothing changed for a `heartbeat`."""
        listener = (asyncio.get_running_loop(), asyncio.Event())
        with self._changed:
            self._listeners.add(listener)
        try:
            last: RequestState | None = None
            while True:
                listener[1].clear()
                state = self.state_of(ticket)
                if state != last:
                    yield state
                last = state
                if state.state.is_final:
                    return
                try:
                    await asyncio.wait_for(listener[1].wait(), heartbeat)
                except TimeoutError:
                    yield None
        finally:
            with self._changed:
                self._listeners.discard(listener)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                ticket = self._running = self._waiting.popleft()
                ticket.state = State.RUNNING
                self._tell()
            started = time.monotonic()
            outcome = self._outcome_of(ticket)
            with self._changed:
                self._running = None
                self._seconds = 0.5 * self._seconds + 0.5 * (time.monotonic() - started)
                if not ticket.state.is_final:  # by cancelling, or by the end of the server
                    self._finish(ticket, *outcome)
                self._tell()

    def _outcome_of(self, ticket: Ticket) -> tuple[State, Problem | None, Result | None]:
        """A request that goes wrong is one that failed, whatever went wrong."""
        try:
            return State.DONE, None, self._work(ticket, self)
        except CancelledError:
            return State.CANCELLED, None, None
        except CopgenError as problem:
            return State.FAILED, Problem(error=str(problem), hint=problem.hint), None
        except Exception:
            log.exception("a request failed")
            return State.FAILED, BUG, None

    def _finish(
        self, ticket: Ticket, state: State, problem: Problem | None = None, result: Result | None = None
    ) -> None:
        ticket.state, ticket.problem, ticket.result = state, problem, result
        ticket.previews, ticket.preview = {}, 0
        ticket.version += 1

    def _forget(self) -> None:
        finished = [name for name, ticket in self._tickets.items() if ticket.state.is_final]
        for name in finished[: max(0, len(finished) - REMEMBERED)]:
            del self._tickets[name]

    def _tell(self) -> None:
        """Wake the worker and all who listen."""
        self._changed.notify_all()
        for loop, event in tuple(self._listeners):
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # its loop has ended
                self._listeners.discard((loop, event))
