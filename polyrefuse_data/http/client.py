"""One HTTP client over httpx: a deadline for each whole request, no redirects, faults for failures."""

from __future__ import annotations

import contextlib
import email.utils
import math
import os
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from json import dumps
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.version import __version__
from polyrefuse_data.http.bodies import MAXIMUM_BYTES, Body, without_key
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError, excerpt
from polyrefuse_data.http.network import deadline, open_transport

CONNECT_SECONDS = 10.0
"""Seconds that a connection may take, of those of the request."""

MAXIMUM_RETRY_AFTER = 30 * 86400.0
"""Longest Retry-After in seconds; longer ones are cut to it."""

_QUADRATIC = ("punycode",)
"""Charsets whose decoders take time that is quadratic in the length: 17 s for 400 kB."""

_SCHEMES = ("http", "https")
_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",  # a few bytes of brotli or zstd unpack to gigabytes
    "Connection": "keep-alive",
    "User-Agent": f"polyrefuse/{__version__}",
}


def origin(address: str) -> str:
    """Return scheme, host and port of `address`: the part of it that may appear in a message."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def check_address(address: str, option: str = "--translator-url") -> str:
    """Return `address` if a request can go there; raise `TranslatorError`, naming the `option`, if not."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        usable = usable and not any(character.isspace() for character in address)
    except ValueError:
        usable = False
    if not usable:
        raise TranslatorError(f"{option} is not an address; expected one such as http://localhost:8000/")
    if parts.username or parts.password:
        raise TranslatorError(
            f"{option} {origin(address)} carries a user or password; keys come from the environment"
        )
    return address


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds of a Retry-After header (a number or an HTTP date), None if it is unreadable."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return None if math.isnan(seconds) else min(max(seconds, 0.0), MAXIMUM_RETRY_AFTER)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    current = datetime.now(timezone.utc).timestamp() if now is None else now
    return min(max(date.timestamp() - current, 0.0), MAXIMUM_RETRY_AFTER)


@dataclass(frozen=True)
class Response:
    """A response with its whole body; it has the attributes of `requests.Response` that clients read."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    charset: str = "utf-8"
    key: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The body in the charset that the response names, else in UTF-8."""
        return _decoded(self.content, self.charset)

    @property
    def sample(self) -> str:
        """The beginning of the body for a message, without the key, which services quote."""
        return excerpt(self.text.replace(self.key, "***") if self.key else self.text)

    def json(self) -> Any:
        """Return the JSON value of the body; raise `Fault` if the body holds none."""
        try:
            return parse_json(self.text)
        except ValueError:
            page = self.content[:200].lstrip().startswith(b"<")
            reason = "page" if page else "truncated"
            raise Fault(reason, "no JSON in the answer", sample=self.sample) from None

    def close(self) -> None:
        """Do nothing: the body is read and the connection returned."""


def _decoded(content: bytes, charset: str) -> str:
    if charset.strip().lower() in _QUADRATIC:
        charset = "utf-8"
    try:
        return content.decode(charset, "replace")
    except (LookupError, UnicodeError):  # an unknown charset, or one that cannot replace
        return content.decode("utf-8", "replace")


