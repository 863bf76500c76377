"""A run's folder in an object store: worked on in a folder of this machine, mirrored checkpoint by checkpoint.

What is on this machine begins as what the store says: its newest checkpoint that is whole, the log and the record of
names that are ours. A checkpoint goes up with its manifest last, so that what a kill cuts short is passed over; a model
with its index last. The run's lock is an object, held from the first look to the last upload.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from copgen_cli.stages.claims import CLAIMS, PRIVATE_FOLDER, foreign_file
from copgen_cli.stages.numbered_folders import MANIFEST, why_not_whole
from copgen_cli.stages.objects.claims import ObjectClaims
from copgen_cli.stages.objects.private_folder import ObjectPrivateFolder
from copgen_cli.storage import (
    StorageError,
    cache_folder,
    fetch_file,
    fetch_folder,
    is_remote,
    names_in,
    put_file,
    reach,
    remove_tree,
)


class Mirror:
    """The two folders of a run; of one that is local they are the same, and nothing is copied."""

    def __init__(self, folder: Path, here: Path) -> None:
        self.folder = folder
        """Where the run lives."""
        self.here = here
        """Where it is worked on."""

    def name_of(self, path: Path) -> Path:
        """A path in the folder of this machine as it is called where the run lives."""
        return path

    def push(self, *paths: Path, last: Sequence[str] = (MANIFEST,)) -> None:
        """Put files, and folders with all that is in them, where the run lives.

        Args:
            paths: below the folder of this machine.
            last: names of files that go up after all others of their folder.

        Raises:
            MismatchError: under one of the names lies what copgen did not write.
        """

    def keep_like(self, parent: Path) -> None:
        """Remove those of the folders in a folder that are gone here."""


class _ObjectMirror(Mirror):
    def __init__(self, folder: Path, here: Path, own: Sequence[str], *, overwrite: bool) -> None:
        super().__init__(folder, here)
        self._own, self._overwrite = own, overwrite
        self._claims = ObjectClaims(folder)
        self._claims.look_anew()
        for name in sorted(self._claims.theirs):
            if name.split("/")[0] in own:
                raise foreign_file(folder / name)

    def name_of(self, path: Path) -> Path:
        return self.folder / path.relative_to(self.here).as_posix()

    def push(self, *paths: Path, last: Sequence[str] = (MANIFEST,)) -> None:
        if self._overwrite:  # what the earlier run left goes when this one has something in its place
            self._overwrite = False
            for name in self._own:
                remove_tree(self.folder / name)
        claims = self.here / PRIVATE_FOLDER / CLAIMS
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        for file in sorted(files, key=lambda file: file.name in last):
            target = self.name_of(file)
            self._claims.take([target])
            put_file(file, target)
        if claims.is_file():
            put_file(claims, self.folder / PRIVATE_FOLDER / CLAIMS)

    def keep_like(self, parent: Path) -> None:
        there = self.name_of(parent)
        for name in sorted(set(names_in(there)) - set(names_in(parent))):
            (there / name / MANIFEST).unlink(missing_ok=True)  # first: a stop leaves none that seems whole
            remove_tree(there / name)


@contextmanager
def mirrored(
    folder: Path, *, own: Sequence[str], checkpoints: str, marks: Sequence[str], overwrite: bool, locked: bool
) -> Iterator[Mirror]:
    """The folder of a run, to work on: as it is, or of one in a store a copy.

    Args:
        folder: where the run lives.
        own: names of what a run writes there.
        checkpoints: the one of them with numbered folders.
        marks: files in the others that a continued run looks at.
        overwrite: begin with nothing; what is there goes with the first `push`.
        locked: take the lock; without, nothing may be pushed but what others do not write.

    Raises:
        BusyError: another run holds the lock.
        StorageError: the store can not be used.
    """
    if not is_remote(folder):
        yield Mirror(folder, folder)
        return
    if os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")):
        raise StorageError(
            f"A run on several machines can not live in {folder}.",
            hint="Give a --workdir on a disk that all of them see, and copy it when it is done.",
        )
    reach(folder)
    private = ObjectPrivateFolder(folder, "train")
    if locked:
        private.take()
    here = (
        cache_folder() / "runs" / hashlib.sha256(f"{folder} {'' if locked else os.getpid()}".encode()).hexdigest()[:24]
    )
    try:
        shutil.rmtree(here, ignore_errors=True)  # of a run that was killed
        here.mkdir(parents=True)
        mirror = _ObjectMirror(folder, here, own, overwrite=overwrite)
        if not overwrite:
            _fetch(folder, here, (*own, *marks), checkpoints)
        yield mirror
    finally:
        shutil.rmtree(here, ignore_errors=True)
        if locked:
            private.leave()


def _fetch(folder: Path, here: Path, files: Sequence[str], checkpoints: str) -> None:
    """Bring the newest whole checkpoint here, empty folders for the older ones, and the files beside them."""
    for path in (f"{PRIVATE_FOLDER}/{CLAIMS}", *files):
        if path != checkpoints and (folder / path).is_file():
            fetch_file(folder / path, here / path)
    found = False
    for name in sorted(names_in(folder / checkpoints), key=lambda name: (len(name), name), reverse=True):
        copy = here / checkpoints / name
        copy.mkdir(parents=True)
        if not found:
            fetch_folder(folder / checkpoints / name, copy)
            found = why_not_whole(copy) is None
