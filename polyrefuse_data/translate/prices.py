"""What translating costs: a dated table with its sources, `data/prices.yaml`."""

from __future__ import annotations

import datetime
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict


class Price(BaseModel):
    """Dollars per million characters sent, and a month's fixed price; None where it is not known here."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    per_million: float | None
    monthly: float | None
    checked: datetime.date
    source: str
    note: str

    def cost(self, characters: int) -> float | None:
        """Return the dollars for so many characters, without a month's fixed price."""
        return None if self.per_million is None else self.per_million * characters / 1e6


@lru_cache(maxsize=1)
def prices() -> dict[str, Price]:
    """Return the price of every backend."""
    text = (resources.files("polyrefuse_data") / "data" / "prices.yaml").read_text(encoding="utf-8")
    return {name: Price.model_validate(row) for name, row in yaml.safe_load(text).items()}
