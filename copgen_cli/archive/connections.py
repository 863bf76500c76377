"""Requests over pooled connections: the token to its own host alone, patience with what passes, nothing endless."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from copgen_cli import __version__
from copgen_cli.archive.remote import Traffic, UnreachableError
from copgen_cli.archive.retry_policy import LONGEST_STATED_WAIT, RetryPolicy, stated_wait
from copgen_cli.cluster import request_budget
from copgen_cli.errors import BrokenInputError, UnavailableError, UsageError

T = TypeVar("T")

REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 500, 502, 503, 504)
"""Answers that another try may better; 429 as well."""
SMALL_BODY = 1 << 16
"""Bytes; what comes with a redirect or a refusal is read up to here, so that the connection can be used again."""
CONNECT_TIMEOUT = 10.0
TRIES_TO_FIRST_CONTACT = 3
"""With a server that never answered, so that a mistyped endpoint shows within seconds."""


class AgainError(Exception):
    """A try failed in a way that another may better."""

    def __init__(
        self,
        reason: str,
        *,
        stated: float = 0.0,
        progressed: bool = False,
        at_once: bool = False,
        proxy: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.stated, self.progressed, self.at_once = stated, progressed, at_once
        self.proxy = proxy
        """The one that did not answer, with the variable that names it."""


class _Bearer(AuthBase):
    """The token, to its own origin alone. That there is one also keeps `requests` from looking into ~/.netrc."""

    def __init__(self, token: str | None, origin: str) -> None:
        self._token, self._origin = token, origin

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token and origin_of(request.url or "") == self._origin:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Connections:
    """The way to an endpoint and to where it redirects, for as many threads as like.

    Args:
        endpoint: `https://host[/prefix]`.
        token: bearer token for that host.
        connections: kept open per host.
        retries: repetitions of one request before it is given up.
        timeout: seconds without a byte before a connection counts as stalled.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: str | None = None,
        connections: int = 8,
        retries: int = 8,
        timeout: float = 30.0,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.endpoint = endpoint.rstrip("/")
        self._retries = retries
        self._timeouts = (min(CONNECT_TIMEOUT, timeout), timeout)
        self._retry_policy = retry_policy or RetryPolicy(request_budget())
        self._reached: set[str] = set()
        self._given_up = 0  # requests in a row; a hint, so no lock
        self._most_given_up = 2 * connections
        self._session = requests.Session()
        self._session.auth = _Bearer(token, origin_of(self.endpoint))
        self._session.headers.update({"User-Agent": f"copgen/{__version__}", "Accept-Encoding": "identity"})
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=connections, max_retries=0)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)

    def close(self) -> None:
        self._session.close()

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
            except AgainError as again:
                failures = 1 if again.progressed else failures + 1
                reached = origin_of(url) in self._reached
                if again.proxy is not None and failures >= min(TRIES_TO_FIRST_CONTACT, self._retries + 1):
                    raise UnreachableError(
                        f"No answer from the proxy {again.proxy}, by which {origin_of(url)} is asked: {again}.",
                        hint=f"Mend or unset that variable, or name the host in NO_PROXY: {urlsplit(url).hostname}",
                    ) from again
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
                    self._retry_policy.back_off(failures, again.stated)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """One request without following redirects; what fails in it for the moment becomes an `AgainError`."""
        origin = origin_of(url)
        self._retry_policy.await_turn(origin)
        self.traffic.add(requests=1)
        try:
            with self._ask(url, headers) as response:
                self._reached.add(origin)
                self._heed_limits(origin, response)
                yield response
        except requests.exceptions.ProxyError as error:
            raise AgainError(_in_short(error), proxy=_proxy_for(url)) from error
        except (requests.exceptions.RequestException, HTTPError) as error:
            raise AgainError(_in_short(error)) from error

    def _ask(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        try:
            return self._session.get(
                url, headers=dict(headers), stream=True, allow_redirects=False, timeout=self._timeouts
            )
        except OSError as error:
            if str(error).startswith("Could not find"):  # only the words of requests tell this from other errors
                _refuse_certificates(error)
            if isinstance(error, ValueError):
                _refuse_address(url, error)
            raise
        except ValueError as error:  # also of an address that a redirect names, which requests looks at
            _refuse_address(url, error)

    def _heed_limits(self, origin: str, response: requests.Response) -> None:
        if response.status_code in (429, *PASSING, *REDIRECTS):
            _drain(response)
        if response.status_code == 429:
            wait = stated_wait(response.headers)
            self._retry_policy.hold(origin, wait)
            raise AgainError("429 Too Many Requests", stated=wait)
        if response.status_code in PASSING:
            raise AgainError(f"{response.status_code} {response.reason}", stated=stated_wait(response.headers))
        self._retry_policy.heed(origin, response.headers)


def origin_of(url: str) -> str:
    """Scheme, host and port: what a token belongs to."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _proxy_for(url: str) -> str:
    """The proxy that the environment names for an address, without its password, and the variable that does."""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    names = [name for kind in (urlsplit(url).scheme, "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]
    variable = next((name for name in names if os.environ.get(name)), "of the system")
    return f"{re.sub(r'//[^/@]*@', '//', proxy)} ({variable})"


def _refuse_address(url: str, error: ValueError) -> NoReturn:
    """Raise for an address that requests can make nothing of: that of a proxy, or the endpoint's."""
    if "SOCKS" in str(error):
        raise UsageError(
            f"The proxy {_proxy_for(url)} speaks SOCKS, for which PySocks is missing.",
            hint="pip install pysocks; or unset that variable.",
        ) from None
    if isinstance(error, requests.exceptions.InvalidProxyURL):
        raise UsageError(
            f"The proxy {_proxy_for(url)} is no address.", hint="Mend or unset that variable: http://HOST:PORT"
        ) from None
    raise BrokenInputError(
        f"{url} is no address, or redirects to none.", hint="Check --endpoint; it may not be genuine."
    ) from None


def _refuse_certificates(error: OSError) -> NoReturn:
    named = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
    variable, file = (named[0], os.environ[named[0]]) if named else ("Python", str(error))
    raise UsageError(
        f"{variable} names certificates that are not there: {file}.",
        hint="Mend that path, or unset the variable to use the certificates that come with requests.",
    ) from None


def _drain(response: requests.Response) -> None:
    if response.headers.get("Content-Length", "").isdigit() and int(response.headers["Content-Length"]) <= SMALL_BODY:
        with suppress(requests.exceptions.RequestException, HTTPError):
            response.raw.read(SMALL_BODY)


def _in_short(error: Exception) -> str:
    """The innermost reason, in one line: these libraries wrap theirs several times."""
    reason: Any = error
    while (inner := getattr(reason, "reason", None)) or (
        inner := next((a for a in getattr(reason, "args", ()) if isinstance(a, Exception)), None)
    ):
        reason = inner
    text = str(reason).partition(": ")[2] or str(reason)
    return text.splitlines()[0] if text else type(reason).__name__
