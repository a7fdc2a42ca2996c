"""Δ_harmful against Δ_refuse by kind of prompt: those of the build, and each kind that a user brings.

A jailbreak that hides the harm lowers Δ_harmful; one that only keeps the model from refusing leaves it, and
lowers Δ_refuse alone (Zhao et al. 2025, section 4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from polyrefuse_eval.harmfulness.instructions import DATA
from polyrefuse_eval.results.harmfulness_records import BehaviourCounts, KindMeasures, Point
from polyrefuse_eval.statistics.rates import rate


def by_kind(points: Sequence[Point]) -> dict[str, dict[str, KindMeasures]]:
    """Return what the `points` of a scatter show by kind and label; nothing where all are of the build."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.kind, point.label), []).append(point)
    measures: dict[str, dict[str, KindMeasures]] = {}
    for (kind, label), of_group in groups.items():
        behaviours = Counter(point.behaviour for point in of_group)
        measures.setdefault(kind, {})[label] = KindMeasures(
            n=BehaviourCounts(
                refused=behaviours["refused"],
                accepted=behaviours["accepted"],
                unjudged=behaviours["unjudged"],
            ),
            harmful=_mean([point.harmful for point in of_group]),
            refuse=_mean([point.refuse for point in of_group]),
            called_harmful=rate([point.harmful >= 0 for point in of_group]),
            called_refused=rate([point.refuse >= 0 for point in of_group]),
        )
    return {} if measures.keys() <= {DATA} else measures


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
