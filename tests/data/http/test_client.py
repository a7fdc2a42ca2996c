"""Requests under a deadline, and answers of every wrong form, over plain sockets."""

from __future__ import annotations

import contextlib
import gc
import gzip
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.http.bodies import MAXIMUM_BYTES
from polyrefuse_data.http.client import HttpClient
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.translate.answers import Judge
from polyrefuse_data.translate.backends.base import Settings
from polyrefuse_data.translate.backends.registry import make_chain, parse_chain

OPEN = Path("/proc/self/fd")
EN, DE = LANGUAGES["en"], LANGUAGES["de"]
PATHS = {
    "google": "/m",
    "mymemory": "/get",
    "libre": "/",
    "microsoft": "/microsoft",
    "deepl": "/",
    "openai:tiny": "/v1",
}


def request_on(connection: socket.socket) -> list[bytes]:
    """The request line, the other lines of the head in order, and the body."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(65536)
    head, _, body = read.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length.group(1)):
        body += connection.recv(65536)
    first, *others = head.split(b"\r\n")
    return [first, *sorted(others), body]


@contextmanager
def listening(
    answer: Callable[[socket.socket], object], requests_seen: list[list[bytes]] | None = None
) -> Iterator[str]:
    """Serve `answer` to every connection, once its request is there; yield the address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                request = request_on(connection)
                if requests_seen is not None:
                    requests_seen.append(request)
                answer(connection)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # what is unread would reset the connection
                    pass
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def trickle(head: bytes, drop: bytes) -> Callable[[socket.socket], object]:
    """Return an answer that sends `head`, and then `drop` again and again without end."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)
            time.sleep(0.02)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "status": trickle(b"", b"H"),
    "header": trickle(OK + b"X-", b"a"),
    "continue": trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": trickle(OK + b"Content-Length: 60000\r\n\r\n", b"a"),
    "chunk": trickle(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "body without a length": trickle(OK + b"\r\n", b"a"),
}


@pytest.mark.timeout(30)  # without a deadline for the whole request none of these ever ends
@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_that_trickles_in_ends_at_the_deadline(kind: str) -> None:
    with listening(ENDLESS[kind]) as address, pytest.raises(Fault, match=r"timeout: no answer within 0\.3 s"):
        HttpClient(0.3).get(address)


def test_a_connection_that_was_ended_is_not_used_again() -> None:
    answers = iter([ENDLESS["body"], lambda line: line.sendall(OK + b"Content-Length: 2\r\n\r\nok")])
    with listening(lambda connection: next(answers)(connection)) as address:
        web = HttpClient(0.3)
        with pytest.raises(Fault, match="timeout"):
            web.get(address)
        assert web.get(address).text == "ok"


@pytest.mark.parametrize(
    ("head", "block", "reason"),
    [
        (OK + b"Content-Type: text/html\r\n\r\n", b"x" * 65536, "page"),
        (OK, b"X-A: b\r\n", "connection"),
        (OK + b"X-", b"a" * 65536, "connection"),
    ],
)
def test_an_answer_without_end_is_cut(head: bytes, block: bytes, reason: str) -> None:
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(head)
        while True:
            connection.sendall(block)
            sent += len(block)

    with listening(answer) as address, pytest.raises(Fault) as caught:
        HttpClient(20.0).get(address)
    assert caught.value.reason == reason
    assert sent < 4 * MAXIMUM_BYTES


def body(content: bytes, kind: str = "application/json") -> Callable[[socket.socket], object]:
    head = OK + f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + content)


def test_what_was_packed_cut_or_written_in_another_charset_is_read() -> None:
    said = "Grüße an alle"
    packed = gzip.compress(said.encode())
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b"Gr", "üße an alle".encode(), b""))
    kind = b"Content-Type: text/plain"
    answers = [
        kind + b"\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed,
        kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        kind + b"; charset=ISO-8859-1\r\n\r\n" + said.encode("latin-1"),
        kind + b"; charset=no-such-one\r\n\r\n" + said.encode(),
        kind + b"; charset=idna\r\n\r\n" + said.encode(),
    ]
    rest = iter(answers)
    with listening(lambda connection: connection.sendall(OK + next(rest))) as address:
        assert [HttpClient(5.0).get(address).text for _ in answers] == [said] * len(answers)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"Content-Length: 20\r\n\r\nhalf", "truncated"),
        (b"Transfer-Encoding: chunked\r\n\r\nff\r\nhalf", "truncated"),
        (b"Content-Encoding: gzip\r\n\r\nno gzip", "truncated"),
        (b"Content-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(gzip.compress(bytes(10**7))), "page"),
        (None, "connection"),
    ],
)
def test_an_answer_that_breaks_off_is_a_fault(answer: bytes | None, reason: str) -> None:
    def serve(connection: socket.socket) -> None:
        if answer is not None:
            connection.sendall(OK + answer)

    with listening(serve) as address, pytest.raises(Fault) as caught:
        HttpClient(5.0).get(address)
    assert caught.value.reason == reason


def test_nobody_there_and_no_tls_are_failed_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"no TLS here")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Fault, match=f"connection: with https://127.0.0.1:{port}"):
            HttpClient(5.0).get(f"https://127.0.0.1:{port}")
    with pytest.raises(Fault, match=f"connection: with http://127.0.0.1:{port}"):
        HttpClient(5.0).get(f"http://127.0.0.1:{port}")


def test_parameters_bodies_and_headers_go_out_as_they_do_with_requests() -> None:
    """The same bytes that `requests` sends for the same arguments, but for the client's name."""
    import requests

    calls: list[tuple[str, dict[str, object]]] = [
        ("get", {"params": {"q": "a b&ü=\u2028/ ?", "sl": "en", "none": None, "two": ["x", "y"]}}),
        ("post", {"params": {"to": "de"}, "json": [{"text": "Grüße"}], "headers": {"X-Key": "k"}}),
        ("post", {"data": {"text": ["a", "ü"], "x": "1"}}),
    ]
    heads: list[list[bytes]] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")

    with listening(answer, heads) as address:
        for method, options in calls:
            getattr(requests, method)(f"{address}/m?v=1", **options)
            getattr(HttpClient(5.0), method)(f"{address}/m?v=1", **options)
    assert len(heads) == 6
    sent = [
        sorted(line for line in head if not line.lower().startswith((b"user-agent:", b"accept-encoding:")))
        for head in heads
    ]
    assert sent[0::2] == sent[1::2]


