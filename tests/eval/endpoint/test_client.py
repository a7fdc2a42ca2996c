"""The client against a service on loopback: pace, budget, keys, and errors in one line."""

from __future__ import annotations

import gzip
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, MODEL, ChatServer, serving, word

from polyrefuse_data.http.faults import Fault, Rejected
from polyrefuse_eval.endpoint.prices import Budget, Price, Tokens, price_of, read_prices
from polyrefuse_eval.endpoint.spec import EndpointSpec, Pace, check_url, public_place, read_fields
from polyrefuse_eval.errors import EndpointError

pytest.importorskip("openai", reason="the endpoint extra is not installed")
from polyrefuse_eval.endpoint.client import EndpointClient

QUICK = Pace(connections=8, deadline=1.0, tries=4, backoff=0.01, longest_wait=0.05, pause=0.05)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as behaviour:
        yield behaviour


def spec_of(server: ChatServer, **changes: Any) -> EndpointSpec:
    spec = EndpointSpec(name=MODEL, url=server.url, key_variable="OPENAI_API_KEY", max_tokens=64, pace=QUICK)
    return replace(spec, **changes)


def ask(spec: EndpointSpec, *prompts: str) -> list[Any]:
    """Return the answer to each of `prompts`, or its error."""
    client = EndpointClient(spec)
    try:
        futures = [client.ask(prompt) for prompt in prompts]
        wait(futures)
        return [future.exception() or future.result() for future in futures]
    finally:
        client.close()


def test_a_request_holds_what_the_run_asks_for(server: ChatServer) -> None:
    fields = {"top_k": 1, "seed": None}
    (answer,) = ask(spec_of(server, system="Be brief.", temperature=0.5, fields=fields), "Hello?")
    assert answer.text == f"Here is the answer {word('Hello?')}."
    assert server.bodies == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello?"},
            ],
            "temperature": 0.5,
            "max_tokens": 64,
            "top_k": 1,
        }
    ]
    assert server.keys == {f"Bearer {KEY}"}


def test_without_a_variable_no_key_is_sent(server: ChatServer) -> None:
    ask(spec_of(server, key_variable=None), "Hello?")
    assert server.keys == {"Bearer none"}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (401, "refuses the key (status 401); check OPENAI_API_KEY"),
        (403, "refuses the key (status 403)"),
        (402, "no credit left"),
        (404, "no such service or no model 'tiny-chat'"),
        (302, "redirects (status 302), which is not followed"),
    ],
)
def test_what_no_request_can_mend_ends_the_work_at_once(server: ChatServer, status: int, line: str) -> None:
    server.status = status
    (error,) = ask(spec_of(server), "Hello?")
    assert isinstance(error, EndpointError)
    assert line in str(error)
    assert KEY not in str(error)
    assert "\n" not in str(error)
    assert len(server.prompts) == 1


def test_a_prompt_that_the_service_does_not_take_is_asked_once_and_no_answer(server: ChatServer) -> None:
    server.status = 400
    (error,) = ask(spec_of(server), "Hello?")
    assert isinstance(error, Rejected)
    assert "trouble, key ***" in str(error)
    assert len(server.prompts) == 1


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("max_tokens", {"top_p": 1, "max_tokens": None, "max_completion_tokens": 64}),
        ("temperature", {"top_p": 1, "temperature": None}),
        ("seed", {"top_p": 1, "seed": None}),
    ],
)
def test_a_field_that_the_model_does_not_take_ends_the_work_and_what_to_add_works(
    server: ChatServer, name: str, advice: dict[str, Any]
) -> None:
    server.not_taken = name
    (error,) = ask(spec_of(server, fields={"top_p": 1}), "Hello?")
    assert isinstance(error, EndpointError)
    assert f"does not take {name} for 'tiny-chat'" in str(error)
    assert KEY not in str(error)
    assert len(server.prompts) == 1
    option = str(error).partition("--request '")[2].removesuffix("'")
    assert read_fields(option) == advice
    signature = spec_of(server, fields=read_fields(option)).signature()
    assert {"seed": "sampling_seed"}.get(name, name) not in signature, "what is not sent is not signed"
    assert spec_of(server, fields={"temperature": 0.7}).signature()["temperature"] == "0.7"
    (answer,) = ask(spec_of(server, fields=read_fields(option)), "Hello?")
    assert answer.text == f"Here is the answer {word('Hello?')}."


@pytest.mark.parametrize(
    ("field", "code"), [("seed", "string_above_max_length"), ("top_p", "unsupported_value")]
)
def test_a_field_that_is_wrong_for_one_prompt_or_is_a_user_s_own_ends_no_work(
    server: ChatServer, field: str, code: str
) -> None:
    server.not_taken, server.not_taken_code = field, code
    (error,) = ask(spec_of(server, fields={"top_p": 1}), "Hello?")
    assert isinstance(error, Rejected)


