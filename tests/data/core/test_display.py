"""Nothing that others wrote acts on a terminal, a page or a spreadsheet; what is honest stays as it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.display import spreadsheet_cell, visible, visible_json, visible_lines, visible_value
from polyrefuse_data.core.errors import PolyRefuseError

HONEST = (
    "Yorùbá, 日本語, ไทย, العربية", "👩\u200d🚀 and می\u200cخواهم", "a − b … “c” Δ_harmful ≥ 0", "x\u00a0%",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("a\nb\r\tc\u2028", r"a\nb\r\tc\u2028"),
        ("\U000e0041\ufeff\u200b", r"\U000e0041\ufeff\u200b"),
        ("\ud800\ufffe", r"\ud800\ufffe"),
        ("\0\x7f", r"\x00\x7f"),
    ],
)
def test_what_acts_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_an_error_shows_what_it_quotes() -> None:
    assert (
        str(PolyRefuseError("no '\x1b]0;x\x07',\nexpected '\u202e'"))
        == r"no '\x1b]0;x\x07', expected '\u202e'"
    )


@pytest.mark.parametrize("text", HONEST)
def test_honest_texts_stay_as_they_are(text: str) -> None:
    assert visible(text) == text
    assert visible_lines(f"{text}\n{text}") == f"{text}\n{text}"
    assert spreadsheet_cell(text) == text


@given(st.text())
def test_json_says_the_same_with_nothing_that_acts(text: str) -> None:
    shown = visible_json({"a": [text]})
    assert json.loads(shown) == {"a": [text]}
    assert visible_lines(shown) == shown


@pytest.mark.parametrize("start", [*"=+-@＝＋－＠", "\t=", " =", "'=", "\r", "\n"])
def test_cells_are_no_formulas(start: str) -> None:
    assert spreadsheet_cell(f"{start}cmd()").startswith("'")


def test_markup_is_left_to_whoever_made_it() -> None:
    class Markup(str):
        __slots__ = ()

    made = Markup("<b>\u202e</b>")
    assert visible_value(made) is made
    assert visible_value("<b>\u202e\n") == "<b>\\u202e\n"
    assert visible_value(3) == 3
