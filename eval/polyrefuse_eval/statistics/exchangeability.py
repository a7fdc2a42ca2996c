"""What a conformal threshold promises of one guard, and whether two sets of scores allow it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from polyrefuse_eval.statistics.thresholds import conformal_ranks

PERMUTATIONS = 4_999
"""Permutations of a test: the least p is 1 in 5,000, which outlives a correction over 14 languages."""

_HALVINGS = 60


def guard_interval(n: int, target: float, share: float = 0.95) -> tuple[float, float]:
    """Return between which miss rates `share` of guards lie whose threshold is `conformal_threshold` of `n`.

    Of scores that are exchangeable and have no ties, the miss rate of the k-th smallest of n as a threshold
    is distributed as Beta(k, n + 1 - k) over draws of the n scores, whatever the scores are distributed as;
    here it is the mixture of k and k + 1. Its mean is `conformal_miss_rate`: the bound is one of the mean.
    """
    rank, luckier = conformal_ranks(n, target)
    if not rank:
        return 0.0, 0.0
    weight = luckier / n

    def at_most(rate: float) -> float:
        return (1 - weight) * _beta_at_most(rank, n, rate) + weight * _beta_at_most(rank + 1, n, rate)

    low, high = (_quantile(at_most, tail) for tail in ((1 - share) / 2, (1 + share) / 2))
    return low, high


def _beta_at_most(k: int, n: int, rate: float) -> float:
    """Return P(Beta(k, n + 1 - k) ≤ rate) = P(Binomial(n, rate) ≥ k); 0 for k above n."""
    below = sum(math.comb(n, hits) * rate**hits * (1 - rate) ** (n - hits) for hits in range(min(k, n + 1)))
    return 1 - below


def _quantile(at_most: Callable[[float], float], share: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) < share else (low, middle)
    return high


def exchangeable_p(first: Sequence[float], second: Sequence[float], seed: int = 0) -> float:
    """Return the p of a permutation test that scores are exchangeable between `first` and `second`.

    The statistic is Kolmogorov's and Smirnov's, the largest distance between the two distributions, so that
    tails count too; p = (1 + as large) / (1 + all).
    """
    pool = np.concatenate([np.asarray(first, float), np.asarray(second, float)])
    order = np.argsort(pool, kind="stable")
    # Distributions are compared behind the last of equal scores.
    ends = np.flatnonzero(np.append(np.diff(pool[order]) != 0, True))
    steps = np.where(np.arange(len(pool)) < len(first), 1 / len(first), -1 / len(second))

    def distance(drawn: NDArray[np.float64]) -> float:
        return float(np.abs(np.cumsum(drawn)[ends]).max())

    found = distance(steps[order])
    generator = np.random.default_rng(seed)
    as_large = sum(distance(generator.permutation(steps)) >= found - 1e-9 for _ in range(PERMUTATIONS))
    return (1 + as_large) / (1 + PERMUTATIONS)
