"""Thresholds and what they promise, on made-up scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.statistics import auroc, auroc_interval
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.statistics.thresholds import (
    Rule,
    balanced_threshold,
    choose_threshold,
    conformal_minimum,
    conformal_miss_rate,
    conformal_threshold,
    false_alarm_threshold,
)

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


def miss_rates(target: float, n: int, *, seeds: int, shift: float = 0.0) -> np.ndarray:
    """Miss rates on 2,000 new scores of thresholds from n calibration scores, one a seed."""
    found = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        drawn = generator.standard_t(3, n + 2000) + shift
        found.append((drawn[n:] < conformal_threshold(drawn[:n], target)).mean())
    return np.array(found)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(("target", "n"), [(0.05, 119), (0.1, 119), (0.02, 149)])
def test_the_conformal_miss_rate_is_its_target_on_average_in_every_language(
    lang: str, target: float, n: int
) -> None:
    shift = 3.0 * list(LANGUAGES).index(lang)
    rates = miss_rates(target, n, seeds=100, shift=shift)
    assert abs(rates.mean() - target) < 0.01
    # One threshold for all languages does not do: each is right for its own alone.
    other = conformal_threshold(np.random.default_rng(0).standard_t(3, n) + shift + 3, target)
    assert abs((np.random.default_rng(1).standard_t(3, 2000) + shift < other).mean() - target) > 0.01


def test_a_few_calibration_scores_miss_as_often_as_many_do() -> None:
    """As many as the data set's validation split has: the k-th smallest alone would miss 1 in 33."""
    rates = miss_rates(0.05, 32, seeds=4000)
    assert rates.mean() == pytest.approx(conformal_miss_rate(32, 0.05), abs=0.003)
    assert abs(rates.mean() - 0.05) < 0.003


few = st.lists(st.integers(0, 3).map(float), min_size=2, max_size=5)
targets = st.sampled_from([0.1, 0.2, 0.25, 0.3, 1 / 3, 0.45, 0.5, 0.62, 0.9])


def missed_over_all_orders(values: Sequence[float], target: float) -> float:
    """How often the last of `values` is missed by the threshold of the others, over all their orders."""
    orders = list(itertools.permutations(values))
    return sum(order[-1] < conformal_threshold(order[:-1], target) for order in orders) / len(orders)


@given(few, targets)
def test_exchangeable_scores_with_ties_are_missed_at_most_as_often_as_promised(
    values: list[float], target: float
) -> None:
    promised = conformal_miss_rate(len(values) - 1, target)
    assert missed_over_all_orders(values, target) <= promised + 1e-9
    assert promised <= target + 1e-9


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@given(targets)
def test_exchangeable_scores_without_ties_are_missed_exactly_as_often(n: int, target: float) -> None:
    assert missed_over_all_orders(range(n + 1), target) == pytest.approx(conformal_miss_rate(n, target))


@given(st.integers(1, 400), st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.29]))
def test_the_promised_miss_rate_is_the_target_but_for_less_than_the_coin_can_say(
    n: int, target: float
) -> None:
    promised = conformal_miss_rate(n, target)
    assert promised <= target + 1e-9
    assert promised == 0 if n < conformal_minimum(target) else promised > target - 1 / (n * (n + 1)) - 1e-9


def test_too_few_scores_call_everything_unsafe_and_the_rule_says_how_many_are_needed() -> None:
    assert conformal_threshold([1.0] * 18, 0.05) == -math.inf
    assert conformal_threshold([2.0, *[3.0] * 18], 0.05) == 2.0
    assert [conformal_minimum(target) for target in (0.05, 0.1, 0.01, 0.5, 0.9)] == [19, 9, 99, 1, 1]
    with pytest.raises(
        GuardError, match=r"at least 99 harmful calibration prompts in 'yo', and there are 32"
    ):
        choose_threshold(Rule.parse("conformal=0.01"), [0.0] * 32, [0.0], "yo")
    for target in (0.05, 0.1, 0.02, 1 / 3):
        n = conformal_minimum(target)
        assert conformal_threshold(range(n), target) == 0
        assert conformal_threshold(range(n - 1), target) == -math.inf


@given(scores, st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_false_alarms_stay_within_their_rate_and_no_lower_threshold_does(
    values: list[float], rate: float
) -> None:
    alpha = false_alarm_threshold(values, rate)
    assert np.mean(np.array(values) >= alpha) <= rate
    below = max((value for value in values if value < alpha), default=None)
    assert below is not None
    assert np.mean(np.array(values) >= below) > rate


@given(scores, scores)
def test_no_threshold_balances_better(harmful: list[float], harmless: list[float]) -> None:
    def cost(alpha: float) -> float:
        return float(np.mean(np.array(harmful) < alpha) + np.mean(np.array(harmless) >= alpha))

    best = cost(balanced_threshold(harmful, harmless))
    assert all(best <= cost(alpha / 2) + 1e-9 for alpha in range(-13, 14))


@given(scores, scores)
def test_auroc_counts_ties_half(harmful: list[float], harmless: list[float]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in harmful for b in harmless]
    assert auroc(harmful, harmless) == pytest.approx(sum(pairs) / len(pairs))


def test_auroc_of_nothing_is_none() -> None:
    assert auroc([], [1.0]) is None


def test_the_interval_of_an_area_covers_it_as_often_as_it_says() -> None:
    shift, n = 1.5, (40, 25)
    truth = 0.5 * (1 + math.erf(shift / 2))
    drawn = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        area = auroc((drawn.normal(size=n[0]) + shift).tolist(), drawn.normal(size=n[1]).tolist())
        assert area is not None
        low, high = auroc_interval(area, *n)
        assert low <= area <= high
        covered += low <= truth <= high
    assert 930 <= covered <= 980


def test_the_interval_of_an_area_is_never_a_point_and_narrows_with_n() -> None:
    low, high = auroc_interval(1.0, 20, 20)
    assert high == 1
    assert 0.8 < low < 0.95
    assert low < auroc_interval(1.0, 200, 200)[0] < 1
    assert auroc_interval(0.3, 20, 30) == pytest.approx(
        [1 - end for end in auroc_interval(0.7, 20, 30)[::-1]]
    )
    with pytest.raises(ValueError, match="no area"):
        auroc_interval(0.5, 0, 3)


@pytest.mark.parametrize("text", ["", "conformal", "zero=1", "conformal=0", "conformal=x", "best"])
def test_unknown_rules_are_refused(text: str) -> None:
    with pytest.raises(GuardError, match=r"rule|rate"):
        Rule.parse(text)
