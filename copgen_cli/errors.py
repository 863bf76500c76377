"""Errors that a user can mend: each carries a hint, and the exit code that scripts may rely on."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTLY = 3
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class CopgenError(Exception):
    """A problem the user can fix. `main()` prints message and hint; a bug keeps its traceback."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come back whole from worker processes, whatever their constructors take."""
        return _revive, (type(self), self.args, self.__dict__)


class UsageError(CopgenError, ValueError):
    """The command line, a setting or an argument asks for something that makes no sense."""

    exit_code = EXIT_USAGE


class UnknownNameError(UsageError):
    """A name that should be one of a known list."""

    def __init__(self, kind: str, name: str, *, known: Iterable[str]) -> None:
        self.name = str(name)
        names = [str(item) for item in known]
        nearest = nearest_name(str(name), names)
        suggestion = f"Did you mean {nearest!r}? " if nearest else ""
        super().__init__(f"Unknown {kind} {name!r}.", hint=f"{suggestion}Known: {', '.join(names) or 'none'}.")


class MissingInputError(CopgenError):
    """A command needs what an earlier command writes."""

    def __init__(self, what: str, folder: Path, *, written_by: str) -> None:
        super().__init__(
            f"No {what} in {folder}.", hint=f"Run `copgen {written_by}` first, or point to another folder."
        )


class NotFiniteError(CopgenError):
    """Too many steps of training in a row without a finite loss and gradient."""


class MismatchError(CopgenError, ValueError):
    """Two things that must agree do not: a store and a model, a checkpoint and its configuration."""


class ItemError(CopgenError):
    """One item can not be made, which says nothing about the others: a stage sets it aside and goes on."""


class BrokenInputError(ItemError):
    """A file is not what it should be: cut short, of another format, or dangerous to read."""


class MeasurementsError(BrokenInputError):
    """A raster of other bands or more bits, where a picture of 8 bits is asked for."""


class UnavailableError(ItemError):
    """A server did not give one thing, however often it was asked."""


class BusyError(CopgenError):
    """Another process is writing the same output."""


class DiskFullError(CopgenError):
    """The disk has no room for what would be written."""

    def __init__(self, path: Path, *, needed: int | None = None, free: int | None = None) -> None:
        need = f" {needed:,} bytes are needed" if needed is not None else ""
        have = f", {free:,} are free" if needed is not None and free is not None else ""
        super().__init__(
            f"No room left on the disk of {path}.{need}{have}{'.' if need else ''}",
            hint="Free some space or choose another folder; what is complete is kept, and running again continues.",
        )


_UNUSABLE = {
    errno.EACCES: "Change its permissions, or choose another folder.",
    errno.EEXIST: "Something else has this name: move it away, or choose another folder.",
    errno.EIO: "The disk or its network fails: check it, then run again, which continues.",
    errno.EISDIR: "A file is needed here: move the folder away, or name another place.",
    errno.ELOOP: "Links lead in a circle: mend them, or choose another folder.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or use fewer workers.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A folder is needed here: move the file away, or choose another folder.",
    errno.EPERM: "Change its permissions, or choose another folder.",
    errno.EXDEV: "A link leads to another disk: move the whole output there, or choose another folder.",
    errno.EROFS: "Its disk can only be read: choose another folder.",
}


class UnusablePathError(CopgenError):
    """A path that the system refuses, for a reason that only the user can mend."""

    @classmethod
    def of(cls, problem: OSError) -> UnusablePathError | None:
        """The same problem with a hint; None where the system's reason may as well be a mistake of ours."""
        if problem.filename is None or problem.errno not in _UNUSABLE:
            return None
        return cls(f"{problem.filename}: {problem.strerror}.", hint=_UNUSABLE[problem.errno])


def _revive(kind: type[CopgenError], args: tuple[Any, ...], state: dict[str, Any]) -> CopgenError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The closest known spelling, if any is close; a beginning counts as close."""
    from difflib import get_close_matches

    names = list(known)
    begun = [candidate for candidate in names if candidate.lower().startswith(name.lower())] if name else []
    matches = begun or get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return matches[0] if matches else None
