"""Look at the workers of a cluster before anything is given to them: versions, resources, folders they must see."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from copgen_cli import __version__
from copgen_cli.cluster.connection import ClusterError
from copgen_cli.storage import absolute

if TYPE_CHECKING:
    from distributed import Client

GPU = "GPU"
"""The resource that a worker with a GPU is started with: `dask worker --resources GPU=1`."""


def wait_for_workers(client: Client, seconds: float, *, gpu: bool) -> dict[str, int]:
    """Wait until there is a worker; threads by its address.

    Raises:
        ClusterError: none comes, or none that has a GPU where one is asked for.
    """
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise ClusterError(
            f"No worker has joined the cluster within {seconds:g} s.",
            hint="Start workers (`dask worker ADDRESS`), or wait longer: wait in [cluster].",
        ) from None
    found = threads_of(client, gpu=gpu)
    if not found and gpu:
        raise ClusterError(
            "No worker of the cluster has a GPU.",
            hint=f"Start workers with `--resources {GPU}=1`, or choose --device cpu.",
        )
    return found


def threads_of(client: Client, *, gpu: bool) -> dict[str, int]:
    """Threads by address of the workers that can be given work."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        address: int(worker["nthreads"])
        for address, worker in workers.items()
        if worker.get("status") in ("running", "init", "paused") and (not gpu or worker["resources"].get(GPU, 0) >= 1)
    }


def check_versions(client: Client, workers: Iterable[str]) -> set[str]:
    """Refuse workers whose Python, copgen or torch is not ours: what they make, or whether, would be left to chance.

    Returns:
        Those that answered; others are on their way out.

    Raises:
        ClusterError: a worker is of another version.
    """
    ours = {"Python": f"{sys.version_info[0]}.{sys.version_info[1]}", "copgen": __version__, "torch": version("torch")}
    asked = list(workers)
    told_versions: Any = client.get_versions()
    pythons = {
        address: ".".join(dict(told["host"])["python"].split(".")[:2])
        for address, told in told_versions["workers"].items()
        if address in asked
    }
    _must_agree({address: {"Python": python} for address, python in pythons.items()}, ours)
    told = client.run(_installed_packages(), workers=list(pythons), on_error="return")
    answered = {address: versions for address, versions in told.items() if not isinstance(versions, OSError)}
    _must_agree(answered, ours)
    return set(answered)


def _installed_packages() -> Callable[[], dict[str, str]]:
    def look() -> dict[str, str]:  # a function in a function travels by value: copgen may be missing where it runs
        import importlib.metadata

        found = {"copgen": "", "torch": ""}
        try:
            found["torch"] = importlib.metadata.version("torch")
            found["copgen"] = __import__("copgen_cli").__version__
        except ImportError:  # also of a package that has no metadata
            pass
        return found

    look.__module__ = "__main__"
    return look


def _must_agree(told: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    for address, versions in sorted(told.items()):
        if isinstance(versions, Exception):
            raise ClusterError(
                f"The worker {address} can not be asked for its versions: {versions}.",
                hint="Its Python or Dask is of another version; use one environment for all.",
            ) from versions
        for name, theirs in versions.items():
            if theirs != ours[name]:
                raise ClusterError(
                    f"The worker {address} has {f'{name} {theirs}' if theirs else f'no {name}'}, and this machine "
                    f"{name} {ours[name]}.",
                    hint="Use one environment for the driver and all workers.",
                )


def check_folder(client: Client, workers: Iterable[str], folder: Path) -> None:
    """Have every worker look for a file that is written here, and leave one of its own.

    Raises:
        ClusterError: a worker does not see the folder, or can not write there.
    """
    probe = absolute(folder) / f"probe-{uuid4().hex}"
    probe.write_bytes(b"")
    try:
        told = client.run(_look_and_write, probe, workers=list(workers), on_error="return")
    finally:
        probe.unlink(missing_ok=True)
    for address, problem in sorted(told.items()):
        if problem:
            raise ClusterError(
                f"The worker {address} can not use {folder}: {problem}.",
                hint="Workers need the same folders under the same names: use a shared disk, or object storage.",
            )


def _look_and_write(probe: Path) -> str:
    own = probe.with_name(f"probe-{uuid4().hex}")
    try:
        if not probe.is_file():
            return "it is not there"
        own.write_bytes(b"")
        own.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""
