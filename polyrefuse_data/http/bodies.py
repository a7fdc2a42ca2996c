"""The body of an answer: unpacked as it comes, bounded, and without the key that a service may quote."""

from __future__ import annotations

import base64
import html
import zlib
from functools import lru_cache
from json import dumps
from urllib.parse import quote, quote_plus

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.http.faults import Fault

MAXIMUM_BYTES = 4_000_000
"""Largest response body that is read; no translation or verdict comes near it."""

LEAST_KEY = 12
"""Characters of the shortest key that is taken out of answers: shorter ones, such as `none` or `EMPTY` for
local servers, are words that an answer may hold."""

HIDDEN = "***"
"""What stands in place of a key."""

_GZIP, _ZLIB, _DEFLATE = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Body:
    """Collect the chunks of a response of one content coding; raise `Fault` beyond `maximum_bytes`.

    A chunk is never unpacked further than that: some kilobytes of gzip stand for megabytes, and of gzip in
    gzip for gigabytes, so that a coding upon a coding is not taken.
    """

    def __init__(self, coding: str | None, maximum_bytes: int = MAXIMUM_BYTES) -> None:
        name = (coding or "identity").strip().lower()
        if name not in ("identity", "gzip", "x-gzip", "deflate"):
            raise Fault("page", "an answer in a compression that was not requested")
        self._unpacker = (
            None if name == "identity" else zlib.decompressobj(_GZIP if "gzip" in name else _ZLIB)
        )
        self._is_deflate = name == "deflate"
        self._maximum_bytes = maximum_bytes
        self._received = 0
        self._content = bytearray()

    def add(self, chunk: bytes) -> None:
        """Add the next bytes as they came; raise `Fault` where they are too many, or cannot be unpacked."""
        self._received += len(chunk)
        room = self._maximum_bytes + 1 - len(self._content)
        try:
            self._content += chunk if self._unpacker is None else self._unpack(chunk, room)
        except zlib.error:
            raise Fault("truncated", "the answer was interrupted") from None
        if max(len(self._content), self._received) > self._maximum_bytes:
            raise Fault("page", f"an answer of more than {self._maximum_bytes} bytes")

    def content(self) -> bytes:
        """Return the unpacked bytes."""
        return bytes(self._content)

    def _unpack(self, chunk: bytes, room: int) -> bytes:
        assert self._unpacker is not None  # noqa: S101 (its caller looked)
        try:
            return self._unpacker.decompress(chunk, room)
        except zlib.error:
            if not self._is_deflate or self._content:
                raise
            self._unpacker = zlib.decompressobj(_DEFLATE)  # without the header, as some servers send it
            return self._unpacker.decompress(chunk, room)


def without_key(text: str, key: str | None) -> str:
    """Return the `text` of an answer with asterisks for the `key`, as it is and as services encode it.

    JSON may write any character as an escape: text that holds escapes is looked at as the value that it is.
    """
    if key is None or len(key) < LEAST_KEY:
        return text
    text = _replaced(text, key)
    if "\\" not in text:
        return text
    try:
        plain = dumps(parse_json(text), ensure_ascii=False)
    except ValueError:
        return text
    cleaned = _replaced(plain, key)
    return text if cleaned == plain else cleaned


def _replaced(text: str, key: str) -> str:
    for form in _forms(key):
        text = text.replace(form, HIDDEN)
    return text


@lru_cache(maxsize=8)
def _forms(key: str) -> tuple[str, ...]:
    """Return how a key may stand in an answer: quoted for JSON, HTML or addresses, in base 64 or base 16."""
    escaped = dumps(key)[1:-1]
    addresses = [quote(key), quote(key, safe=""), quote_plus(key)]
    content = key.encode("utf-8", "surrogatepass")
    forms = [
        key,
        escaped,
        dumps(key, ensure_ascii=False)[1:-1],
        key.replace("/", "\\/"),
        html.escape(key),
        html.escape(key, quote=False),
        *addresses,
        *(_lower_escapes(address) for address in addresses),
        content.hex(),
        content.hex().upper(),
        *_in_base_64(content),
    ]
    return tuple(sorted({form for form in forms if len(form) >= LEAST_KEY}, key=len, reverse=True))


def _lower_escapes(address: str) -> str:
    """Return `address` with `%2f` for `%2F`."""
    start, *rest = address.split("%")
    return "%".join([start, *(part[:2].lower() + part[2:] for part in rest)])


def _in_base_64(content: bytes) -> list[str]:
    """Return the letters of base 64 that `content` alone decides, at each of its three places in a text."""
    forms = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + content).decode("ascii")
        own = encoded[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]
        forms += [own, own.replace("+", "-").replace("/", "_")]
    return forms
