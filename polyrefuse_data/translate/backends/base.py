"""What a translation backend is: one verb, and the facts that a runner plans with."""

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
"""What a limit counts in a text: characters, bytes, or the bytes of its encoding in an address."""


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
    """What a backend answers to one text.

    `proven` says that the answer itself carries the proof that it belongs to this text: the service
    returned the text with it, or a token that was sent along. Without it, an answer counts when it came
    twice: connections can be mixed up on the way.
    """

    text: str
    proven: bool = False


@dataclass(frozen=True)
class Limits:
    """The largest text a request takes, by `size`; what a second may hold, None where nothing is known.

    `keeps_lines` says that line breaks come back as they were sent; else lines are sent one by one.
    `batch` is how many texts a request takes, `connections` how many run at a time.
    """

    size: Size = characters
    maximum: int = 4_900
    requests_per_second: float | None = None
    characters_per_second: float | None = None
    connections: int = 4
    batch: int = 1
    keeps_lines: bool = True


class Backend(Protocol):
    """A translation service or model: `translate` is the verb, the rest is what to know before.

    `translate` is called from several threads at a time unless `limits.connections` is 1; it returns one
    answer a text, in their order, and raises `Fault`, `Rejected` or `TranslatorError`.

    Where to know two languages is not to translate between them, as with models of one direction, a backend
    has `translates(source, target)` too.
    """

    name: str
    translator: Translator
    limits: Limits

    def code(self, language: Language) -> str | None:
        """Return what the backend calls `language`, None where it does not know it."""
        ...

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        """Translate `texts`, at most `limits.batch` of them."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A backend that holds what must be given back."""

    def close(self) -> None:
        """Give it back."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A backend that likes to know which requests come, in their order, so as to begin with later ones."""

    def expect(self, requests: Sequence[tuple[Sequence[str], Language, Language]]) -> None:
        """Take note of texts, source and target of requests that `translate` will be called with."""
        ...


@dataclass(frozen=True)
class Settings:
    """What a user can say about every backend. `url`: one address, or a line `NAME=URL` for each."""

    url: str | None = None
    timeout: float = 30.0
    cluster: ClusterOptions | None = None
    """Where local models run; None for here."""
    threads: int | None = None
    """Threads of torch of a local model; None takes torch's own number."""
    asks: bool = True
    """False for a plan, which takes neither a key nor an extra, and asks nobody anything."""


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
    """Return the key in the environment variable; raises `TranslatorError` naming it where there is none."""
    key = os.environ.get(variable, "").strip()
    if key and not key.isascii():
        raise TranslatorError(f"translator '{backend}': {variable} holds characters that no key has")
    if not key and not optional:
        raise TranslatorError(f"translator '{backend}' needs a key in the environment variable {variable}")
    return key or None


def covered(row: BackendRow) -> list[str]:
    """Return the codes of the known languages that the backend covers."""
    return [code for code, language in LANGUAGES.items() if row.code(language) is not None]
