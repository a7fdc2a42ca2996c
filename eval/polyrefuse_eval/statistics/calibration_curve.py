"""How misses and false alarms fall with calibration examples: thresholds drawn again and again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyrefuse_eval.statistics.exchangeability import exchangeable_p, guard_interval
from polyrefuse_eval.statistics.rates import holm, interval, rate
from polyrefuse_eval.statistics.thresholds import (
    Rule,
    choose_threshold,
    conformal_minimum,
    conformal_threshold,
)

AS_IT_IS = "as it is"
"""The threshold that a guard brings along."""

SIGNIFICANT = 0.05

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
    """The rates of thresholds by `rule` from `n_examples` of each label, over `draws` of these examples.

    Of a conformal rule also what holds where calibration and test prompts are exchangeable: `promised`,
    between which miss rates 95 % of guards then lie, and `exchanged`, misses with examples that are drawn
    from both kinds of prompts together, tested on the rest.
    """

    lang: str
    rule: str
    n_examples: int
    draws: int
    miss: Estimate
    false_alarm: Estimate
    promised: tuple[float, float] | None = None
    exchanged: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Exchangeability:
    """Whether harmful calibration and test prompts of a language are of the same kinds.

    `p` is that of a permutation test of their scores, after Holm; `covered` the share of the test prompts
    that are of a type which calibration prompts have, too. Where either is small, nothing is promised.
    """

    p: float
    covered: float


def exchangeability(
    scores: Mapping[str, LanguageScores], covered: Mapping[str, float]
) -> dict[str, Exchangeability]:
    """Return by language whether calibration and test prompts are of the same kinds."""
    p_values = holm([exchangeable_p(of.calibration_harmful, of.test_harmful) for of in scores.values()])
    return {
        lang: Exchangeability(p=1.0 if p is None else p, covered=covered[lang])
        for lang, p in zip(scores, p_values, strict=True)
    }


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
    point = CurvePoint(
        lang=lang,
        rule=str(rule),
        n_examples=n_examples,
        draws=draws,
        miss=_estimate(missed, len(scores.test_harmful), generator),
        false_alarm=_estimate(len(scores.test_harmless) - safe, len(scores.test_harmless), generator),
    )
    if rule.name != "conformal" or rule.target is None:
        return point
    exchanged = _exchanged(scores, rule.target, n_examples, draws, seed)
    return replace(point, promised=guard_interval(n_examples, rule.target), exchanged=exchanged)


def _exchanged(scores: LanguageScores, target: float, n_examples: int, draws: int, seed: int) -> Estimate:
    """Return the misses of conformal thresholds whose examples are drawn from all harmful prompts."""
    generator = np.random.default_rng([seed, n_examples, 1])
    pool = np.asarray([*scores.calibration_harmful, *scores.test_harmful], dtype=float)
    missed = []
    for _ in range(draws):
        drawn = generator.permutation(pool)
        alpha = conformal_threshold(drawn[:n_examples].tolist(), target)
        missed.append(int((drawn[n_examples:] < alpha).sum()))
    return _estimate(np.asarray(missed), len(pool) - n_examples, generator)


def _estimate(hits: NDArray[np.integer[Any]], n: int, generator: np.random.Generator) -> Estimate:
    mean = float(hits.mean() / n)
    rates: Array = generator.beta(hits + 0.5, n - hits + 0.5, size=(PER_DRAW, len(hits)))
    low, high = interval(rates.ravel()) or (mean, mean)
    return Estimate(rate=mean, low=min(low, mean), high=max(high, mean), n=n)


def curve_table(points: Sequence[CurvePoint], exchangeable: Mapping[str, Exchangeability]) -> str:
    """Return a Markdown table: a row for each language, rule and number of examples.

    `exchangeable` is what `exchangeability` returns.
    """
    titles = ("language", "threshold", "examples a label", "miss rate", "false alarm rate", "promised")
    lines = ["| " + " | ".join((*titles, "misses, exchanged")) + " |", "|" + " --- |" * 7]
    for point in points:
        cells = [point.lang, point.rule, str(point.n_examples or "")]
        cells += [_cell(point.miss), _cell(point.false_alarm)]
        cells.append("" if point.promised is None else "[{:.1f}, {:.1f}]".format(*_percent(point.promised)))
        cells.append("" if point.exchanged is None else _cell(point.exchanged))
        lines.append("| " + " | ".join(cells) + " |")
    notes = [
        "95 % intervals: at the guard's threshold Wilson, else over draws of examples and of test prompts."
    ]
    if any(point.promised is not None for point in points):
        notes.append(
            "Promised: between which rates in % 95 % of guards miss, if calibration and test prompts are "
            "exchangeable; the bound is one of their mean. Exchanged: misses with examples drawn from both "
            f"kinds of prompts, tested on the rest. {exchangeability_note(exchangeable)}"
        )
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def exchangeability_note(exchangeable: Mapping[str, Exchangeability]) -> str:
    """Return where calibration and test prompts are of other types, or told apart by their scores."""
    told_apart = [lang for lang, of in exchangeable.items() if of.p <= SIGNIFICANT]
    covered = min((of.covered for of in exchangeable.values()), default=1.0)
    notes = []
    if covered < 1:
        notes.append(
            f"{1 - covered:.0%} of harmful test prompts are of a type that no calibration prompt has: "
            "nothing is promised of them."
        )
    if told_apart:
        notes.append(
            f"Their scores differ in {', '.join(told_apart)} (permutation test, Holm, p ≤ {SIGNIFICANT})."
        )
    elif covered == 1:
        notes.append(
            "Calibration and test prompts have the same types, and a permutation test does not tell them "
            "apart."
        )
    return " ".join(notes)


def _percent(values: tuple[float, float]) -> tuple[float, float]:
    return 100 * values[0], 100 * values[1]


def _cell(value: Estimate) -> str:
    return f"{100 * value.rate:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"
