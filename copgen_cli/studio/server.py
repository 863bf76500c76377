"""The server itself: which address, the token of a public one, the model, and an orderly end."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from copgen_cli.errors import CopgenError, UsageError
from copgen_cli.studio.guard import is_loopback

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from copgen_cli.sampling import LoadedModel
    from copgen_cli.settings import Settings

SECONDS_TO_END = 5


@dataclass(frozen=True, slots=True)
class Address:
    """Where a studio is to be found."""

    host: str
    port: int
    token: str | None
    """Only who knows it may use the studio; None where only this machine reaches it."""

    @property
    def url(self) -> str:
        """As one opens it in a browser on this machine."""
        plain = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        host = f"[{plain}]" if ":" in plain else plain
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def require_studio() -> None:
    """Raises CopgenError where the packages of the page are not installed."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise CopgenError(
            "The studio needs fastapi and uvicorn, which are not installed.",
            hint="Install them with `pip install 'copgen[studio]'`.",
        ) from None


def open_model(settings: Settings) -> tuple[LoadedModel, str | None]:
    """The model of the settings, as `copgen sample` chooses it, and why it is this one."""
    from copgen_cli.model import choose_device, choose_sampling_dtypes
    from copgen_cli.sampling import choose_model, load_model

    choice = choose_model(settings.sample.model, settings.runs_dir, settings.region, settings.family)
    device = choose_device(settings.sample.device)
    dtype, of_autoencoder = choose_sampling_dtypes(settings.sample.dtype, device)
    return load_model(choice.source, device=device, dtype=dtype, autoencoder_dtype=of_autoencoder), choice.reason


def listen(host: str, port: int) -> tuple[socket.socket, Address]:
    """A socket that is bound, so that a port that is taken is told before the model is loaded.

    Raises:
        UsageError: the address is not one of this machine, or is in use.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise UsageError(
            f"Nothing can listen at {host}:{port}: {error}.", hint="Choose another --port; 0 takes a free one."
        ) from error
    return bound, Address(host, bound.getsockname()[1], token)


def make_server(app: FastAPI, *, opened: Callable[[], None]) -> uvicorn.Server:
    """A server that answers until a signal ends it; then what waits is told so, and the worker ends.

    Args:
        opened: called once it answers.
    """
    import asyncio

    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                opened()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await asyncio.to_thread(app.state.queue.stop)  # first, for it ends the streams that wait for events
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_END,
        proxy_headers=False,
    )
    return Server(config)


def open_browser(address: Address) -> None:
    webbrowser.open(address.url)
