"""Show what others wrote, such as names in files from strangers, in terminals, pages and tables.

A terminal acts on escape sequences (OSC 52 writes the clipboard), a reader's eye on marks of direction, a
spreadsheet on cells that begin like a formula. Here such characters become visible and inert.
"""

from __future__ import annotations

import json
from typing import Any

import regex

_ACTING = regex.compile(
    r"[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}--[\u200c\u200d]]", regex.V1
)
"""Controls (C0, C1), formats (marks of direction, tags), surrogates, private use, line ends: all that is not
seen, but for the two joiners, which shape letters of Persian, of Indic scripts, and emoji."""

_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

_FORMULA = regex.compile(r"\s*'*[=+\-@＝＋－＠]|[\t\r\n]")
"""How a cell begins that a spreadsheet would run, in half or full width."""


def visible(text: object) -> str:
    r"""Return `text` on one line, with each character that acts or is not seen as its escape.

    >>> visible("a\x1b]52;c;eA==\x07b\u202ec\n")
    'a\\x1b]52;c;eA==\\x07b\\u202ec\\n'
    """
    return _ACTING.sub(_escape, str(text))


def visible_lines(text: str) -> str:
    """Return a text of several lines for a terminal: as `visible`, but for the line ends."""
    return "\n".join(visible(line) for line in text.split("\n"))


def visible_value(value: Any) -> Any:
    """Return a value of a page: a text as `visible_lines` shows it, anything else, markup too, as it is."""
    return visible_lines(value) if type(value) is str else value


def visible_json_line(value: Any) -> str:
    """Return `value` as JSON on one line, sorted keys; characters that act or are not seen are escapes."""
    return _ACTING.sub(_json_escape, json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False))


def visible_json(value: Any) -> str:
    """Return `value` as indented JSON in which characters that act or are not seen are escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return "\n".join(_ACTING.sub(_json_escape, line) for line in text.split("\n"))


def spreadsheet_cell(text: object) -> str:
    """Return `text` as a cell of a CSV table: visible, and an apostrophe before what looks like a formula."""
    return f"'{visible(text)}" if _FORMULA.match(str(text)) else visible(text)


def counted(number: int, noun: str) -> str:
    """Return `number` and `noun`, which is regular, in the singular or the plural.

    >>> counted(1, "row"), counted(20496, "row")
    ('1 row', '20496 rows')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _json_escape(match: regex.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def _escape(match: regex.Match[str]) -> str:
    letter = match[0]
    code = ord(letter)
    if letter in _NAMED:
        return _NAMED[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
