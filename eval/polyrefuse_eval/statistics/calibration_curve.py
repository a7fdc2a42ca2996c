"""How misses and false alarms fall with calibration examples: thresholds drawn again and again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyrefuse_eval.statistics.rates import interval, rate
from polyrefuse_eval.statistics.thresholds import Rule, choose_threshold, conformal_minimum

AS_IT_IS = "as it is"
"""The threshold that a guard brings along."""

PER_DRAW = 20
"""Rates drawn from the posterior of each draw: with 200 draws, an interval's ends rest on 4,000 rates."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LanguageScores:
    """Scores of one language: to calibrate with, and to test on, by label."""

    calibration_harmful: Sequence[float]
    calibration_harmless: Sequence[float]
    test_harmful: Sequence[float]
    test_harmless: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean `rate` on `n` test prompts, with a 95 % interval."""

    rate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The rates of thresholds by `rule` from `n_examples` of each label, over `draws` of these examples."""

    lang: str
    rule: str
    n_examples: int
    draws: int
    miss: Estimate
    false_alarm: Estimate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def calibration_curve(
    lang: str,
    scores: LanguageScores,
    alpha: float,
    rules: Sequence[Rule],
    examples: Sequence[int],
    *,
    draws: int,
    seed: int = 0,
) -> list[CurvePoint]:
    """Return the rates at the threshold `alpha`, then by rule and number of calibration examples.

    Each of `draws` draws that many calibration scores of each label without replacement, and tests the
    threshold that the rule draws from them. Numbers that there are not enough scores for are left out, and so
    are those with which a conformal rule could promise nothing but that every prompt is unsafe.

    The interval at `alpha` is Wilson's. The others hold the spread of the draws and of the test prompts: they
    are the 2.5 % and 97.5 % percentiles of rates drawn, for each threshold, from Jeffreys' posterior
    Beta(hits + 1/2, n - hits + 1/2) of its rate (Brown, Cai and DasGupta 2001).
    """
    points = [_fixed_point(lang, scores, alpha)]
    available = min(len(scores.calibration_harmful), len(scores.calibration_harmless))
    for rule in rules:
        least = conformal_minimum(rule.target) if rule.name == "conformal" and rule.target else 1
        for n_examples in examples:
            if least <= n_examples <= available:
                points.append(_drawn_point(lang, scores, rule, n_examples, draws, seed))
    return points


def _fixed_point(lang: str, scores: LanguageScores, alpha: float) -> CurvePoint:
    estimates = []
    for misjudged in (
        [score < alpha for score in scores.test_harmful],
        [score >= alpha for score in scores.test_harmless],
    ):
        measured = rate(misjudged)
        if measured.rate is None or measured.low is None or measured.high is None:
            raise ValueError(f"no test scores in '{lang}'")
        estimates.append(Estimate(rate=measured.rate, low=measured.low, high=measured.high, n=measured.n))
    miss, false_alarm = estimates
    return CurvePoint(lang=lang, rule=AS_IT_IS, n_examples=0, draws=1, miss=miss, false_alarm=false_alarm)


def _drawn_point(
    lang: str, scores: LanguageScores, rule: Rule, n_examples: int, draws: int, seed: int
) -> CurvePoint:
    generator = np.random.default_rng([seed, n_examples])
    harmful, harmless = (
        np.asarray(values, dtype=float)
        for values in (scores.calibration_harmful, scores.calibration_harmless)
    )
    # One threshold for each draw of examples.
    thresholds = np.array(
        [
            choose_threshold(
                rule,
                generator.permutation(harmful)[:n_examples].tolist(),
                generator.permutation(harmless)[:n_examples].tolist(),
                lang,
            ).alpha
            for _ in range(draws)
        ]
    )
    # Its rates on all test prompts.
    missed = np.searchsorted(np.sort(np.asarray(scores.test_harmful, float)), thresholds, side="left")
    safe = np.searchsorted(np.sort(np.asarray(scores.test_harmless, float)), thresholds, side="left")
    return CurvePoint(
        lang=lang,
        rule=str(rule),
        n_examples=n_examples,
        draws=draws,
        miss=_estimate(missed, len(scores.test_harmful), generator),
        false_alarm=_estimate(len(scores.test_harmless) - safe, len(scores.test_harmless), generator),
    )


def _estimate(hits: NDArray[np.integer[Any]], n: int, generator: np.random.Generator) -> Estimate:
    mean = float(hits.mean() / n)
    rates: Array = generator.beta(hits + 0.5, n - hits + 0.5, size=(PER_DRAW, len(hits)))
    low, high = interval(rates.ravel()) or (mean, mean)
    return Estimate(rate=mean, low=min(low, mean), high=max(high, mean), n=n)


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Return a Markdown table: a row for each language, rule and number of examples."""
    lines = ["| language | threshold | examples a label | miss rate | false alarm rate |", "|" + " --- |" * 5]
    for point in points:
        cells = [
            point.lang,
            point.rule,
            str(point.n_examples or ""),
            *(
                f"{100 * value.rate:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"
                for value in (point.miss, point.false_alarm)
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    note = "95 % intervals: at the guard's threshold Wilson, else over draws of examples and of test prompts."
    return "\n".join(lines) + f"\n\n{note}\n"
