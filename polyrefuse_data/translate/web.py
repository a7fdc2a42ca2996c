"""HTTP under one policy: deadlines, no redirects, connections kept, faults instead of exceptions.

`Web` has the two functions of `requests` that translation clients use, so a client that brings no timeout
and no pool of its own can be run on it (see `on_web`).
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import os
import threading
import types
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import requests

from polyrefuse_data.translate.deadline import LimitedAdapter, limited
from polyrefuse_data.translate.faults import Fault, Rejected, TranslatorError

CONNECT_SECONDS = 10.0
MAXIMUM_BYTES = 4_000_000
"""An answer of more bytes is no translation of a prompt."""

MAXIMUM_RETRY_AFTER = 30 * 86400.0
"""More seconds than that no Retry-After is taken to mean."""

MOST_CONNECTIONS = 256
"""Connections kept open for later requests."""

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
        # the adapter without a session: no cookies, no .netrc, no redirects, and half the time a request
        self._adapter = LimitedAdapter(pool_connections=4, pool_maxsize=MOST_CONNECTIONS, max_retries=0)
        self._headers = dict(requests.utils.default_headers())
        self._proxies_of: dict[str, Mapping[str, str]] = {}
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._certificates: bool | str = bundle or True

    def get(self, address: str, **options: Any) -> requests.Response:
        return self.request("GET", address, **options)

    def post(self, address: str, **options: Any) -> requests.Response:
        return self.request("POST", address, **options)

    def request(self, method: str, address: str, **options: Any) -> requests.Response:
        """Send one request and return its answer, read to the end; raises a fault for anything but 2xx."""
        options.pop("proxies", None)
        headers = {**self._headers, **(options.pop("headers", None) or {})}
        late = Fault("timeout", f"no answer within {self.timeout:g} s")
        with limited(self.timeout) as limit:
            try:
                response = self._send(method, address, headers, options)
            except requests.exceptions.Timeout:
                raise late from None
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
                raise (late if limit.expired else Fault("truncated", "the answer broke off")) from None
            except requests.exceptions.ConnectionError as error:
                if limit.expired or "Read timed out" in str(error):
                    raise late from None
                raise Fault("connection", f"with {place(address)}") from None
            except requests.exceptions.RequestException as error:
                raise TranslatorError(f"{place(address)} cannot be asked: {type(error).__name__}") from None
            if limit.expired:  # an end of file ends some answers without an error
                raise late
        self._check(response, address)
        self._local.response = response
        return response

    def _send(
        self, method: str, address: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> requests.Response:
        response = self._adapter.send(
            requests.Request(method, address, headers=headers, **options).prepare(),
            timeout=(min(CONNECT_SECONDS, self.timeout), self.timeout),
            stream=True,
            verify=self._certificates,
            proxies=self._proxies(address),
        )
        try:
            _read(response)
        finally:
            response.close()
        if "charset" not in response.headers.get("Content-Type", ""):
            response.encoding = "utf-8"  # a guess would be Latin-1, or take seconds
        return response

    @property
    def last(self) -> requests.Response:
        """The answer that this thread read last."""
        response = self._local.response
        assert isinstance(response, requests.Response)  # noqa: S101
        return response

    def json(self, response: requests.Response) -> Any:
        """Return the JSON value of an answer; raises a fault where it is another thing."""
        try:
            return response.json()
        except (ValueError, RecursionError):
            head = response.content[:200].lstrip().lower()
            raise Fault("page" if head.startswith(b"<") else "truncated", "no JSON in the answer") from None

    def _proxies(self, address: str) -> Mapping[str, str]:
        """Return the proxies that the environment names for the address's host; looked up once."""
        host = place(address)
        if host not in self._proxies_of:
            self._proxies_of[host] = requests.utils.get_environ_proxies(address)
        return self._proxies_of[host]

    def _check(self, response: requests.Response, address: str) -> None:
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


def _read(response: requests.Response) -> None:
    """Read the body; raises `Fault` for one that is too long."""
    parts = []
    size = 0
    for part in response.iter_content(65536):
        parts.append(part)
        size += len(part)
        if size > MAXIMUM_BYTES:
            raise Fault("page", f"an answer of more than {MAXIMUM_BYTES} bytes")
    response._content = b"".join(parts)
    response._content_consumed = True  # type: ignore[attr-defined]


def on_web(function: Callable[..., Any], web: Web) -> Callable[..., Any]:
    """Return `function` with `web` where its module says `requests`; the module itself is left alone."""
    assert isinstance(function, types.FunctionType)  # noqa: S101
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, "requests": web},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
