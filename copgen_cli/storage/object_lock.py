"""A lock where there is no `flock`: an object that is created exclusively, and refreshed while it is held.

It tells who holds it: stage, host, process, since when, and when it was last refreshed (UTC). It is taken over when its
process is gone (of this host, by its number), or when it has not been refreshed for `STALE` seconds. Hosts' clocks may
differ by less than that. Two processes that take over the same abandoned lock at the same moment are told apart by
reading it back, which leaves a gap of one request: the store's conditional write closes it for fresh locks.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from copgen_cli.storage.problems import explain

REFRESH = 30.0
"""Seconds between two signs of life."""
STALE = 300.0
"""Seconds without one after which an owner counts as gone."""


class HeldError(Exception):
    """Another process holds the lock; the text says which."""


class ObjectLock:
    """Held by one process at a time.

    Args:
        file: the object.
        purpose: what holds it, for those who wait.
    """

    def __init__(self, file: Path, purpose: str) -> None:
        self._file, self._purpose = file, purpose
        self._token = uuid4().hex
        self._since = datetime.now().astimezone().isoformat(timespec="seconds")
        self._ended: threading.Event | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            HeldError: another process holds it.
            StorageError: the store can not be used.
        """
        with explain(self._file):
            for _ in range(3):
                if self._create():
                    self._keep_fresh()
                    return
                owner = self._read()
                if owner is not None and not _is_gone(owner):
                    raise HeldError(_told(owner))
                if owner is None or self._read() == owner:  # nobody else has taken it over meanwhile
                    with suppress(FileNotFoundError):
                        self._file.unlink()
            raise HeldError("several processes want it at once")

    def release(self) -> None:
        """Give the lock back; one that was lost meanwhile is left to who has it."""
        if self._ended is None:
            return
        self._ended.set()
        self._ended = None
        with explain(self._file):
            owner = self._read()
            if owner is not None and owner.get("token") == self._token:
                with suppress(FileNotFoundError):
                    self._file.unlink()

    def _create(self) -> bool:
        fs: Any = self._file.fs  # type: ignore[attr-defined]
        with suppress(FileExistsError):
            fs.pipe_file(self._file.path, self._as_json(), mode="create")  # type: ignore[attr-defined]
        owner = self._read()  # also where "exists" is the answer to a second try of a write that had gone through
        return owner is not None and owner.get("token") == self._token

    def _read(self) -> dict[str, Any] | None:
        try:
            owner = json.loads(self._file.read_bytes())
            return owner if isinstance(owner, dict) else {}
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _as_json(self) -> bytes:
        owner = {"stage": self._purpose, "pid": os.getpid(), "host": socket.gethostname(), "since": self._since}
        return json.dumps(owner | {"token": self._token, "seen": datetime.now(UTC).timestamp()}).encode()

    def _keep_fresh(self) -> None:
        ended = self._ended = threading.Event()

        def refresh() -> None:
            while not ended.wait(REFRESH):
                with suppress(Exception):  # the next one may go through; a lock outlives several
                    self._file.write_bytes(self._as_json())

        threading.Thread(target=refresh, daemon=True, name="copgen-lock").start()


def _is_gone(owner: dict[str, Any]) -> bool:
    try:
        if owner["host"] == socket.gethostname():
            return not is_alive(int(owner["pid"]))
        return time.time() - float(owner["seen"]) > STALE
    except (KeyError, TypeError, ValueError):
        return False


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _told(owner: dict[str, Any]) -> str:
    try:
        return f"{owner['stage']}, process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except KeyError:
        return "it has not said which"
