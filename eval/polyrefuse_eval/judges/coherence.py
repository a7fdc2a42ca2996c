"""Is a response a text at all, and in which language? Cheap enough to ask of every response."""

from __future__ import annotations

import functools
import re
import zlib

from polyrefuse_data.languages import LANGUAGES
from polyrefuse_eval.judges.phrases import common_words, folded

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
"""So many times the same character in a row is no text."""

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
_THREE = re.compile(r"(.)\1\1", re.S)
_RUN = re.compile(rf"(.)\1{{{RUN - 1},}}", re.S)


def incoherence(response: str) -> str | None:
    """Return what is wrong with `response` as a text, None where nothing is."""
    text = response[:READ]
    if not any(character.isalnum() for character in text):
        return "empty"
    # a run as long as this holds three neighbours of every sixth character
    if _THREE.search(text[::6]) and _RUN.search(text):
        return "repeats a character"
    if not _recurs(text):
        return None
    raw, words = text.encode(), text.split()
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
    if len(text.encode()) > LATIN_BYTES * len(text):
        letters = "".join(_LETTERS.findall(text))
        if not letters:
            return None
        if len("".join(_LATIN.findall(letters))) < len(letters) / 2:
            for code, script in _SCRIPTS.items():
                share = len("".join(script.findall(text))) / len(letters)
                if share > (0.1 if code == "ja" else 0.4):
                    return code
            return None
    words = set(folded(text, lang if lang in _latin() else "en").split())
    if len(words) < SHORT and sum(map(len, words)) < SHORT:
        return None
    counts = dict.fromkeys(_latin(), 0)
    common, languages = _common()
    for word in words & common:
        for code in languages[word]:
            counts[code] += 1
    hits = max(counts.values())
    if hits < max(1, len(words) // 12):
        return None
    return lang if counts.get(lang) == hits else max(code for code in counts if counts[code] == hits)


@functools.cache
def _latin() -> tuple[str, ...]:
    return tuple(code for code, row in LANGUAGES.items() if row.scripts == ("Latin",) and len(code) == 2)


@functools.cache
def _common() -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """Return all common words, and each with the languages that it is common in."""
    words = frozenset().union(*(common_words(code) for code in _latin()))
    return words, {word: tuple(code for code in _latin() if word in common_words(code)) for word in words}
