"""The dry run: what a build would ask for, what that takes and costs, and what the memory already has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyrefuse_data.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.schema import text_hash
from polyrefuse_data.translate.backend import Backend
from polyrefuse_data.translate.backends import check_coverage, covers
from polyrefuse_data.translate.chunks import cut
from polyrefuse_data.translate.fill import Chain, missing
from polyrefuse_data.translate.memory import TranslationMemory
from polyrefuse_data.translate.prices import prices, unverified_line

SECONDS_A_REQUEST = 0.3
"""What a request to a public service is taken to last where no limit says more."""


@dataclass(frozen=True)
class PlanRow:
    """One backend and language: what is there, and what would be asked. Money in US dollars, None unknown."""

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
    """Return what `fill_memory` would ask of each backend if every answer were good at once.

    Back-translations of texts that are not there yet are counted with the length of their English.
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
            texts = [english[one] for one, lacks in lacking.items() if lacks > number]
            rows.append(_row(able[number], lang, "forward", there, texts))
        if not lacking:
            rows.append(PlanRow("memory", lang, "forward", there, 0, 0, 0, 0.0, 0.0))
        if chain.backends and (chain.request.back_translate or chain.request.candidates > 1):
            check_coverage(chain.backends, [lang], back=True)
            way_back = [backend for backend in chain.backends if covers(backend, LANGUAGES[lang], back=True)]
            rows.append(_back_row(way_back[0], lang, chain, english, memory))
    return rows


def _back_row(
    backend: Backend, lang: str, chain: Chain, english: Mapping[str, str], memory: TranslationMemory | None
) -> PlanRow:
    chosen = chain.choose(memory, lang, english) if memory is not None else {}
    backs = memory.backs(lang) if memory is not None else {}
    texts = []
    for one, text in english.items():
        found = chosen.get((one, 0))
        if found is None:
            texts += [text] * chain.request.candidates
        elif (one, text_hash(found[1])) not in backs:
            texts.append(found[1])
    return _row(backend, lang, "back", len(english) - len(texts), texts)


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
        backend.name,
        lang,
        direction,
        there,
        len(texts),
        characters,
        requests,
        seconds / 60,
        price.cost(characters),
    )


def plan_lines(rows: Sequence[PlanRow]) -> list[str]:
    """Return the plan as aligned lines with a total, and the prices' standing and sources."""
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
