"""HTTP under one policy: deadlines, no redirects, connections kept, faults instead of exceptions.

`Web` has the two functions of `requests` that translation clients use, so a client that brings no timeout
and no pool of its own can be run on it (see `on_web`).
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import os
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import urllib3

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.http.deadline import LimitedAdapter, limited
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError

CONNECT_SECONDS = 10.0
MAXIMUM_BYTES = 4_000_000
"""An answer of more bytes is no translation of a prompt."""

MAXIMUM_RETRY_AFTER = 30 * 86400.0
"""More seconds than that no Retry-After is taken to mean."""

MOST_CONNECTIONS = 256
"""Connections kept open for later requests, of one host; and hosts: a client asks one or two."""

_ONCE = urllib3.Retry(False, redirect=False)
"""No second try, and errors as they come: the runner tries again (see `asking`)."""

_CONNECTION = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.SSLError,
)
"""A new connection that fails is a `TimeoutError` in urllib3, too: these are looked at first."""

_SCHEMES = ("http", "https")


def place(address: str) -> str:
    """Return scheme, host and port of `address`: what may be shown of it."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def check_address(address: str, given: str = "--translator-url") -> str:
    """Return `address` if it is one that can be asked; raises `TranslatorError`, naming where it was
    `given`."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        usable = usable and not any(sign.isspace() for sign in address)
    except ValueError:
        usable = False
    if not usable:
        raise TranslatorError(f"{given} is no address; expected one such as http://localhost:8000/")
    if parts.username or parts.password:
        raise TranslatorError(
            f"{given} {place(address)} carries a user or password; keys come from the environment"
        )
    return address


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or an HTTP date; None if unreadable."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return None if math.isnan(seconds) else min(max(seconds, 0.0), MAXIMUM_RETRY_AFTER)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    current = datetime.now(timezone.utc).timestamp() if now is None else now
    return min(max(when.timestamp() - current, 0.0), MAXIMUM_RETRY_AFTER)


@dataclass(frozen=True)
class Response:
    """An answer, read to its end: as much of one of `requests` as translation clients look at."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The body in the charset that the answer names, else in UTF-8."""
        charset = _charset(self.headers.get("Content-Type", ""))
        try:
            return self.content.decode(charset, "replace")
        except (LookupError, UnicodeError):  # no charset, or one that cannot replace
            return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        return parse_json(self.text)

    def close(self) -> None:
        """Nothing is open."""


@lru_cache(maxsize=64)
def _charset(content_type: str) -> str:
    if "charset" not in content_type:
        return "utf-8"  # a guess would be Latin-1, or take seconds
    return requests.utils.get_encoding_from_headers({"content-type": content_type}) or "utf-8"


@dataclass(frozen=True)
class _Route:
    """How to reach an address: connections to its host or proxy, and what to ask for there."""

    connections: urllib3.HTTPConnectionPool
    target: str


