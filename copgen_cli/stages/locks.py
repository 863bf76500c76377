"""One process at a time: a lock on a file, also on disks that know no locks."""

from __future__ import annotations

import errno
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, SoftFileLock

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What `flock` answers on file systems without it: FUSE, NFS whose lock service is down, some cluster disks."""


class ExclusiveLock:
    """Held by one process at a time: `flock` of a file or, where the disk has none, the existence of another.

    The latter, `<file>.held`, names the process that made it, and is taken over when that one is gone.

    Args:
        file: any that nobody reads.
        timeout: seconds to wait for another process; -1 is without end.
    """

    def __init__(self, file: Path, timeout: float = -1) -> None:
        self._timeout = timeout
        self._lock: BaseFileLock = FileLock(file, fallback_to_soft=False)
        self._instead = SoftFileLock(file.with_name(f"{file.name}.held"))

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            filelock.Timeout: another process holds it.
        """
        try:
            self._lock.acquire(timeout=self._timeout, poll_interval=0.05)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._lock = self._instead
            self._lock.acquire(timeout=self._timeout, poll_interval=0.05)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> ExclusiveLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
