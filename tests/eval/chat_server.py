"""An OpenAI-compatible service on loopback that misbehaves on purpose, in one process or one of its own.

The answer to a prompt follows from the prompt alone, so that a test can tell a lost or swapped answer; what
goes wrong follows from a counter of tries.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-loopback-key-that-must-never-show"
MODEL = "tiny-chat"
FAULTS = (
    "429",
    "429 later",
    "500",
    "503",
    "reset",
    "stall",
    "half",
    "no choice",
    "no UTF-8",
    "page",
    "200 error",
)
"""What may go wrong with a try; a further one may succeed."""

KINDS = (
    "plain",
    "plain",
    "plain",
    "field",
    "field of vLLM",
    "tags",
    "cut",
    "refusal",
    "content filter",
    "blocked",
)
"""What a service may answer, and would answer again."""


@dataclass
class ChatServer:
    """How the service behaves, and what it was asked.

    `fault_rate`: share of tries that go wrong, by `seed`. `kinds` are taken in turn by the hash of a prompt.
    `renamed_after`: number of the first answer by another version. `seconds`: how long an answer takes.
    """

    url: str = ""
    model: str = MODEL
    fault_rate: float = 0.0
    faults: tuple[str, ...] = FAULTS
    kinds: tuple[str, ...] = ("plain",)
    renamed_after: int | None = None
    seconds: float = 0.0
    stall: float = 2.0
    length: int = 0
    """Further characters of an answer."""
    seed: int = 0
    status: int | None = None
    """Every reply has this status, where there is one."""
    broken: str | None = None
    """Prompts that begin so have no answer."""
    retry_after: str = "0.05"
    failures: int | None = None
    """How many tries go wrong at all; None for no limit."""
    dialect: str = "openai"
    """A name in `DIALECTS`."""
    not_taken: str | None = None
    """A field of a request that the model does not take, where there is one."""
    not_taken_code: str = "unsupported_parameter"
    prompts: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    faulty: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    _tries: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, body: dict[str, Any], key: str | None) -> str | None:
        """Record a request; return what goes wrong with it."""
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.prompts.append(prompt)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.keys.add(key)
            self._tries[prompt] += 1
            chance = random.Random(f"{self.seed} {prompt} {self._tries[prompt]}")
            if chance.random() >= self.fault_rate or self.faulty.total() == self.failures:
                return None
            fault = chance.choice(self.faults)
            self.faulty[fault] += 1
            return fault


def word(prompt: str) -> str:
    """Return the words that stand in every answer to `prompt`, and in no other."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def kind_of(prompt: str, kinds: tuple[str, ...]) -> str:
    """Return what the service does with `prompt`."""
    return kinds[int(word(prompt), 16) % len(kinds)]


