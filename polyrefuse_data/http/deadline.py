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


class _Handle:
    """A descriptor of our own for a connection's socket, closed when nobody refers to it any more.

    The connection may close or forget its socket while an answer is still read, and TLS takes it over;
    a descriptor that is being shut down must not be another socket's meanwhile.
    """

    _close = staticmethod(socket.close)  # there at the interpreter's end, too

    def __init__(self, sock: socket.socket) -> None:
        self._kind = sock.family, sock.type, sock.proto
        self._descriptor = socket.dup(sock.fileno())

    def shut_down(self) -> None:
        """Let everything that waits for the socket go on."""
        sock = socket.socket(*self._kind, self._descriptor)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed by the other side
            pass
        finally:
            sock.detach()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self._close(self._descriptor)


class Limit:
    """The time that one request has. `expired` says that it was ended for that."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.expired = False
        self._handle: _Handle | None = None

    def uses(self, handle: _Handle) -> None:
        """Note the socket that the request waits for from now on."""
        self._handle = handle
        if self.expired:  # whichever of `uses` and `end` comes second sees what the first has set
            handle.shut_down()

    def end(self) -> None:
        """Let everything that waits for the socket go on."""
        self.expired = True
        handle = self._handle
        if handle is not None:
            handle.shut_down()


_lock = threading.Lock()
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
            for limit in late:  # under the lock: what is over meanwhile has given its connection to others
                limit.end()
            _running.difference_update(late)


class _Noted:
    """A connection that says which socket it uses."""

    _handle: _Handle | None = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._handle = _Handle(sock)
        self._note()
        return sock

    def request(self, *arguments: Any, **options: Any) -> None:
        self._note()
        super().request(*arguments, **options)  # type: ignore[misc]

    def close(self) -> None:
        self._handle = None  # a request that still reads has it, too
        super().close()  # type: ignore[misc]

    def _note(self) -> None:
        limit: Limit | None = getattr(_here, "limit", None)
        if limit is not None and self._handle is not None:
            limit.uses(self._handle)


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
