"""Is a response a text at all, and in which language? Cheap enough to ask of every response."""

from __future__ import annotations

import functools
import re
import zlib

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.judging.native.folding import words_of
from polyrefuse_eval.judging.native.phrases import common_words

READ = 600
"""Characters that are looked at."""

WORDS_READ = 280
"""Characters whose words and letters tell the language."""

LATIN_BYTES = 1.2
"""Bytes a character (UTF-8) up to which a text is taken as in Latin letters without a look at them."""

SHORT = 12
"""Letters below which the language cannot be told by common words."""

COMPRESSED = 0.22
"""A text of at least `LONG` bytes that shrinks below this share repeats itself."""

LONG = 300

RUN = 20
"""So many times the same letter or digit in a row is no text; other characters draw lines and indent."""

_PROBE = 10
_SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]+"),
    "ko": re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]+"),
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+"),
    "th": re.compile("[\u0e00-\u0e7f]+"),
    "ru": re.compile("[\u0400-\u052f]+"),
    "ar": re.compile("[\u0600-\u06ff\u0750-\u077f]+"),
}
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[a-zA-Z\u00c0-\u024f\u1e00-\u1eff]+")
_PAGES = {
    "ko": bytes(range(0xAC, 0xD7)),
    "zh": bytes(range(0x4E, 0xA0)),
    "th": b"\x0e",
    "ru": b"\x04",
    "ar": b"\x06",
}
"""High bytes of the characters (UTF-16) of a script; Thai shares its own with Lao."""
_LATIN_PAGES = b"\x00\x01\x1e\x20"
"""High bytes of Latin letters, and of the punctuation that stands among them."""
_NO_LETTERS = bytes(code for code in range(256) if code > 127 or not chr(code).isalpha())


def incoherence(response: str) -> str | None:
    """Return what is wrong with `response` as a text, None where nothing is."""
    text = response[:READ]
    if not text[:1].isalnum() and not any(map(str.isalnum, text)):
        return "empty"
    # a run as long as this holds one of every so many characters, and that once more right behind it
    for character in set(text[::RUN]):
        if character * RUN in text and (character.isalnum() or 2 * text.count(character) > len(text)):
            return "repeats a character"
    if not _recurs(text):
        return None
    raw, words = text.encode("utf-8", "surrogatepass"), text.split()
    squeezed = len(raw) >= LONG and len(zlib.compress(raw, 1)) < COMPRESSED * len(raw)
    if squeezed or (len(words) >= 24 and len(set(words)) < len(words) / 5):
        return "repeats itself"
    return None


def _recurs(text: str) -> bool:
    """Return whether a few characters somewhere stand in `text` three times: worth a closer look."""
    for place in range(len(text) // 4, len(text) - _PROBE, max(1, len(text) // 4)):
        probe = text[place : place + _PROBE]
        if text.find(probe, place + 1) > 0 and text.count(probe) > 2:
            return True
    return False


def language_of(response: str, lang: str) -> str | None:
    """Return the language of `response`: by its script, else by its commonest words; None if unknown.

    `lang` is that of the prompt, which breaks ties.
    """
    text = response[:WORDS_READ]
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > LATIN_BYTES * len(text):
        code = _by_pages(text, len(raw.translate(None, _NO_LETTERS))) or _by_letters(text)
        if code != "Latin":
            return code
    words = words_of(text, lang if lang in _latin() else "en")
    common, counts = _common()
    total = sum(map(counts.__getitem__, common.intersection(words)))
    codes = _latin()
    hits = total.to_bytes(len(codes), "big")
    most = max(hits)
    if len(words) < SHORT or most < max(1, len(words) // 12):
        different = set(words)
        if len(different) < SHORT and sum(map(len, different)) < SHORT:
            return None
        if most < max(1, len(different) // 12):
            return None
    return lang if lang in codes and hits[codes.index(lang)] == most else codes[hits.index(most)]


def _by_pages(text: str, ascii_letters: int) -> str | None:
    """Return the language whose script most of `text` is in, or "Latin"; None where that is not clear."""
    pages = text.encode("utf-16-le", "surrogatepass")[1::2]
    if len(pages.translate(None, _LATIN_PAGES)) < ascii_letters:
        return "Latin"
    most = len(pages) - text.count(" ")
    for code, own in _PAGES.items():
        count = len(pages) - len(pages.translate(None, own))
        if 4 * count > 3 * most and 10 * pages.count(0x30) < count:
            return code if _SCRIPTS[code].search(text) else None
        if code == "zh" and 10 * pages.count(0x30) > most:
            kana = len("".join(_SCRIPTS["ja"].findall(text)))
            return "ja" if 10 * kana > most and 2 * (count + kana) > most else None
    return None


def _by_letters(text: str) -> str | None:
    """Return the language whose script many letters of `text` are in, "Latin", or None where none is ours."""
    letters = "".join(_LETTERS.findall(text))
    if letters and len("".join(_LATIN.findall(letters))) < len(letters) / 2:
        for code, script in _SCRIPTS.items():
            share = len("".join(script.findall(text))) / len(letters)
            if share > (0.1 if code == "ja" else 0.4):
                return code
        return None
    return "Latin" if letters else None


@functools.cache
def _latin() -> tuple[str, ...]:
    """Return our languages in Latin letters; of two with as many common words, the first is taken."""
    latin = (code for code, row in LANGUAGES.items() if row.scripts == ("Latin",) and len(code) == 2)
    return tuple(sorted(latin, reverse=True))


@functools.cache
def _common() -> tuple[frozenset[str], dict[str, int]]:
    """Return all common words, and the languages of each: a byte of a number for each of `_latin()`, so
    that one sum counts the words of all languages."""
    counts: dict[str, int] = {}
    for place, code in enumerate(reversed(_latin())):
        for word in common_words(code):
            counts[word] = counts.get(word, 0) + 256**place
    return frozenset(counts), counts
