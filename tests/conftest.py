"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each has its share of the processors; torch is imported after this
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

sys.dont_write_bytecode = False  # else each of a hundred processes compiles the package anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; the commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"
LONG = (
    "test_studio_browser.py",
    "test_native_bands.py",
    "test_cluster.py",
    "test_end_to_end.py",
    "test_files_of_others.py",
    "test_scene.py",
    "test_training_processes.py",
    "test_own_sensor.py",
    "test_autoencoders_of_rasters.py",
    "test_autoencoder_training.py",
    "test_simulation_archive.py",
    "test_site.py",
    "test_train_command.py",
    "test_storage.py",
    "test_shards.py",
    "test_documents.py",
)
"""They go first, so that no processor is left with one of them at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With `-n`, a file is one worker's: what its tests share is made once."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers and real pixels that lie beside some checkouts and are never part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared is not beside this checkout")
    return SHARED
