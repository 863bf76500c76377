"""One way to open an archive, wherever it is: over HTTP, or as a folder with the same paths in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from copgen_cli.archive.connections import Connections, origin_of
from copgen_cli.archive.http import HttpArchive
from copgen_cli.archive.remote import Archive, NotThereError, RemoteFile, Traffic, UnreachableError
from copgen_cli.errors import BrokenInputError, UsageError
from copgen_cli.settings import PUBLIC_ENDPOINT
from copgen_cli.stages import disk_full_is_an_error, require_free_space, safe_path


def open_archive(
    endpoint: str, *, spool: Path, token: str | None, connections: int, retries: int, timeout: float
) -> Archive:
    """The archive behind `https://`, `http://` or `file://`; `spool` is a folder for temporary whole files.

    Raises:
        UsageError: another scheme, or no host.
        UnreachableError: the folder of a `file://` endpoint does not exist.
    """
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets without end
        parts, usable = urlsplit(""), False
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderArchive(Path(unquote(parts.path)))
    if not usable:
        raise UsageError(
            f"{endpoint!r} is no endpoint.",
            hint="Give https://HOST, http://HOST:PORT or file:///FOLDER after --endpoint.",
        )
    way = Connections(endpoint, token=token, connections=connections, retries=retries, timeout=timeout)
    return HttpArchive(way, spool=spool)


def stored_token(endpoint: str) -> str | None:
    """The token that `hf auth login` keeps, for the public hub alone; it is nobody else's business."""
    if not endpoint.startswith("https://") or origin_of(endpoint) != origin_of(PUBLIC_ENDPOINT):
        return None
    from huggingface_hub import constants, get_token

    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


def open_in_worker(
    endpoint: str, spool: Path, token: str | None, connections: int, retries: int, timeout: float
) -> Archive:
    """An archive as a worker on another machine opens it: with the token that it is given, or has of its own."""
    spool.mkdir(parents=True, exist_ok=True)
    own = os.environ.get("HF_TOKEN") or stored_token(endpoint)
    return open_archive(
        endpoint, spool=spool, token=token or own, connections=connections, retries=retries, timeout=timeout
    )


class FolderArchive:
    """A mirror on disk, with the paths that the hub has."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UnreachableError(f"There is no folder {root}.", hint="Check the path after file:// in --endpoint.")
        self.traffic = Traffic()
        self._root = root

    def open(self, path: str) -> RemoteFile:
        file = self._root / safe_path(path.lstrip("/"))
        if not file.is_file():
            raise NotThereError(f"{file} does not exist.", hint="Check --endpoint and --sources.")
        self.traffic.add(requests=1)
        return FolderFile(file, self.traffic)

    def close(self) -> None:
        pass


class FolderFile:
    """One file of such a mirror."""

    def __init__(self, file: Path, traffic: Traffic) -> None:
        self.commit: str | None = None
        status = file.stat()
        self.size = status.st_size
        self.etag: str | None = f"{status.st_size}-{status.st_mtime_ns}"
        self._file, self._traffic = file, traffic

    def read(self, start: int, stop: int) -> bytes:
        with self._file.open("rb") as stream:
            stream.seek(start)
            data = stream.read(stop - start)
        self._traffic.add(requests=1, bytes=len(data))
        if len(data) < stop - start:
            raise BrokenInputError(
                f"{self._file} ends before byte {stop}.", hint="The mirror is damaged; copy it again."
            )
        return data

    def save(self, target: Path) -> None:
        require_free_space(target.parent, self.size)
        with disk_full_is_an_error(target, self.size):
            shutil.copyfile(self._file, target)
        self._traffic.add(requests=1, bytes=self.size)

    def close(self) -> None:
        pass
