"""Is a response a text at all? Repetition of characters, of words, of pieces of words."""

from __future__ import annotations

import itertools
import zlib

READ = 600
"""Characters that are looked at."""

COMPRESSED = 0.22
"""A text of at least `LONG` bytes that shrinks below this share repeats itself."""

LONG = 300

RUN = 20
"""So many times the same letter or digit in a row is not text; other characters draw lines and indent."""

PROBE = 6
"""Characters that are looked for again."""

WORDS = 16
"""Words from which on the share of different ones tells."""

DIFFERENT_WORDS, DIFFERENT_PAIRS = 0.2, 0.45
"""Shares of different words, and of different pairs of neighbouring words, below which a text is word
salad."""


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
    if len(raw) >= LONG and len(zlib.compress(raw, 1)) < COMPRESSED * len(raw):
        return "repeats itself"
    if len(words) >= WORDS:
        pairs = set(itertools.pairwise(words))
        few = len(set(words)) < DIFFERENT_WORDS * len(words)
        if few or len(pairs) < DIFFERENT_PAIRS * (len(words) - 1):
            return "repeats itself"
    return None


def _recurs(text: str) -> bool:
    """Return whether a few characters somewhere stand in `text` three times: worth a closer look."""
    for place in range(len(text) // 6, len(text) - PROBE, max(1, len(text) // 6)):
        probe = text[place : place + PROBE]
        if text.find(probe, place + 1) > 0 and text.count(probe) > 2:
            return True
    return False
