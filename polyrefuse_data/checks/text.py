"""Score one translation against its English text: pure functions, text in, number out.

A score is None where the check has nothing to say about the pair.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import regex

from polyrefuse_data.checks.duplicates import jaccard, tokens
from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.unicode_text import normalize

_LETTER = regex.compile(r"\p{L}")
_VISIBLE = regex.compile(r"[\p{L}\p{N}\p{S}\p{P}]")
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_LATIN_WORD = regex.compile(r"[\p{Script=Latin}\p{M}'’]+(?:-[\p{Script=Latin}\p{M}'’]+)*")
QUOTED = regex.compile(r"(?<!\w)[\"“‘'][^\"“”‘’\n]{3,200}?[\"”’'](?!\w)")
"""A quotation of the English."""

_INVISIBLE = regex.compile(r"[\p{Cf}\p{Cc}\p{Co}\p{Cn}\p{Cs}\uFFFD--[\n\t]]", regex.V1)
_LINE_BREAK = regex.compile(r"\r\n|[\n\r\u2028\u2029\u0085]")

SHORT_TEXT_LETTERS = 8
"""Below so many letters a required script may be missing: a Japanese title can be all Han."""

RUN_WORDS = 3
"""English words in a row that a translation shares with its source by chance or as a term less than once in a
hundred rows; two in a row ("New York", "e-mail marketing") are common."""

HARDLY_ANYTHING = 0.1
"""Below this share of letters in the language's script, words shared with the English are not left out."""


@lru_cache(maxsize=64)
def script_pattern(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    """Return a pattern of the letters and marks of Unicode `scripts`; "Kana" is Hiragana and Katakana."""
    names = [
        name for script in scripts for name in (("Hiragana", "Katakana") if script == "Kana" else (script,))
    ]
    return regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in names) + "]")


def visible_length(text: str) -> float:
    """Return how many visible characters `text` has."""
    return float(len(_VISIBLE.findall(text)))


def has_visible(text: str) -> bool:
    """Return whether `text` has a visible character."""
    return _VISIBLE.search(text) is not None


def echo(text: str, text_en: str) -> float:
    """Return the token Jaccard of translation and source: 1.0 for text that came back untranslated."""
    return jaccard(tokens(text), tokens(text_en))


def untranslated(text: str, text_en: str) -> float | None:
    """Return the share of the English words that stand in the translation in runs of `RUN_WORDS` or more.

    Words with a capital (names, titles) and single letters make runs longer and do not count themselves;
    quotations are left out. None where fewer than `RUN_WORDS` words of the English count.
    """
    english = _LATIN_WORD.findall(QUOTED.sub(" ", text_en))
    counted = {place for place, word in enumerate(english) if len(word) > 1 and word.islower()}
    if len(counted) < RUN_WORDS:
        return None
    standing = set(_runs([word.casefold() for word in _LATIN_WORD.findall(text)]))
    copied: set[int] = set()
    for start, run in enumerate(_runs([word.casefold() for word in english])):
        if run in standing:
            copied.update(range(start, start + RUN_WORDS))
    return round(len(copied & counted) / len(counted), 3)


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every `RUN_WORDS` words that follow one another."""
    return zip(*(words[start:] for start in range(RUN_WORDS)), strict=False)


def script_share(text: str, language: Language, text_en: str | None = None) -> float | None:
    """Return the share of letters in the scripts of `language`, between 0 and 1.

    Words that the English has too (names, titles, code) are left out, unless hardly anything is in the
    language's script. 0 if the script that the language cannot do without is missing from a text of
    some length.
    """
    letters = _LETTER.findall(text)
    if not letters:
        return None
    if (
        language.required_script
        and len(letters) >= SHORT_TEXT_LETTERS
        and not script_pattern((language.required_script,)).search(text)
    ):
        return 0.0
    own = len(script_pattern(language.scripts).findall("".join(letters)))
    kept = len(letters)
    if text_en is not None and own / len(letters) >= HARDLY_ANYTHING:
        english = tokens(text_en)
        foreign = [word for word in _WORD.findall(text) if word.casefold() in english]
        kept -= sum(len(_LETTER.findall(word)) for word in foreign)
        own -= sum(len(script_pattern(language.scripts).findall(word)) for word in foreign)
    return own / kept if kept else 1.0


def length_ratio(text: str, text_en: str) -> float | None:
    """Return the number of characters of the translation divided by that of the English."""
    return len(text) / len(text_en) if text_en else None


def unmarked(text: str) -> str:
    """Return `text` case-folded, without combining marks."""
    decomposed = normalize("NFKD", text.casefold())
    return normalize("NFC", "".join(char for char in decomposed if not unicodedata.combining(char)))


def line_break_difference(text: str, text_en: str) -> float:
    """Return the line breaks of the translation minus those of the English."""
    return float(len(_LINE_BREAK.findall(text)) - len(_LINE_BREAK.findall(text_en)))


def invisible_characters(text: str, text_en: str) -> float:
    """Return how many zero-width, control, private or replacement characters the translation adds."""
    added = Counter(_INVISIBLE.findall(text)) - Counter(_INVISIBLE.findall(text_en))
    return float(sum(added.values()))


def diacritic_share(text: str) -> float | None:
    """Return the share of words with at least one combining mark (after NFD), between 0 and 1."""
    words = _WORD.findall(normalize("NFD", text))
    if not words:
        return None
    marked = sum(1 for word in words if any(unicodedata.combining(letter) for letter in word))
    return marked / len(words)


def round_trip(text_en: str, back: str) -> float:
    """Return the sentence-level chrF++ of the back-translation against the English, 0 to 100.

    chrF++ (Popović 2017): character order 6, word order 2, beta 2, effective order, as sacrebleu has it.
    """
    return _chrf().sentence_score(back, [text_en]).score  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _chrf():  # type: ignore[no-untyped-def]
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)
