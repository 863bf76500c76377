"""How long to wait before asking a server again; one for all threads that talk to it."""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from copgen_cli.cluster import OwnRequestBudget, RequestBudget

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
        budget: when servers may be asked; one of this process, or of a whole cluster.
        seed: of the jitter, from a generator of its own.
        sleep: for tests that do not want to wait.
    """

    def __init__(
        self,
        budget: RequestBudget | None = None,
        *,
        seed: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._random = random.Random(seed)
        self._budget = budget or OwnRequestBudget()
        self._sleep = sleep
        self._lock = threading.Lock()

    def hold(self, origin: str, seconds: float) -> None:
        """Nobody asks this origin again before so many seconds have passed."""
        self._budget.hold(origin, min(seconds, LONGEST_STATED_WAIT))

    def heed(self, origin: str, headers: Mapping[str, str]) -> None:
        """Take in what an answer tells of the quota."""
        quota = quota_of(headers)
        if quota is not None:
            self._budget.note_quota(origin, quota.left, min(quota.seconds, LONGEST_STATED_WAIT))

    def await_turn(self, origin: str) -> None:
        """Wait until the origin may be asked."""
        while (left := self._budget.take_turn(origin)) > 0:
            with self._lock:
                jitter = self._random.uniform(0.0, 0.05)
            self._sleep(left + jitter)

    def back_off(self, failures: int, stated: float = 0.0) -> None:
        """Wait after the so many-th failure in a row of one request, and never less than the server stated."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
        with self._lock:
            pause = longest * self._random.uniform(0.5, 1.0)
        self._sleep(max(pause, stated))


def stated_wait(headers: Mapping[str, str]) -> float:
    """Seconds to wait according to `Retry-After` and to the hub's `RateLimit: "resolvers";r=0;t=42`; 0 if none."""
    quota = quota_of(headers)
    return max(_retry_after(headers.get("Retry-After", "")), quota.seconds if quota and not quota.left else 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a server says of its quota that is nearest to its end."""

    left: int
    """Requests."""
    seconds: float
    """Until it is filled again."""


def quota_of(headers: Mapping[str, str]) -> Quota | None:
    """What `RateLimit: "resolvers";r=<left>;t=<seconds>` tells; None where it tells nothing."""
    quotas = []
    for found in _RATE_LIMIT.finditer(headers.get("RateLimit", "")):
        numbers = dict(_NUMBER.findall(found["parameters"]))
        if {"r", "t"} <= numbers.keys():
            quotas.append(Quota(int(float(numbers["r"])), float(numbers["t"])))
    return min(quotas, key=lambda quota: (quota.left, -quota.seconds), default=None)


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
