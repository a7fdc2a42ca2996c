"""A judge behind an OpenAI-compatible endpoint on loopback that answers, stumbles and fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from run_records import COMPLETION

from polyrefuse_data.http.limits import BreakerSettings
from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.base import JudgeInput, Verdict
from polyrefuse_eval.judging.endpoint import RUBRIC, AskSettings, EndpointJudge, read
from polyrefuse_eval.judging.local_model import JudgeOptions
from polyrefuse_eval.judging.of_files import Line, record_of
from polyrefuse_eval.judging.of_runs import verdict_records
from polyrefuse_eval.judging.registry import judges_by_name
from polyrefuse_eval.results.files import json_line
from polyrefuse_eval.results.validation import write_records

KEY = "sk-loopback-key-that-must-never-show"
QUICK = AskSettings(
    attempts=3, backoff=0.01, longest_wait=0.05, timeout=5, breaker=BreakerSettings(pause=0.05)
)


@dataclass
class FixedJudge:
    """A judge that always says the same."""

    verdict: Verdict
    name = "fixed"
    measures = "refusal"
    languages = None
    needs_prompt = False
    chunk = 64

    def judge(self, items: Sequence[JudgeInput], advance: object = None) -> list[Verdict]:
        return [self.verdict for _ in items]


@dataclass
class Endpoint:
    """What the server was asked, and what it answers: (request's user object) -> (status, body)."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    answer: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]] = lambda _shown: (500, {})

    def judge(self) -> EndpointJudge:
        return EndpointJudge.parse(f"openai:some-model@{self.url}", QUICK)


def said(content: str, finish: str = "stop") -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"message": {"content": content}, "finish_reason": finish}]}


def verdict(refused: bool | None) -> tuple[int, dict[str, Any]]:
    return said(json.dumps({"refused": refused, "harmful": False, "reason": "as it says"}))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    state = Endpoint()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.bodies.append(body)
                state.keys.add(self.headers.get("Authorization"))
                status, value = state.answer(json.loads(body["messages"][1]["content"]))
            payload = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    server.shutdown()
    server.server_close()


def items(count: int) -> list[JudgeInput]:
    return [JudgeInput(str(index), "de", f"answer {index}", f"question {index}") for index in range(count)]


def test_verdicts_come_in_order_and_the_key_stays_in_the_header(endpoint: Endpoint) -> None:
    endpoint.answer = lambda shown: verdict(
        {0: True, 1: False, 2: None}[int(shown["response"].split()[1]) % 3]
    )
    judge = endpoint.judge()
    told: list[int] = []
    found = judge.judge(items(30), told.append)
    assert [one.refused for one in found] == [True, False, None] * 10
    assert {one.harmful for one in found} == {False}
    assert sum(told) == 30
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert KEY not in judge.name + repr(found) + json.dumps(endpoint.bodies)
    assert judge.name.startswith("openai-rubric-1:some-model@http://127.0.0.1:")
    by_path = EndpointJudge.parse("openai:/data/secret/m1@http://127.0.0.1:8000/v1")
    assert by_path.name == "openai-rubric-1:m1@http://127.0.0.1:8000"
    body = endpoint.bodies[0]
    assert (body["temperature"], body["model"], body["messages"][0]["content"]) == (0, "some-model", RUBRIC)
    shown = json.loads(body["messages"][1]["content"])
    assert shown["language"] == "German"


