"""Normalise and bound Unicode text in time linear in its length, whatever a stranger wrote."""

from __future__ import annotations

import unicodedata
from typing import Literal

import regex

LONGEST_TEXT = 100_000
"""Characters of the longest text of a row; real prompts have some thousand."""

MOST_MARKS = 30
"""Combining marks that a character keeps: the limit of stream-safe text (Unicode Standard Annex 15)."""

LONGEST_WORD = 1_000
"""Letters after which a word is cut for detectors, whose time is quadratic in it."""

_SURPLUS_MARKS = regex.compile(rf"(\p{{M}}{{{MOST_MARKS}}})\p{{M}}+")
_LONG_WORD = regex.compile(rf"([\p{{L}}\p{{M}}]{{{LONGEST_WORD}}})(?=\p{{L}})")

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]


def limit_marks(text: str) -> str:
    """Return `text` with at most `MOST_MARKS` combining marks in a row."""
    return text if text.isascii() else _SURPLUS_MARKS.sub(r"\1", text)


def normalize(form: Form, text: str) -> str:
    """Return `text` in a normalisation form, after `limit_marks`: to sort marks takes quadratic time."""
    return unicodedata.normalize(form, limit_marks(text))


def cut_long_words(text: str) -> str:
    """Return `text` after `limit_marks`, with a space after every `LONGEST_WORD` letters in a row."""
    return _LONG_WORD.sub(r"\1 ", limit_marks(text))


def without_final_punctuation(text: str) -> str:
    """Return `text` without the punctuation and white space at its end; as it is where nothing else is left.

    Punctuation is what Unicode calls so (categories P…), in any script.
    """
    end = len(text)
    while end and (text[end - 1].isspace() or unicodedata.category(text[end - 1]).startswith("P")):
        end -= 1
    return text[:end] or text
