"""Fold a text so that spellings that mean the same are the same: what word lists are matched against.

A folded text is in lower case, without apostrophes and punctuation; ` . ` stands where a sentence ends. In a
language without spaces (and in Korean, whose spaces writers set as they like) the words follow each other
directly, and a comma, which parts clauses there, stays.
"""

from __future__ import annotations

import functools
import re
import unicodedata

END = "."
"""Stands for any end of a sentence."""

COMMA = ","
"""Stands for any comma, in languages without spaces alone."""

_COMPATIBILITY = re.compile(
    r"[\ufb00-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f]"
)
_ENDS = "…。！？；｡؟؛۔।॥"
_COMMAS = "，、،"
_BLANKS = "’‘´ʼ＇“”„«»‹›「」『』《》【】（）［］：·•–—―‑¿¡\u00a0\u2009\u200b\u202f\u3000\u200e\u200f"
_OTHER_MARKS = [(mark, END) for mark in _ENDS] + [(mark, COMMA) for mark in _COMMAS]
_OTHER_MARKS += [(mark, " ") for mark in _BLANKS]
_YORUBA_MARKS = re.compile(r"[\u0300-\u036f]+")
_ARABIC_VOWELS = re.compile(r"[\u0610-\u061a\u064b-\u065f\u0670\u0640]+")
_ARABIC_LETTERS = (("أ", "ا"), ("إ", "ا"), ("آ", "ا"), ("ى", "ي"), ("ة", "ه"))


def _folded_byte(code: int) -> int:
    """Return what an ASCII character becomes: the small letter, an end, a comma or a blank."""
    char = chr(code)
    if code > 127 or char.isalnum() or char in f"{COMMA}\0":
        return ord(char.lower()) if code < 128 else code
    return ord(END) if char in ".!?;\n" else ord(" ")


_ASCII = bytes(map(_folded_byte, range(256)))
"""Applied to UTF-8, whose bytes of other characters stay as they are."""


@functools.lru_cache(maxsize=256)
def folded(text: str, lang: str, spaced: bool) -> str:
    """Return `text` folded, with a blank before and after each word where words are `spaced`.

    Yoruba loses its marks and Arabic its vowels and the forms of alif, which writers leave out as they like.
    """
    ascii_only = text.isascii()
    if not ascii_only and _COMPATIBILITY.search(text):
        text = unicodedata.normalize("NFKC", text)
    text = text.encode("utf-8", "surrogatepass").translate(_ASCII).decode("utf-8", "surrogatepass")
    if not ascii_only:
        text = text.lower()
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
        if lang == "yo":
            text = _YORUBA_MARKS.sub("", unicodedata.normalize("NFD", text))
        for mark, meaning in _OTHER_MARKS:
            if mark in text:
                text = text.replace(mark, meaning)
        if lang == "ar":
            text = _ARABIC_VOWELS.sub("", text)
            for written, read in _ARABIC_LETTERS:
                text = text.replace(written, read)
    if not spaced:
        return "".join(text.split())
    return f" {' '.join(text.replace(COMMA, ' ').replace(END, f' {END} ').split())} "
