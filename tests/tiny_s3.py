"""A real S3 server on a loopback port: moto's; and, in front of it, one that answers SlowDown or hangs up now and then.

with TinyS3() as s3:
    os.environ |= s3.environment
    ... s3://bucket/folder ...
    s3.tree("folder")
"""

from __future__ import annotations

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
    b"</Message></Error>"
)


class TinyS3:
    """One server with one empty bucket; a context manager.

    Args:
        faults: share of requests that go wrong, half of them by 503 SlowDown, half by a connection that is closed
            before or after the store has done what was asked.
        seed: of which these are.
    """

    def __init__(self, *, faults: float = 0.0, seed: int = 0) -> None:
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._share, self._draw, self._lock = faults, random.Random(seed), threading.Lock()
        self._proxy: ThreadingHTTPServer | None = None
        self.requests = 0
        self.failed = 0

    def __enter__(self) -> TinyS3:
        self._moto.start()
        self._origin = self._moto.get_host_and_port()
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://{self._origin[0]}:{self._origin[1]}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=BUCKET)
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._proxy is not None
        self._proxy.shutdown()
        self._proxy.server_close()
        self._moto.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What leads the store's own tools here, and nowhere else."""
        assert self._proxy is not None
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._proxy.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def tree(self, folder: str) -> dict[str, bytes]:
        """Name relative to the folder, and content, of every object below it."""
        return {key.removeprefix(f"{folder}/"): self.read(key) for key in self.keys(f"{folder}/")}

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def next_fault(self) -> float | None:
        """Of a request that goes wrong, a number from 0 to 1 that says how."""
        with self._lock:
            self.requests += 1
            if self._draw.random() >= self._share:
                return None
            self.failed += 1
            return self._draw.random()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list, bytes]:
        connection = http.client.HTTPConnection(*self._origin)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data


def _handler(s3: TinyS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def _serve(self) -> None:
            if "100-continue" in self.headers.get("Expect", ""):
                pass  # answered by the base class before
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = s3.next_fault()
            if fault is not None and fault < 0.5:
                self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
                return
            if fault is not None and fault < 0.75:
                self.close_connection = True
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            status, told, data = s3.forward(self.command, self.path, headers, body)
            if fault is not None:
                self.close_connection = True
                return
            self._answer(status, told, data)

        def _answer(self, status: int, headers: list, data: bytes) -> None:
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(data)))
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    return Handler
