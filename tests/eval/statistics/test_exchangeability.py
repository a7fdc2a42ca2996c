"""What conformal thresholds promise of one guard, against draws; and when scores are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from polyrefuse_eval.statistics.calibration_curve import (
    Exchangeability,
    LanguageScores,
    calibration_curve,
    curve_table,
    exchangeability,
)
from polyrefuse_eval.statistics.exchangeability import exchangeable_p, guard_interval
from polyrefuse_eval.statistics.thresholds import Rule, conformal_miss_rate, conformal_threshold


@pytest.mark.parametrize(("n", "target"), [(32, 0.05), (19, 0.05), (100, 0.1), (7, 0.3)])
def test_single_guards_miss_as_the_beta_distribution_says_and_their_mean_keeps_the_bound(
    n: int, target: float
) -> None:
    generator = np.random.default_rng(n)
    # Uniform scores: a threshold's miss rate is the threshold itself.
    draws = generator.uniform(size=(4000, n))
    missed = np.array([conformal_threshold(drawn.tolist(), target) for drawn in draws])
    low, high = guard_interval(n, target)
    assert np.mean(missed < low) == pytest.approx(0.025, abs=0.01)
    assert np.mean(missed > high) == pytest.approx(0.025, abs=0.01)
    assert missed.mean() == pytest.approx(conformal_miss_rate(n, target), abs=4 * missed.std() / 4000**0.5)
    assert conformal_miss_rate(n, target) <= target
    assert guard_interval(n, target, 0.5)[0] > low


def test_with_too_few_examples_nothing_is_missed() -> None:
    assert guard_interval(5, 0.05) == (0.0, 0.0)


def scores(shift: float, seed: int) -> LanguageScores:
    generator = np.random.default_rng(seed)
    calibration, test = generator.normal(size=32), generator.normal(size=300) - shift
    return LanguageScores(
        calibration_harmful=calibration.tolist(),
        calibration_harmless=(calibration - 5).tolist(),
        test_harmful=test.tolist(),
        test_harmless=(test - 5).tolist(),
    )


def test_prompts_of_another_kind_are_told_apart_and_those_of_one_kind_are_not() -> None:
    told_apart = [exchangeable_p(*_harmful(scores(0.0, seed))) <= 0.1 for seed in range(40)]
    assert 0 <= sum(told_apart) <= 10  # one in ten, by chance
    assert exchangeable_p(*_harmful(scores(1.0, 1))) < 0.001
    ties = [0.0] * 20
    assert exchangeable_p(ties, ties) == 1.0
    by_lang = {"en": scores(0.0, 1), "de": scores(1.0, 1)}
    found = exchangeability(by_lang, {"en": 1.0, "de": 0.25})
    assert found["de"].p < 0.01 < found["en"].p
    assert found["de"].covered == 0.25


def _harmful(of: LanguageScores) -> tuple[list[float], list[float]]:
    return list(of.calibration_harmful), list(of.test_harmful)


def test_a_shift_between_the_splits_breaks_the_bound_and_exchanging_them_keeps_it() -> None:
    rule = Rule("conformal", 0.05)
    shifted = scores(2.0, 3)
    point = calibration_curve("de", shifted, 0.0, [rule], [32], draws=400)[-1]
    assert point.exchanged is not None
    assert point.promised == guard_interval(32, 0.05)
    assert point.miss.rate > point.promised[1]
    assert point.exchanged.rate == pytest.approx(0.05, abs=0.01)
    assert point.exchanged.n == 300
    alike, other = Exchangeability(p=0.4, covered=1.0), Exchangeability(p=0.001, covered=0.25)
    table = curve_table([point], {"de": other, "en": alike})
    assert "75% of harmful test prompts are of a type that no calibration prompt has" in table
    assert "scores differ in de (permutation test" in table
    assert "the same types, and a permutation test does not" in curve_table([point], {"en": alike})
    plain = calibration_curve("de", shifted, 0.0, [Rule("balanced")], [32], draws=2)[-1]
    assert (plain.promised, plain.exchanged) == (None, None)
    assert "Promised" not in curve_table([plain], {"de": other})