class Web:
    """What translation clients take for the module `requests`. Safe to share between threads.

    `key_variable` names the environment variable of the key, for the message when a key is refused;
    None where the service takes none.
    """

    exceptions = requests.exceptions

    def __init__(self, timeout: float, key_variable: str | None = None) -> None:
        self.timeout = timeout
        self.key_variable = key_variable
        self._local = threading.local()
        self._adapter = LimitedAdapter(MOST_CONNECTIONS, MOST_CONNECTIONS)
        self._headers = dict(requests.utils.default_headers())
        self._routes: dict[str, _Route] = {}
        self._timeouts = urllib3.Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout)
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._certificates: bool | str = bundle or True

    def get(self, address: str, **options: Any) -> Response:
        return self.request("GET", address, **options)

    def post(self, address: str, **options: Any) -> Response:
        return self.request("POST", address, **options)

    def request(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        proxies: None = None,
    ) -> Response:
        """Send one request and return its answer, read to the end; raises a fault for anything but 2xx.

        `proxies` is what deep-translator's clients say; those of the environment are taken.
        """
        query = _query(params)
        body, kind = _body(data, json)
        sent = {**self._headers, **kind, **(headers or {})}
        late = Fault("timeout", f"no answer within {self.timeout:g} s")
        with limited(self.timeout) as limit:
            try:
                response = self._send(method, self._route(address), query, body, sent)
            except Fault as fault:
                raise (late if limit.expired else fault) from None
            except _CONNECTION:
                raise (late if limit.expired else Fault("connection", f"with {place(address)}")) from None
            except urllib3.exceptions.TimeoutError:
                raise late from None
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise TranslatorError(f"{place(address)} cannot be asked: {type(error).__name__}") from None
            if limit.expired:  # an end of file ends some answers without an error
                raise late
        self._check(response, address)
        self._local.response = response
        return response

    def _send(
        self,
        method: str,
        route: _Route,
        query: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Response:
        # the connections without a session of `requests`: no cookies, no .netrc, and a third of the time
        answer = route.connections.urlopen(
            method,
            f"{route.target}{'&' if '?' in route.target else '?'}{query}" if query else route.target,
            body=body,
            headers=headers,
            retries=_ONCE,
            redirect=False,
            assert_same_host=False,
            timeout=self._timeouts,
            preload_content=False,
        )
        return Response(answer.status, answer.headers, _read(answer))

    @property
    def last(self) -> Response:
        """The answer that this thread read last."""
        response = self._local.response
        assert isinstance(response, Response)  # noqa: S101
        return response

    def json(self, response: Response) -> Any:
        """Return the JSON value of an answer; raises a fault where it is another thing."""
        try:
            return response.json()
        except ValueError:
            head = response.content[:200].lstrip().lower()
            raise Fault("page" if head.startswith(b"<") else "truncated", "no JSON in the answer") from None

    def _route(self, address: str) -> _Route:
        """Return the way to `address`, through the environment's proxy if it names one; looked up once."""
        route = self._routes.get(address)
        if route is None:
            proxies = requests.utils.get_environ_proxies(address)
            request = requests.Request("GET", address).prepare()
            connections = self._adapter.get_connection_with_tls_context(request, self._certificates, proxies)
            assert isinstance(connections, urllib3.HTTPConnectionPool)  # noqa: S101
            route = self._routes[address] = _Route(connections, self._adapter.request_url(request, proxies))
        return route

    def _check(self, response: Response, address: str) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        wait = retry_after(response.headers.get("Retry-After"))
        said = f"status {status}"
        if 300 <= status < 400:
            raise Fault("redirect", said)
        if status == 429:
            raise Fault("throttled", said, wait)
        if status >= 500 or status in (408, 425):
            raise Fault("server_error", said, wait)
        if status in (401, 403) and self.key_variable:
            raise TranslatorError(
                f"{place(address)} refuses the key ({said}); check {self.key_variable} in the environment"
            )
        if status in (401, 403):
            raise Fault("forbidden", said, wait)
        if status == 456:
            raise TranslatorError(
                f"{place(address)}: the quota is used up ({said}); wait or take another backend"
            )
        if status in (404, 405, 410):
            raise TranslatorError(
                f"{place(address)} has no such service ({said}); check the address and the model's name"
            )
        raise Rejected("rejected", said)


def _body(data: Mapping[str, Any] | None, value: Any) -> tuple[bytes | None, dict[str, str]]:
    """Return the body of a request, a form or a JSON value, and the header that names its kind."""
    if value is not None:
        return json.dumps(value, allow_nan=False).encode("utf-8"), {"Content-Type": "application/json"}
    if data:
        form = urlencode(data, doseq=True).encode("ascii")
        return form, {"Content-Type": "application/x-www-form-urlencoded"}
    return None, {}


def _query(parameters: Mapping[str, Any] | None) -> str:
    return urlencode(
        {name: value for name, value in (parameters or {}).items() if value is not None}, doseq=True
    )


def _read(answer: urllib3.BaseHTTPResponse) -> bytes:
    """Return the body, its connection given back; raises `Fault` for one that breaks off or is too long."""
    try:
        content = answer.read(MAXIMUM_BYTES + 1, decode_content=True)
    except (urllib3.exceptions.ProtocolError, urllib3.exceptions.DecodeError):
        raise Fault("truncated", "the answer broke off") from None
    finally:
        answer.close()  # of one that was read to the end, the connection is kept
        answer.release_conn()
    if len(content) > MAXIMUM_BYTES:
        raise Fault("page", f"an answer of more than {MAXIMUM_BYTES} bytes")
    return content


def on_web(function: Callable[..., Any], web: Web, **others: Any) -> Callable[..., Any]:
    """Return `function` with `web` where its module says `requests`, and with `others` by their names; the
    module itself is left alone."""
    assert isinstance(function, types.FunctionType)  # noqa: S101
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, "requests": web, **others},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
