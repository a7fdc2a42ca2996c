"""The alignment alarm: do the translations of a list stand opposite their English at all?

Long prompts have long translations: over a list, the logarithms of the lengths correlate. A list that is
shuffled, shifted or made from other prompts shows no correlation (0.00 for the harmless Chinese halves of
the published release; 0.75-0.98 over its other lists).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINIMUM_ROWS = 12
"""Below so many rows a correlation says nothing (standard error above 0.3)."""

WINDOW_ROWS = 40
"""A shift in the middle of a list hides in the whole; it shows in a window of so many rows."""


@dataclass(frozen=True)
class Alignment:
    """Length correlation of a list, and the lowest over its windows with where that one starts."""

    rows: int
    correlation: float | None
    lowest_window: float | None
    window_start: int


def alignment(texts_en: Sequence[str], texts: Sequence[str]) -> Alignment:
    """Return the correlation of log lengths (Pearson, -1 to 1) of two lists of equal length.

    None where there are too few rows, or where one side's lengths do not vary.
    """
    if len(texts_en) != len(texts):
        raise ValueError(f"{len(texts_en)} English texts for {len(texts)} translations; expected as many")
    logs = np.array(
        [
            [math.log(max(1, len(one))), math.log(max(1, len(other)))]
            for one, other in zip(texts_en, texts, strict=True)
        ]
    ).reshape(-1, 2)
    whole = _correlation(logs)
    lowest, start = None, 0
    if len(logs) > WINDOW_ROWS:
        starts = [*range(0, len(logs) - WINDOW_ROWS, WINDOW_ROWS // 2), len(logs) - WINDOW_ROWS]
        for position in starts:
            value = _correlation(logs[position : position + WINDOW_ROWS])
            if value is not None and (lowest is None or value < lowest):
                lowest, start = value, position
    return Alignment(len(texts), whole, lowest, start)


def _correlation(logs: np.ndarray) -> float | None:
    if len(logs) < MINIMUM_ROWS or not logs.std(axis=0).all():
        return None
    return float(np.corrcoef(logs.T)[0, 1])
