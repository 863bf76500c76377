"""A loopback server that answers like the hub: redirects to a second origin, signed addresses, ranges; and faults.

with TinyHub(archive.root) as hub:
    hub.faults = scripted("resolve", [status(429, {"RateLimit": '"resolvers";r=0;t=1'})])
    ...
    assert hub.count("resolve") == 2
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "c0ffee0000000000000000000000000000000000"


@dataclass(frozen=True, slots=True)
class Fault:
    """How one answer goes wrong."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    """Close the connection without an answer."""
    cut: float | None = None
    """Share of the body that is sent before the connection closes."""
    flip: int | None = None
    """One bit of this byte of the body, counted modulo its length, comes wrong."""
    ignore_range: bool = False
    stall: threading.Event | None = None
    """Send nothing before this is set."""


def status(code: int, headers: Mapping[str, str] | None = None) -> Fault:
    return Fault(status=code, headers=headers or {})


@dataclass(frozen=True, slots=True)
class Request:
    kind: str
    """`resolve` or `cdn`."""
    path: str
    range: str | None
    authorization: str | None
    time: float
    """Of its arrival, monotonic."""


@dataclass(slots=True)
class Quota:
    """So many requests to resolve an address within so many seconds; told in each answer, and the rest refused."""

    requests: int
    seconds: float
    refused: int = 0
    _used: int = 0
    _until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether there was one left, and the header that tells what is."""
        with self._lock:
            now = time.monotonic()
            if now >= self._until:
                self._used, self._until = 0, now + self.seconds
            granted = self._used < self.requests
            self._used += granted
            self.refused += not granted
            return granted, {"RateLimit": f'"resolvers";r={self.requests - self._used};t={self._until - now:.3f}'}


Faults = Callable[[Request], Fault | None]


def scripted(kind: str, faults: Iterable[Fault | None], *, path: str = "") -> Faults:
    """The next of `faults` for each request of that kind whose path contains `path`; then none."""
    rest, lock = iter(faults), threading.Lock()

    def choose(request: Request) -> Fault | None:
        if request.kind != kind or path not in request.path:
            return None
        with lock:
            return next(rest, None)

    return choose


class TinyHub:
    """Serves a folder on two ports of 127.0.0.1; a context manager.

    Args:
        token: what the endpoint wants as bearer token; the other origin answers 400 to any.
        ranges: False for a server that has none.
        redirects: False for a server that answers with the file itself.
    """

    def __init__(self, root: Path, *, token: str | None = None, ranges: bool = True, redirects: bool = True) -> None:
        self.root, self.token, self.ranges, self.redirects = root, token, ranges, redirects
        self.faults: Faults = lambda request: None
        self.requests: list[Request] = []
        self.bytes_sent = 0
        self.quota: Quota | None = None
        self.signature = 0
        """Addresses signed before are answered with 403."""
        self._lock = threading.Lock()
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._servers = [_Server(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        self.endpoint, self.other = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> TinyHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def count(self, kind: str, path: str = "") -> int:
        return sum(request.kind == kind and path in request.path for request in self.requests)

    def expire(self) -> None:
        """Addresses that were given out no longer work."""
        self.signature += 1

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def sent(self, count: int) -> None:
        with self._lock:
            self.bytes_sent += count

    def hash_of(self, file: Path) -> str:
        status = file.stat()
        key = (file, status.st_size, status.st_mtime_ns)
        with self._lock:
            if key not in self._hashes:
                self._hashes[key] = hashlib.sha256(file.read_bytes()).hexdigest()
            return self._hashes[key]


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are part of the tests."""


def _handler(hub: TinyHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        told: Mapping[str, str] = {}
        """Headers of every answer to come."""

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            kind = "cdn" if path.startswith("/cdn/") else "resolve"
            authorization = self.headers.get("Authorization")
            request = Request(kind, path, self.headers.get("Range"), authorization, time.monotonic())
            hub.note(request)
            fault = hub.faults(request) or Fault()
            if fault.reset:
                self.close_connection = True
                return
            if fault.status is not None:
                self.answer(fault.status, b"no", fault.headers)
                return
            if kind == "resolve" and hub.quota is not None:
                granted, self.told = hub.quota.take()
                if not granted:
                    self.answer(429, b"not so fast")
                    return
            if kind == "resolve" and hub.token and authorization != f"Bearer {hub.token}":
                self.answer(401, b"who are you?")
                return
            if kind == "cdn" and authorization:
                self.answer(400, b"a signed address wants no token")
                return
            file = self.find(path)
            if file is None:
                self.answer(404, b"not here")
            elif kind == "resolve" and hub.redirects:
                self.redirect(path, file)
            elif kind == "cdn" and parse_qs(parts.query).get("signature") != [str(hub.signature)]:
                self.answer(403, b"expired")
            else:
                self.send_file(file, fault)

        def find(self, path: str) -> Path | None:
            inside = path.removeprefix("/cdn").replace(f"/resolve/{REVISION}/", "/resolve/main/")
            file = (hub.root / inside.lstrip("/")).resolve()
            return file if file.is_file() and file.is_relative_to(hub.root.resolve()) else None

        def redirect(self, path: str, file: Path) -> None:
            headers = {
                "Location": f"{hub.other}/cdn{path}?signature={hub.signature}",
                "X-Repo-Commit": REVISION,
                "X-Linked-Size": str(file.stat().st_size),
                "X-Linked-Etag": f'"{hub.hash_of(file)}"',
            }
            self.answer(302, b"over there", headers)

        def send_file(self, file: Path, fault: Fault) -> None:
            data = file.read_bytes()
            headers = {"ETag": f'"{hub.hash_of(file)[:20]}"'}
            code, wanted = 200, self.headers.get("Range")
            if wanted and hub.ranges and not fault.ignore_range:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
                if start >= stop:
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    return
                code, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{len(data)}"
                data = data[start:stop]
            self.answer(code, data, headers, fault)

        def answer(
            self, code: int, body: bytes, headers: Mapping[str, str] | None = None, fault: Fault | None = None
        ) -> None:
            self.send_response(code)
            for name, value in {**self.told, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            fault = fault or Fault()
            if fault.flip is not None and body:
                place = fault.flip % len(body)
                body = body[:place] + bytes([body[place] ^ 0x10]) + body[place + 1 :]
            if fault.stall is not None:
                fault.stall.wait(30)
            if fault.cut is not None:
                body = body[: int(len(body) * fault.cut)]
                self.close_connection = True
            for start in itertools.count(0, 1 << 16):
                piece = body[start : start + (1 << 16)]
                if not piece:
                    break
                self.wfile.write(piece)
                hub.sent(len(piece))

    return Handler
