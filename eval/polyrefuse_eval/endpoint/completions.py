"""A service that has the weights of a model which is loaded here: its continuations of token ids.

The requests are those of vLLM's `/completions` with token ids for a prompt: the ids are rendered here, by the
model's own chat template, so that the template and the special tokens of the service have no part in them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

from polyrefuse_eval.endpoint.prices import Tokens
from polyrefuse_eval.endpoint.reading import ServiceAnswer, read_continuation
from polyrefuse_eval.endpoint.spec import Pace, ServiceSpec, public_place
from polyrefuse_eval.served_names import public_name

TokenIds = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ContinuationSpec(ServiceSpec[TokenIds]):
    """How continuations are asked for: greedily, and up to the first of `stop_ids`."""

    path: ClassVar[str] = "/completions"
    options: ClassVar[tuple[str, str]] = ("--baseline-url", "--baseline-model")

    stop_ids: TokenIds

    @property
    def label(self) -> str:
        """Name of the model in messages."""
        return f"the model '{self.name}' of --baseline-url"

    def request(self, prompt: TokenIds) -> dict[str, Any]:
        """Return the fields of the request that asks for the continuation of `prompt`.

        The penalties are off by name: a server may take others from the model's generation_config.json.
        """
        return {
            "model": self.name,
            "prompt": list(prompt),
            "temperature": 0,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "repetition_penalty": 1.0,
            "max_tokens": self.max_tokens,
            "stop_token_ids": list(self.stop_ids),
            "return_token_ids": True,
        }

    def most_tokens(self, prompt: TokenIds) -> Tokens:
        """Return the most tokens that one request can take."""
        return Tokens(len(prompt), self.max_tokens)

    def read(self, body: bytes) -> ServiceAnswer:
        """Return the continuation in the `body` of a reply; raises `Fault` where it holds none."""
        return read_continuation(body)


@dataclass(frozen=True, kw_only=True)
class BaselineServer:
    """The server at `url` that has the unedited model under the name `model`."""

    url: str
    model: str
    key_variable: str | None
    pace: Pace = field(default_factory=Pace)

    @property
    def identity(self) -> str:
        """What a signature says of the server: no path of a machine, and no address of a private network."""
        return f"{public_name(self.model)} at {public_place(self.url)}"

    def spec(self, stop_ids: Collection[int], max_tokens: int) -> ContinuationSpec:
        """Return how continuations of at most `max_tokens` tokens are asked for."""
        return ContinuationSpec(
            name=self.model,
            url=self.url,
            key_variable=self.key_variable,
            max_tokens=max_tokens,
            pace=self.pace,
            stop_ids=tuple(sorted(stop_ids)),
        )
