"""How long to wait before asking a server again; one for all threads that talk to it."""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Mapping

FIRST_PAUSE = 0.5
"""Seconds before the first repetition of a request that failed; doubled for each further one."""
LONGEST_PAUSE = 60.0
LONGEST_STATED_WAIT = 900.0
"""Seconds; a server that asks for more is given up on. The hub's windows are of 300."""

_NUMBER = re.compile(r";\s*(\w+)=\s*(\d+(?:\.\d+)?)\s*(?=;|$)")
_RATE_LIMIT = re.compile(r'"(?P<name>[^"]*)"(?P<parameters>(?:\s*;\s*\w+=[^;,]*)*)')


class RetryPolicy:
    """Exponential back-off with jitter, and the moments before which a server does not want to be asked.

    Args:
        seed: of the jitter, from a generator of its own.
        clock, sleep: for tests that do not want to wait.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._random = random.Random(seed)
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._not_before: dict[str, float] = {}

    def hold(self, origin: str, seconds: float) -> None:
        """Nobody asks this origin again before so many seconds have passed."""
        with self._lock:
            until = self._clock() + seconds
            self._not_before[origin] = max(until, self._not_before.get(origin, until))

    def await_turn(self, origin: str) -> None:
        """Wait until the origin may be asked."""
        while True:
            with self._lock:
                left = self._not_before.get(origin, 0.0) - self._clock()
                jitter = self._random.uniform(0.0, 0.05)
            if left <= 0:
                return
            self._sleep(left + jitter)

    def back_off(self, failures: int, stated: float = 0.0) -> None:
        """Wait after the so many-th failure in a row of one request, and never less than the server stated."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
        with self._lock:
            pause = longest * self._random.uniform(0.5, 1.0)
        self._sleep(max(pause, stated))


def stated_wait(headers: Mapping[str, str]) -> float:
    """Seconds to wait according to `Retry-After` and to the hub's `RateLimit: "resolvers";r=0;t=42`; 0 if none."""
    return max(_retry_after(headers.get("Retry-After", "")), *_exhausted(headers.get("RateLimit", "")), 0.0)


def quota_left_for(headers: Mapping[str, str]) -> float:
    """Seconds until the quota that an answered request has just used up is filled again; 0 if some is left."""
    return max(*_exhausted(headers.get("RateLimit", "")), 0.0, 0.0)


def _retry_after(value: str) -> float:
    value = value.strip()
    if not value:
        return 0.0
    try:
        return (
            float(value) if value[0].isdigit() else email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        )
    except (ValueError, TypeError):
        return 0.0


def _exhausted(value: str) -> list[float]:
    """The reset times of those quotas of a RateLimit header of which nothing is left."""
    times = [0.0]
    for quota in _RATE_LIMIT.finditer(value):
        numbers = dict(_NUMBER.findall(quota["parameters"]))
        if float(numbers.get("r", "1")) <= 0:
            times.append(float(numbers.get("t", "0")))
    return times
