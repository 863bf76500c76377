"""Files over HTTP: ranges, redirects, resume, whole files. Knows nothing of satellites.

An address is resolved once, where the server redirects it to another host with a signed address that expires. Ranges
are then read from there, and a fresh redirect is taken when it answers 403. The token goes to the endpoint alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import requests

from copgen_cli.archive.connections import REDIRECTS, AgainError, Connections, origin_of
from copgen_cli.archive.remote import AccessDeniedError, NotThereError
from copgen_cli.errors import BrokenInputError, UnavailableError
from copgen_cli.stages import disk_full_is_an_error, require_free_space

PIECE = 1 << 16
"""Bytes taken from a connection at a time."""
GETTING_ON = 1 / 32
"""The share of what is left that must come before a failure for the retries to be counted anew; or a piece."""
MOST_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class _Location:
    """Where the bytes of an address are at the moment."""

    url: str
    size: int | None
    etag: str | None
    sha256: str | None
    commit: str | None
    redirected: bool
    generation: int = 0


class HttpArchive:
    """An endpoint.

    Args:
        connections: the way to it.
        spool: folder for whole files from servers that have no ranges.
    """

    def __init__(self, connections: Connections, *, spool: Path) -> None:
        self.traffic = connections.traffic
        self._connections, self._spool = connections, spool

    def open(self, path: str) -> HttpFile:
        url = self._connections.endpoint + path
        return HttpFile(self._connections, url, resolve(self._connections, url), spool=self._spool)

    def close(self) -> None:
        self._connections.close()


class HttpFile:
    """One resolved file; read by many threads."""

    def __init__(self, connections: Connections, url: str, location: _Location, *, spool: Path) -> None:
        if location.size is None:
            raise UnavailableError(f"The server does not say how long {url} is.", hint="Use another endpoint.")
        self.size = location.size
        self.etag, self.commit = location.etag, location.commit
        self._connections, self._url, self._location = connections, url, location
        self._spool = spool
        self._lock, self._copying = threading.Lock(), threading.Lock()
        self._content_etag: str | None = None
        self._ranges_ignored = 0
        self._copy: Path | None = None

    def read(self, start: int, stop: int) -> bytes:
        if not 0 <= start <= stop <= self.size:
            raise BrokenInputError(
                f"{self._url} has {self.size} bytes, and [{start}, {stop}) is not among them.",
                hint="The file is damaged, or the index points elsewhere.",
            )
        if start == stop:
            return b""
        if self._copy is None:
            received = bytearray()
            try:
                self._connections.persist(self._url, lambda: self._receive_range(start, stop, received))
                return bytes(received)
            except _RangelessError:
                self._copy_whole()
        assert self._copy is not None
        with self._copy.open("rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)

    def save(self, target: Path) -> None:
        require_free_space(target.parent, self.size)
        with disk_full_is_an_error(target, self.size), target.open("w+b") as stream:
            self._connections.persist(self._url, lambda: self._receive_whole(stream))

    def close(self) -> None:
        if self._copy is not None:
            self._copy.unlink(missing_ok=True)

    # -- one try -----------------------------------------------------------------------------------------------------

    def _receive_range(self, start: int, stop: int, received: bytearray) -> None:
        before = len(received)
        first = start + before
        location = self._location
        try:
            with self._connections.get(location.url, {"Range": f"bytes={first}-{stop - 1}"}) as response:
                self._check_answer(location, response)
                if response.status_code == 200:
                    self._ranges_ignored += 1
                    if self._ranges_ignored > 1:
                        raise _RangelessError
                    raise AgainError("the server ignored the range", at_once=True)
                self._ranges_ignored = 0
                if response.headers.get("Content-Range") != f"bytes {first}-{stop - 1}/{self.size}":
                    raise AgainError(f"another range came: {response.headers.get('Content-Range')}")
                for piece in self._pieces(response):
                    received += piece
                    if len(received) > stop - start:
                        del received[before:]
                        raise AgainError("more bytes came than were asked for")
        except AgainError as again:
            again.progressed = _got_on(len(received) - before, stop - first)
            raise
        if len(received) < stop - start:
            raise AgainError("the connection closed early", progressed=_got_on(len(received) - before, stop - first))

    def _receive_whole(self, stream: Any) -> None:
        """Continue a file that is being written, or begin it again where the server has no ranges."""
        have = stream.seek(0, os.SEEK_END)
        before, location = have, self._location
        try:
            with self._connections.get(location.url, {"Range": f"bytes={have}-"} if have else {}) as response:
                self._check_answer(location, response)
                if response.status_code == 200:
                    stream.truncate(0)
                    before = have = stream.seek(0)
                elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    raise AgainError(f"another range came: {response.headers.get('Content-Range')}")
                for piece in self._pieces(response):
                    have += stream.write(piece)
                    if have > self.size:
                        break
        except AgainError as again:
            again.progressed = _got_on(have - before, self.size - before)
            raise
        if have < self.size:
            raise AgainError("the connection closed early", progressed=_got_on(have - before, self.size - before))
        stream.flush()
        if have > self.size or (location.sha256 and _sha256(stream) != location.sha256):
            stream.truncate(0)
            raise AgainError("what came has another hash than the server states")

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        for piece in response.raw.stream(PIECE, decode_content=False):
            self._connections.traffic.add(bytes=len(piece))
            yield piece

    def _check_answer(self, location: _Location, response: requests.Response) -> None:
        status = response.status_code
        if status in (403, 416) or status in REDIRECTS or (status == 401 and location.redirected):
            self._refresh(location)
            raise AgainError(f"{status} {response.reason}", at_once=True)
        _must_be_file(self._url, response)
        etag = response.headers.get("ETag")
        with self._lock:
            self._content_etag = self._content_etag or etag
            changed = etag is not None and etag != self._content_etag
        if changed:
            raise BrokenInputError(f"{self._url} changed while it was read.", hint="Run again; it continues.")

    def _refresh(self, stale: _Location) -> None:
        """Take a fresh redirect, unless another thread already has."""
        with self._lock:
            if self._location.generation != stale.generation:
                return
            fresh = resolve(self._connections, self._url)
            if fresh.size != self.size or fresh.etag != self.etag:
                raise BrokenInputError(f"{self._url} changed while it was read.", hint="Run again; it continues.")
            self._location = replace(fresh, generation=stale.generation + 1)

    def _copy_whole(self) -> None:
        with self._copying:
            if self._copy is None:
                copy = self._spool / uuid4().hex
                self.save(copy)
                self._copy = copy


class _RangelessError(Exception):
    """This server has no ranges."""


def resolve(connections: Connections, url: str) -> _Location:
    """Follow an address to where its bytes are, asking the endpoint once."""
    return connections.persist(url, lambda: _follow(connections, url))


def _follow(connections: Connections, url: str) -> _Location:
    at = url
    location = _Location(url, None, None, None, None, redirected=False)
    headers = {"Range": "bytes=0-0"}  # the size, should the server answer with the file itself
    for _ in range(MOST_REDIRECTS):
        with connections.get(at, headers) as response:
            location = _learn(location, response)
            if response.status_code not in REDIRECTS:
                _must_be_file(url, response)
                return _learn_size(replace(location, url=at), response)
            at = _next_address(at, response)
            location = replace(location, url=at, redirected=True)
        if location.size is not None:
            return location
    raise BrokenInputError(f"{url} redirects without end.", hint="Check --endpoint.")


def _must_be_file(url: str, response: requests.Response) -> None:
    if response.status_code in (401, 403):
        raise AccessDeniedError(
            f"{origin_of(url)} refuses access to {urlsplit(url).path} ({response.status_code}).",
            hint="Give a valid --token (or HF_TOKEN), or check the name of the source and the endpoint.",
        )
    if response.status_code in (404, 410):
        raise NotThereError(f"{url} does not exist.", hint="Check --endpoint and --sources.")
    if response.status_code not in (200, 206):
        raise AgainError(f"{response.status_code} {response.reason}")


def _learn(location: _Location, response: requests.Response) -> _Location:
    """What the headers of an answer say; the endpoint's own word counts more than what the redirect leads to."""
    headers = response.headers
    etag = headers.get("X-Linked-Etag") or (headers.get("ETag") if not location.redirected else None)
    plain = (etag or "").removeprefix("W/").strip('"')
    linked_size = headers.get("X-Linked-Size", "")
    return replace(
        location,
        commit=location.commit or headers.get("X-Repo-Commit"),
        etag=location.etag or etag,
        sha256=location.sha256 or (plain if re.fullmatch(r"[0-9a-f]{64}", plain) else None),
        size=location.size if location.size is not None else int(linked_size) if linked_size.isdigit() else None,
    )


def _learn_size(location: _Location, response: requests.Response) -> _Location:
    _, _, total = response.headers.get("Content-Range", "").rpartition("/")
    text = total if response.status_code == 206 else response.headers.get("Content-Length", "")
    return replace(location, size=int(text)) if location.size is None and text.isdigit() else location


def _next_address(at: str, response: requests.Response) -> str:
    place = response.headers.get("Location", "")
    try:
        address = urljoin(at, place)
        scheme = origin_of(address).partition(":")[0]
    except ValueError:  # a port that is no number, brackets without end
        address = scheme = ""
    if scheme not in ("http", "https") or (scheme == "http" and urlsplit(at).scheme == "https"):
        raise BrokenInputError(
            f"{at} redirects to {place!r}, which is not followed.", hint="Check --endpoint; it may not be genuine."
        )
    return address


def _got_on(received: int, wanted: int) -> bool:
    return received >= min(PIECE, wanted * GETTING_ON)


def _sha256(stream: Any) -> str:
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0, os.SEEK_END)
    return digest
