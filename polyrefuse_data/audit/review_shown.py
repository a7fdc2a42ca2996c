"""Gather what a reviewer sees of a row: cells, scores, back-translation and the candidates not chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polyrefuse_data.audit.review_cells import review_row
from polyrefuse_data.core.schema import Row, text_hash
from polyrefuse_data.translate.memory.store import TranslationMemory


def shown_rows(rows: Sequence[Row], memory: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the cells of each row with `scores`, `back` and `candidates` (`text`, `reason`) to show.

    Back-translations and candidates come from the translation memory `memory`; without one, there are none.
    """
    if memory is None:
        yield from (_shown(row, "", []) for row in rows)
        return
    candidates: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with TranslationMemory(memory) as opened:
        backs = {lang: opened.backs(lang) for lang in {row.lang for row in rows}}
        for ranked in opened.choices():
            candidates[ranked.lang, text_hash(ranked.english)].append(
                {"text": ranked.text, "reason": f"{ranked.translator.backend}; {ranked.reason}"}
            )
    for row in rows:
        english = text_hash(row.text_en)
        others: dict[str, dict[str, str]] = {}
        for candidate in candidates.get((row.lang, english), ()):  # the best-placed one of equal texts
            if candidate["text"] != row.text:
                others.setdefault(candidate["text"], candidate)
        yield _shown(row, backs[row.lang].get((english, text_hash(row.text)), ""), list(others.values()))


def _shown(row: Row, back: str, candidates: list[dict[str, str]]) -> dict[str, Any]:
    scores = [f"{check} {score:g}" for check, score in row.scores.items() if score is not None]
    return {**review_row(row), "scores": ", ".join(scores), "back": back, "candidates": candidates}
