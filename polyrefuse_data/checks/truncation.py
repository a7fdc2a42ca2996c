"""Measure whether translations end too early: log odds that the second half of a text is missing.

Two kinds of evidence, both learned from the rows of the same language: the length that the English
predicts, and how the text ends. A text that was cut is half as long as predicted, and ends with a word
or with characters that stand in the middle of other texts and not at their end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import regex

from polyrefuse_data.checks.lexicon import MINIMUM_ROWS
from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.unicode_text import normalize

OUTLIER = 3.5
"""Standard deviations from which a row does not take part in the fit of the lengths."""

MOST_ODDS = 30.0
"""Log odds beyond this are cut off: one kind of evidence never outweighs the other altogether."""

_PART = regex.compile(r"[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}\s]")

Array = np.ndarray[Any, Any]


def truncation(english: Sequence[str], texts: Sequence[str], target: Language) -> list[float] | None:
    """Return the log odds (nats) that half of each text is missing; None for under `MINIMUM_ROWS` rows."""
    if len(texts) < MINIMUM_ROWS:
        return None
    odds = _length_odds(english, texts) + _ending_odds(texts, target)
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
    odds: Array = np.clip(half * residuals / deviations - half**2 / 2, -MOST_ODDS, MOST_ODDS)
    return odds


def _ending_odds(texts: Sequence[str], target: Language) -> Array:
    """Return the log odds of each text's last part to stand in the middle of a text against its end."""
    parts = [_parts(text, target) for text in texts]
    last = Counter(row[-1] for row in parts)
    middle = Counter(part for row in parts for part in row[:-1])
    kinds = len(last.keys() | middle.keys())
    n_last, n_middle = len(parts) - 1, middle.total()
    odds = []
    for row in parts:
        as_middle = (middle[row[-1]] + 0.5) / (n_middle + 0.5 * kinds)
        as_last = (last[row[-1]] - 1 + 0.5) / (n_last + 0.5 * kinds)
        odds.append(np.log(as_middle / as_last))
    return np.array(odds)


def _parts(text: str, target: Language) -> list[str]:
    """Return the parts of a text whose last one is judged: the ends of words, or runs of characters."""
    folded = normalize("NFKC", text).casefold().strip()
    if target.spaced and target.code != "ko":
        return [part[-4:] for part in _PART.findall(folded)] or [""]
    size = 4 if target.code == "th" else 2
    return [folded[start : start + size] for start in range(max(1, len(folded) - size + 1))]
