"""The interface of translation backends: `translate`, and the facts that a runner plans with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import quote_plus

from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.core.languages import LANGUAGES, Language
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.memory.store import Translator

Size = Callable[[str], int]
"""The measure of a limit: characters, bytes, or bytes as a parameter of an address."""


def characters(text: str) -> int:
    """Return the number of characters of `text`."""
    return len(text)


def utf8_bytes(text: str) -> int:
    """Return the number of bytes of `text` in UTF-8."""
    return len(text.encode("utf-8"))


def address_bytes(text: str) -> int:
    """Return the length of `text` as a parameter of an address: nine for a Thai character."""
    return len(quote_plus(text))


@dataclass(frozen=True)
class Answer:
    """The answer of a backend to a text.

    `proven` means that the answer carries a proof that it belongs to this text: the service returned the
    text, or a token that was sent with it. Without a proof an answer must come twice, as connections can be
    mixed up on the way.
    """

    text: str
    proven: bool = False


@dataclass(frozen=True)
class Limits:
    """The limits of a backend; None for a rate that is not known.

    `maximum` is the largest text of a request, measured by `size`; `batch` is the number of texts in a
    request, `connections` the number of requests at a time. Without `keeps_lines` the backend loses line
    breaks, and each line is sent by itself.
    """

    size: Size = characters
    maximum: int = 4_900
    requests_per_second: float | None = None
    characters_per_second: float | None = None
    connections: int = 4
    batch: int = 1
    keeps_lines: bool = True


class Backend(Protocol):
    """A translation service or model.

    `translate` is called from several threads at a time unless `limits.connections` is 1. It returns an
    answer for each text, in order, and raises `Fault`, `Rejected` or `TranslatorError`.

    A backend that may know two languages and not translate between them, such as a model of one direction,
    also has `translates(source, target)`.
    """

    name: str
    translator: Translator
    limits: Limits

    def code(self, language: Language) -> str | None:
        """Return the backend's name for `language`, None where it does not know it."""
        ...

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        """Translate `texts`, at most `limits.batch` of them."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A backend that holds a resource, such as a cluster."""

    def close(self) -> None:
        """Release the resource."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A backend that computes ahead when it knows the requests to come."""

    def expect(self, requests: Sequence[tuple[Sequence[str], Language, Language]]) -> None:
        """Take texts, source and target of the requests that `translate` will get, in this order."""
        ...


@dataclass(frozen=True)
class Settings:
    """The options of a user for every backend. `url` is an address, or a line `NAME=URL` for each."""

    url: str | None = None
    timeout: float = 30.0
    cluster: ClusterOptions | None = None
    """The cluster on which local models run; None for this process."""
    threads: int | None = None
    """Threads of torch of a local model; None takes torch's default."""
    asks: bool = True
    """False for a plan, which needs no key and no extra, and sends no request."""


@dataclass(frozen=True, kw_only=True)
class BackendRow:
    """A backend in the registry: how to make it, and what `polyrefuse translators` prints about it.

    `make` takes the model of `name:model` and the settings. `code` returns the backend's name for a
    language, None where it does not cover it; `needs` is what a user must have; `proof` is how an answer
    proves which text it belongs to.
    """

    name: str
    title: str
    make: Callable[[str, Settings], Backend]
    code: Callable[[Language], str | None]
    limits: Limits
    needs: str
    proof: str


def environment_key(variable: str, backend: str, optional: bool = False) -> str | None:
    """Return the key in the environment variable; raise `TranslatorError` naming it where there is none."""
    key = os.environ.get(variable, "").strip()
    if key and not key.isascii():
        raise TranslatorError(
            f"translator '{backend}': {variable} contains characters that a key cannot have"
        )
    if not key and not optional:
        raise TranslatorError(f"translator '{backend}' needs a key in the environment variable {variable}")
    return key or None


def covered(row: BackendRow) -> list[str]:
    """Return the codes of the known languages that the backend covers."""
    return [code for code, language in LANGUAGES.items() if row.code(language) is not None]
