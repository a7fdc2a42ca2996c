"""Identify languages by votes: a script gate, then py3langid, lingua and langdetect.

Measured on the 23,595 strings of the published release: py3langid restricted to the 14 languages is
right on 99.96 %, lingua on 99.6 %; langdetect on 90.7 %, and it knows no Yoruba. So the first decides
where it is sure, the second is asked where it is not, and the third, seeded, where these differ.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import regex

from polyrefuse_data.checks.text import script_pattern
from polyrefuse_data.core.languages import LANGUAGES, Language
from polyrefuse_data.core.unicode_text import cut_long_words

SURE = 0.9
"""Normalised probability from which py3langid decides alone (116 of 23,595 release rows are below)."""

SCRIPT_MAJORITY = 0.5
"""Share of letters from which a script is the text's script."""

LANGDETECT_SEED = 0

_LETTERS = regex.compile(r"\p{L}+")

Loaded = TypeVar("Loaded")


class _Cached(Generic[Loaded]):
    """A function that is called once, by whichever thread asks first; `forget` drops its result."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._kept: tuple[Loaded, ...] = ()

    def __call__(self) -> Loaded:
        kept = self._kept
        if not kept:
            with self._lock:
                kept = self._kept = self._kept or (self._load(),)
        return kept[0]

    def forget(self) -> None:
        self._kept = ()


@dataclass(frozen=True)
class Verdict:
    """The votes on one text by detector; `sure` if a single vote decides."""

    votes: tuple[tuple[str, str | None], ...]
    sure: bool = False

    def score(self, expected: str) -> float | None:
        """Return 1 if the text is in `expected`, 0 if in another language, 0.5 if the votes cannot tell.

        A sure vote decides alone; else one language needs two votes, and against `expected` all that
        name a language must be against it. None for a text without a letter.
        """
        named = [vote for _, vote in self.votes if vote is not None]
        if not self.votes:
            return None
        if self.sure:
            return float(named == [expected] * len(named) and bool(named))
        counts = Counter(named)
        if counts[expected] >= 2:
            return 1.0
        others = [count for code, count in counts.items() if code != expected]
        return 0.0 if counts[expected] == 0 and max(others, default=0) >= 2 else 0.5


@_Cached
def _scripts() -> tuple[str, ...]:
    return tuple(dict.fromkeys(script for language in LANGUAGES.values() for script in language.scripts))


def forget_detectors() -> None:
    """Let the detectors be made anew at their next use: the known languages have changed."""
    for cached in (_scripts, _py3langid, _lingua_detector, _langdetect_codes):
        cached.forget()


def unknown_to_langdetect() -> list[str]:
    """Return the codes of the languages that langdetect does not know: it is never asked about them."""
    return [code for code, language in LANGUAGES.items() if language.code_for("langdetect") is None]


def script_languages(text: str) -> list[Language] | None:
    """Return the languages written in the script of most letters of `text`; None if it has no letter.

    Japanese and Chinese share Han; Kana tells them apart.
    """
    letters = "".join(_LETTERS.findall(text))
    if not letters:
        return None
    total = len(letters)
    shares = {
        script: (total - len(script_pattern((script,)).sub("", letters))) / total for script in _scripts()
    }
    kana = shares.get("Hiragana", 0) + shares.get("Katakana", 0)
    if kana + shares.get("Han", 0) >= SCRIPT_MAJORITY:
        return [LANGUAGES["ja"] if kana > 0 else LANGUAGES["zh"]]
    return [
        language
        for language in LANGUAGES.values()
        if language.required_script is None
        and sum(shares[script] for script in language.scripts) >= SCRIPT_MAJORITY
    ]


class LanguageVotes:
    """Identifies texts among the known languages; models are loaded at first use. Threads may share one.

    With `all_votes` every detector is asked about every text; else the next only where the one before
    is not sure.
    """

    def __init__(self, all_votes: bool = False) -> None:
        self.all_votes = all_votes

    def identify(self, text: str, expected: str) -> Verdict:
        """Return the verdict on `text`, which should be in the language `expected`.

        A detector is not asked where it does not know `expected`; where none does, the script decides alone.
        """
        text = cut_long_words(text)
        candidates = script_languages(text)
        if candidates is None:
            return Verdict(())
        if len(candidates) < 2 and not self.all_votes:
            return Verdict((("script", candidates[0].code if candidates else None),), sure=True)
        votes: list[tuple[str, str | None]] = []
        if len(candidates) == 1:
            votes.append(("script", candidates[0].code))
        first = None
        if LANGUAGES[expected].code_for("py3langid") in _py3langid().nb_classes:
            first, probability = _py3langid().classify(text)
            votes.append(("py3langid", str(first)))
            if probability >= SURE and not self.all_votes:
                return Verdict(tuple(votes), sure=True)
        second = None
        if _lingua_code(LANGUAGES[expected]) is not None:
            second = _lingua(text)
            votes.append(("lingua", second))
        asked = self.all_votes or second != first
        if asked and expected in _langdetect_codes().values():
            votes.append(("langdetect", _langdetect(text)))
        return Verdict(tuple(votes))

    def scores(self, texts: Sequence[str], expected: str) -> list[float | None]:
        """Return the score of each text for the language `expected` (see `Verdict.score`)."""
        return [self.identify(text, expected).score(expected) for text in texts]


@_Cached
def _py3langid() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    wanted = {language.code_for("py3langid") for language in LANGUAGES.values()}
    identifier.set_languages([code for code in identifier.nb_classes if code in wanted])
    return identifier


def _lingua_code(language: Language) -> Any:
    from lingua import IsoCode639_1

    return getattr(IsoCode639_1, str(language.code_for("lingua")).upper(), None)


@_Cached
def _lingua_detector() -> Any:
    from lingua import LanguageDetectorBuilder

    codes = [code for language in LANGUAGES.values() if (code := _lingua_code(language)) is not None]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def _lingua(text: str) -> str | None:
    detected = _lingua_detector().detect_language_of(text)
    return None if detected is None else str(detected.iso_code_639_1.name).lower()


@_Cached
def _langdetect_codes() -> dict[str, str]:
    """Return langdetect's code -> ours, for the languages that it knows."""
    known = set(_langdetect_factory().get_lang_list())
    names = {code: language.code_for("langdetect") for code, language in LANGUAGES.items()}
    return {name: code for code, name in names.items() if name is not None and name in known}


@_Cached
def _langdetect_factory() -> Any:
    from langdetect import detector_factory

    detector_factory.init_factory()
    detector_factory.DetectorFactory.seed = LANGDETECT_SEED
    return detector_factory._factory


def _langdetect(text: str) -> str | None:
    """Return langdetect's best language among ours, seeded; None where it finds none of them."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _langdetect_factory().create()
    detector.append(text)
    try:
        ranked = detector.get_probabilities()
    except LangDetectException:
        return None
    codes = _langdetect_codes()
    return next((codes[candidate.lang] for candidate in ranked if candidate.lang in codes), None)
