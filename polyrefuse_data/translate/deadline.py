"""A deadline for a whole request: connecting, sending, the answer's head and its body.

The timeouts of sockets start anew with every byte: a server that sends one now and then is waited for
without end. So each request says which socket it uses and until when, and one thread shuts down the sockets
of requests whose time is over; whoever reads from one of them gets an end of file at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

TICK_SECONDS = 0.1
"""How late a request is ended, at most."""


_here = threading.local()
_lock = threading.RLock()  # over all handles: one that is being shut down is not closed meanwhile


class Limit:
    """The time that one request has. `expired` says that it was ended for that."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.expired = False
        self._handle: socket.socket | None = None

    def uses(self, sock: socket.socket | None) -> None:
        """Note the socket that the request waits for from now on, by a handle of our own.

        The connection may forget its socket while an answer is still read, and TLS takes it over.
        """
        with _lock:
            self.close()
            if sock is not None:
                self._handle = socket.socket(sock.family, sock.type, sock.proto, socket.dup(sock.fileno()))
                if self.expired:
                    self.end()

    def end(self) -> None:
        """Let everything that waits for the socket go on."""
        with _lock:
            self.expired = True
            if self._handle is not None:
                with contextlib.suppress(OSError):  # closed by the other side
                    self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the handle back; the connection stays as it is."""
        with _lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None


_running: set[Limit] = set()
_watch: threading.Thread | None = None


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[Limit]:
    """End this thread's request, sent through `LimitedAdapter` within the block, after so many seconds."""
    limit = _here.limit = Limit(seconds)
    with _lock:
        _running.add(limit)
        _start_watch()
    try:
        yield limit
    finally:
        _here.limit = None
        with _lock:
            _running.discard(limit)
        limit.close()


def _start_watch() -> None:
    global _watch
    if _watch is None or not _watch.is_alive():
        _watch = threading.Thread(target=_end_late_ones, name="deadlines", daemon=True)
        _watch.start()


def _end_late_ones() -> None:
    while True:
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        with _lock:
            late = [limit for limit in _running if limit.until < now]
            for limit in late:
                limit.end()
            _running.difference_update(late)


class _Noted:
    """A connection that says which socket it uses."""

    sock: Any

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        _note(sock)
        return sock

    def request(self, *arguments: Any, **options: Any) -> None:
        _note(self.sock)
        super().request(*arguments, **options)  # type: ignore[misc]


def _note(sock: socket.socket | None) -> None:
    limit: Limit | None = getattr(_here, "limit", None)
    if limit is not None:
        limit.uses(sock)


class _Connection(_Noted, HTTPConnection):
    pass


class _SecureConnection(_Noted, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class LimitedAdapter(HTTPAdapter):
    """The adapter of `requests`, its connections under `limited`, through proxies too."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        _use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **options)
        _use_pools(manager)
        return manager


def _use_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
