"""Statistics against known values and theorems."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrefuse_eval.statistics.rates import (
    holm,
    interval,
    paired_bootstrap,
    resampled_rates,
    resamples,
    sign_flip_p,
    wilson,
)


def test_the_sign_flip_test_is_mcnemars_exact_test_for_one_prompt_a_group() -> None:
    # Binomial(10, 1/2): P(at most 1 or at least 9) = 22 / 1024.
    assert sign_flip_p([1] * 9 + [-1] + [0] * 40) == pytest.approx(22 / 1024)
    # Six discordant pairs, all one way: 2 / 2^6.
    assert sign_flip_p([-1] * 6) == pytest.approx(2 / 64)
    assert sign_flip_p([]) == sign_flip_p([0, 0]) == sign_flip_p([1, -1]) == 1.0
    # 572 pairs that all change: the least p there is, and no overflow on the way.
    assert 0 < sign_flip_p([1] * 572) < 1e-170


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_the_sign_flip_test_counts_every_pattern_of_signs(differences: list[int]) -> None:
    observed = abs(sum(differences))
    patterns = list(product((1, -1), repeat=len(differences)))
    far = sum(
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) >= observed
        for signs in patterns
    )
    assert sign_flip_p(differences) == pytest.approx(far / len(patterns))
    assert sign_flip_p([-value for value in differences]) == pytest.approx(sign_flip_p(differences))


def test_the_sign_flip_test_rejects_a_true_null_no_more_often_than_it_says() -> None:
    draw = np.random.default_rng(0)
    p_values = [sign_flip_p(list(draw.integers(-1, 2, 60))) for _ in range(2000)]
    for alpha in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p_values) <= alpha) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 2000)
    # And it sees a change that is there.
    assert np.median([sign_flip_p(list(draw.choice([0, 0, 1], 60))) for _ in range(200)]) < 1e-4


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=14))
def test_holm_keeps_the_order_and_never_gains(p_values: list[float | None]) -> None:
    adjusted = holm(p_values)
    tested = [(p, q) for p, q in zip(p_values, adjusted, strict=True) if p is not None and q is not None]
    assert len(tested) == sum(p is not None for p in p_values)
    assert [q is None for q in adjusted] == [p is None for p in p_values]
    for p, q in tested:
        assert p <= q <= min(1.0, len(tested) * p) or math.isclose(p, q)
        assert all(q <= other for value, other in tested if value > p)


def test_holm_holds_the_family_wise_error() -> None:
    draw = np.random.default_rng(1)
    false = sum(min(q for q in holm(list(draw.random(14))) if q is not None) <= 0.05 for _ in range(2000))
    assert false / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    uncorrected = sum(min(draw.random(14)) <= 0.05 for _ in range(2000))
    assert uncorrected / 2000 > 0.4


def test_resamples_draw_groups_with_replacement() -> None:
    weights = resamples(20, 5000, seed=3)
    assert weights.shape == (5000, 20)
    assert (weights.sum(1) == 20).all()
    # The count of a group is Binomial(20, 1/20): mean 1, variance 0.95.
    assert weights.mean() == pytest.approx(1.0)
    assert weights.var(0).mean() == pytest.approx(0.95, abs=0.03)
    assert (resamples(20, 5000, seed=3) == weights).all()
    with pytest.raises(ValueError, match="at least one group"):
        resamples(0)


def test_a_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    covered, trials, chance = 0, 300, 0.2
    weights = resamples(150, 1000, seed=0)
    for _ in range(trials):
        changes = draw.choice([-1.0, 0.0, 1.0], size=(150, 1), p=[0.1, 0.6, 0.3])
        ends = interval(resampled_rates(weights, changes, np.ones_like(changes))[:, 0])
        assert ends is not None
        covered += ends[0] <= chance <= ends[1]
    assert 0.90 <= covered / trials <= 0.99


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(4)
    for chance in (0.03, 0.5, 0.9):
        hits = draw.binomial(100, chance, 2000)
        ends = [wilson(int(one), 100) for one in hits]
        covered = np.mean([low <= chance <= high for low, high in ends])
        assert 0.92 <= covered <= 0.985


def test_groups_are_drawn_whole() -> None:
    draw = np.random.default_rng(5)
    per_group = draw.choice([0.0, 1.0], 40)
    second = np.repeat(per_group, 5)
    groups = np.repeat(np.arange(40), 5)
    first = np.zeros_like(second)
    _, low, high = paired_bootstrap(list(first), list(second))
    _, low_grouped, high_grouped = paired_bootstrap(list(first), list(second), groups=list(groups))
    # Five copies of a prompt tell no more than one: sqrt(5) times as wide.
    assert (high_grouped - low_grouped) / (high - low) == pytest.approx(math.sqrt(5), rel=0.15)


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(0, 3))
def test_a_sample_without_cases_is_no_number(n_groups: int, filled: int) -> None:
    counts = np.zeros((n_groups, 1))
    counts[: min(filled, n_groups)] = 1
    sampled = resampled_rates(resamples(n_groups, 50), counts, counts)
    assert np.isnan(sampled).all() == (not counts.any())
    assert set(sampled[~np.isnan(sampled)]) <= {1.0}
    assert interval(np.array([np.nan])) is None
