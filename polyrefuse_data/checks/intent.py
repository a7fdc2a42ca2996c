"""Check that a translation asks for the same thing: negations, questions, numbers in words, verbatim parts.

The markers of each language lie in `data/intent_markers.yaml`; a language without a row there is not judged.
A score counts differences of meaning that the markers show, and is None where nothing can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import regex
import yaml

from polyrefuse_data.checks.text import number_written, unmarked
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.unicode_text import normalize

NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""English words of the numbers 2 to 12. `one` is left out: it is a pronoun more often than a number."""

DUAL = ("ar",)
"""Languages that write "two" as an ending of the noun."""

_NUMBER_WORD = regex.compile(rf"(?<![\w-])(?:{'|'.join(NUMBER_WORDS)})(?![\w-])")
_VERBATIM = regex.compile(
    r"https?://[^\s<>\"')\]]+|www\.[^\s<>\"')\]]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.\w+"  # addresses
    r"|`[^`\n]+`|\{\{?\w+\}?\}|<[/!]?[A-Za-z][^<>\n]{0,80}>|%\([a-z]+\)[sd]|(?<!\w)\$\w+\b(?<!\$\d+)"  # code
)
_QUOTED = regex.compile(r"(?<!\w)[\"“‘'][^\"“”‘’\n]{3,200}?[\"”’'](?!\w)")
_QUOTE = regex.compile(r"[\"“”„‟«»‹›「」『』《》〈〉‘’‚＂'`]")
_METHOD = regex.compile(r"\b(?:how|ways?|methods?|steps?|instructions?|guides?|tutorials?|tips|strateg\w+)\b")


@dataclass(frozen=True)
class Markers:
    """The patterns of one language; see the head of the data file."""

    negates: regex.Pattern[str]
    negation: regex.Pattern[str]
    how: regex.Pattern[str]
    asks_how: regex.Pattern[str]
    question: regex.Pattern[str]


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, list[str]]]:
    path = resources.files("polyrefuse_data") / "data" / "intent_markers.yaml"
    table: dict[str, dict[str, list[str]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return table


@lru_cache(maxsize=64)
def _pattern(lang: str, name: str) -> regex.Pattern[str]:
    whole_words = lang == SOURCE_LANGUAGE or (LANGUAGES[lang].spaced and lang != "ko")
    patterns = [_folded_pattern(pattern, lang) for pattern in _table()[lang][name]]
    if whole_words:
        words = [pattern if pattern[:2] in ("[?", "\\A") else rf"\b(?:{pattern})\b" for pattern in patterns]
        return regex.compile("|".join(words) or r"(?!)")
    return regex.compile("|".join(patterns) or r"(?!)")


def _folded_pattern(pattern: str, lang: str) -> str:
    return unmarked(pattern) if lang == "ar" and pattern.isascii() is False else normalize("NFKC", pattern)


@lru_cache(maxsize=64)
def markers(lang: str) -> Markers | None:
    """Return the markers of a language; None where the data file has none."""
    if lang not in _table() or lang == SOURCE_LANGUAGE or lang not in LANGUAGES:
        return None
    names = ("negates", "negation", "how", "asks_how", "question")
    return Markers(**{name: _pattern(lang, name) for name in names})


def _fold(text: str, lang: str) -> str:
    if lang == "ar":
        return unmarked(text)
    return normalize("NFKC", text).casefold().replace("’", "'")


def negation(text: str, text_en: str, lang: str) -> float | None:
    """Return 1 if the translation dropped a negation of the English, -1 if it added one, else 0.

    What was dropped is told by the absence of every sign of a negation; what was added by a plain negation
    where nothing in the English calls for one: no negation, no prefix, no word such as `avoid` or `only`.
    """
    known = markers(lang)
    if known is None:
        return None
    english, translation = _fold(_QUOTED.sub(" ", text_en), SOURCE_LANGUAGE), _fold(text, lang)
    if _pattern(SOURCE_LANGUAGE, "negates").search(english):
        return float(not known.negates.search(translation))
    if not known.negation.search(translation):
        return 0.0
    return 0.0 if _pattern(SOURCE_LANGUAGE, "licence").search(_fold(text_en, SOURCE_LANGUAGE)) else -1.0


def intent(text: str, text_en: str, lang: str) -> float | None:
    """Return how many of these changed: it asks how, it is a question, a request is no question; 0 to 2.

    Lost: the English opens with a question of how, or is a question, and the translation has no sign of one.
    Added: the English requests something and the translation asks how that is done, or asks anything.
    """
    known = markers(lang)
    if known is None:
        return None
    english, translation = _fold(text_en, SOURCE_LANGUAGE).strip(), _fold(text, lang).strip()
    question = _pattern(SOURCE_LANGUAGE, "question").search(english) is not None
    if question:
        how = _pattern(SOURCE_LANGUAGE, "asks_how").search(english) is not None
        lost_how = how and not known.how.search(translation)
        return float(
            lost_how + (not known.question.search(translation) and not known.how.search(translation))
        )
    added_how = not _METHOD.search(english) and known.asks_how.search(translation) is not None
    asks = "?" in translation or "؟" in translation
    added = asks and not _pattern(SOURCE_LANGUAGE, "licence_question").search(english)
    return float(added_how + added)


def missing_number_words(text: str, text_en: str, lang: str) -> float | None:
    """Return how many different numbers, words in the English, are no word or digit of the translation.

    None if the English has no such word, or where the language's number words are not known.
    """
    words = set(_NUMBER_WORD.findall(normalize("NFKC", _QUOTED.sub(" ", text_en)).casefold()))
    if lang in DUAL:
        words -= {"two"}
    if not words:
        return None
    values = [NUMBER_WORDS.index(word) + 2 for word in words]
    written = [number_written(text, value, lang) for value in values]
    return None if None in written else float(written.count(False))


def missing_verbatim(text: str, text_en: str) -> float | None:
    """Return how many parts of the English that no translator may change are missing from the translation.

    These are addresses, code in backticks, placeholders and tags; a quotation is missing where the English
    has one and the translation no quotation mark. None if the English has none of them.
    """
    parts = _VERBATIM.findall(text_en)
    quoted = _QUOTED.search(text_en) is not None
    if not parts and not quoted:
        return None
    return float(sum(part not in text for part in parts) + (quoted and not _QUOTE.search(text)))


def repetition(text: str, text_en: str) -> float:
    """Return by how much of its length the translation repeats its own beginning, beyond the English: 0 to 1.

    A text that stands there twice has 0.5.
    """
    return max(0.0, round(_repeated(text) - _repeated(text_en), 3))


def _repeated(text: str) -> float:
    """Return the share of `text` from where its first fifth, of at least 8 characters, stands once more."""
    plain = " ".join(text.split())
    size = max(8, len(plain) // 5)
    again = plain.find(plain[:size], size) if len(plain) >= 2 * size else -1
    return (len(plain) - again) / len(plain) if again >= 0 else 0.0
