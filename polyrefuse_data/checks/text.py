"""Scores of one translation against its English text: pure functions, text in, number out.

A score is None where the check has nothing to say about the pair.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

import regex

from polyrefuse_data.duplicates import jaccard, tokens
from polyrefuse_data.languages import Language

_LETTER = regex.compile(r"\p{L}")
_VISIBLE = regex.compile(r"[\p{L}\p{N}\p{S}\p{P}]")
_DIGIT = regex.compile(r"\p{Nd}")
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Cc}\p{Co}\p{Cn}\p{Cs}\uFFFD--[\n\t]]", regex.V1)
_LINE_BREAK = regex.compile(r"\r\n|[\n\r\u2028\u2029\u0085]")

SHORT_TEXT_LETTERS = 8
"""Below so many letters a required script may be missing: a Japanese title can be all Han."""


@lru_cache(maxsize=64)
def script_pattern(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    """Return a pattern of the letters and marks of Unicode `scripts`; "Kana" is Hiragana and Katakana."""
    names = [name for script in scripts for name in (("Hiragana", "Katakana") if script == "Kana" else (script,))]
    return regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in names) + "]")


def visible_length(text: str) -> float:
    """Return how many visible characters `text` has."""
    return float(len(_VISIBLE.findall(text)))


def echo(text: str, text_en: str) -> float:
    """Return the token Jaccard of translation and source: 1.0 for text that came back untranslated."""
    return jaccard(tokens(text), tokens(text_en))


def script_share(text: str, language: Language) -> float | None:
    """Return the share of letters in the scripts of `language`, between 0 and 1.

    0 if the script that the language cannot do without is missing from a text of some length.
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
    own = script_pattern(language.scripts)
    return sum(1 for letter in letters if own.match(letter)) / len(letters)


def length_ratio(text: str, text_en: str) -> float | None:
    """Return the number of characters of the translation divided by that of the English."""
    return len(text) / len(text_en) if text_en else None


def _digits(text: str) -> Counter[str]:
    """Return the decimal digits of `text` after NFKC, each as ASCII: Arabic-Indic and Thai digits too."""
    found = _DIGIT.findall(unicodedata.normalize("NFKC", text))
    return Counter(str(unicodedata.decimal(digit)) for digit in found)


def missing_digits(text: str, text_en: str) -> float | None:
    """Return how many different digits of the English do not occur in the translation.

    None if the English has no digit. A subset of kinds, not of counts: Japanese writes "twenty" as 20,
    and adds digits (4 false alarms where equality raises 191 on the published release).
    """
    wanted = _digits(text_en)
    if not wanted:
        return None
    return float(len(set(wanted) - set(_digits(text))))


def line_break_difference(text: str, text_en: str) -> float:
    """Return the line breaks of the translation minus those of the English."""
    return float(len(_LINE_BREAK.findall(text)) - len(_LINE_BREAK.findall(text_en)))


def invisible_characters(text: str, text_en: str) -> float:
    """Return how many zero-width, control, private or replacement characters the translation adds."""
    added = Counter(_INVISIBLE.findall(text)) - Counter(_INVISIBLE.findall(text_en))
    return float(sum(added.values()))


def diacritic_share(text: str) -> float | None:
    """Return the share of words with at least one combining mark (after NFD), between 0 and 1."""
    words = _WORD.findall(unicodedata.normalize("NFD", text))
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