def test_a_field_that_is_not_sent_is_no_advice(server: ChatServer) -> None:
    sent = spec_of(server, fields={"seed": None, "max_tokens": None, "max_completion_tokens": 64})
    assert sent.removable.keys() == {"temperature", "max_completion_tokens"}


def test_a_limit_under_its_new_name_goes_back_to_the_old_one(server: ChatServer) -> None:
    server.not_taken = "max_completion_tokens"
    fields = {"max_tokens": None, "max_completion_tokens": 64}
    (error,) = ask(spec_of(server, fields=fields), "Hello?")
    assert '{"max_tokens": 64, "max_completion_tokens": null}' in str(error)


def test_a_service_that_goes_on_failing_is_given_up(server: ChatServer) -> None:
    server.fault_rate, server.faults = 1.0, ("503",)
    pace = replace(QUICK, tries=40, pause=0.01)
    errors = ask(spec_of(server, pace=pace), *map(str, range(8)))
    assert any(
        isinstance(error, EndpointError) and "gives no usable answer" in str(error) for error in errors
    )
    assert not any(KEY in str(error) for error in errors)


def test_nobody_at_the_address() -> None:
    with serving(ChatServer()) as server:
        gone = spec_of(server)
    errors = ask(replace(gone, pace=replace(QUICK, tries=8)), "a", "b", "c")
    assert any("no connection" in str(error) for error in errors)


def test_the_deadline_is_one_of_the_whole_request(server: ChatServer) -> None:
    server.fault_rate, server.faults = 1.0, ("drip",)
    begun = time.monotonic()
    (error,) = ask(spec_of(server, pace=replace(QUICK, tries=1, deadline=0.5)), "Hello?")
    assert isinstance(error, Fault)
    assert error.reason == "timeout"
    assert time.monotonic() - begun < 3


def test_a_wait_that_the_service_asks_for_holds_for_all_requests(server: ChatServer) -> None:
    server.fault_rate, server.faults, server.retry_after = 1.0, ("429 later",), "0.6"
    server.failures = 1
    begun = time.monotonic()
    client = EndpointClient(spec_of(server))
    try:
        first = client.ask("a")
        while not server.faulty:
            time.sleep(0.01)
        time.sleep(0.1)
        later = client.ask("b")
        wait([first, later])
    finally:
        client.close()
    assert first.result().text.endswith(f"{word('a')}.")
    assert time.monotonic() - begun > 0.5
    assert server.times[1] - server.times[0] > 0.5


def test_requests_a_minute(server: ChatServer) -> None:
    begun = time.monotonic()
    ask(spec_of(server, pace=replace(QUICK, requests_per_minute=600)), *map(str, range(20)))
    assert time.monotonic() - begun > 0.8, "ten a second: ten at once, ten more in a second"


def test_tokens_a_minute(server: ChatServer) -> None:
    begun = time.monotonic()
    ask(spec_of(server, pace=replace(QUICK, tokens_per_minute=6000)), *map(str, range(3)))
    assert time.monotonic() - begun > 1.0, "a hundred a second, and about 97 for each"


def test_a_budget_stops_before_it_is_passed(server: ChatServer) -> None:
    price = Price(input=1000.0, output=1000.0)  # 15 tokens that the service counts: 0.015 US$
    answers = ask(spec_of(server, price=price, budget=0.2), *map(str, range(40)))
    errors = [answer for answer in answers if isinstance(answer, EndpointError)]
    assert errors
    assert "the budget of 0.2 US$ would be exceeded" in str(errors[0])
    assert sum(server.answered.values()) * 0.015 <= 0.2
    assert sum(server.answered.values()) >= 4


def test_what_was_spent_before_counts(server: ChatServer) -> None:
    (error,) = ask(spec_of(server, price=Price(input=1.0, output=1.0), budget=0.5, spent=0.5), "a")
    assert "0.5 are spent" in str(error)
    assert not server.prompts


def test_a_budget_waits_for_requests_on_their_way() -> None:
    budget = Budget(1.0)
    assert budget.reserve(0.6)
    assert not budget.reserve(0.6)
    budget.settle(0.6, 0.1)
    assert budget.reserve(0.6)
    budget.settle(0.6, 0.6)
    with pytest.raises(EndpointError, match=r"would be exceeded: 0\.7 are spent"):
        budget.reserve(0.6)


def test_prices(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("mine: {input: 1, output: 2, as_of: 2026-11}\n")
    price = price_of("mine-2026-01-31", "http://localhost:1/v1", file)
    assert price is not None
    assert price.cost(Tokens(1_000_000, 500_000)) == 2.0
    assert price_of("gpt-4o-mini-2024-07-18", "https://api.openai.com/v1") is not None
    assert price_of("gpt-4o-mini", "http://localhost:1/v1") is None
    for text in ("mine: 3", "mine: {input: -1, output: 2}", "- a", "mine: {input: 1}", "a: [", "\x00"):
        file.write_text(text)
        with pytest.raises(EndpointError, match=r"the prices '.*' cannot be read") as caught:
            read_prices(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "{", "3", '{"messages": []}', '{"stream": true}', '{"a": "%s"}' % ("x" * 300)]
)
def test_further_fields_that_cannot_be_sent(text: str) -> None:
    with pytest.raises(EndpointError, match="--request"):
        read_fields(text)


