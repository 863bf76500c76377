"""Bytes over HTTP: ranges, retries, redirects, resume, whole files. Knows nothing of satellites.

An address is resolved once, where the server redirects it to another host with a signed address that expires. Ranges
are then read from there, and a fresh redirect is taken when it answers 403. The token goes to the endpoint alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from copgen_cli import __version__
from copgen_cli.data.atomic import disk_full_is_an_error, require_free_space
from copgen_cli.data.patience import LONGEST_STATED_WAIT, Patience, quota_left_for, stated_wait
from copgen_cli.errors import BrokenInputError, CopgenError, UnavailableError, UsageError

T = TypeVar("T")

PIECE = 1 << 16
"""Bytes taken from a connection at a time."""
GETTING_ON = 1 / 32
"""The share of what is left that must come before a failure for the retries to be counted anew; or a piece."""
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 500, 502, 503, 504)
"""Answers that another try may better."""
MOST_REDIRECTS = 5
CONNECT_TIMEOUT = 10.0
TRIES_TO_FIRST_CONTACT = 3
"""With a server that never answered, so that a mistyped endpoint shows within seconds."""


class AccessDeniedError(CopgenError):
    """The endpoint wants another token, or none of ours."""


class UnreachableError(CopgenError):
    """Nobody answers at the endpoint."""


class NotThereError(UnavailableError):
    """The server has no such file."""


class RemoteFile(Protocol):
    """One file of an archive, resolved: what it is, and its bytes."""

    size: int
    etag: str | None
    """Of the file as the endpoint names it; the same as long as the content is."""
    commit: str | None
    """The revision that the endpoint answered for."""

    def read(self, start: int, stop: int) -> bytes:
        """Exactly the bytes [start, stop)."""
        ...

    def save(self, target: Path) -> None:
        """Write the whole file, checked against its length and, where the server states one, its SHA-256."""
        ...

    def close(self) -> None: ...


class Archive(Protocol):
    """Where files come from: an HTTP endpoint or a folder."""

    traffic: Traffic

    def open(self, path: str) -> RemoteFile:
        """Resolve a path below the endpoint.

        Raises:
            NotThereError, UnavailableError, AccessDeniedError, UnreachableError.
        """
        ...

    def close(self) -> None: ...


class Traffic:
    """What went over the wire; counted by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self.bytes = 0
        """Of bodies."""
        self.repeated = 0
        """Requests that were made again after a failure."""

    def add(self, *, requests: int = 0, bytes: int = 0, repeated: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.bytes += bytes
            self.repeated += repeated


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


class _AgainError(Exception):
    """A try failed in a way that another may better."""

    def __init__(self, reason: str, *, stated: float = 0.0, progressed: bool = False, at_once: bool = False) -> None:
        super().__init__(reason)
        self.stated, self.progressed, self.at_once = stated, progressed, at_once


class _RangeIgnoredError(_AgainError):
    """The whole file came where a range was asked for."""


class _Bearer(AuthBase):
    """The token, to its own origin alone. That there is one also keeps `requests` from looking into ~/.netrc."""

    def __init__(self, token: str | None, origin: str) -> None:
        self._token, self._origin = token, origin

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token and origin_of(request.url or "") == self._origin:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class HttpArchive:
    """An endpoint reached over pooled connections, by as many threads as like.

    Args:
        endpoint: `https://host[/prefix]`.
        token: bearer token for that host.
        connections: kept open per host.
        retries: repetitions of one request before it is given up.
        timeout: seconds without a byte before a connection counts as stalled.
        spool: folder for whole files from servers that have no ranges.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        spool: Path,
        token: str | None = None,
        connections: int = 8,
        retries: int = 8,
        timeout: float = 30.0,
        patience: Patience | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.spool = spool
        self._endpoint = endpoint.rstrip("/")
        self._retries = retries
        self._timeouts = (min(CONNECT_TIMEOUT, timeout), timeout)
        self._patience = patience or Patience()
        self._reached: set[str] = set()
        self._given_up = 0  # requests in a row; a hint, so no lock
        self._most_given_up = 2 * connections
        self._session = requests.Session()
        self._session.auth = _Bearer(token, origin_of(self._endpoint))
        self._session.headers.update({"User-Agent": f"copgen/{__version__}", "Accept-Encoding": "identity"})
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=connections, max_retries=0)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)

    def open(self, path: str) -> HttpFile:
        return HttpFile(self, self._endpoint + path, self.resolve(self._endpoint + path))

    def close(self) -> None:
        self._session.close()

    def resolve(self, url: str) -> _Location:
        """Follow an address to where its bytes are, asking the endpoint once."""
        return self.persist(url, lambda: self._resolve(url))

    def persist(self, url: str, attempt: Callable[[], T]) -> T:
        """Try until it works, waiting longer each time; getting on with a body starts the count anew.

        Raises:
            UnavailableError: it failed once more than there are retries.
            UnreachableError: the server never answered anything, or has stopped to.
        """
        failures = 0
        while True:
            try:
                result = attempt()
                self._given_up = 0
                return result
            except _AgainError as again:
                failures = 1 if again.progressed else failures + 1
                reached = origin_of(url) in self._reached
                if not reached and failures >= min(TRIES_TO_FIRST_CONTACT, self._retries + 1):
                    raise UnreachableError(
                        f"No answer from {origin_of(url)}: {again}.",
                        hint="Check --endpoint (or HF_ENDPOINT) and the network; running again continues.",
                    ) from again
                if failures > self._retries or again.stated > LONGEST_STATED_WAIT:
                    self._given_up += 1
                    if self._given_up > self._most_given_up:
                        raise UnreachableError(
                            f"{origin_of(url)} no longer answers: {again}.",
                            hint="What is complete is kept. Run the same command again later; it continues.",
                        ) from again
                    raise UnavailableError(
                        f"{url} could not be read: {again}.", hint="Run the same command again later; it continues."
                    ) from again
                self.traffic.add(repeated=1)
                if not again.at_once or failures > 1:
                    self._patience.back_off(failures, again.stated)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """One request without following redirects; what fails in it for the moment becomes an `_AgainError`."""
        origin = origin_of(url)
        self._patience.await_turn(origin)
        self.traffic.add(requests=1)
        try:
            with self._session.get(
                url, headers=dict(headers), stream=True, allow_redirects=False, timeout=self._timeouts
            ) as response:
                self._reached.add(origin)
                self._heed_limits(origin, response)
                yield response
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise UsageError(f"{url} is no address: {error}", hint="Check --endpoint.") from None
        except (requests.exceptions.RequestException, HTTPError) as error:
            raise _AgainError(_in_short(error)) from error

    def _heed_limits(self, origin: str, response: requests.Response) -> None:
        if response.status_code in (429, *PASSING, *REDIRECTS):
            _drain(response)
        if response.status_code == 429:
            wait = stated_wait(response.headers)
            self._patience.hold(origin, min(wait, LONGEST_STATED_WAIT))
            raise _AgainError("429 Too Many Requests", stated=wait)
        if response.status_code in PASSING:
            raise _AgainError(f"{response.status_code} {response.reason}", stated=stated_wait(response.headers))
        if wait := quota_left_for(response.headers):
            self._patience.hold(origin, min(wait, LONGEST_STATED_WAIT))

    def _resolve(self, url: str) -> _Location:
        at = url
        location = _Location(url, None, None, None, None, redirected=False)
        headers = {"Range": "bytes=0-0"}  # the size, should the server answer with the file itself
        for _ in range(MOST_REDIRECTS):
            with self.get(at, headers) as response:
                location = _learn(location, response)
                if response.status_code not in REDIRECTS:
                    self._must_be_file(url, response)
                    return _learn_size(replace(location, url=at), response)
                at = _next_address(at, response)
                location = replace(location, url=at, redirected=True)
            if location.size is not None:
                return location
        raise BrokenInputError(f"{url} redirects without end.", hint="Check --endpoint.")

    def _must_be_file(self, url: str, response: requests.Response) -> None:
        if response.status_code in (401, 403):
            raise AccessDeniedError(
                f"{origin_of(url)} refuses access to {urlsplit(url).path} ({response.status_code}).",
                hint="Give a valid --token (or HF_TOKEN), or check the name of the source and the endpoint.",
            )
        if response.status_code in (404, 410):
            raise NotThereError(f"{url} does not exist.", hint="Check --endpoint and --sources.")
        if response.status_code not in (200, 206):
            raise _AgainError(f"{response.status_code} {response.reason}")


class HttpFile:
    """One resolved file; read by many threads."""

    def __init__(self, archive: HttpArchive, url: str, location: _Location) -> None:
        if location.size is None:
            raise UnavailableError(f"The server does not say how long {url} is.", hint="Use another endpoint.")
        self.size = location.size
        self.etag, self.commit = location.etag, location.commit
        self._archive, self._url, self._location = archive, url, location
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
                self._archive.persist(self._url, lambda: self._receive_range(start, stop, received))
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
            self._archive.persist(self._url, lambda: self._receive_whole(stream))

    def close(self) -> None:
        if self._copy is not None:
            self._copy.unlink(missing_ok=True)

    # -- one try -----------------------------------------------------------------------------------------------------

    def _receive_range(self, start: int, stop: int, received: bytearray) -> None:
        before = len(received)
        first = start + before
        location = self._location
        try:
            with self._archive.get(location.url, {"Range": f"bytes={first}-{stop - 1}"}) as response:
                self._check_answer(location, response)
                if response.status_code == 200:
                    self._ranges_ignored += 1
                    if self._ranges_ignored > 1:
                        raise _RangelessError
                    raise _RangeIgnoredError("the server ignored the range", at_once=True)
                self._ranges_ignored = 0
                if response.headers.get("Content-Range") != f"bytes {first}-{stop - 1}/{self.size}":
                    raise _AgainError(f"another range came: {response.headers.get('Content-Range')}")
                for piece in self._pieces(response):
                    received += piece
                    if len(received) > stop - start:
                        del received[before:]
                        raise _AgainError("more bytes came than were asked for")
        except _AgainError as again:
            again.progressed = _got_on(len(received) - before, stop - first)
            raise
        if len(received) < stop - start:
            raise _AgainError("the connection closed early", progressed=_got_on(len(received) - before, stop - first))

    def _receive_whole(self, stream: Any) -> None:
        """Continue a file that is being written, or begin it again where the server has no ranges."""
        have = stream.seek(0, os.SEEK_END)
        before, location = have, self._location
        try:
            with self._archive.get(location.url, {"Range": f"bytes={have}-"} if have else {}) as response:
                self._check_answer(location, response)
                if response.status_code == 200:
                    stream.truncate(0)
                    before = have = stream.seek(0)
                for piece in self._pieces(response):
                    have += stream.write(piece)
        except _AgainError as again:
            again.progressed = _got_on(have - before, self.size - before)
            raise
        if have < self.size:
            raise _AgainError("the connection closed early", progressed=_got_on(have - before, self.size - before))
        stream.flush()
        if have > self.size or (location.sha256 and _sha256(stream) != location.sha256):
            stream.truncate(0)
            raise _AgainError("what came has another hash than the server states")

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        for piece in response.raw.stream(PIECE, decode_content=False):
            self._archive.traffic.add(bytes=len(piece))
            yield piece

    def _check_answer(self, location: _Location, response: requests.Response) -> None:
        status = response.status_code
        if status in (403, 416) or status in REDIRECTS or (status == 401 and location.redirected):
            self._refresh(location)
            raise _AgainError(f"{status} {response.reason}", at_once=True)
        self._archive._must_be_file(self._url, response)
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
            fresh = self._archive.resolve(self._url)
            if fresh.size != self.size or fresh.etag != self.etag:
                raise BrokenInputError(f"{self._url} changed while it was read.", hint="Run again; it continues.")
            self._location = replace(fresh, generation=stale.generation + 1)

    def _copy_whole(self) -> None:
        with self._copying:
            if self._copy is None:
                copy = self._archive.spool / uuid4().hex
                self.save(copy)
                self._copy = copy


class _RangelessError(Exception):
    """This server has no ranges."""


def origin_of(url: str) -> str:
    """Scheme, host and port: what a token belongs to."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


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


def _drain(response: requests.Response) -> None:
    """Read the few bytes that come with a redirect or a refusal, so that the connection can be used again."""
    if response.headers.get("Content-Length", "").isdigit() and int(response.headers["Content-Length"]) <= PIECE:
        with suppress(requests.exceptions.RequestException, HTTPError):
            response.raw.read(PIECE)


def _next_address(at: str, response: requests.Response) -> str:
    address = urljoin(at, response.headers.get("Location", ""))
    scheme = urlsplit(address).scheme
    if scheme not in ("http", "https") or (scheme == "http" and urlsplit(at).scheme == "https"):
        raise BrokenInputError(
            f"{at} redirects to {address!r}, which is not followed.", hint="Check --endpoint; it may not be genuine."
        )
    return address


def _got_on(received: int, wanted: int) -> bool:
    return received >= min(PIECE, wanted * GETTING_ON)


def _sha256(stream: Any) -> str:
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0, os.SEEK_END)
    return digest


def _in_short(error: Exception) -> str:
    """The innermost reason, in one line: these libraries wrap theirs several times."""
    reason: Any = error
    while (inner := getattr(reason, "reason", None)) or (
        inner := next((a for a in getattr(reason, "args", ()) if isinstance(a, Exception)), None)
    ):
        reason = inner
    text = str(reason).partition(": ")[2] or str(reason)
    return text.splitlines()[0] if text else type(reason).__name__
