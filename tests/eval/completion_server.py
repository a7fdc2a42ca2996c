"""A server on loopback that has the weights of a tiny model and speaks vLLM's `/completions`, with faults."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from chat_server import KEY, _Handler, on_loopback
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class CompletionServer:
    """How the server behaves, and what it was asked.

    `gives_ids`: replies hold token ids, as those of newer versions. `adds_token`: it puts a token of its own
    before a prompt. `wrong_after`: number of answers after which it answers as another model, or with
    `wrong_choice` and `wrong_usage` in place of what it should send. `seconds`: how long an answer takes.
    `fault_rate`: the share of requests that end in one of `faults`.
    """

    folder: Path
    url: str = ""
    gives_ids: bool = True
    adds_token: bool = False
    wrong_after: int | None = None
    wrong_choice: dict[str, Any] = field(default_factory=dict)
    wrong_usage: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    fault_rate: float = 0.0
    faults: tuple[str, ...] = ("429", "500", "reset", "half", "no choice", "page", "error")
    retry_after: str = "0.05"
    fingerprint: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    n_faulty: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(self.folder)
        self._tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self._chance = random.Random(0)

    def fault(self) -> str | None:
        """Return what goes wrong with the next request."""
        with self.lock:
            if self._chance.random() >= self.fault_rate:
                return None
            self.n_faulty += 1
            return self._chance.choice(self.faults)

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the greedy continuation, by transformers' own generation."""
        with self.lock:
            self.bodies.append(body)
            ids = torch.tensor([body["prompt"]])
            with torch.inference_mode():
                output = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=body["max_tokens"],
                    eos_token_id=body["stop_token_ids"],
                    pad_token_id=body["stop_token_ids"][0],
                )
            is_wrong = self.wrong_after is not None and len(self.bodies) > self.wrong_after
        time.sleep(self.seconds)
        made = output[0, ids.shape[1] :].tolist()
        if is_wrong:
            made = [(token + 1) % self._model.config.vocab_size for token in made]
        choice = {
            "index": 0,
            "text": self._tokenizer.decode(made, skip_special_tokens=True),
            "finish_reason": "stop" if made[-1] in body["stop_token_ids"] else "length",
            "stop_reason": None,
            "logprobs": None,
            **({"token_ids": made, "prompt_token_ids": None} if self.gives_ids else {}),
        }
        usage = {
            "prompt_tokens": len(body["prompt"]) + self.adds_token,
            "completion_tokens": len(made),
            "total_tokens": len(body["prompt"]) + len(made),
        }
        if is_wrong:
            choice.update(self.wrong_choice)
            usage.update(self.wrong_usage)
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": body["model"],
            "system_fingerprint": self.fingerprint,
            "choices": [choice],
            "usage": usage,
            "kv_transfer_params": None,
        }


class _CompletionHandler(_Handler):
    behaviour: CompletionServer  # type: ignore[assignment]

    def do_POST(self) -> None:  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.behaviour.keys.add(self.headers.get("Authorization"))
        if self.path != "/v1/completions":
            self._send(404, json.dumps({"error": {"message": f"no such path, key {KEY}"}}).encode())
            return
        fault = self.behaviour.fault()
        if fault is not None:
            self._fail(fault)
            return
        self._send(200, json.dumps(self.behaviour.reply(body)).encode())


@contextmanager
def serving_completions(behaviour: CompletionServer) -> Iterator[CompletionServer]:
    """Serve for the length of a `with` block; set the address."""
    with on_loopback(_CompletionHandler, behaviour) as server:
        behaviour.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield behaviour
