"""Find the scheduler that a setting names, or start one on this machine."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copgen_cli.errors import CopgenError, UsageError
from copgen_cli.settings import ClusterSettings

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

SECONDS_TO_CLOSE = 5.0
_LOCAL = re.compile(r"local:(?P<workers>[1-9]\d{0,3})")
_ADDRESS = re.compile(r"(?P<protocol>tcp|tls|ws|wss|ucx)://[^/\s]+:\d+")
_WORKER_SETUP = "copgen_cli.cluster.worker_setup"


class ClusterError(CopgenError):
    """The cluster can not be reached, or does not do what it should."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A scheduler that answers."""

    client: Client
    private: bool
    """What is sent over it stays on this machine, or is encrypted."""


@contextmanager
def connect(settings: ClusterSettings, *, gpu: bool) -> Iterator[Connection]:
    """Connect to the scheduler of the settings for as long as the block lasts.

    Args:
        settings: name the scheduler.
        gpu: whether workers that are started here are given the resource `GPU`.

    Raises:
        UsageError: the setting names no scheduler.
        ClusterError: nobody answers, or Dask is not installed.
    """
    distributed = _import_distributed()
    _silence()
    named = settings.scheduler or ""
    with ExitStack() as stack:
        local = _LOCAL.fullmatch(named)
        if local:
            cluster = _start(int(local["workers"]), stack, gpu=gpu)
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
            yield Connection(client, private=True)
            return
        address, of_file = _find_address(named)
        try:
            client = distributed.Client(address, timeout=settings.wait, set_as_default=False)
        except OSError as error:
            told = f"of {of_file} " if of_file else ""
            raise ClusterError(
                f"No scheduler {told}answers at {address}.",
                hint="Check --scheduler, and that `dask scheduler` runs there with the same version of Dask.",
            ) from error
        stack.callback(client.close, timeout=SECONDS_TO_CLOSE)
        yield Connection(client, private=address.startswith(("tls://", "wss://")))


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "--scheduler needs Dask, which is not installed.", hint="pip install 'copgen[cluster]'"
        ) from error
    return distributed


def _find_address(named: str) -> tuple[str, str | None]:
    """The address of a scheduler, and the file that told it."""
    if _ADDRESS.fullmatch(named):
        return named, None
    file = Path(named).expanduser()
    if "://" in named or named.startswith("local") or not file.is_file():
        raise UsageError(
            f"{named!r} names no scheduler.",
            hint="Give tcp://HOST:PORT, local:N for N processes of this machine, or a scheduler file that exists.",
        )
    try:
        address = json.loads(file.read_bytes())["address"]
        if _ADDRESS.fullmatch(address):
            return address, str(file)
    except (ValueError, KeyError, TypeError):
        pass
    raise UsageError(
        f"{file} is no scheduler file.", hint="`dask scheduler --scheduler-file FILE` and dask-jobqueue write one."
    )


def _start(workers: int, stack: ExitStack, *, gpu: bool) -> LocalCluster:
    """So many worker processes on this machine, that end with this one however it ends."""
    import dask
    from distributed import LocalCluster

    stack.enter_context(dask.config.set({"distributed.worker.daemon": True, "logging": {"distributed": "critical"}}))
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="copgen-cluster-", ignore_cleanup_errors=True))
    threads = max(1, (os.cpu_count() or 1) // workers)
    return stack.enter_context(
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            memory_limit=0,  # as much as a pool of processes may take
            local_directory=scratch,
            preload=_WORKER_SETUP,
            env={name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
            resources={"GPU": 1} if gpu else None,
        )
    )


def _silence() -> None:
    """What Dask says of connections that break is told in an error of our own, or is none of the user's business; to
    the end of the process, for Dask goes on when a cluster is closed in a hurry."""
    theirs = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    for name in (*theirs, "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
