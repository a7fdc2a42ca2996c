"""A text as phrases see it, so that spellings that mean the same are the same.

Most characters are ASCII, and most others lower-case letters: those that need more than a table of bytes
are looked for first, and only a text that holds some is read character by character.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from polyrefuse_data.core.languages import LANGUAGES

_ODD = re.compile(r"[\ufb00-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f]")
_QUOTES = ("’", "‘", "´", "ʼ", "＇")
_WORD = re.compile(r"[\w']+")
_MARKS = re.compile(r"[\u0300-\u036f]+")
_VOWELS = re.compile(r"[\u0610-\u061a\u064b-\u065f\u0670\u0640]+")
_LETTERS = (("أ", "ا"), ("إ", "ا"), ("آ", "ا"), ("ى", "ي"), ("ة", "ه"))

_ASCII = bytes(range(128))
_OTHER = bytes(range(128, 256))
_MARK_BYTES = bytes([*range(0x80, 0xC0), 0xCC])
"""Of marks from U+0300 to U+033F in UTF-8; no other character has the second."""
_FOLDED_ASCII = bytes(
    code if code > 127 else ord("'" if char == "`" else char if char.isalnum() or char in "'_" else " ")
    for code, char in ((code, chr(code).lower()) for code in range(256))
)
"""Each ASCII byte in lower case, a blank where it parts words; the other bytes."""


@functools.lru_cache(maxsize=128)
def words_of(text: str, lang: str) -> tuple[str, ...]:
    """Return the words of `text` as phrases see them: lower case, straight apostrophes, one spelling.

    Yoruba loses its marks and Arabic its vowels and the forms of alif, which writers leave out as they
    like.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) == len(text):
        return (*raw.translate(_FOLDED_ASCII).decode("ascii").split(),)
    if b"\xef" in raw and _ODD.search(text):
        return words_of(unicodedata.normalize("NFKC", text), lang)
    text = raw.translate(_FOLDED_ASCII).decode("utf-8", "surrogatepass")
    if lang == "yo":
        marked = unicodedata.normalize("NFD", text).encode("utf-8", "surrogatepass")
        if not marked.translate(None, _ASCII).translate(None, _MARK_BYTES):
            return (*marked.translate(_FOLDED_ASCII, _OTHER).decode("ascii").split(),)
    elif lang != "ar" and LANGUAGES[lang].spaced:
        other = raw.translate(None, _ASCII).decode("utf-8", "surrogatepass").lower()
        if other.isalpha() and unicodedata.is_normalized("NFC", other):
            return (*text.lower().split(),)
    return _words(text, lang)


def _words(text: str, lang: str) -> tuple[str, ...]:
    """Return the words of a `text` whose ASCII is folded, whatever else it holds."""
    text = unicodedata.normalize("NFC", text)
    for quote in _QUOTES:
        text = text.replace(quote, "'")
    if lang == "yo":
        text = _MARKS.sub("", unicodedata.normalize("NFD", text))
    elif lang == "ar":
        text = _VOWELS.sub("", text)
        for written, read in _LETTERS:
            text = text.replace(written, read)
    return (*_WORD.findall(text.lower()),)


def folded(text: str, lang: str) -> str:
    """Return the words of `text`, parted by one blank and with a blank before and after; with nothing
    between them, nor apostrophes, in languages written without spaces."""
    words = words_of(text, lang)
    return f" {' '.join(words)} " if LANGUAGES[lang].spaced else "".join(words).replace("'", "")
