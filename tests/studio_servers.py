"""A studio on the loopback, in a thread of the tests' process, with a small model and a region of one cell."""

from __future__ import annotations

import contextlib
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import torch
from sample_commands import small_model
from tiny_subsets import write_subset

from copgen_cli.app import main
from copgen_cli.layout import Workspace
from copgen_cli.rasters.pictures import _chunk
from copgen_cli.sampling import load_model
from copgen_cli.settings import load_settings

CELL, REGION = "464U_102R", "tiny"
PATCH = f"{CELL}_5"


@dataclass(frozen=True)
class Workplace:
    """What a studio needs on disk."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def patches(self) -> Path:
        return Workspace(self.data_dir, REGION).patches


def make_workplace(folder: Path) -> Workplace:
    """An untrained model for pictures of 64 px, and the patches of one cell."""
    place = Workplace(folder)
    small_model(place.model)
    write_subset(place.data_dir / REGION, [CELL])
    with contextlib.suppress(SystemExit):
        main(["prepare", "--region", REGION, "--data-dir", str(place.data_dir), "--workers", "1"])
    assert place.patches.is_dir()
    return place


def png_of_80_megapixels() -> bytes:
    """It claims to be 10000 x 8000 px, in few bytes."""
    header = b"\x00\x00\x27\x10\x00\x00\x1f\x40\x08\x02\x00\x00\x00"
    rows = zlib.compress(bytes(1000 * (1 + 3 * 10_000)))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


@dataclass(frozen=True)
class Client:
    """Calls of one studio."""

    url: str
    app: Any

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=60, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.call("GET", path, **options)

    def ask(self, **wishes: Any) -> requests.Response:
        asked = {"generate": ["dem"], "steps": 2, "seed": 0} | wishes
        return self.call("POST", "/api/requests", json=asked)

    def states(self, name: str) -> Iterator[dict[str, Any]]:
        """By the stream of events, to its end."""
        with self.get(f"/api/requests/{name}/events", stream=True) as stream:
            for line in stream.iter_lines():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def result(self, **wishes: Any) -> dict[str, Any]:
        """The last state of a request."""
        answer = self.ask(**wishes)
        assert answer.status_code == 202, answer.text
        return list(self.states(answer.json()["id"]))[-1]

    def upload(self, file: Path, modality: str = "s1_rtc") -> requests.Response:
        return self.call("POST", f"/api/uploads?modality={modality}", data=file.read_bytes())


@contextmanager
def studio(
    place: Workplace, output: Path, *, token: str | None = None, port: int = 0, **limits: Any
) -> Iterator[Client]:
    """A server of its own, ended in order."""
    from copgen_cli.studio import Address, create_app, listen, make_server

    settings = load_settings(
        region=REGION,
        data_dir=place.data_dir,
        sample={"model": str(place.model), "device": "cpu"},
        studio={"folder": output, **limits},
    )
    model = load_model(str(place.model), device=torch.device("cpu"), dtype=torch.float32)
    app = create_app(settings, model, token=token)
    bound, address = listen("127.0.0.1", port)
    ready = threading.Event()
    server = make_server(app, opened=ready.set)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        assert ready.wait(60)
        yield Client(Address("127.0.0.1", address.port, None).url.rstrip("/"), app)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