@pytest.mark.parametrize(
    ("location", "place"),
    [
        (b"https://elsewhere.example:8443/x?key=k-123", "redirects to https://elsewhere.example:8443 "),
        (b"/sorry?key=k-123", "redirects to another path "),
        (b"http://[broken", "redirects "),
        (b"", "redirects to another path "),
    ],
)
def test_a_redirect_is_named_and_not_followed(location: bytes, place: str) -> None:
    """No other try can succeed; the query of the target may carry a key."""
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    heads: list[list[bytes]] = []
    with listening(lambda line: line.sendall(answer), heads) as address:
        with pytest.raises(TranslatorError) as caught:
            HttpClient(5.0).get(address)
        assert str(caught.value) == (
            f"{address} {place}(status 302), which is not followed; check the address"
        )
    assert len(heads) == 1


def test_a_key_that_a_service_quotes_is_not_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k-123")
    answer = b"HTTP/1.1 500 X\r\nContent-Length: 35\r\n\r\nno \x1b[31mbudget\x00 left for key k-123.  "
    with listening(lambda line: line.sendall(answer)) as address, pytest.raises(Fault) as caught:
        HttpClient(5.0, "SOME_KEY").get(address)
    assert caught.value.sample == "no [31mbudget left for key ***."


@pytest.mark.parametrize(("key", "shown"), [("sk-0123456789/a", "***"), ("none", "none")])
def test_a_key_that_a_service_quotes_is_not_in_the_answer(
    monkeypatch: pytest.MonkeyPatch, key: str, shown: str
) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    for quoted in (key, key.replace("/", "\\/")):
        with listening(body(json.dumps({"a": "KEY"}).replace("KEY", quoted).encode())) as address:
            assert HttpClient(5.0, "SOME_KEY").get(address).json() == {"a": shown}


