"""The dry run: the requests of a build, their time and cost, and what the memory already has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.translate.backends.base import Backend
from polyrefuse_data.translate.backends.registry import check_coverage, covers
from polyrefuse_data.translate.chunks import cut
from polyrefuse_data.translate.fill import Chain, missing
from polyrefuse_data.translate.memory.store import HUMAN, TranslationMemory

SECONDS_A_REQUEST = 0.3
"""Assumed seconds of a request to a public service; a rate limit may make it longer."""


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A backend and language: translations that are there, and what would be asked.

    `dollars` are US dollars, None where the price is not known.
    """

    backend: str
    lang: str
    direction: str
    there: int
    prompts: int
    characters: int
    requests: int
    minutes: float
    dollars: float | None


def plan(
    english: Mapping[str, str], langs: Sequence[str], chain: Chain, memory: TranslationMemory | None
) -> list[PlanRow]:
    """Return what `fill_memory` would ask of each backend if every first answer were good.

    The back-translation of a text that is not there yet counts with the length of its English.
    """
    targets = [lang for lang in langs if lang != SOURCE_LANGUAGE]
    rows = []
    for lang in targets:
        lacking = missing(chain, memory, english, lang)
        if lacking:
            check_coverage(chain.backends, [lang])
        able = [backend for backend in chain.backends if covers(backend, LANGUAGES[lang])]
        there = len(english) - len(lacking)
        for number in range(min(chain.request.candidates, len(able)) if lacking else 0):
            texts = [english[english_hash] for english_hash, lacks in lacking.items() if lacks > number]
            rows.append(_row(able[number], lang, "forward", there, texts))
        if not lacking:
            rows.append(
                PlanRow(
                    backend="memory", lang=lang, direction="forward", there=there, prompts=0, characters=0,
                    requests=0, minutes=0.0, dollars=0.0,
                )
            )  # fmt: skip
        if chain.backends and (chain.request.back_translate or chain.request.candidates > 1):
            check_coverage(chain.backends, [lang], back=True)
            able = [backend for backend in chain.backends if covers(backend, LANGUAGES[lang], back=True)]
            rows.append(_back_row(able[0], lang, chain, english, memory))
    return rows


def _back_row(
    backend: Backend, lang: str, chain: Chain, english: Mapping[str, str], memory: TranslationMemory | None
) -> PlanRow:
    candidates = chain.candidates(memory, lang, english) if memory is not None else {}
    backs = memory.backs(lang) if memory is not None else {}
    texts, there = [], 0
    for english_hash, text in english.items():
        entries = candidates.get((english_hash, 0), [])
        human = bool(entries) and entries[0][0].backend == HUMAN
        lacking = [entry for _, entry in entries if (english_hash, text_hash(entry)) not in backs]
        there += len(entries) - len(lacking)
        texts += lacking + [text] * (0 if human else chain.request.candidates - len(entries))
    return _row(backend, lang, "back", there, texts)


def _row(backend: Backend, lang: str, direction: str, there: int, texts: Sequence[str]) -> PlanRow:
    limits = backend.limits
    asked = [piece.text for text in texts for piece in cut(text, limits) if piece.translate]
    characters = sum(map(len, asked))
    requests = -(-len(asked) // limits.batch)
    seconds = max(
        requests / limits.requests_per_second if limits.requests_per_second else 0.0,
        characters / limits.characters_per_second if limits.characters_per_second else 0.0,
        requests * SECONDS_A_REQUEST / limits.connections,
    )
    price = prices()[backend.name]
    return PlanRow(
        backend=backend.name,
        lang=lang,
        direction=direction,
        there=there,
        prompts=len(texts),
        characters=characters,
        requests=requests,
        minutes=seconds / 60,
        dollars=price.cost(characters),
    )


def plan_lines(rows: Sequence[PlanRow]) -> list[str]:
    """Return the plan as aligned lines with a total, and the sources of the prices."""
    head = ["backend", "lang", "direction", "there", "to do", "characters", "requests", "minutes", "US$"]
    cells = [head]
    for row in rows:
        money = "?" if row.dollars is None else f"{row.dollars:.2f}"
        cells.append(
            [row.backend, row.lang, row.direction, str(row.there), str(row.prompts), f"{row.characters:,}",
             f"{row.requests:,}", f"{row.minutes:.1f}", money]
        )  # fmt: skip
    unknown = any(row.dollars is None for row in rows)
    total = sum(row.dollars or 0.0 for row in rows)
    cells.append(
        ["total", "", "", "", str(sum(row.prompts for row in rows)),
         f"{sum(row.characters for row in rows):,}",
         f"{sum(row.requests for row in rows):,}", f"{sum(row.minutes for row in rows):.1f}",
         f"{total:.2f}" + (" + ?" if unknown else "")]
    )  # fmt: skip
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    for name in dict.fromkeys(row.backend for row in rows if row.backend in prices()):
        price = prices()[name]
        lines.append(f"{name}: {price.money} ({price.standing}; {price.source}); {price.remark}")
    warning = unverified_line(row.backend for row in rows)
    return [*lines, warning] if warning else lines


class Price(BaseModel):
    """A price: US dollars per million characters sent and per month; None where it is not known.

    `as_of` is the year of the price, None where that is not known; `verified` says whether it was compared
    with `source`; `read` quotes another source, with its date.
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
        """The reliability of the price, in words."""
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
        """The note, and the other source."""
        return f"{self.note}; read: {self.read}" if self.read else self.note

    def cost(self, characters: int) -> float | None:
        """Return the dollars for `characters`, without the price per month."""
        return None if self.per_million is None else self.per_million * characters / 1e6


@lru_cache(maxsize=1)
def prices() -> dict[str, Price]:
    """Return the price of every backend."""
    text = (resources.files("polyrefuse_data") / "data" / "prices.yaml").read_text(encoding="utf-8")
    return {name: Price.model_validate(row) for name, row in yaml.safe_load(text).items()}


def unverified_line(names: Iterable[str]) -> str | None:
    """Return a warning if the price of any of these backends is not verified, else None."""
    known = prices()
    doubtful = [name for name in dict.fromkeys(names) if name in known and not known[name].verified]
    if not doubtful:
        return None
    return f"Prices are not verified ({', '.join(doubtful)}): check the source before you spend money."
