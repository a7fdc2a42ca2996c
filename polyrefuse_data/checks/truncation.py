"""Measure whether a part of a translation is missing: weighted log odds of several kinds of evidence.

All is learned from the rows of the same language: the length that the English predicts; how texts end, where
a text that was cut ends with a word or with characters that stand in the middle of other texts and not at
their end; and the final punctuation and number of sentences of the English. That a stretch of the English has
no words in the translation is another module's evidence (`LexicalFit.omission`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import regex

from polyrefuse_data.checks.lexicon import MINIMUM_ROWS
from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.unicode_text import normalize, without_final_punctuation

OUTLIER = 3.5
"""Standard deviations from which a row does not take part in the fit of the lengths."""

LENGTH_ODDS = (-40.0, 12.0)
"""Log odds of the length are cut off here: a text that is short and ends well is mostly a concise one."""

LENGTH, OMISSION, CLOSING, SENTENCES, OPENING = 0.75, 0.75, 2.0, 3.0, 0.3
"""Weights of the kinds of evidence, the same in every language, which is not independent and so does not just
add up: of the length, of the stretch left out, of the final punctuation, of a sentence fewer, and of the
beginning. They and those of `_endings` were chosen by planted cuts in one half of the published release."""

Array = np.ndarray[Any, Any]
Parts = Callable[[str], list[str]]

_PART = regex.compile(r"[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}\s]")
_SENTENCE_END = regex.compile(r"[.!?؟…]+(?=\s|\Z|[\"”»])|[。！？]")


def truncation(
    english: Sequence[str], texts: Sequence[str], omission: Sequence[float], target: Language
) -> list[float] | None:
    """Return the log odds (nats) that a part of each text is missing; None for under `MINIMUM_ROWS` rows.

    `omission` is what the lexicon says of each row.
    """
    if len(texts) < MINIMUM_ROWS:
        return None
    odds = LENGTH * _length_odds(english, texts) + OMISSION * np.array(omission)
    odds += CLOSING * _closing_odds(english, texts) + SENTENCES * _sentences_fewer(english, texts)
    for weight, parts in _endings(target):
        odds += weight * _edge_odds([parts(text) for text in texts], -1)
    odds += OPENING * _edge_odds([_words(text) if target.spaced else _runs(text, 2) for text in texts], 0)
    return [round(float(value), 3) for value in odds]


def _length_odds(english: Sequence[str], texts: Sequence[str]) -> Array:
    """Return the log odds of half the predicted length against all of it, both normal in the logarithm.

    log(length) = a + b log(characters of the English) + c log(words of the English), fitted by least squares
    without outliers; the variance is d + e / words.
    """
    words = np.array([max(1, len(text.split())) for text in english], dtype=float)
    characters = np.log([max(1, len(text)) for text in english])
    lengths = np.log([max(1, len(text)) for text in texts])
    design = np.stack([np.ones(len(words)), characters, np.log(words)], axis=1)
    spread = np.stack([np.ones(len(words)), 1 / words], axis=1)
    inside = np.ones(len(words), dtype=bool)
    for _ in range(3):
        coefficients = np.linalg.lstsq(design[inside], lengths[inside], rcond=None)[0]
        residuals = lengths - design @ coefficients
        typical = max(1e-3, 1.4826 * float(np.median(np.abs(residuals[inside]))))
        squares = np.minimum(residuals[inside] ** 2, (3 * typical) ** 2)
        variances = spread @ np.linalg.lstsq(spread[inside], squares, rcond=None)[0]
        deviations = np.sqrt(np.maximum(variances, typical**2 / 4))
        inside = np.abs(residuals) < OUTLIER * deviations
    half = np.log(0.5) / deviations
    odds: Array = np.clip(half * residuals / deviations - half**2 / 2, *LENGTH_ODDS)
    return odds


def _edge_odds(rows: Sequence[Sequence[str]], edge: int) -> Array:
    """Return the log odds of each text's part at its edge to stand inside of texts against at their edge.

    `rows` holds the parts of each text; the edge is 0, the beginning, or -1, the end. The row's own part at
    the edge is left out of the counts.
    """
    at_edge = Counter(row[edge] for row in rows)
    inside = Counter(part for row in rows for part in (row[1:] if edge == 0 else row[:-1]))
    kinds = len(at_edge.keys() | inside.keys())
    scale = (len(rows) - 1 + 0.5 * kinds) / (inside.total() + 0.5 * kinds)
    return np.array([np.log(scale * (inside[row[edge]] + 0.5) / (at_edge[row[edge]] - 0.5)) for row in rows])


def _endings(target: Language) -> list[tuple[float, Parts]]:
    """Return the ways to divide a text whose last part is judged, with their weights.

    Ends of words with the punctuation that follows, and without it the ends of the last word, the word, and
    the last two words; runs of characters where words are not divided by spaces, and in Korean both.
    """
    run = 4 if target.code == "th" else 2
    if not target.spaced:
        return [
            (1.25, lambda text: _runs(_folded(text), run)),
            *_runs_of_ends((0.25, 1), (0.5, 2), (0.75, 4)),
        ]
    words: list[tuple[float, Parts]] = [
        (0.25, lambda text: [word[-2:] for word in _words(text)]),
        (0.4, lambda text: [word[-4:] for word in _words(text)]),
        (0.5, _words),
    ]
    if target.code == "ko":
        return [
            (1.0, lambda text: _runs(_folded(text), run)),
            *words,
            (0.6, lambda text: _runs(text.strip(), 3)),
        ]
    return [
        (1.0, lambda text: [part[-4:] for part in _PART.findall(_folded(text))] or [""]),
        *words,
        (0.6, lambda text: [" ".join(pair) for pair in pairwise(["", *_words(text)])]),
    ]


def _runs_of_ends(*sizes: tuple[float, int]) -> list[tuple[float, Parts]]:
    return [(weight, lambda text, size=size: _runs(text, size)) for weight, size in sizes]  # type: ignore[misc]


def _folded(text: str) -> str:
    return normalize("NFKC", text).casefold().strip()


def _words(text: str) -> list[str]:
    """Return the words and marks of a text without its final punctuation, at least one."""
    return _PART.findall(without_final_punctuation(text.strip())) or [""]


def _runs(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(max(1, len(text) - size + 1))]


def _closing_odds(english: Sequence[str], texts: Sequence[str]) -> Array:
    """Return -log of the share of the other rows that end as each text does, of those whose English does."""
    ends_en, ends = [_closing(text) for text in english], [_closing(text) for text in texts]
    pairs, of_english = Counter(zip(ends_en, ends, strict=True)), Counter(ends_en)
    return np.array(
        [-np.log((pairs[pair] - 0.5) / (of_english[pair[0]] + 2)) for pair in zip(ends_en, ends, strict=True)]
    )


def _closing(text: str) -> str:
    """Return the last mark of a text's final punctuation, empty if it has none."""
    stripped = text.strip()
    return normalize("NFKC", stripped[len(without_final_punctuation(stripped)) :])[-1:]


def _sentences_fewer(english: Sequence[str], texts: Sequence[str]) -> Array:
    """Return how many marks of the end of a sentence each text has less than its English, -2 to 2."""
    fewer = [
        len(_SENTENCE_END.findall(text_en)) - len(_SENTENCE_END.findall(text))
        for text_en, text in zip(english, texts, strict=True)
    ]
    clipped: Array = np.clip(np.array(fewer, dtype=float), -2, 2)
    return clipped
