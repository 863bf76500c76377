"""What a worker process of this machine does before it works; Dask calls it by name."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ctrl-C reaches the whole process group, and the driver alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