def reply(server: ChatServer, prompt: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of the reply to `prompt`."""
    kind = kind_of(prompt, server.kinds)
    text = f"Here is the answer {word(prompt)}." + " and more" * (server.length // 9)
    with server._lock:
        server.answered[prompt] += 1
        number = len(server.answered)
    if kind == "blocked":
        error = {"message": f"flagged, key {KEY}", "type": "invalid_request_error", "code": "content_filter"}
        return 400, {"error": error}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = "stop"
    if kind == "field":
        message["reasoning_content"] = f"I think of {word(prompt)}."
    elif kind == "field of vLLM":
        message["reasoning"] = f"I think of {word(prompt)}."
    elif kind == "tags":
        message["content"] = f"<think>\nI think of {word(prompt)}.\n</think>\n\n{text}"
    elif kind == "cut":
        finish = "length"
    elif kind == "refusal":
        message |= {"content": None, "refusal": f"No, not {word(prompt)}."}
    elif kind == "content filter":
        message["content"], finish = "", "content_filter"
    renamed = server.renamed_after is not None and number > server.renamed_after
    body = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": number,
        "model": f"{server.model}-{'2' if renamed else '1'}",
        "system_fingerprint": "fp_ab",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return 200, DIALECTS[server.dialect](body)


def _vllm(body: dict[str, Any]) -> dict[str, Any]:
    """Return a reply as vLLM sends it: fields of its own, null where there is nothing."""
    for choice in body["choices"]:
        choice |= {"logprobs": None, "stop_reason": None, "token_ids": None, "routed_experts": None}
        choice["message"] = {
            "refusal": None, "annotations": None, "audio": None, "function_call": None,
            "reasoning": None, **choice["message"],
        }  # fmt: skip
    return body | {
        "system_fingerprint": None, "service_tier": None, "prompt_logprobs": None, "prompt_token_ids": None,
        "kv_transfer_params": None, "ec_transfer_params": None, "metrics": None,
    }  # fmt: skip


def _ollama(body: dict[str, Any]) -> dict[str, Any]:
    """Return a reply as Ollama sends it: one fingerprint for all models, thoughts in `reasoning`."""
    for choice in body["choices"]:
        message = choice["message"]
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")
    return body | {"system_fingerprint": "fp_ollama"}


def _sglang(body: dict[str, Any]) -> dict[str, Any]:
    """Return a reply as SGLang sends it: the token that ended it, no fingerprint, no details of tokens."""
    for choice in body["choices"]:
        choice |= {"logprobs": None, "matched_stop": 2 if choice["finish_reason"] == "stop" else None}
        choice["message"] = {"reasoning_content": None, "tool_calls": None, **choice["message"]}
    del body["system_fingerprint"]
    usage = {**body["usage"], "prompt_tokens_details": None, "reasoning_tokens": 0}
    return body | {"usage": usage, "metadata": {"weight_version": "default"}}


def _llama_cpp(body: dict[str, Any]) -> dict[str, Any]:
    """Return a reply as llama.cpp sends it: the build as fingerprint, and how long it took."""
    timings = {"prompt_n": 10, "prompt_ms": 3.25, "predicted_n": 5, "predicted_per_second": 40.5}
    return body | {"system_fingerprint": "b6869-abc", "timings": timings, "__verbose": {"content": "raw"}}


def _transformers(body: dict[str, Any]) -> dict[str, Any]:
    """Return a reply as `transformers serve` sends it: no fingerprint, nothing but role and content."""
    del body["system_fingerprint"]
    return body


DIALECTS = {
    "openai": lambda body: body,
    "vllm": _vllm,
    "ollama": _ollama,
    "sglang": _sglang,
    "llama.cpp": _llama_cpp,
    "transformers": _transformers,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.behaviour
        fault = server.note(body, self.headers.get("Authorization"))
        if server.seconds:
            time.sleep(server.seconds)
        if server.status is not None:
            error = json.dumps({"error": {"message": f"trouble, key {KEY}"}}).encode()
            self._send(server.status, error, {"Location": "http://127.0.0.1:9/v1"})
            return
        prompt = body["messages"][-1]["content"]
        if server.broken is not None and prompt.startswith(server.broken):
            fault = "500"
        if fault is not None:
            self._fail(fault)
            return
        if server.not_taken in body:
            name = server.not_taken
            message = f"Unsupported parameter: '{name}' is not supported with this model, key {KEY}."
            refused = {"type": "invalid_request_error", "param": name, "code": server.not_taken_code}
            self._send(400, json.dumps({"error": {"message": message, **refused}}).encode())
            return
        status, value = reply(server, prompt)
        self._send(status, json.dumps(value, ensure_ascii=False).encode())

    def _fail(self, fault: str) -> None:
        error = json.dumps({"error": {"message": f"trouble, key {KEY}"}}).encode()
        whole = json.dumps(reply(ChatServer(), "another prompt")[1]).encode()
        if fault.startswith("429"):
            self._send(
                429, error, {"Retry-After": self.behaviour.retry_after} if fault == "429 later" else {}
            )
        elif fault in ("500", "503"):
            self._send(int(fault), error)
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
        elif fault == "stall":
            time.sleep(self.behaviour.stall)
            self.close_connection = True
        elif fault == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b" ")
                time.sleep(0.05)
        elif fault == "half":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        elif fault == "no choice":
            self._send(200, json.dumps({"choices": [], "model": MODEL}).encode())
        elif fault == "no UTF-8":
            self._send(200, whole.replace(b"Here", b"H\xff\xfee"))
        elif fault == "page":
            self._send(200, b"<html>busy</html>", {"Content-Type": "text/html"})
        else:
            self._send(200, error)

    def _send(self, status: int, payload: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextmanager
def on_loopback(
    handler: type[BaseHTTPRequestHandler], behaviour: Any, port: int = 0
) -> Iterator[ThreadingHTTPServer]:
    """Serve requests by `handler`, which gets `behaviour`, for the length of a `with` block."""
    own = type("Handler", (handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", port), own)
    server.daemon_threads = True
    server.request_queue_size = 128
    server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(behaviour: ChatServer, port: int = 0) -> Iterator[ChatServer]:
    """Serve for the length of a `with` block; set the address."""
    with on_loopback(_Handler, behaviour, port) as server:
        behaviour.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield behaviour


if __name__ == "__main__":  # a service in a process of its own, for the benchmark
    with serving(ChatServer(**json.loads(sys.argv[1]))) as own:
        sys.stdout.write(f"{own.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