class HttpClient:
    """Send requests with a total deadline of `timeout` seconds each. Safe to share between threads.

    `key_variable` names the environment variable with the service's key, if there is one: messages name it
    where the key is refused, and its value is removed from samples of answers. No answer of more than
    `maximum_bytes` is read. Proxies and certificate files come from the environment (HTTPS_PROXY, NO_PROXY,
    SSL_CERT_FILE, REQUESTS_CA_BUNDLE).
    """

    def __init__(
        self, timeout: float, key_variable: str | None = None, maximum_bytes: int = MAXIMUM_BYTES
    ) -> None:
        self.timeout = timeout
        self.key_variable = key_variable
        self._maximum_bytes = maximum_bytes
        self._timeouts = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)).as_dict()
        self._thread = threading.local()

    def get(self, address: str, **options: Any) -> Response:
        """Send a GET request; see `request`."""
        return self.request("GET", address, **options)

    def post(self, address: str, **options: Any) -> Response:
        """Send a POST request; see `request`."""
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
    ) -> Response:
        """Send one request and return its response if the status is 2xx.

        `params` with the value None are left out. Raise `Fault` for a failure that another try may mend,
        `Rejected` for a request that the service will not take, and `TranslatorError` where no request can
        succeed: a refused key, a redirect, an untrusted certificate.
        """
        query = urlencode(
            {name: value for name, value in (params or {}).items() if value is not None}, doseq=True
        )
        if query:
            address += f"{'&' if '?' in address else '?'}{query}"
        content: dict[str, Any] = {"data": data}
        sent = {**_HEADERS, **(headers or {})}
        if json is not None:  # in ASCII: a lone surrogate has no UTF-8
            content = {"content": dumps(json, allow_nan=False)}
            sent.setdefault("Content-Type", "application/json")
        with deadline(self.timeout) as end:
            try:
                timeouts = {"timeout": self._timeouts}
                request = httpx.Request(method, address, headers=sent, extensions=timeouts, **content)
                response = self._exchange(self._transport(address), request)
            except httpx.TimeoutException as error:
                if isinstance(error, httpx.ConnectTimeout) and time.monotonic() < end:
                    wait = f": none within {CONNECT_SECONDS:g} s"
                    raise Fault("connection", f"with {origin(address)}{wait}") from None
                raise Fault("timeout", f"no answer within {self.timeout:g} s") from None
            except (
                httpx.InvalidURL,
                httpx.UnsupportedProtocol,
                httpx.LocalProtocolError,
                UnicodeError,  # of a host with a label that is empty or has more than 63 characters
            ) as error:
                name = type(error).__name__
                raise TranslatorError(f"{origin(address)} cannot be asked: {name}") from None
            except httpx.TransportError as error:
                raise _connection_fault(error, address) from None
        self._check(response, address)
        return response

    def _transport(self, address: str) -> httpx.HTTPTransport:
        """Return this thread's transport to the host of `address`; raise `TranslatorError` if there is none.

        A pool that threads share looks at all its connections for each request, twice.
        """
        transports: dict[str, httpx.HTTPTransport] = self._thread.__dict__
        host = origin(address)
        if host in transports:
            return transports[host]
        try:
            certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            transports[host] = open_transport(address, _tls(certificates))
        except OSError as error:
            raise TranslatorError(f"the certificate file in the environment: {error.strerror}") from None
        except (ValueError, ImportError, httpx.InvalidURL) as error:  # its message may quote a password
            hint = "; pip install 'httpx[socks]'" if isinstance(error, ImportError) else ""
            raise TranslatorError(f"the proxy in the environment cannot be used{hint}") from None
        return transports[host]

    def _exchange(self, transport: httpx.HTTPTransport, request: httpx.Request) -> Response:
        """Send a request and read its response, of any status, to the end."""
        with contextlib.closing(transport.handle_request(request)) as answer:
            body = Body(answer.headers.get("Content-Encoding"), self._maximum_bytes)
            try:
                for chunk in answer.iter_raw():
                    body.add(chunk)
            except httpx.TimeoutException:
                raise
            except httpx.TransportError:
                raise Fault("truncated", "the answer was interrupted") from None
            content, charset = body.content(), answer.charset_encoding or "utf-8"
            key = os.environ.get(self.key_variable or "", "").strip()
            if key:
                text = without_key(_decoded(content, charset), key)
                content, charset = text.encode("utf-8", "surrogatepass"), "utf-8"
            return Response(answer.status_code, answer.headers, content, charset, key)

    def _check(self, response: Response, address: str) -> None:
        """Raise what a status other than 2xx means."""
        status = response.status_code
        if 200 <= status < 300:
            return
        place, answer = origin(address), f"status {status}"
        if 300 <= status < 400:
            raise TranslatorError(
                f"{place} redirects{_target(response, address)} ({answer}), which is not followed; "
                "check the address"
            )
        if status in (401, 403) and self.key_variable:
            raise TranslatorError(
                f"{place} refuses the key ({answer}); check {self.key_variable} in the environment"
            )
        if status == 456:
            raise TranslatorError(f"{place}: the quota is used up ({answer}); wait or use another backend")
        if status in (404, 405, 410):
            raise TranslatorError(
                f"{place} has no such service ({answer}); check the address and the model's name"
            )
        reason = {401: "forbidden", 403: "forbidden", 408: "server_error", 425: "server_error"}.get(
            status, "throttled" if status == 429 else "server_error" if status >= 500 else "rejected"
        )
        wait = retry_after(response.headers.get("Retry-After"))
        raise (Rejected if reason == "rejected" else Fault)(reason, answer, wait, response.sample)


def _connection_fault(error: httpx.TransportError, address: str) -> Fault | TranslatorError:
    """Return what a failed connection means, a failure of TLS by its name."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TranslatorError(
            f"{origin(address)} has an untrusted certificate ({cause.verify_message}); set SSL_CERT_FILE "
            "to its authority's file"
        )
    if cause is not None:
        name = str(getattr(cause, "reason", None) or type(cause).__name__).lower().replace("_", " ")
        return Fault("connection", f"with {origin(address)}: TLS failed ({name})")
    proxy = ": the proxy refuses it" if isinstance(error, httpx.ProxyError) else ""
    return Fault("connection", f"with {origin(address)}{proxy}")


def _target(response: Response, address: str) -> str:
    """Return where a redirect leads, in words; paths and queries may carry a key or a prompt."""
    try:
        target = origin(urljoin(address, response.headers.get("Location", "")))
    except ValueError:
        return ""
    return " to another path" if target == origin(address) else f" to {target}"


@lru_cache(maxsize=4)
def _tls(certificates: str | None) -> ssl.SSLContext:
    """Return the context for TLS, which takes long to make, with the authorities of a file if it is named."""
    return ssl.create_default_context(cafile=certificates) if certificates else httpx.create_ssl_context()
