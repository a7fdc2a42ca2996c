"""Rates and areas under the ROC curve, with their intervals. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Z95 = 1.959963984540054


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of `hits` of `n` (Wilson 1927); n must be above 0."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"no rate of {hits} in {n}")
    share = hits / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == n else min(1.0, centre + half))


def difference_of_rates(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of the rates of two independent samples, first - second, with its 95 % interval.

    Each sample is (hits, n). Newcombe (1998, Statistics in Medicine 17, 873-890), method 10: the distances of
    both rates from the ends of their Wilson intervals, squared and added. Raises `ValueError` for no cases.
    """
    (low_first, high_first), (low_second, high_second) = wilson(*first), wilson(*second)
    share_first, share_second = first[0] / first[1], second[0] / second[1]
    difference = share_first - share_second
    below = math.hypot(share_first - low_first, high_second - share_second)
    above = math.hypot(high_first - share_first, share_second - low_second)
    return difference, max(-1.0, difference - below), min(1.0, difference + above)


def auroc(harmful: Sequence[float], harmless: Sequence[float]) -> float | None:
    """Return the area under the ROC curve, P(harmful > harmless) + ½ P(equal); None of nothing."""
    if not len(harmful) or not len(harmless):
        return None
    positive, negative = np.asarray(harmful, float), np.sort(np.asarray(harmless, float))
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def auroc_interval(area: float, n_harmful: int, n_harmless: int) -> tuple[float, float]:
    """Return the 95 % interval of an area under the ROC curve from so many scores of each label.

    Newcombe's (2006) score interval, his method 5: the areas θ with |area - θ| ≤ z·se(θ), and se after
    Hanley and McNeil (1982). It does not shrink to a point at an area of 1. Raises `ValueError` for no
    scores.
    """
    if n_harmful < 1 or n_harmless < 1 or not 0 <= area <= 1:
        raise ValueError(f"no area {area} from {n_harmful} and {n_harmless} scores")

    def outside(theta: float) -> bool:
        mean = (n_harmful + n_harmless) / 2 - 1
        spread = 1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        variance = theta * (1 - theta) * spread / (n_harmful * n_harmless)
        return abs(area - theta) > Z95 * math.sqrt(variance)

    return _edge(outside, 0.0, area), _edge(outside, 1.0, area)


def _edge(outside: Callable[[float], bool], end: float, inside: float) -> float:
    """Return where `outside` changes between `end` and `inside`, by bisection; `end` where it does not."""
    if not outside(end):
        return end
    for _ in range(60):
        middle = (end + inside) / 2
        end, inside = (middle, inside) if outside(middle) else (end, middle)
    return inside
