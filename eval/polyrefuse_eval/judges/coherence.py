"""Is a response a text at all, and in which language? Cheap enough to ask of every response."""

from __future__ import annotations

import functools
import zlib

import regex

from polyrefuse_data.languages import LANGUAGES
from polyrefuse_eval.judges.phrases import load_phrases

READ = 600
"""Characters that are looked at."""

SHORT = 12
"""Letters below which neither language nor repetition can be told."""

COMPRESSED = 0.22
"""A text of at least `LONG` bytes that shrinks below this share repeats itself."""

LONG = 300

_SCRIPTS = {
    "ja": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "ko": regex.compile(r"\p{Hangul}"),
    "zh": regex.compile(r"\p{Han}"),
    "th": regex.compile(r"\p{Thai}"),
    "ru": regex.compile(r"\p{Cyrillic}"),
    "ar": regex.compile(r"\p{Arabic}"),
}
_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"\p{Latin}")
_WORD = regex.compile(r"[\p{L}\p{M}']+")
_RUN = regex.compile(r"(.)\1{19,}", regex.S)


def incoherence(response: str, lang: str) -> str | None:
    """Return what is wrong with `response` as a text, None where nothing is."""
    text = response[:READ]
    if not any(character.isalnum() for character in text):
        return "empty"
    if _RUN.search(text):
        return "repeats a character"
    raw = text.encode()
    if len(raw) >= LONG and len(zlib.compress(raw, 1)) < COMPRESSED * len(raw):
        return "repeats itself"
    words = text.split()
    if len(words) >= 24 and len(set(words)) < len(words) / 5:
        return "repeats itself"
    return None


def language_of(response: str, lang: str) -> str | None:
    """Return the language of `response`: by its script, else by its commonest words; None if unknown.

    `lang` is that of the prompt, which breaks ties.
    """
    text = response[:READ]
    letters = len(_LETTER.findall(text))
    if not letters:
        return None
    if len(_LATIN.findall(text)) < letters / 2:
        for code, script in _SCRIPTS.items():
            share = len(script.findall(text)) / letters
            if share > (0.1 if code == "ja" else 0.4):
                return code
        return None
    if letters < SHORT:
        return None
    words = _WORD.findall(text.lower())
    counts = dict.fromkeys(_latin(), 0)
    for word in words:
        for code in _languages_with().get(word, ()):
            counts[code] += 1
    hits, _, best = max((count, code == lang, code) for code, count in counts.items())
    return best if hits >= max(1, len(words) // 12) else None


@functools.cache
def _latin() -> tuple[str, ...]:
    return tuple(code for code, row in LANGUAGES.items() if row.scripts == ("Latin",) and len(code) == 2)


@functools.cache
def _languages_with() -> dict[str, tuple[str, ...]]:
    """Return each common word with the languages that it is common in."""
    words = set().union(*(load_phrases(code).words for code in _latin()))
    return {word: tuple(code for code in _latin() if word in load_phrases(code).words) for word in words}
