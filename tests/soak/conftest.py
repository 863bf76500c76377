"""What the campaigns against several commands share: a small disk, and runs on it while it is full."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from copgen_cli.errors import DiskFullError


class SmallDisk:
    """A disk of 64 megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_with_room(self, room: int, program: Sequence[str]) -> bool:
        """Run a program while so many bytes are free; whether they were too few, which it must have said."""
        ballast = self.folder / "ballast"
        ballast.write_bytes(b"\0" * max(0, shutil.disk_usage(self.folder).free - room))
        ran = subprocess.run(program, capture_output=True, text=True)
        ballast.unlink()
        if ran.returncode:
            assert ran.returncode == DiskFullError.exit_code, ran.stderr
            assert "No room left on the disk of" in ran.stderr
            assert "Traceback" not in ran.stderr
        return bool(ran.returncode)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user can not mount a small disk")
    yield SmallDisk(folder)
    subprocess.run(["umount", folder], check=True)
