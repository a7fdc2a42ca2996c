"""Student's t distribution: quantiles for any whole number of degrees of freedom."""

from __future__ import annotations

import math
from functools import lru_cache


def t_cdf(t: float, freedom: int) -> float:
    """Return P(T ≤ t) for `freedom` degrees of freedom: a finite sum (Abramowitz & Stegun 1964, 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    term, total = 1.0, 0.0
    for k in range(freedom // 2):
        total += term
        term *= square * ((2 * k + 2) / (2 * k + 3) if freedom % 2 else (2 * k + 1) / (2 * k + 2))
    if freedom % 2:
        central = 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
    else:
        central = math.sin(angle) * total
    return (1 + central) / 2


@lru_cache(maxsize=1024)
def t_quantile(tail: float, freedom: int) -> float:
    """Return the t that `tail` of the distribution lies above, for a `tail` below a half."""
    low, high = 0.0, 1.0
    while 1 - t_cdf(high, freedom) > tail:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if 1 - t_cdf(middle, freedom) > tail:
            low = middle
        else:
            high = middle
    return high
