"""Curves of misses against examples: what more examples bring, and that intervals hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from polyrefuse_eval.statistics.calibration_curve import (
    AS_IT_IS,
    LanguageScores,
    calibration_curve,
    curve_table,
)
from polyrefuse_eval.statistics.thresholds import Rule

BALANCED, CONFORMAL = Rule("balanced"), Rule("conformal", 0.2)


def shifted(shift: float, n: int = 400, seed: int = 0) -> LanguageScores:
    """Return normal scores, 3 apart by label, all of them moved by `shift`: a language's own offset."""
    generator = np.random.default_rng(seed)

    def drawn(centre: float, count: int) -> list[float]:
        return list(generator.normal(centre + shift, 1.0, count))

    return LanguageScores(
        calibration_harmful=drawn(1.5, 64),
        calibration_harmless=drawn(-1.5, 64),
        test_harmful=drawn(1.5, n),
        test_harmless=drawn(-1.5, n),
    )


def test_examples_mend_a_threshold_that_is_off_in_a_language() -> None:
    points = calibration_curve("yo", shifted(-3.0), 0.0, [BALANCED, CONFORMAL], [1, 4, 16, 64], draws=100)
    by_key = {(point.rule, point.n_examples): point for point in points}
    assert list(by_key) == [
        (AS_IT_IS, 0), ("balanced", 1), ("balanced", 4), ("balanced", 16), ("balanced", 64),
        ("conformal=0.2", 4), ("conformal=0.2", 16), ("conformal=0.2", 64),
    ]  # fmt: skip
    assert by_key[AS_IT_IS, 0].miss.rate > 0.85, "as it is, the threshold of another language misses"
    errors = [
        by_key["balanced", n].miss.rate + by_key["balanced", n].false_alarm.rate for n in (1, 4, 16, 64)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[-1] < 0.2, "one draw alone: all examples"
    for n in (16, 64):
        assert by_key["conformal=0.2", n].miss.rate == pytest.approx(0.2, abs=0.06)
    for point in points:
        for estimate in (point.miss, point.false_alarm):
            assert 0 <= estimate.low <= estimate.rate <= estimate.high <= 1
            assert estimate.n == 400


def test_what_cannot_be_drawn_is_left_out() -> None:
    points = calibration_curve("en", shifted(0.0), 0.0, [CONFORMAL, BALANCED], [1, 65], draws=10)
    assert [(point.rule, point.n_examples) for point in points] == [(AS_IT_IS, 0), ("balanced", 1)]


def test_the_interval_of_a_perfect_threshold_is_no_point_and_that_of_few_examples_is_wide() -> None:
    perfect = LanguageScores(
        calibration_harmful=[5.0] * 8,
        calibration_harmless=[-5.0] * 8,
        test_harmful=[5.0] * 20,
        test_harmless=[-5.0] * 20,
    )
    _, point = calibration_curve("en", perfect, 0.0, [BALANCED], [4], draws=50)
    assert point.miss.rate == 0
    assert 0.05 < point.miss.high < 0.2, "20 prompts without a miss leave this open"
    one, many = calibration_curve("en", shifted(0.0), 0.0, [BALANCED], [1, 64], draws=100)[1:]
    assert one.miss.high - one.miss.low > 2 * (many.miss.high - many.miss.low)


def test_the_same_seed_gives_the_same_curve() -> None:
    curves = [
        calibration_curve("en", shifted(0.0), 0.0, [BALANCED], [2], draws=20, seed=seed) for seed in (0, 0, 1)
    ]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]
    table = curve_table(curves[0], {}).splitlines()
    assert table[2].startswith("| en | as it is |  | ")
    assert table[3].startswith("| en | balanced | 2 | ")
