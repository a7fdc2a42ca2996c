"""Check that a translation asks for the same thing: negations, questions, requests, verbatim parts.

The markers of each language lie in `data/intent_markers.yaml`; a language without a row there is not judged.
A score counts differences of meaning that the markers show, and is None where nothing can be told.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources

import regex
import yaml

from polyrefuse_data.checks.text import QUOTED, unmarked
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.unicode_text import normalize, without_final_punctuation

MOST_NEGATIONS = 2
"""Negations of the English that are counted: longer texts are translated more freely."""

NEGATES_ONCE = ("zh",)
"""Languages where one negation may stand for several of the English."""

_VERBATIM = regex.compile(
    r"https?://[^\s<>\"')\]]+|www\.[^\s<>\"')\]]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.\w+"  # addresses
    r"|`[^`\n]+`|\{\{?\w+\}?\}|<[/!]?[A-Za-z][^<>\n]{0,80}>|%\([a-z]+\)[sd]|(?<!\w)\$\w+\b(?<!\$\d+)"  # code
)
_QUOTE = regex.compile(r"[\"“”„‟«»‹›「」『』《》〈〉‘’‚＂'`]")
_ESCAPE = regex.compile(r"(\\\\.)")
_QUESTION_MARK = regex.compile(r"[?？؟⸮﹖]")
_AVOIDS = regex.compile(
    r"\b(?:avoid|stop|refuse|refrain|prevent|prohibit|ban|forbid|dont|cant|un\w{4,}|impossible|stay|keep)"
)
_METHOD = regex.compile(r"\b(?:how|ways?|methods?|steps?|instructions?|guides?|tutorials?|tips|strateg\w+)\b")


@dataclass(frozen=True)
class Markers:
    """The patterns of one language; see the head of the data file."""

    negates: regex.Pattern[str]
    negation: regex.Pattern[str]
    prohibits: regex.Pattern[str]
    asks_why: regex.Pattern[str]
    how: regex.Pattern[str]
    asks_how: regex.Pattern[str]
    question: regex.Pattern[str]
    requests: regex.Pattern[str]
    elsewhere: regex.Pattern[str]
    hedges: regex.Pattern[str]


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
    if lang != "ar":
        return normalize("NFKC", pattern)
    return "".join(part if part[0] == "\\" else unmarked(part) for part in _ESCAPE.split(pattern) if part)


@lru_cache(maxsize=64)
def markers(lang: str) -> Markers | None:
    """Return the markers of a language; None where the data file has none."""
    if lang not in _table() or lang == SOURCE_LANGUAGE or lang not in LANGUAGES:
        return None
    names = [field.name for field in fields(Markers)]
    return Markers(**{name: _pattern(lang, name) for name in names})


def _fold(text: str, lang: str) -> str:
    if lang == "ar":
        return unmarked(text)
    return normalize("NFKC", text).casefold().replace("’", "'")


def is_question(text: str, lang: str) -> bool:
    """Return whether `text` ends with a question mark, or opens or ends as a question by the markers of
    `lang`."""
    if _QUESTION_MARK.search(text[len(without_final_punctuation(text)) :]):
        return True
    if lang not in _table() or lang not in LANGUAGES:
        return False
    return _frame(lang).search(_fold(text, lang).strip()) is not None


@lru_cache(maxsize=64)
def _frame(lang: str) -> regex.Pattern[str]:
    """Return the markers of questions of `lang` that count at the beginning or the end of a text alone."""
    anchored = [
        pattern
        for name in ("asks_how", "question")
        for pattern in _table()[lang][name]
        if name == "asks_how" or pattern.startswith("\\A") or pattern.endswith("\\Z")
    ]
    return regex.compile("|".join(_folded_pattern(pattern, lang) for pattern in anchored) or r"(?!)")


def negation(text: str, text_en: str, lang: str) -> float | None:
    """Return 1 if the translation dropped a negation of the English, -1 if it added one, else 0.

    What was dropped is told by fewer signs of negations than the English has negations; what was added by a
    plain negation where nothing in the English calls for one: no negation, no prefix, no word such as `avoid`
    or `only`.
    """
    known = markers(lang)
    if known is None:
        return None
    english, translation = _fold(QUOTED.sub(" ", text_en), SOURCE_LANGUAGE), _fold(text, lang)
    negations = len(_pattern(SOURCE_LANGUAGE, "negates").findall(english))
    if negations:
        expected = 1 if lang in NEGATES_ONCE else min(negations, MOST_NEGATIONS)
        return float(len(known.negates.findall(translation)) < expected)
    if known.prohibits.search(translation.strip()) and not _AVOIDS.search(english):
        return -1.0
    if not known.negation.search(translation):
        return 0.0
    return 0.0 if _pattern(SOURCE_LANGUAGE, "licence").search(_fold(text_en, SOURCE_LANGUAGE)) else -1.0


def intent(text: str, text_en: str, lang: str) -> float | None:
    """Return how many of these changed: it asks how, asks, requests, and as plainly as the English; 0 to 4.

    Lost: the English opens with a question of how, or is a question, or opens with a verb of request, and the
    translation has no sign of one. Added: the English requests something and the translation asks how that is
    done, or asks anything; or a hedge (perhaps, if possible) for which nothing in the English calls.
    """
    known = markers(lang)
    if known is None:
        return None
    english, translation = _fold(text_en, SOURCE_LANGUAGE).strip(), _fold(text, lang).strip()
    milder = (
        known.hedges.search(translation) is not None
        and _pattern(SOURCE_LANGUAGE, "licence_hedge").search(english) is None
    )
    question = _pattern(SOURCE_LANGUAGE, "question").search(english) is not None
    if question:
        how = _pattern(SOURCE_LANGUAGE, "asks_how").search(english) is not None
        lost_how = how and not known.how.search(translation)
        return float(
            milder + lost_how + (not known.question.search(translation) and not known.how.search(translation))
        )
    added_how = not _METHOD.search(english) and known.asks_how.search(translation) is not None
    asks = "?" in translation or "؟" in translation
    added = asks and not _pattern(SOURCE_LANGUAGE, "licence_question").search(english)
    requested = _pattern(SOURCE_LANGUAGE, "requests").match(english) is not None
    told = asks or known.asks_how.search(translation) is not None
    lost_request = requested and not told and not _requests(known.hedges.sub("", translation), known, lang)
    added_why = (
        known.asks_why.search(translation) is not None
        and _pattern(SOURCE_LANGUAGE, "licence_why").search(english) is None
    )
    return float(milder + added_how + (added or added_why) + lost_request)


def _requests(text: str, known: Markers, lang: str) -> bool:
    """Return whether a verb of request stands at the beginning or the end of a text, or elsewhere in it.

    That is in the first three or last two words where words are divided by spaces, and in the first ten
    characters in Chinese and Thai. Japanese and Korean patterns say themselves what ends a text.
    """
    words = text.split()
    if lang in ("ja", "ko"):
        ends = text
    elif not LANGUAGES[lang].spaced:
        ends = text[:10]
    else:
        ends = text if len(words) <= 5 else " ".join((*words[:3], "|", *words[-2:]))
    return known.requests.search(ends) is not None or known.elsewhere.search(text) is not None


def missing_verbatim(text: str, text_en: str) -> float | None:
    """Return how many parts of the English that no translator may change are missing from the translation.

    These are addresses, code in backticks, placeholders and tags; a quotation is missing where the English
    has one and the translation no quotation mark. None if the English has none of them.
    """
    parts = _VERBATIM.findall(text_en)
    quoted = QUOTED.search(text_en) is not None
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
