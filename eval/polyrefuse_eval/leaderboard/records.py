"""Records of any form as a table: texts as they are, numbers with their place in the run's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.leaderboard.figures import Figure, pointer


@dataclass(frozen=True)
class RecordTable:
    """A table of records: a column for each key, a cell a number, a text, or None."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Figure | str | None, ...], ...]


def record_table(records: Sequence[Mapping[str, Any]], file: str, *start: str | int) -> RecordTable | None:
    """Return `records`, which stand at `start` in `file`, as a table; None where there are none.

    Keys whose values are neither numbers nor texts, or None everywhere, are no columns.
    """
    plain = (str, int, float, bool, type(None))
    columns = [
        key
        for key in dict.fromkeys(key for record in records for key in record)
        if all(isinstance(record.get(key), plain) for record in records)
        and any(record.get(key) is not None for record in records)
    ]
    if not columns:
        return None
    rows = tuple(
        tuple(_cell(record, key, pointer(file, *start, index, key)) for key in columns)
        for index, record in enumerate(records)
    )
    return RecordTable(tuple(columns), rows)


def _cell(record: Mapping[str, Any], key: str, link: str) -> Figure | str | None:
    value = record.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    named = ", ".join(str(text) for text in record.values() if isinstance(text, str))
    return Figure(float(value), f"{key}: {named}", link, kind="count" if isinstance(value, int) else "number")
