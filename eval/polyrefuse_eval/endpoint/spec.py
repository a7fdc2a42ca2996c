"""A model behind an OpenAI-compatible service: its name, address, and what each request holds.

`completions` asks for continuations of token ids instead of chat answers. Imports neither torch nor openai.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NoReturn, TypeVar
from urllib.parse import urlsplit

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.http.client import check_address, origin
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_eval.endpoint.prices import DEFAULT_URL, Price, Tokens
from polyrefuse_eval.endpoint.reading import ServiceAnswer, read_reply
from polyrefuse_eval.errors import EndpointError
from polyrefuse_eval.served_names import PREFIX, public_name

KEY_VARIABLE = "OPENAI_API_KEY"
NO_ACTIVATIONS = (
    "{model} is behind an endpoint, which returns answers but no activations: only `polyrefuse eval run` "
    "measures it, and without directions"
)

LOCAL = "local"
"""The place of a service on this machine or in a private network: its address says nothing to others."""

BYTES_A_TOKEN = 2.0
"""UTF-8 bytes of a prompt for each token, for estimates: with the tokenizer of Qwen2.5, the test prompts of
the embedded sample have from 2.1 (Yoruba) to 5.4 (Thai)."""

TEMPLATE_TOKENS = 32
"""Tokens that a chat template adds to a prompt, at most: those of common models add from 5 to 30."""

RESERVED_FIELDS = ("messages", "model", "n", "stream")
"""Fields of a request that `--request` may not hold."""

NUMBER_FIELDS = ("temperature", "seed", "max_tokens")
"""Fields that a signature states, which readers of runs take for numbers."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a service is asked, and for how long.

    `connections`: requests at the same time. `requests_per_minute` and `tokens_per_minute` are limits of the
    service, None where it has none. `deadline`: seconds that one try may take from its first byte to its
    last. `tries` of one prompt; the wait between them is `backoff` seconds at first, doubled each time up to
    `longest_wait`, or what the service asks for.
    """

    connections: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    deadline: float = 300.0
    tries: int = 12
    backoff: float = 0.5
    longest_wait: float = 60.0
    pause: float = 15.0
    """Seconds without any request after many failures in a row, doubled each time."""


PromptType = TypeVar("PromptType")
"""What a service is asked with: a text, or token ids."""


@dataclass(frozen=True, kw_only=True)
class ServiceSpec(Generic[PromptType]):
    """The model `name` of the service at `url`; the environment variable `key_variable` has the key, None for
    no key.

    `max_tokens` limits an answer with its reasoning. Answers cost `price`, and together at most `budget`
    dollars, of which `spent` are spent already.
    """

    path: ClassVar[str]
    """Where requests go, below `url`."""
    options: ClassVar[tuple[str, str]]
    """The options of the command line that say address and model, for messages."""

    name: str
    url: str
    key_variable: str | None
    max_tokens: int
    pace: Pace = field(default_factory=Pace)
    price: Price | None = None
    budget: float | None = None
    spent: float = 0.0

    def request(self, prompt: PromptType) -> dict[str, Any]:
        """Return the fields of the request that asks for an answer to `prompt`."""
        raise NotImplementedError

    def most_tokens(self, prompt: PromptType) -> Tokens:
        """Return the most tokens that one request can take."""
        raise NotImplementedError

    def read(self, body: bytes) -> ServiceAnswer:
        """Return the answer in the `body` of a reply; raises `Fault` where it holds none."""
        raise NotImplementedError

    @property
    def removable(self) -> dict[str, dict[str, Any]]:
        """Fields that some models do not take, each with what `--request` says then."""
        return {}

    @property
    def key(self) -> str | None:
        """The key; None where the environment holds none.

        Raises `EndpointError` for one that cannot stand in a header.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and (key.isprintable() or not key)):
            raise EndpointError(
                f"{self.key_variable} contains characters that a key cannot have; set it again"
            )
        return key or None

    @property
    def label(self) -> str:
        """Name of the model in messages."""
        return f"{PREFIX}{self.name}"

    def check(self) -> None:
        """Raise `EndpointError` where the service needs a key and the environment holds none."""
        if self.key is None and self.url == DEFAULT_URL:
            raise EndpointError(f"{self.label} needs a key in the environment variable {self.key_variable}")


