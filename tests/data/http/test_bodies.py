"""The body of an answer is bounded however it is packed, and holds the key in no form."""

from __future__ import annotations

import base64
import gzip
import html
import json
import tracemalloc
import zlib
from urllib.parse import quote_plus

import pytest

from polyrefuse_data.http.bodies import MAXIMUM_BYTES, Body, without_key
from polyrefuse_data.http.faults import Fault

KEY = "sk-proj-0123/4567+89ab&cdéf"


def unpacked(content: bytes, coding: str | None) -> bytes:
    body = Body(coding)
    for start in range(0, len(content), 100):
        body.add(content[start : start + 100])
    return body.content()


def test_what_is_packed_is_unpacked() -> None:
    text = bytes(range(256)) * 1000
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for content, coding in (
        (text, None),
        (text, "identity"),
        (gzip.compress(text), "GZIP"),
        (zlib.compress(text), "deflate"),
        (deflate.compress(text) + deflate.flush(), "deflate"),
    ):
        assert unpacked(content, coding) == text
    with pytest.raises(Fault, match="was interrupted"):
        unpacked(b"no gzip", "gzip")


@pytest.mark.parametrize("coding", ["gzip, gzip", "gzip,gzip", "br", "zstd", "gzip, identity"])
def test_a_coding_upon_a_coding_is_not_unpacked(coding: str) -> None:
    with pytest.raises(Fault, match="in a compression that was not requested"):
        Body(coding)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_one_chunk_is_unpacked_no_further_than_the_limit(compress: object) -> None:
    assert callable(compress)
    bomb = compress(bytes(60_000_000))
    body = Body("gzip" if compress is gzip.compress else "deflate")
    tracemalloc.start()
    with pytest.raises(Fault, match=f"more than {MAXIMUM_BYTES} bytes"):
        body.add(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAXIMUM_BYTES


def test_packed_bytes_that_unpack_to_nothing_are_counted() -> None:
    body = Body("gzip")
    body.add(gzip.compress(b"") + bytes(MAXIMUM_BYTES - 100))
    with pytest.raises(Fault, match="more than"):
        body.add(bytes(100))


def _escaped(text: str) -> str:
    """Return `text` as JSON may write it: each character as its code."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def test_a_key_is_taken_out_in_whatever_form_a_service_quotes_it() -> None:
    encoded = [base64.b64encode(f"{'x' * n}:{KEY}:tail".encode()).decode() for n in range(4)]
    forms = [
        KEY,
        json.dumps(KEY),
        KEY.replace("/", "\\/"),
        quote_plus(KEY),
        quote_plus(KEY).lower(),
        html.escape(KEY),
        KEY.encode().hex(),
        *encoded,
        *(text.replace("+", "-").replace("/", "_") for text in encoded),
    ]
    for form in forms:
        cleaned = without_key(f"your key {form} is wrong", KEY)
        assert "***" in cleaned, form
        assert "0123" not in cleaned
    for quoted in (_escaped(KEY), _escaped(KEY[:3]) + KEY[3:], KEY[:-1] + _escaped(KEY[-1])):
        assert json.loads(without_key(f'{{"a": ["{quoted}", 1], "{quoted}": 2}}', KEY)) == {
            "a": ["***", 1],
            "***": 2,
        }


def test_an_answer_without_the_key_keeps_its_letters() -> None:
    for text in ('{"a": 1.50, "b": "\\u00e9\\/", "a": 2}', "no \\json", '{"a": "\\ud800"}', ""):
        assert without_key(text, KEY) == text
        assert without_key(f"{text} none", "none") == f"{text} none"
        assert without_key(text, None) == text
