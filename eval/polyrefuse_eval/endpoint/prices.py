"""What answers of a service cost: prices, estimates before the first request, and a cap."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from polyrefuse_data.core.parsing import first_problem, parse_yaml
from polyrefuse_data.core.reading import FileFormatError, read_text
from polyrefuse_eval.errors import EndpointError

if TYPE_CHECKING:
    from polyrefuse_eval.results.records import ServiceNote

DEFAULT_URL = "https://api.openai.com/v1"
"""The address of the service whose prices are known."""

_DATE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")


class Price(BaseModel):
    """US dollars per million tokens, and the month of the price (`2026-05`), None where it is not stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: Annotated[float, Field(ge=0, le=1e6)]
    output: Annotated[float, Field(ge=0, le=1e6)]
    as_of: Annotated[str | None, BeforeValidator(lambda value: None if value is None else str(value))] = None

    def cost(self, tokens: Tokens) -> float:
        """Return the dollars for `tokens`."""
        return (self.input * tokens.prompt + self.output * tokens.completion) / 1e6

    def __str__(self) -> str:
        date = f"as of {self.as_of}" if self.as_of else "of no date"
        return f"US$ {self.input:g} a million tokens sent and {self.output:g} a million back, {date}"


@dataclass(frozen=True)
class Tokens:
    """How many tokens are sent, and how many come back with their reasoning."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)


def counted_tokens(note: ServiceNote) -> Tokens | None:
    """Return the tokens that the service counted; None where it does not say."""
    if note.prompt_tokens is None or note.completion_tokens is None:
        return None
    return Tokens(note.prompt_tokens, note.completion_tokens)


def read_prices(file: Path) -> dict[str, Price]:
    """Return the prices of the models in a YAML file: `NAME: {input: 0.15, output: 0.60, as_of: 2026-05}`.

    Raises `EndpointError` with what is wrong.
    """
    try:
        return _prices(parse_yaml(read_text(file)))
    except ValidationError as error:
        problem = first_problem(error)
    except (FileFormatError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
    raise EndpointError(
        f"the prices '{file}' cannot be read: {problem}; expected lines such as "
        "NAME: {input: 0.15, output: 0.60, as_of: 2026-05}, in US$ per million tokens"
    )


def price_of(name: str, url: str, file: Path | None = None) -> Price | None:
    """Return the price of the model `name` at `url` in `file`, else in the table of this package; None where
    it is in neither.

    A date at the end of a name may be left out of a table.
    """
    tables = [] if file is None else [read_prices(file)]
    if url == DEFAULT_URL:
        text = (files("polyrefuse_eval.endpoint") / "prices.yaml").read_text(encoding="utf-8")
        tables.append(_prices(yaml.safe_load(text)))
    names = (name, _DATE.sub("", name))
    return next((table[name] for table in tables for name in names if name in table), None)


class Budget:
    """A cap on what answers cost together, in dollars; None is no cap. Safe to share between threads.

    A request is let out when all that is spent, and the most that requests on their way and it can cost,
    stay under the cap.
    """

    def __init__(self, dollars: float | None = None, spent: float = 0.0) -> None:
        self.dollars = dollars
        self.spent = spent
        self._reserved = 0.0
        self._lock = threading.Lock()

    def reserve(self, cost: float) -> bool:
        """Set `cost` aside; return False where that has to wait for requests on their way.

        Raises `EndpointError` where the cap would be passed.
        """
        if self.dollars is None:
            return True
        with self._lock:
            if self.spent + self._reserved + cost <= self.dollars:
                self._reserved += cost
                return True
            if self._reserved > 1e-12:
                return False
        raise EndpointError(
            f"the budget of {self.dollars:g} US$ would be exceeded: {self.spent:.4g} are spent, and the next "
            f"answer may cost {cost:.2g}; answers so far are kept: run the same command with a larger "
            "--budget"
        )

    def settle(self, reserved: float, cost: float) -> None:
        """Count `cost` as spent in place of what was `reserved` for it."""
        with self._lock:
            if self.dollars is not None:
                self._reserved -= reserved
            self.spent += cost


def _prices(value: Any) -> dict[str, Price]:
    prices: Mapping[str, Price] = TypeAdapter(dict[str, Price]).validate_python(value)
    return dict(prices)
