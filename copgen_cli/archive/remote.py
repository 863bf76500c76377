"""Where files come from, whatever is behind it: the interface of an archive, and what can be wrong with one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from copgen_cli.errors import CopgenError, UnavailableError


class AccessDeniedError(CopgenError):
    """The endpoint wants another token, or none of ours."""


class UnreachableError(CopgenError):
    """Nobody answers at the endpoint."""


class NotThereError(UnavailableError):
    """The server has no such file."""


class RemoteFile(Protocol):
    """One file of an archive, resolved: what it is, and its bytes."""

    size: int
    etag: str | None
    """Of the file as the endpoint names it; the same as long as the content is."""
    commit: str | None
    """The revision that the endpoint answered for."""

    def read(self, start: int, stop: int) -> bytes:
        """Exactly the bytes [start, stop)."""
        ...

    def save(self, target: Path) -> None:
        """Write the whole file, checked against its length and, where the server states one, its SHA-256."""
        ...

    def close(self) -> None: ...


class Archive(Protocol):
    """Where files come from: an HTTP endpoint or a folder."""

    traffic: Traffic

    def open(self, path: str) -> RemoteFile:
        """Resolve a path below the endpoint.

        Raises:
            NotThereError, UnavailableError, AccessDeniedError, UnreachableError.
        """
        ...

    def close(self) -> None: ...


class Traffic:
    """What went over the wire; counted by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self.bytes = 0
        """Of bodies."""
        self.repeated = 0
        """Requests that were made again after a failure."""

    def counts(self) -> tuple[int, int, int]:
        """Requests, bytes and repetitions so far."""
        with self._lock:
            return self.requests, self.bytes, self.repeated

    def add(self, *, requests: int = 0, bytes: int = 0, repeated: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.bytes += bytes
            self.repeated += repeated
