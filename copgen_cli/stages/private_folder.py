"""`<output>/.copgen/`: what only a run under way has there. Its lock, who holds it, and its temporary files."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from filelock import Timeout

from copgen_cli.errors import BusyError, UnusablePathError
from copgen_cli.stages.atomic import disk_full_is_an_error
from copgen_cli.stages.claims import PRIVATE_FOLDER
from copgen_cli.stages.locks import ExclusiveLock
from copgen_cli.storage import is_alive

SECONDS_FOR_LOCK = 0.5


class PrivateFolder:
    """The private folder of one output; `take` it before anything is written, and `leave` it in the end."""

    def __init__(self, output: Path, stage: str) -> None:
        self.folder = output / PRIVATE_FOLDER
        self.temporary = self.folder / "tmp" / f"{socket.gethostname()}_{os.getpid()}_{uuid4().hex[:8]}"
        self._output, self._stage = output, stage
        self._lock = ExclusiveLock(self.folder / "lock", SECONDS_FOR_LOCK)
        self._owner_file = self.folder / "owner.json"

    @property
    def build(self) -> Path:
        """For what is built over several runs."""
        return self.folder / "build"

    def take(self) -> None:
        """Lock the output and clear away what killed runs left.

        Raises:
            UnusablePathError: the system has no room for such a folder, as below /proc.
            BusyError: another process holds the lock; the message says which.
        """
        self._lock_output()
        try:
            with disk_full_is_an_error(self.folder):
                self._owner_file.write_text(json.dumps(self._myself()))
            self._clear_temporaries()
            with disk_full_is_an_error(self.folder):
                self.temporary.mkdir(parents=True)
        except BaseException:
            self.leave()
            raise

    def _lock_output(self) -> None:
        for _ in range(10):  # a run that ends may remove the folder at any point of this
            try:
                with disk_full_is_an_error(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
                return
            except FileNotFoundError:
                continue
            except Timeout:
                break
        if not self._output.is_dir():
            raise UnusablePathError(f"{self._output} can not be made.", hint="Choose another folder.")
        raise BusyError(
            f"Another process is writing to {self._output}: {self._owner()}.",
            hint="Wait for it to end, or stop it; then run again, which continues.",
        )

    def leave(self) -> None:
        """Remove what is this run's alone, and the folder if that was all; a journal stays for the next run."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        with suppress(OSError):
            self.temporary.parent.rmdir()
        self._owner_file.unlink(missing_ok=True)
        with suppress(OSError):  # nobody waits on an unlinked lock: filelock looks at its link count
            (self.folder / "lock").unlink(missing_ok=True)
        self._lock.release()
        for folder in (self.folder, self._output):  # a run that made nothing leaves no empty folder
            with suppress(OSError):
                folder.rmdir()

    def _myself(self) -> dict[str, str | int]:
        """Not the whole command line: it may hold a token."""
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        return {"stage": self._stage, "pid": os.getpid(), "host": socket.gethostname(), "since": since}

    def _owner(self) -> str:
        try:
            owner = json.loads(self._owner_file.read_text())
            return f"{owner['stage']}, process {owner['pid']} on {owner['host']}, since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "it has not said which"

    def _clear_temporaries(self) -> None:
        """A folder of a living process stays, in case the lock itself does not work."""
        for folder in (self.folder / "tmp").glob("*"):
            host, _, pid = folder.name.rpartition("_")[0].rpartition("_")
            here = host == socket.gethostname() and pid.isdigit() and int(pid) != os.getpid()
            if not (here and is_alive(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)
