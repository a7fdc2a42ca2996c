"""Read and write the cells of review files: columns, keys, formulas disarmed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import regex

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.reading import FileFormatError, Record, Table, parse_table, read_text
from polyrefuse_data.core.schema import Row, text_hash

COLUMNS = ("id", "lang", "label", "flags", "text_en", "text", "correction", "who", "comment", "group", "key")
"""Columns of a review file; `correction`, `who` and `comment` are for people."""

REQUIRED = ("id", "lang", "label", "text_en", "correction", "who", "comment", "key")
"""Columns that an import reads; the others are for the reviewer's eyes."""

_FORMULA = regex.compile(r"\A'*[=+\-@\t\r＝＋－＠]")
_ESCAPED = regex.compile(r"\A'+[=+\-@\t\r＝＋－＠]")


class ReviewError(PolyRefuseError):
    """A review file with lines that cannot be taken; each is named by its number."""


def escape(text: str) -> str:
    """Return `text` as a cell that no spreadsheet runs: an apostrophe before what looks like a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(cell: str) -> str:
    """Return the text of a cell: the inverse of `escape`."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def row_key(row_id: str, lang: str, label: str, text_en: str) -> str:
    """Return the letter k and 15 hex digits that tie a row of a review file to what it was exported for.

    Without the letter, a spreadsheet would read a key of digits as a number.
    """
    return "k" + text_hash("\n".join((row_id, lang, label, text_en)))[:15]


def review_row(row: Row) -> dict[str, str]:
    """Return the cells of a row by column; those for people are empty."""
    flags = " ".join(check for check, flag in row.flags.items() if flag)
    values = (row.id, row.lang, row.label, flags, row.text_en, row.text, "", "", "", row.group)
    return dict(zip(COLUMNS, (*values, row_key(row.id, row.lang, row.label, row.text_en)), strict=True))


def read_review(path: Path) -> Table:
    """Return the records of a review file; raises `ReviewError` for what is no table."""
    try:
        return parse_table(read_text(path), str(path))
    except FileFormatError as error:
        raise ReviewError(f"{error}; expected a file of `polyrefuse review export`") from None


def cells_of(table: Table, record: Record) -> dict[str, str]:
    """Return the cells of `REQUIRED` of a record; raises `ReviewError` where one is not text."""
    values: Mapping[str, object] = record.values
    missing = [name for name in REQUIRED if not isinstance(values.get(name), str)]
    if missing:
        raise ReviewError(
            f"{table.where(record)}: no text in {', '.join(missing)}; expected a file of "
            "`polyrefuse review export`"
        )
    return {name: str(values[name]) for name in REQUIRED}