@pytest.mark.parametrize(
    "text", ['{"temperature": "x"}', '{"temperature": -1}', '{"seed": true}', '{"max_tokens": [1]}']
)
def test_a_field_that_a_signature_states_is_a_number(text: str) -> None:
    with pytest.raises(EndpointError, match=r"--request sets \w+ to .*; expected a number from 0, or null"):
        read_fields(text)


def test_a_number_or_null_is_sent_as_it_is() -> None:
    assert read_fields('{"temperature": 0.7, "seed": null}') == {"temperature": 0.7, "seed": None}


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a/", "http://", "http://user:secret@host/v1", "http://a b/"]
)
def test_addresses_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(EndpointError, match="--url") as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_signature_names_no_machine() -> None:
    for url in (
        "http://127.0.0.1:8000/v1",
        "http://10.1.2.3/v1",
        "http://gpu7:8000/v1",
        "http://a.internal/v1",
    ):
        assert public_place(url) == "local"
    assert public_place("https://api.example.com/v1?x") == "https://api.example.com"


def test_a_key_that_cannot_stand_in_a_header(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-“typographic”")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY contains characters that a key cannot have"):
        EndpointClient(spec_of(server))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EndpointError, match="needs a key in the environment variable OPENAI_API_KEY"):
        spec_of(server, url="https://api.openai.com/v1").check()


@contextmanager
def hostile_service(
    body: bytes, status: str = "200 OK", headers: str = "", whole: bytes | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """Serve `body`, or the bytes of a `whole` reply, to each request; yield the address, and the requests as
    they arrive."""
    requests: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:  # the client has gone without a request
                    return
                head += line
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            self.rfile.read(length)
            requests.append(head)
            lines = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
            with suppress(OSError):  # the client may have seen enough
                self.wfile.write(lines.encode() + body if whole is None else whole)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True  # none is waited for at the end

    with Server(("127.0.0.1", 0), Handler) as hostile:
        threading.Thread(target=hostile.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{hostile.server_address[1]}/v1", requests
        hostile.shutdown()


ONCE = replace(QUICK, tries=1, deadline=20.0)


@pytest.mark.parametrize(
    "reply",
    [
        {"model": KEY, "system_fingerprint": KEY, "choices": [{"message": {"content": f"key: {KEY}"}}]},
        {"prompt_feedback": {"block_reason": KEY}},
        {"error": {"code": KEY}},
        {"choices": [{"message": {"content": "a"}, "finish_reason": KEY}]},
    ],
)
def test_a_key_that_a_service_quotes_in_an_answer_is_taken_out(
    server: ChatServer, reply: dict[str, Any]
) -> None:
    with hostile_service(json.dumps(reply).encode()) as (url, _):
        (answer,) = ask(spec_of(server, url=url, pace=ONCE), "a")
    assert "***" in repr(answer)
    assert KEY.lower() not in repr(answer).lower()


@pytest.mark.parametrize("charset", ["hex", "base64", "undefined", "punycode"])
def test_a_charset_of_the_service_is_no_traceback(server: ChatServer, charset: str) -> None:
    headers = f"Content-Type: text/plain; charset={charset}\r\n"
    with hostile_service(b"a-" + b"a" * 1000, "400 Bad", headers) as (url, _):
        (answer,) = ask(spec_of(server, url=url, pace=ONCE), "a")
    assert isinstance(answer, Rejected)


@pytest.mark.parametrize(
    "whole",
    [
        b"\0\1 garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 10_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"",
    ],
    ids=["no HTTP", "length", "long header", "many headers", "chunk", "half", "nothing"],
)
def test_a_reply_that_is_no_http_is_a_fault(server: ChatServer, whole: bytes) -> None:
    with hostile_service(b"", whole=whole) as (url, _):
        (answer,) = ask(spec_of(server, url=url, pace=ONCE), "a")
    assert isinstance(answer, Fault)


def test_an_answer_that_unpacks_to_gigabytes_is_given_up_early(server: ChatServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with hostile_service(bomb, headers="Content-Encoding: gzip\r\n") as (url, _):
        (answer,) = ask(spec_of(server, url=url, pace=ONCE), "a")
    assert "an answer of more than 4000000 bytes" in str(answer)


@pytest.mark.parametrize(("variable", "sent"), [(None, False), ("OPENAI_API_KEY", True)])
def test_a_service_without_key_learns_nothing_of_the_account(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, variable: str | None, sent: bool
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-user")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-user")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: secret-of-user")
    with hostile_service(b"{}") as (url, requests):
        ask(spec_of(server, url=url, key_variable=variable, pace=ONCE), "a")
    assert (b"-of-user" in requests[0]) is sent
