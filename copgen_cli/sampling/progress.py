"""Long work that tells of its steps: it runs in a thread of its own, so that each can be yielded as it is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
Tell = Callable[[T], None]
"""Hand an item on to whoever iterates."""


class _Stopped(BaseException):
    """Nobody listens any more; not an Exception, so that nothing on the way takes it for a failure of its own."""


def tell_while(work: Callable[[Tell[T]], None]) -> Iterator[T]:
    """Yield what `work` tells, while it is at it; an exception of `work` is raised here.

    When the iteration ends early, the next thing that `work` tells ends it too, and this waits for that.
    """
    told: SimpleQueue[tuple[str, object]] = SimpleQueue()
    listening = True

    def tell(item: T) -> None:
        if not listening:
            raise _Stopped
        told.put(("item", item))

    def run() -> None:
        try:
            work(tell)
        except _Stopped:
            pass
        except BaseException as error:
            told.put(("error", error))
        told.put(("end", None))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = told.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        listening = False
        thread.join()
