"""Connections with a deadline for everything that a thread reads and writes on them.

The timeouts of httpx start anew with every byte: a server that sends one now and then would be waited for
without end.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

_thread = threading.local()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[float]:
    """End what this thread does on a connection within the block after `seconds`; yield the moment."""
    _thread.end = time.monotonic() + seconds
    try:
        yield _thread.end
    finally:
        del _thread.end


def _left(timeout: float | None) -> float | None:
    """Return the seconds that the next operation may take: `timeout`, or less at the deadline."""
    end: float | None = getattr(_thread, "end", None)
    if end is None:
        return timeout
    left = end - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline of the request has passed")
    return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(host, port, _left(timeout), local_address, socket_options))


def open_transport(address: str, verify: ssl.SSLContext) -> httpx.HTTPTransport:
    """Return a transport to the host of `address`, under `deadline`, through the environment's proxy if any.

    httpx has no option for a network backend, whose interface is public in httpcore.
    """
    parts = urlsplit(address)
    proxies = {} if proxy_bypass(parts.netloc) else getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    transport = httpx.HTTPTransport(verify=verify, proxy=proxy)
    transport._pool._network_backend = _Backend()
    return transport