@dataclass(frozen=True, kw_only=True)
class EndpointSpec(ServiceSpec[str]):
    """A chat model behind a service, which puts prompts into its own template.

    `fields` are further fields of each request; a field that is None there is left out of the request.
    """

    path: ClassVar[str] = "/chat/completions"
    options: ClassVar[tuple[str, str]] = ("--url", "--model")

    system: str | None = None
    temperature: float = 0.0
    seed: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> NoReturn:
        """Raise `EndpointError`: there is no model to load."""
        raise EndpointError(NO_ACTIVATIONS.format(model=self.label))

    @property
    def slot(self) -> str:
        """What tells clients of services apart."""
        return f"{self.label} {self.url} {json.dumps(dict(self.fields), sort_keys=True)} {self.max_tokens}"

    @property
    def removable(self) -> dict[str, dict[str, Any]]:
        """Fields that some models do not take, each with the whole of what `--request` says then."""
        changes: dict[str, dict[str, Any]] = {
            "temperature": {"temperature": None},
            "seed": {"seed": None},
            "max_tokens": {"max_tokens": None, "max_completion_tokens": self.max_tokens},
            "max_completion_tokens": {"max_tokens": self.max_tokens, "max_completion_tokens": None},
        }
        sent = self.request("")
        return {name: {**self.fields, **change} for name, change in changes.items() if name in sent}

    def request(self, prompt: str) -> dict[str, Any]:
        """Return the fields of the request that asks for an answer to `prompt`."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        request = {
            "model": self.name,
            "messages": [*system, {"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            **self.fields,
        }
        return {name: value for name, value in request.items() if value is not None}

    def likely_tokens(self, prompt: str) -> Tokens:
        """Return an estimate of the tokens of one request, its answer as long as it may be."""
        return Tokens(round(self._bytes(prompt) / BYTES_A_TOKEN) + TEMPLATE_TOKENS, self.max_tokens)

    def most_tokens(self, prompt: str) -> Tokens:
        """Return the most tokens that one request can take: each byte of its texts is one, and the answer is
        as long as it may be."""
        return Tokens(self._bytes(prompt) + TEMPLATE_TOKENS, self.max_tokens)

    def read(self, body: bytes) -> ServiceAnswer:
        """Return the answer in the `body` of a reply; raises `Fault` where it holds none."""
        return read_reply(body)

    def _bytes(self, prompt: str) -> int:
        return len(((self.system or "") + prompt).encode("utf-8", "replace"))

    def signature(self) -> dict[str, str]:
        """Return what the answers depend on, so far as it is known before the first; texts as hashes.

        Temperature, seed and length are those that are sent, and absent where `fields` leave them out.
        """
        sent = self.request("")
        fields = {"temperature": "temperature", "sampling_seed": "seed", "max_tokens": "max_tokens"}
        return {
            "model": public_name(self.name),
            "endpoint": public_place(self.url),
            "system": "none" if self.system is None else _hash(self.system),
            **{name: _number(sent[field]) for name, field in fields.items() if field in sent},
            "request": json.dumps(dict(self.fields), sort_keys=True) if self.fields else "none",
        }


def is_endpoint(model: str) -> bool:
    """Return whether `model` names a model behind an endpoint."""
    return model.startswith(PREFIX)


def check_url(url: str, option: str = "--url") -> str:
    """Return `url`, which `option` gives, without a slash at its end; raises `EndpointError` where no request
    can go there."""
    try:
        return check_address(url, option).rstrip("/")
    except TranslatorError as error:
        raise EndpointError(str(error)) from None


def read_fields(text: str | None, option: str = "--request") -> dict[str, Any]:
    """Return the further fields of a request in the JSON object `text`, which `option` gives; raises
    `EndpointError`."""
    if text is None:
        return {}
    try:
        fields = parse_json(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise EndpointError(
            f"{option} {text!r} is not a JSON object; expected one such as "
            '\'{"reasoning_effort": "low"}\'; null leaves a field out'
        )
    reserved = sorted(set(fields) & set(RESERVED_FIELDS))
    if reserved:
        raise EndpointError(f"{option} sets {reserved[0]}, which this command sets; leave it out")
    for name in NUMBER_FIELDS:
        value = fields.get(name)
        if value is not None and (type(value) not in (int, float) or not 0 <= value < math.inf):
            raise EndpointError(
                f"{option} sets {name} to {json.dumps(value)}; expected a number from 0, or null"
            )
    if len(json.dumps(fields)) > 200:
        raise EndpointError(f"{option} is longer than the 200 characters that a signature holds")
    return fields


def public_place(url: str) -> str:
    """Return scheme and host of `url`; `local` for this machine, a private network, or a name without dot."""
    host = urlsplit(url).hostname or ""
    try:
        private = not ipaddress.ip_address(host).is_global
    except ValueError:
        private = "." not in host or host.endswith((".local", ".internal", ".lan"))
    return LOCAL if private else origin(url)


def _number(value: Any) -> str:
    """Return a field of a request as a signature states it: 0.5, 0, 512."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