def test_a_key_in_another_charset_or_escaped_is_not_in_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-0123456789/a"
    monkeypatch.setenv("SOME_KEY", key)
    escaped = "".join(f"\\u{ord(character):04x}" for character in key)
    for content, charset in (
        (json.dumps({"a": key}).encode("utf-16"), "utf-16"),
        (f'{{"a": "{escaped}"}}'.encode(), "utf-8"),
        (f'{{"a": "{escaped}"}}'.encode("utf-16"), "utf-16"),
    ):
        with listening(body(content, f"application/json; charset={charset}")) as address:
            assert HttpClient(5.0, "SOME_KEY").get(address).json() == {"a": "***"}


def test_a_charset_whose_decoder_is_quadratic_is_not_taken() -> None:
    content = b"a-" + b"a" * 1_000_000
    with listening(body(content, "text/plain; charset=Punycode")) as address:
        assert HttpClient(60.0).get(address).text == content.decode()


def test_cookies_are_neither_kept_nor_sent() -> None:
    heads: list[list[bytes]] = []
    answer = OK + b"Set-Cookie: id=1; Path=/\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    with listening(lambda line: line.sendall(answer), heads) as address:
        client = HttpClient(5.0)
        for _ in range(2):
            client.get(address)
    assert len(heads) == 2
    assert not any(line.lower().startswith(b"cookie") for head in heads for line in head)


def test_a_proxy_and_a_certificate_file_that_cannot_be_used_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("https_proxy", "nonsense://user:s3cret@proxy")
    with pytest.raises(TranslatorError, match="the proxy in the environment cannot be used") as caught:
        HttpClient(5.0).get("https://translate.invalid/")
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
    with pytest.raises(TranslatorError, match="certificate file in the environment: No such file"):
        HttpClient(5.0).get("https://translate.invalid/")


