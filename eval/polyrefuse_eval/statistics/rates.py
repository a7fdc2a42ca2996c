"""Rates, intervals and paired comparisons. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, with_config

from polyrefuse_data.core.statistics import Z95 as Z95
from polyrefuse_data.core.statistics import wilson as wilson

Array = NDArray[np.float64]

SAMPLES = 10_000
"""Bootstrap samples: an end of a 95 % interval then stands to about 0.002 standard deviations of rank."""


TOLERANCE = 1e-6
"""Largest difference between a stated rate and the ratio of its counts."""


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
@dataclass(frozen=True, kw_only=True)
class Rate:
    """Share of `hits` among `n` judged cases with its 95 % Wilson interval; None of nothing.

    `n_unjudged` further cases are in neither. Raises `ValueError` for a rate that is not the ratio of its
    counts, or not in its interval.
    """

    hits: int
    n: int
    n_unjudged: int
    rate: float | None
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        counts = f"{self.hits} of {self.n}, {self.n_unjudged} more not judged"
        if not (0 <= self.hits <= self.n <= 10**12 and 0 <= self.n_unjudged <= 10**12):
            raise ValueError(f"no rate of {counts}")
        known = [value for value in (self.rate, self.low, self.high) if value is not None]
        if self.n == 0 and known:
            raise ValueError(f"its rate is {known[0]} of nothing")
        if self.n == 0:
            return
        low, share, high = self.low, self.rate, self.high
        if share is None or low is None or high is None or abs(share - self.hits / self.n) > TOLERANCE:
            raise ValueError(f"its rate is {share}, not {counts}")
        if not 0 <= low <= share + TOLERANCE <= high + 2 * TOLERANCE <= 1 + 2 * TOLERANCE:
            raise ValueError(f"the interval {low} to {high} does not hold its rate {share}")


def rate(verdicts: Sequence[bool | None]) -> Rate:
    """Return the rate of True among `verdicts`; None counts as not judged."""
    judged = [verdict for verdict in verdicts if verdict is not None]
    hits, n = sum(judged), len(judged)
    if n == 0:
        return Rate(hits=0, n=0, n_unjudged=len(verdicts), rate=None, low=None, high=None)
    low, high = wilson(hits, n)
    return Rate(hits=hits, n=n, n_unjudged=len(verdicts) - n, rate=hits / n, low=low, high=high)


def bounds(hits: int, n: int, n_unjudged: int) -> tuple[float, float] | None:
    """Return the least and the greatest rate that `n_unjudged` undecided cases leave open; None of nothing.

    `hits` of the `n` judged cases hit: the least rate counts no undecided case as a hit, the greatest all.
    """
    cases = n + n_unjudged
    return (hits / cases, (hits + n_unjudged) / cases) if cases else None


def resamples(n_groups: int, samples: int = SAMPLES, seed: int = 0) -> Array:
    """Return how often each of `n_groups` is drawn in each bootstrap sample: [samples, n_groups].

    Every row sums to `n_groups` (Efron 1979). The same array for all languages and conditions keeps
    their comparisons paired.
    """
    if n_groups < 1:
        raise ValueError("a bootstrap needs at least one group")
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, [1 / n_groups] * n_groups, size=samples).astype(np.float64)


def resampled_rates(weights: Array, sums: Array, counts: Array) -> Array:
    """Return the rate in each bootstrap sample: [samples, k], nan where a sample holds no case.

    `weights` [samples, groups] from `resamples`; `sums` and `counts` [groups, k] are each group's sum of
    values and number of cases: groups are drawn whole.
    """
    totals = weights @ counts
    with np.errstate(invalid="ignore", divide="ignore"):
        rates: Array = np.where(totals > 0, (weights @ sums) / totals, np.nan)
    return rates


def interval(values: Array) -> tuple[float, float] | None:
    """Return the 2.5 % and 97.5 % percentiles of bootstrap values; None where none is a number."""
    real = values[~np.isnan(values)]
    if real.size == 0:
        return None
    low, high = np.percentile(real, [2.5, 97.5])
    return float(low), float(high)


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    *,
    groups: Sequence[Any] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean of second - first over pairs, with its 95 % percentile bootstrap interval.

    Pairs (the same prompt under two conditions) are drawn together, and pairs of one of `groups` (default:
    each its own) too. Raises `ValueError` for lists of different or no length.
    """
    if len(first) != len(second) or not first or (groups is not None and len(groups) != len(first)):
        raise ValueError(f"paired values are needed; given {len(first)} and {len(second)}")
    names = list(range(len(first))) if groups is None else list(groups)
    index = {name: place for place, name in enumerate(dict.fromkeys(names))}
    place = np.array([index[name] for name in names])
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    sums: Array = np.bincount(place, weights=differences).astype(np.float64)[:, None]
    counts: Array = np.bincount(place).astype(np.float64)[:, None]
    ends = interval(resampled_rates(resamples(len(index), samples, seed), sums, counts))
    if ends is None:
        raise ValueError("no bootstrap sample holds a pair")
    return float(differences.mean()), *ends


def sign_flip_p(differences: Sequence[int]) -> float:
    """Return the exact two-sided p-value of the sum of `differences` under flips of their signs.

    Fisher's randomization test for pairs (1935): if two conditions do the same, each group's difference
    is as likely as its opposite. With one prompt a group it is McNemar's exact test (1947). All sign
    patterns are counted, by convolution; no sample is drawn.
    """
    sizes = Counter(abs(value) for value in differences if value)
    reach = sum(size * times for size, times in sizes.items())
    if reach == 0:
        return 1.0
    chances = np.ones(1)
    for size, times in sorted(sizes.items()):
        step = np.zeros(2 * size * times + 1)
        step[:: 2 * size] = _binomial(times)
        chances = np.convolve(chances, step)
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(sum(differences))
    return min(1.0, float(chances[far].sum()))


def _binomial(n: int) -> Array:
    """Return the probabilities of 0 … n heads in n fair throws."""
    return np.array([math.comb(n, heads) / 2**n for heads in range(n + 1)])


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p-values (Holm 1979), in the order given.

    Reject where one is at most α, and the chance of any false rejection is at most α. None (not tested)
    stays None and counts for nothing.
    """
    tested = sorted((value, index) for index, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, index) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = highest
    return adjusted
