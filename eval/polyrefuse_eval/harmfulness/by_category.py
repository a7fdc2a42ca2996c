"""What was measured, by category of harm: the harmful test prompts of a build, apart by what they ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from polyrefuse_eval.harmfulness.reply_inversion import Inversion
from polyrefuse_eval.results.harmfulness_records import (
    BehaviourCounts,
    CategoryMeasures,
    InversionRecord,
    Point,
    Steered,
)
from polyrefuse_eval.statistics.rates import rate

LABEL = "harmful"
"""Harmless prompts have no category."""


def by_category(
    points: Sequence[Point], steered: Sequence[Steered], inversion: Inversion
) -> dict[str, CategoryMeasures]:
    """Return, for each category among the `points` of a scatter, what was measured of its prompts.

    `steering` and `inversion` are over those of the category among the prompts that were steered and
    inverted: none may be.
    """
    harmful = [point for point in points if point.label == LABEL and point.category is not None]
    measures = {}
    for name in sorted({str(point.category) for point in harmful}):
        of_category = [point for point in harmful if point.category == name]
        right = inversion.right_by_category.get((LABEL, name))
        behaviours = Counter(point.behaviour for point in of_category)
        measures[name] = CategoryMeasures(
            n=BehaviourCounts(
                refused=behaviours["refused"],
                accepted=behaviours["accepted"],
                unjudged=behaviours["unjudged"],
            ),
            harmful=_mean([point.harmful for point in of_category]),
            refuse=_mean([point.refuse for point in of_category]),
            called_harmful=rate([point.harmful >= 0 for point in of_category]),
            steering=tuple(step for step in steered if (step.label, step.category) == (LABEL, name)),
            inversion=InversionRecord(
                right={} if right is None else {LABEL: right},
                flips=tuple(
                    flips for flips in inversion.flips if (flips.label, flips.category) == (LABEL, name)
                ),
            ),
        )
    return measures


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