def test_the_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[list[bytes]] = []
    with listening(body(b"said"), heads) as address:
        monkeypatch.setenv("HTTP_PROXY", address.replace("//", "//user:word@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("http_proxy", address.replace("//", "//user:word@"))
        assert HttpClient(5.0).get("http://translate.invalid/m", params={"q": "x"}).text == "said"
    (head,) = heads
    assert head[0] == b"GET http://translate.invalid/m?q=x HTTP/1.1"
    assert any(line.startswith(b"Proxy-Authorization: Basic ") for line in head)


@pytest.mark.skipif(not OPEN.is_dir(), reason="counts descriptors where Linux lists them")
def test_no_descriptor_stays_open() -> None:
    answers = itertools.cycle(
        [
            lambda line: line.sendall(OK + b"Content-Length: 2\r\n\r\nok"),
            lambda line: line.sendall(OK + b"Connection: close\r\n\r\nok"),
            lambda line: line.sendall(OK + b"Content-Length: 9\r\n\r\nok"),
            lambda line: line.shutdown(socket.SHUT_RDWR),
        ]
    )

    def asked(times: int) -> int:
        for _ in range(times):
            with contextlib.suppress(Fault):
                web.get(address)
        gc.collect()
        time.sleep(0.2)  # the server's side closes, too
        return len(list(OPEN.iterdir()))

    with listening(lambda connection: next(answers)(connection)) as address:
        web = HttpClient(5.0)
        before = asked(8)
        assert asked(40) < before + 8  # one kind of answer that leaves its descriptor would leave ten


ODD_VALUES = (
    None, [], {}, [1], "x", 0, {"error": {"code": 1, "message": "the key k-123 is bad"}}, {"error": None},
    {"translatedText": None}, {"translatedText": {}}, {"translatedText": [1, 2]}, {"translatedText": ["a"]},
    [{"translations": None}], [{"translations": []}], [{"translations": [{"text": None}]}], [None, None],
    [{"translations": [{"text": "a"}]}, {"translations": []}],
    {"responseData": None, "responseStatus": "403"}, {"responseData": {"translatedText": 5}},
    {"responseData": {"translatedText": None}, "matches": [{"translation": None}]},
    {"responseData": {"translatedText": "hi"}, "matches": [{"segment": None}, {"segment": 5}]},
    {"choices": None}, {"choices": [{"message": None}]}, {"choices": [{"message": {"content": [1]}}]},
    {"translations": None}, {"translations": [{"text": None}]}, {"translations": [{"text": 5}, {}]},
)  # fmt: skip
HALF_TAGS = (
    b"<div ", b"<input ", b'<div class="', b"<div class='\"", b'<div class="t1" a ',
    b'<input name="q" value="', b"<div a", b"<input name=q ", b"<div   =",
)  # fmt: skip
"""What a pattern for whole tags takes minutes for, again and again."""

ODD_BODIES = (
    *(json.dumps(value).encode() for value in ODD_VALUES),
    b"[" * 300_000,  # deeper than a parser in C goes
    b'{"a": ' + b"9" * 10_000 + b"}",  # a number too long to read
    b"<div>" * 600_000,  # minutes for a parser of HTML
    b'<div class="t0">' + b"<p>" * 600_000 + b"</div>",
    b'<div class="t0"></div>',
    *(
        b'<div class="t0">' + tag * (90_000 // len(tag)) + b"</div>"
        for tag in (b"<b>", b'<a href="', b"<td>")
    ),
    *(b"<div class='result-container'>ja</div>" + sign * (200_000 // len(sign)) for sign in HALF_TAGS),
    *(sign * (200_000 // len(sign)) for sign in HALF_TAGS),
    b"\xff\xfe\x00",
)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: what is finalized where the stack is full would fail the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("name", PATHS)
def test_no_answer_of_another_form_is_more_than_a_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a `Fault` or a text: another exception would give the backend up."""
    for variable in ("LIBRE_API_KEY", "MICROSOFT_API_KEY", "DEEPL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "k-123")
    contents = iter(ODD_BODIES)
    with listening(lambda connection: body(next(contents))(connection)) as address:
        backend = make_chain(parse_chain(name), Settings(address + PATHS[name], 20.0))[0]
        for _ in ODD_BODIES:
            try:
                said = backend.translate(["Hello there."], EN, DE)[0].text
            except Fault as fault:
                said = str(fault)
            assert isinstance(said, str)
            assert "k-123" not in said


def test_a_page_that_says_no_charset_is_utf_8() -> None:
    page = '<div class="result-container">Grüße an alle Kinder.</div>'.encode()
    with listening(body(page, "text/html")) as address:
        (backend,) = make_chain(parse_chain("google"), Settings(address))
        assert backend.translate(["Greetings to all children."], EN, DE)[0].text == "Grüße an alle Kinder."


@pytest.mark.parametrize("sign", [0xFFFD, 0xD800, 0, 0x1B])
def test_what_is_no_text_is_not_stored(sign: int) -> None:
    """A lone surrogate cannot be written at all; the others are bytes that were read wrongly."""
    good = "Die Kinder lesen jeden Tag gerne Bücher."
    judge = Judge()
    judge.judge("The children like to read books every day.", good, EN, DE)
    with pytest.raises(Fault, match="truncated"):
        judge.judge("The children like to read books every day.", good[:10] + chr(sign) + good[10:], EN, DE)
