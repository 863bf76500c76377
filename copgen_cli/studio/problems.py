"""Problems that only a server has, and which status of HTTP each problem gets."""

from __future__ import annotations

from copgen_cli.errors import (
    BusyError,
    CopgenError,
    DiskFullError,
    ItemError,
    MismatchError,
    MissingInputError,
    UsageError,
)

_LISTED = {
    "region": "/api/regions lists those that there are.",
    "cell": "/api/regions/REGION/cells lists those of a region.",
    "patch": "/api/regions/REGION/cells/CELL/patches lists those of a cell.",
}
"""Where one finds the names of what is on disk."""


class NotThereError(CopgenError):
    """An id that this server does not know, or no longer."""

    @classmethod
    def of(cls, what: str, name: str) -> NotThereError:
        return cls(
            f"This studio has no {what} {name[:60]!r}.",
            hint=_LISTED.get(what, "It may have been started again since, or made room: ask again."),
        )


class QueueFullError(CopgenError):
    """As many requests wait as may."""

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} requests are waiting already.", hint=f"Try again in {seconds} s.")
        self.seconds = seconds


class TooLargeError(CopgenError):
    """More bytes than are taken."""


class RefusedError(CopgenError):
    """A request that a page of another origin may have made, or without the token."""


STATUS: dict[type[CopgenError], int] = {
    NotThereError: 404,
    QueueFullError: 429,
    TooLargeError: 413,
    UsageError: 422,
    MismatchError: 422,
    ItemError: 422,
    MissingInputError: 404,
    BusyError: 409,
    DiskFullError: 507,
}


def status_of(problem: CopgenError) -> int:
    """The status of the nearest kind; 500 of others."""
    return next((STATUS[kind] for kind in type(problem).__mro__ if kind in STATUS), 500)
