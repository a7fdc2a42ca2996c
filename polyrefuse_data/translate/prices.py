"""What translating costs: a table with where to look each price up, `data/prices.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict


class Price(BaseModel):
    """Dollars per million characters sent, and a month's fixed price; None where it is not known here.

    `as_of` is the year that the price is of, None where that is not known; `verified` says whether somebody
    held it against `source`, and `read` what was read elsewhere, with its date.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    per_million: float | None
    monthly: float | None
    as_of: int | None
    verified: bool
    source: str
    read: str
    note: str

    @property
    def standing(self) -> str:
        """How far the price can be relied on, in words."""
        date = "date not known" if self.as_of is None else f"of {self.as_of}"
        return f"{'verified' if self.verified else 'not verified'}, {date}"

    @property
    def money(self) -> str:
        """The price in words."""
        if self.per_million is None:
            return "by the provider's list"
        monthly = f" and {self.monthly:g} a month" if self.monthly else ""
        return f"{self.per_million:g} US$ a million characters{monthly}"

    @property
    def remark(self) -> str:
        """The note, and what was read elsewhere."""
        return f"{self.note}; read: {self.read}" if self.read else self.note

    def cost(self, characters: int) -> float | None:
        """Return the dollars for so many characters, without a month's fixed price."""
        return None if self.per_million is None else self.per_million * characters / 1e6


@lru_cache(maxsize=1)
def prices() -> dict[str, Price]:
    """Return the price of every backend."""
    text = (resources.files("polyrefuse_data") / "data" / "prices.yaml").read_text(encoding="utf-8")
    return {name: Price.model_validate(row) for name, row in yaml.safe_load(text).items()}


def unverified_line(names: Iterable[str]) -> str | None:
    """Return the warning that goes under the prices of these backends; None if all are verified."""
    known = prices()
    doubtful = [name for name in dict.fromkeys(names) if name in known and not known[name].verified]
    if not doubtful:
        return None
    return f"Prices are not verified ({', '.join(doubtful)}): look at the source before you spend money."
