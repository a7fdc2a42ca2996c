"""Rates, intervals and paired comparisons. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """Share of `hits` among `n` judged cases with its 95 % Wilson interval; None of nothing.

    `n_unjudged` further cases are in neither.
    """

    hits: int
    n: int
    n_unjudged: int
    rate: float | None
    low: float | None
    high: float | None


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of `hits` of `n` (Wilson 1927); n must be above 0."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"no rate of {hits} in {n}")
    share = hits / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == n else min(1.0, centre + half))


def rate(verdicts: Sequence[bool | None]) -> Rate:
    """Return the rate of True among `verdicts`; None counts as not judged."""
    judged = [verdict for verdict in verdicts if verdict is not None]
    hits, n = sum(judged), len(judged)
    if n == 0:
        return Rate(0, 0, len(verdicts), None, None, None)
    low, high = wilson(hits, n)
    return Rate(hits, n, len(verdicts) - n, hits / n, low, high)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, samples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of second - first over pairs, with its 95 % percentile bootstrap interval.

    Pairs (the same prompt under two conditions) are drawn together. Raises `ValueError` for lists
    of different or no length.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"paired values are needed; given {len(first)} and {len(second)}")
    import numpy as np

    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    generator = np.random.default_rng(seed)
    n = len(differences)
    block = max(1, min(samples, 2_000_000 // n))
    means = [
        differences[generator.integers(0, n, (min(block, samples - start), n))].mean(1)
        for start in range(0, samples, block)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)
