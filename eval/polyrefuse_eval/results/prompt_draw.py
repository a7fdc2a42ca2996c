"""Which of the test prompts a limit takes: a seeded draw from every source, or the first. Pure.

The first prompts of a split are of one source: in `paper` the first 100 harmful ones are JailbreakBench's. A
draw takes from each source, and from each category of a source, in proportion to its size. It is nested (a
larger limit keeps what a smaller one took), the same in every language, and takes both prompts of a contrast
pair where it can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from polyrefuse_data.core.schema import LABELS, Row
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.settings import RunSettings

SEED = 0
"""Seed of every draw; a signature names it."""

FIRST = "first"
"""Before a number, `first:24`: the first prompts as they stand in the split, as runs took before 0.2."""

ALL = "all"


def parse_test(text: str | None) -> tuple[int | None, int | None]:
    """Return the limit that `24`, `first:24` or `all` sets, None for all, and the seed of its draw.

    The seed is None where the first prompts are taken. Raises `RunFolderError` for anything else.
    """
    word = ALL if text is None else text.strip()
    name, sign, number = word.rpartition(":")
    number = number.strip()
    count = int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0
    if (sign and name != FIRST) or not (count or number == ALL):
        raise RunFolderError(
            f"test '{text}': expected a number of test prompts such as 24 (drawn from all sources), "
            f"{FIRST}:24 (the first in the split), or {ALL}"
        )
    return count or None, None if sign else SEED


def shown_test(limit: int | None, seed: int | None) -> str:
    """Return the text of which `parse_test` makes these; empty for all of a draw."""
    number = "" if limit is None else str(limit)
    return number if seed is not None else f"{FIRST}:{number or ALL}"


def limited(rows: Sequence[Row], limit: int | None, seed: int | None) -> list[Row]:
    """Return `limit` of the `rows` of one language and label, in their order: drawn with `seed`, or the
    first where that is None."""
    if limit is None or limit >= len(rows) or seed is None:
        return list(rows[:limit])
    chosen = {id(row) for row in _drawing_order(rows, seed)[:limit]}
    return [row for row in rows if id(row) in chosen]


def limit_signature(limit: int | None, seed: int | None) -> dict[str, int]:
    """Return what a signature states of a limit: nothing without one, no seed of the first prompts."""
    if limit is None:
        return {}
    return {"n_test": limit, **({} if seed is None else {"test_seed": seed})}


def is_limited(data: DataFolder, settings: RunSettings) -> bool:
    """Return whether a limit of `settings` takes some of the test prompts of a label, and not all."""
    limits = [limit for limit in (settings.n_test, settings.crossed) if limit]
    if not limits:
        return False
    return any(
        sum(row.label == label for row in data.rows(lang, "test")) > min(limits)
        for lang in settings.langs
        if data.has(lang, "test")
        for label in LABELS
    )


def _drawing_order(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return `rows` in the order in which a draw takes them."""

    def key(row: Row) -> tuple[bytes, str]:
        return _digest(seed, row.pair or row.group), row.id

    by_source = {
        source: _merged(_grouped(sorted(of_source, key=key), lambda row: row.source_category or ""), seed)
        for source, of_source in _grouped(rows, lambda row: row.source).items()
    }
    return _merged(by_source, seed)


def _grouped(rows: Sequence[Row], name: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    return groups


def _merged(groups: Mapping[str, Sequence[Row]], seed: int) -> list[Row]:
    """Return the rows of `groups`, each in its order, so that every beginning holds them in proportion.

    The places of a group are (index + offset) / size with an offset in [0, 1) that the seed decides: of every
    group, a beginning that is a share s of the whole holds s times its size, but for less than one row and
    for ties.
    """
    places = []
    for name, rows in groups.items():
        digest = _digest(seed, name)
        offset = int.from_bytes(digest[:6], "big") / 2**48
        places += [((index + offset) / len(rows), digest, row) for index, row in enumerate(rows)]
    return [row for _, _, row in sorted(places, key=lambda place: place[:2])]


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
