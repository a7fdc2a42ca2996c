"""Detect replies of a translator that are no translations: refusals, answers, talk about the task."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import yaml

from polyrefuse_data.core.unicode_text import normalize

OPENING_CHARACTERS = 80
"""How much of the beginning of a text is searched: a refusal or a preface opens the text."""


@lru_cache(maxsize=1)
def _phrases() -> dict[str, list[str]]:
    text = (resources.files("polyrefuse_data") / "data" / "translator_talk.yaml").read_text(encoding="utf-8")
    table: dict[str, list[str]] = yaml.safe_load(text)
    return {code: [_fold(phrase) for phrase in phrases] for code, phrases in table.items()}


def _fold(text: str) -> str:
    folded = normalize("NFKC", text).casefold().replace("’", "'").replace("‘", "'")
    return " ".join(folded.split())


def translator_talk(text: str, text_en: str, lang: str) -> float:
    """Return 1 if `text` opens with words that a translator says in its own voice, else 0.

    Searched are the phrases of `lang` and of English, unless the English prompt opens with such words
    itself.
    """
    opening = _fold(text)[:OPENING_CHARACTERS]
    source_opening = _fold(text_en)[:OPENING_CHARACTERS]
    english = _phrases()["en"]
    if any(phrase in source_opening for phrase in english):
        return 0.0
    phrases = english + (_phrases().get(lang, []) if lang != "en" else [])
    return float(any(phrase in opening for phrase in phrases))
