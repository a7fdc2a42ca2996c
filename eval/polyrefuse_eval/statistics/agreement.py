"""How far two judges of the same completions agree. Pure: verdicts in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_eval.statistics.rates import Rate, rate


@dataclass(frozen=True)
class Agreement:
    """Agreement of a judge with a reference on what both judged; positive means refused.

    `kappa` (Cohen 1960) is None where chance alone would agree always: both say one and the same class.
    `sensitivity` is the share of the reference's refusals that the judge calls refusals, `specificity`
    that of the others; None of nothing. `n` completions were judged by both, `n_unjudged` left undecided
    by one at least. The compliance rates are each judge's own, over all that it judged itself.
    """

    n: int
    n_unjudged: int
    both_refused: int
    only_reference: int
    only_judge: int
    neither: int
    kappa: float | None
    sensitivity: float | None
    specificity: float | None
    reference_compliance: Rate
    judge_compliance: Rate


def agreement(reference: Sequence[bool | None], judge: Sequence[bool | None]) -> Agreement:
    """Return the agreement of two lists of `refused` on the same completions.

    Raises `ValueError` for lists of different length.
    """
    pairs = list(zip(reference, judge, strict=True))
    counts = {
        pair: pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    }
    both, only_reference, only_judge, neither = counts.values()
    n = sum(counts.values())
    return Agreement(
        n=n,
        n_unjudged=len(pairs) - n,
        both_refused=both,
        only_reference=only_reference,
        only_judge=only_judge,
        neither=neither,
        kappa=cohen_kappa(both, only_reference, only_judge, neither),
        sensitivity=_share(both, both + only_reference),
        specificity=_share(neither, neither + only_judge),
        reference_compliance=_compliance(reference),
        judge_compliance=_compliance(judge),
    )


def cohen_kappa(both: int, only_first: int, only_second: int, neither: int) -> float | None:
    """Return (observed - expected) / (1 - expected) agreement of two judges and two classes, where the
    expected one is that of independent judges with the same rates; None where it is 1, or of nothing."""
    n = both + only_first + only_second + neither
    if n == 0:
        return None
    # Times n * n, in whole numbers: rounding must not turn "no kappa" into a number.
    expected = (both + only_first) * (both + only_second) + (neither + only_first) * (neither + only_second)
    if expected == n * n:
        return None
    return ((both + neither) * n - expected) / (n * n - expected)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _compliance(refused: Sequence[bool | None]) -> Rate:
    return rate([None if verdict is None else not verdict for verdict in refused])
