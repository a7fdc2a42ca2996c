"""Compare stated records with those that follow from what they are of. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

CLOSE = 1e-6
"""Largest difference of two numbers that follow from the same counts."""

SAMPLED = ("low", "high", "p", "p_holm")
SAMPLED_CLOSE = 0.01
"""Largest difference of the ends of two bootstrap intervals: another version of numpy may draw others."""


def by_name(records: Sequence[Any], key: Sequence[str]) -> dict[str, Any]:
    """Return `records` as dictionaries by the values of their fields `key`."""
    return {" ".join(str(getattr(record, name)) for name in key): asdict(record) for record in records}


def different(
    place: str,
    stated: Any,
    expected: Any,
    *,
    ignored: Sequence[str] = (),
    sampled: Sequence[str] = (),
    basis: str = "the verdicts give",
) -> Iterator[str]:
    """Yield where `stated` differs from `expected` by more than numbers may that were computed elsewhere.

    Fields in `ignored` are not compared; those in `sampled` are ends of bootstrap intervals. `basis` says
    what gives the expected values, with its verb.
    """
    pairs: list[tuple[str, Any, Any]]
    if isinstance(stated, Mapping) and isinstance(expected, Mapping):
        names = [name for name in dict.fromkeys([*stated, *expected]) if name not in ignored]
        pairs = [(name, stated.get(name), expected.get(name)) for name in names]
    elif isinstance(stated, list | tuple) and isinstance(expected, list | tuple):
        longest = range(max(len(stated), len(expected)))
        pairs = [(str(place), *(_at(of, place) for of in (stated, expected))) for place in longest]
    else:
        close = SAMPLED_CLOSE if place.rpartition(".")[2] in sampled else CLOSE
        if not _same(stated, expected, close):
            yield f"{place} is {_shown(stated)}; {basis} {_shown(expected)}"
        return
    for name, first, second in pairs:
        yield from different(f"{place}.{name}", first, second, ignored=ignored, sampled=sampled, basis=basis)


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def _same(stated: Any, expected: Any, close: float) -> bool:
    if isinstance(stated, bool) or isinstance(expected, bool):
        return stated is expected
    if isinstance(stated, int | float) and isinstance(expected, int | float):
        return math.isclose(stated, expected, rel_tol=0, abs_tol=close)
    return bool(stated == expected)


def _shown(value: Any) -> str:
    return "a record" if isinstance(value, Mapping) else "nothing" if value is None else str(value)[:80]
