"""What is refused before any route sees it: other origins, other hosts, no token, bodies without end.

Loopback is no wall: any page that is open in the same browser can send requests there, and a name of its own can be
made to resolve to it (DNS rebinding). So the Host header has to name this machine, and whatever a page of another
origin sends is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "copgen_studio"
OPEN = "/healthz"
"""Says nothing of anyone's, and needs no token."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MOST_BYTES_OF_JSON = 1 << 20
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """ASGI around an application."""

    app: App
    token: str | None = None
    """Needed by all requests but `OPEN`; None where the server listens to this machine alone."""
    upload_path: str = "/api/uploads"
    """The one path whose body may be large; its route counts the bytes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = {**HEADERS, "cache-control": "no-store"}
                added = [(n.encode(), v.encode()) for n, v in more.items() if n.encode() not in there]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
        elif self.token is not None and scope["path"] != OPEN and not self._has_token(headers):
            await self._greet(scope, send_guarded)
        elif scope["path"] == self.upload_path:
            await self.app(scope, receive, send_guarded)
        else:
            await self.app(scope, _limited(receive), send_guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if self.token is None and not is_loopback(_host_of(host)):
            return 421, f"This studio is not at {host[:80]!r}.", "Open it by the address that it printed."
        site = headers.get("sec-fetch-site", "none")
        reads = scope["method"] in SAFE_METHODS
        navigates = reads and headers.get("sec-fetch-mode") == "navigate" and not scope["path"].startswith("/api/")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        if foreign or (site not in ("same-origin", "none") and not navigates):
            return 403, "A page of another origin asked for this.", "Open the studio itself, in a tab of its own."
        too_large = not reads and _number(headers.get("content-length", "0")) > MOST_BYTES_OF_JSON
        if too_large and scope["path"] != self.upload_path:
            return 413, "The request is too large.", "Hand files in as uploads."
        return None

    def _has_token(self, headers: dict[str, str]) -> bool:
        kind, _, told = headers.get("authorization", "").partition(" ")
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        given = [told] if kind.lower() == "bearer" else []
        given += [cookies[COOKIE].value] if COOKIE in cookies else []
        return any(self._is_token(value) for value in given)

    def _is_token(self, value: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(value.encode(), self.token.encode())

    async def _greet(self, scope: Scope, send: Send) -> None:
        """Turn the token of an address into a cookie, and take it out of the address."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        told = query.pop("token", [""])[0]
        if scope["path"] != "/" or scope["method"] != "GET" or not self._is_token(told):
            await _answer(send, 401, "The token is missing or wrong.", "Open the address that `copgen studio` printed.")
            return
        rest = urlencode(query, doseq=True)
        cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        location = "./" + (f"?{rest}" if rest else "")
        sent = [(b"location", location.encode()), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": sent})
        await send({"type": "http.response.body", "body": b""})


def is_loopback(host: str) -> bool:
    """Whether a name or address is of this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else MOST_BYTES_OF_JSON + 1


def _limited(receive: Receive) -> Receive:
    """A body that says nothing of its length is cut off, which is no JSON then."""
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES_OF_JSON:
            return {"type": "http.request", "body": b"", "more_body": False}
        return message

    return receive_limited


async def _answer(send: Send, status: int, error: str, hint: str) -> None:
    body = json.dumps({"error": error, "hint": hint}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
