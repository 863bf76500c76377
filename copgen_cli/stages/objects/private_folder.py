"""What a run under way has for itself: a lock in the output, and temporary files on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from copgen_cli.errors import BusyError
from copgen_cli.stages.atomic import disk_full_is_an_error
from copgen_cli.stages.claims import PRIVATE_FOLDER
from copgen_cli.storage import HeldError, ObjectLock, reach


class ObjectPrivateFolder:
    """Of one output; `take` it before anything is written, and `leave` it in the end."""

    def __init__(self, output: Path, stage: str) -> None:
        self.folder = output / PRIVATE_FOLDER
        self._output = output
        self._lock = ObjectLock(self.folder / "lock", stage)
        self.temporary = Path(tempfile.gettempdir(), f"copgen-{os.getpid()}-{uuid4().hex}")

    @property
    def build(self) -> Path:
        """On this machine as well: what is built over several runs is begun anew after a kill."""
        return self.temporary / "build"

    def take(self) -> None:
        """Lock the output.

        Raises:
            BusyError: another process holds the lock; the message says which.
            StorageError: the store can not be used.
        """
        reach(self._output)
        try:
            self._lock.acquire()
        except HeldError as held:
            raise BusyError(
                f"Another process is writing to {self._output}: {held}.",
                hint="Wait for it to end, or stop it; then run again, which continues. One of another machine that was "
                "killed counts as gone after five minutes.",
            ) from None
        try:
            with disk_full_is_an_error(self.temporary):
                self.temporary.mkdir(mode=0o700)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Remove what is this run's alone; a journal stays for the next run."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self._lock.release()
