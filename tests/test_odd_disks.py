"""Disks that answer otherwise than a local one: without locks, without flushing of folders; and permissions."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from filelock import Timeout
from tiny_models import tiny_pipeline

from copgen_cli.errors import BusyError
from copgen_cli.stages.driver import StageRun
from copgen_cli.stages.locks import ExclusiveLock
from copgen_cli.stages.numbered_folders import list_checkpoints, write_folder


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def disk_without_locks(request, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_stage_runs_alone_on_a_disk_without_locks(tmp_path, disk_without_locks):
    with (
        StageRun("first", tmp_path / "out", settings={}),
        pytest.raises(BusyError, match=f"process {os.getpid()}"),
        StageRun("second", tmp_path / "out", settings={}),
    ):
        pass
    with StageRun("second", tmp_path / "out", settings={}) as run:
        run.finish()

    assert not (tmp_path / "out" / ".copgen").exists()


def test_a_lock_whose_holder_is_gone_is_taken_over_on_a_disk_without_locks(tmp_path, disk_without_locks):
    child = os.fork()
    if not child:
        ExclusiveLock(tmp_path / "lock").acquire()
        os._exit(0)  # as by a kill: nothing is released
    os.waitpid(child, 0)

    held = ExclusiveLock(tmp_path / "lock", timeout=5)
    with held, pytest.raises(Timeout):
        ExclusiveLock(tmp_path / "lock", timeout=0).acquire()


def test_a_checkpoint_is_kept_where_folders_can_not_be_flushed(tmp_path, monkeypatch):
    flush = os.fsync

    def flush_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flush_files_only)

    write_folder(tmp_path / "step-00000001", lambda folder: (folder / "weights").write_text("1") and None)

    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-00000001"]


def test_a_disk_that_fails_to_flush_a_folder_is_not_taken_for_one_that_can_not(tmp_path, monkeypatch):
    flush = os.fsync

    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_folder(tmp_path / "step-00000001", lambda folder: (folder / "weights").write_text("1") and None)


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_a_model_can_be_read_by_whom_the_umask_allows(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = tiny_pipeline(tmp_path / "model")
    finally:
        os.umask(before)

    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    assert any(file.suffix == ".safetensors" for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~umask}
