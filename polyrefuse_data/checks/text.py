"""Score one translation against its English text: pure functions, text in, number out.

A score is None where the check has nothing to say about the pair.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources

import regex
import yaml

from polyrefuse_data.checks.duplicates import jaccard, tokens
from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.unicode_text import normalize

_LETTER = regex.compile(r"\p{L}")
_VISIBLE = regex.compile(r"[\p{L}\p{N}\p{S}\p{P}]")
_NUMBER = regex.compile(r"[0-9]+")
_OTHER_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.V1)
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_LATIN_WORD = regex.compile(r"[\p{Script=Latin}\p{M}'’]+(?:-[\p{Script=Latin}\p{M}'’]+)*")
QUOTED = regex.compile(r"(?<!\w)[\"“‘'][^\"“”‘’\n]{3,200}?[\"”’'](?!\w)")
"""A quotation of the English."""

_INVISIBLE = regex.compile(r"[\p{Cf}\p{Cc}\p{Co}\p{Cn}\p{Cs}\uFFFD--[\n\t]]", regex.V1)
_LINE_BREAK = regex.compile(r"\r\n|[\n\r\u2028\u2029\u0085]")

SHORT_TEXT_LETTERS = 8
"""Below so many letters a required script may be missing: a Japanese title can be all Han."""


LONGEST_NUMBER = 20
"""Digits of a number that is compared with number words; longer ones are none."""

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


def _digits(text: str) -> list[str]:
    """Return the numbers of `text` after NFKC in ASCII digits: Arabic-Indic and Thai digits too."""
    composed = normalize("NFKC", text)
    return _NUMBER.findall(_OTHER_DIGIT.sub(_ascii_digit, composed))


def _ascii_digit(digit: regex.Match[str]) -> str:
    return str(unicodedata.decimal(digit.group(), digit.group()))


@lru_cache(maxsize=1)
def _number_words() -> dict[str, list[list[str]]]:
    path = resources.files("polyrefuse_data") / "data" / "number_words.yaml"
    table: dict[str, list[list[str]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {lang: [[unmarked(stem) for stem in stems] for stems in words] for lang, words in table.items()}


def unmarked(text: str) -> str:
    """Return `text` case-folded, without combining marks."""
    decomposed = normalize("NFKD", text.casefold())
    return normalize("NFC", "".join(char for char in decomposed if not unicodedata.combining(char)))


def missing_digits(text: str, text_en: str, lang: str) -> float | None:
    """Return how many different digits of the numbers in the English do not occur in the translation.

    None if the English has no digit. Kinds of digits, not counts: Japanese writes "twenty" as 20, and
    adds digits (4 false alarms where equality raises 191 on the published release). A number up to 12
    may be written as a word of the language instead.
    """
    numbers = set(_digits(text_en))
    if not numbers:
        return None
    there = set("".join(_digits(text)))
    words = _number_words().get(lang, [])
    plain = unmarked(text)
    missing: set[str] = set()
    for number in numbers:
        absent = set(number) - there
        value = int(number) if len(number) <= LONGEST_NUMBER else 0
        if absent and 1 <= value <= len(words) and any(stem in plain for stem in words[value - 1]):
            continue
        missing |= absent
    return float(len(missing))


def number_written(text: str, value: int, lang: str) -> bool | None:
    """Return whether `text` has the number `value` in digits or as a word; None for an unknown language."""
    words = _number_words().get(lang, [])
    if not 1 <= value <= len(words):
        return None
    plain = unmarked(text)
    return str(value) in _digits(text) or any(stem in plain for stem in words[value - 1])


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