def test_a_stumbling_service_is_asked_again(endpoint: Endpoint) -> None:
    seen: dict[str, int] = {}

    def stumbling(shown: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        seen[shown["response"]] = seen.get(shown["response"], 0) + 1
        return {1: (429, {}), 2: (503, {})}.get(seen[shown["response"]], verdict(True))

    endpoint.answer = stumbling
    assert [one.refused for one in endpoint.judge().judge(items(3))] == [True] * 3
    assert set(seen.values()) == {3}


def test_a_service_that_goes_on_failing_ends_the_work(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _shown: (500, {"error": KEY})
    with pytest.raises(JudgeError, match="gives no answer") as caught:
        endpoint.judge().judge(items(2))
    assert KEY not in str(caught.value)


def test_a_refused_key_names_its_variable(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _shown: (401, {"error": f"bad key {KEY}"})
    with pytest.raises(JudgeError, match="OPENAI_API_KEY") as caught:
        endpoint.judge().judge(items(2))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        said("I think it refused."),
        said('{"refused": "yes"}'),
        said('{"refused": 1}'),
        said('{"harmful": true}'),
        said('{"refused": tr', finish="length"),
        said("", finish="stop"),
        said("no", finish="content_filter"),
        (400, {"error": "content policy"}),
    ],
)
def test_what_is_no_verdict_is_undecided(endpoint: Endpoint, answer: tuple[int, dict[str, Any]]) -> None:
    endpoint.answer = lambda _shown: answer
    (found,) = endpoint.judge().judge(items(1))
    assert found.refused is None
    assert len(endpoint.bodies) == 1, "asked at temperature 0, it would say the same again"


def test_a_service_that_takes_no_request_at_all_is_an_error(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _shown: (400, {"error": "unsupported parameter"})
    assert [one.refused for one in endpoint.judge().judge(items(3))] == [None] * 3
    with pytest.raises(JudgeError, match="takes none of 12 requests"):
        endpoint.judge().judge(items(12))


def test_fields_that_the_model_does_not_take_are_left_out_and_part_of_its_name(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _shown: (
        (400, {"error": "use max_completion_tokens"})
        if "max_tokens" in endpoint.bodies[-1]
        else verdict(True)
    )
    with pytest.raises(JudgeError, match="add for example --judge-request") as refused:
        endpoint.judge().judge(items(12))
    fields = json.loads(str(refused.value).partition("--judge-request '")[2].removesuffix("'"))
    (judge,) = judges_by_name(f"openai:some-model@{endpoint.url}", options=JudgeOptions(request=fields))
    assert [one.refused for one in judge.judge(items(2))] == [True, True]
    assert endpoint.bodies[-1]["max_completion_tokens"] == 1024
    assert judge.name == f"{endpoint.judge().name}+max_completion_tokens=1024+max_tokens=null"


def test_reading_finds_the_object_in_what_surrounds_it() -> None:
    assert read('<p> ```json\n{"refused": true, "reason": "says  no"}\n```').refused is True
    assert read('{"refused": true, "reason": "says  no"}').reason == "says no"
    assert read('{"refused": false, "harmful": "very"}').harmful is None


@pytest.mark.parametrize(
    "reason", ["half \ud800", "a\x1b]52;c;eA==\x07", "\u202eb", "\u2065\u200d", "\0" * 300]
)
def test_no_reason_of_a_model_makes_a_verdict_that_cannot_be_written(reason: str, tmp_path: Path) -> None:
    verdict = read(json.dumps({"refused": False, "reason": reason}))
    unread = read(reason + "\U000e0001" * 80)
    for found in (verdict, unread):
        records = next(verdict_records(FixedJudge(found), "de", [COMPLETION], {}))
        write_records(tmp_path / "verdicts.jsonl", records)
        line = Line(number=1, item=JudgeInput("a", "de", "Nein."))
        written = json_line(record_of(line, "judge", found)).encode()
        assert json.loads(written)["reason"] == records[0].reason


def test_addresses_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeError, match="needs a key in the environment variable OPENAI_API_KEY"):
        EndpointJudge.parse("openai:gpt")
    with pytest.raises(JudgeError, match="names no model"):
        EndpointJudge.parse("openai:")
    with pytest.raises(JudgeError, match="carries a user or password") as caught:
        EndpointJudge.parse("openai:gpt@http://me:secret@localhost:1/v1")
    assert "secret" not in str(caught.value)
    assert EndpointJudge.parse("openai:org/model@http://localhost:8000/v1").name.endswith(
        "org/model@http://localhost:8000"
    )
