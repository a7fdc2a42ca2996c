"""An S3 on loopback (moto) that misbehaves on purpose: busy, forbidden, or deaf after the deed."""

from __future__ import annotations

import io
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIALOOPBACK",
    "AWS_SECRET_ACCESS_KEY": "loopback-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"


class FlakyS3:
    """A WSGI application before moto's. `busy` is the share of requests that get 503 SlowDown, half of them
    after they were carried out; `forbidden` are methods that get 403."""

    def __init__(self, application: Callable[..., Iterable[bytes]], seed: int = 0) -> None:
        self.busy = 0.0
        self.forbidden: frozenset[str] = frozenset()
        self.seen: list[tuple[str, str]] = []
        self.refused = 0
        self.under_way = 0
        self._application = application
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def wait_until_idle(self) -> None:
        """Wait for what clients that are dead by now have asked for."""
        while self.under_way:
            time.sleep(0.01)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.under_way += 1
        try:
            return list(self._answer(environ, start))
        finally:
            with self._lock:
                self.under_way -= 1

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        if len(body) < length:  # Its client died: S3 keeps no part of it, moto would.
            start("400 Bad Request", [])
            return []
        if length:
            environ["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            self.seen.append((method, path))
            busy, after = self._random.random() < self.busy, self._random.random() < 0.5
            self.refused += busy
        forbidden = method in self.forbidden
        if not forbidden and (not busy or after):
            answer = self._application(environ, (lambda *_arguments: lambda _data: None) if busy else start)
            if not busy:
                return answer
            list(answer)
        status, code = ("403 Forbidden", "AccessDenied") if forbidden else ("503 Slow Down", "SlowDown")
        content = b"" if method == "HEAD" else ERROR.format(code=code).encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
        return [content]


@contextmanager
def s3_server(seed: int = 0) -> Iterator[tuple[FlakyS3, str]]:
    """Yield an S3 with the bucket `bucket`, and its endpoint on a free port of 127.0.0.1."""
    pytest.importorskip("s3fs", reason="the test extra is not installed")
    moto = pytest.importorskip("moto.server", reason="the test extra is not installed")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_arguments: object) -> None: ...

    flaky = FlakyS3(moto.DomainDispatcherApplication(moto.create_backend_app), seed)
    server = make_server("127.0.0.1", 0, flaky, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        # What moto holds outlives its servers.
        for method, path in (("POST", "/moto-api/reset"), ("PUT", "/bucket")):
            urllib.request.urlopen(urllib.request.Request(endpoint + path, method=method)).close()  # noqa: S310
        yield flaky, endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
