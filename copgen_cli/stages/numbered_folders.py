"""Numbered folders that are whole or absent: filled beside, flushed, hashed in a manifest, and renamed into place.

step-00000010/          what `fill` wrote, and manifest.json with the size and SHA-256 of every file
.step-00000010.<id>     one that is being written, or taken away; of no meaning to a reader
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from copgen_cli.errors import BrokenInputError
from copgen_cli.stages.atomic import disk_full_is_an_error, flush_folder, safe_path, share_files
from copgen_cli.stages.claims import Claims

MANIFEST = "manifest.json"
CHUNK = 1 << 22

_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = re.compile(r"\.step-\d{8,}\.[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Passed:
    """A checkpoint that was passed over, and why."""

    folder: Path
    reason: str


def step_folder(parent: Path, step: int) -> Path:
    return parent / f"step-{step:08}"


def step_of(folder: Path) -> int | None:
    """The step that a folder's name tells; None where it is no checkpoint's name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def list_checkpoints(parent: Path) -> list[Path]:
    """All of them, whole or not, oldest first."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if step_of(path) is not None), key=lambda path: step_of(path) or 0)


def write_folder(target: Path, fill: Callable[[Path], None], claims: Claims | None = None) -> None:
    """Make the folder `target` out of what `fill` writes into the empty folder it is given.

    A folder of that name, damaged or from an abandoned attempt, is replaced. Should anything fail, nothing is left.

    Args:
        target: the folder.
        fill: writes its files.
        claims: of a folder above: what they do not name is not replaced.

    Raises:
        DiskFullError: there was no room.
        MismatchError: there is a folder of that name that was not written by copgen, or holds such files.
    """
    beside = target.with_name(f".{target.name}.{uuid4().hex[:12]}")
    try:
        with disk_full_is_an_error(target):
            beside.mkdir(parents=True)
            fill(beside)
            share_files(beside)
            _seal(beside)
            if claims is not None:
                claims.require(target)
                claims.take(target / file.relative_to(beside) for file in beside.rglob("*") if file.is_file())
            if target.exists():
                remove_folder(target)
            os.rename(beside, target)
            flush_folder(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def recorded_files(folder: Path) -> list[Path]:
    """The files that a checkpoint's manifest names, and the manifest; empty where it cannot be read."""
    try:
        recorded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return [folder / MANIFEST, *(folder / safe_path(name) for name in recorded)]
    except (OSError, ValueError, KeyError, TypeError, BrokenInputError):
        return []


def why_not_whole(folder: Path) -> str | None:
    """What is wrong with a checkpoint, every byte of it read; None where nothing is."""
    try:
        recorded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {str(name): (int(facts["size"]), str(facts["sha256"])) for name, facts in recorded.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return f"its {MANIFEST} is not readable: {error}"
    for name, (size, sha256) in wanted.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
        if _hash(file) != sha256:
            return f"{name} is damaged: its SHA-256 differs from the one in {MANIFEST}"
    return None


def newest_whole(parent: Path) -> tuple[Path | None, list[Passed]]:
    """The newest checkpoint that is whole, and the newer ones that are not."""
    passed: list[Passed] = []
    for folder in reversed(list_checkpoints(parent)):
        reason = why_not_whole(folder)
        if reason is None:
            return folder, passed
        passed.append(Passed(folder, reason))
    return None, passed


def must_be_whole(folder: Path) -> None:
    """Raises BrokenInputError where a checkpoint is not whole."""
    reason = why_not_whole(folder)
    if reason is not None:
        raise BrokenInputError(f"The checkpoint {folder} is not whole: {reason}.", hint="Resume from another one.")


def prune(
    parent: Path, newest: int, *, keep_last: int, milestone_every: int | None, claims: Claims | None = None
) -> None:
    """Remove all but the last few checkpoints up to step `newest`, and those at multiples of `milestone_every`.

    Later ones, which the run passed over because they are damaged, do not count, and stay; as do those that hold files
    which `claims` do not name.
    """
    for folder in [path for path in list_checkpoints(parent) if (step_of(path) or 0) <= newest][:-keep_last]:
        is_ours = claims is None or not claims.foreign(folder)
        if is_ours and (milestone_every is None or (step_of(folder) or 0) % milestone_every):
            remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Take a checkpoint away at once: a stop in the middle leaves nothing under its name."""
    aside = folder.with_name(f".{folder.name}.{uuid4().hex[:12]}")
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove what a killed run was writing or taking away; for whoever holds the lock of the run alone."""
    for path in parent.iterdir() if parent.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Hash and flush every file, then write and flush the manifest and the folders."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    recorded = {}
    for file in files:
        _flush_file(file)
        recorded[file.relative_to(folder).as_posix()] = {"size": file.stat().st_size, "sha256": _hash(file)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format": 1, "files": recorded}, indent=1) + "\n", encoding="utf-8")
    _flush_file(manifest)
    for inner in {file.parent for file in files} | {folder}:
        flush_folder(inner)


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _flush_file(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
