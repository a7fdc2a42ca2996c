"""What was measured, by category of harm: the harmful test prompts of a build, apart by what they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from polyrefuse_eval.harmfulness.reply_inversion import Inversion
from polyrefuse_eval.harmfulness.steering_sweep import Steered
from polyrefuse_eval.statistics.rates import rate

LABEL = "harmful"
"""Harmless prompts have no category."""


def by_category(
    points: Sequence[Mapping[str, Any]], steered: Sequence[Steered], inversion: Inversion
) -> dict[str, Any]:
    """Return, for each category among the `points` of a scatter, what was measured of its prompts.

    `n` by behaviour; `harmful` and `refuse`, the mean cluster scores; `called_harmful`, the rate of
    prompts with Δ_harmful ≥ 0; `steering` and `inversion` as for all harmful prompts, over those of the
    category among the prompts that were steered and inverted: none may be.
    """
    mine = [one for one in points if one["label"] == LABEL and one["category"] is not None]
    found = {}
    for name in sorted({one["category"] for one in mine}):
        of_name = [one for one in mine if one["category"] == name]
        right = inversion.right_by_category.get((LABEL, name))
        found[name] = {
            "n": {
                behaviour: sum(one["behaviour"] == behaviour for one in of_name)
                for behaviour in ("refused", "accepted", "unjudged")
            },
            **{score: _mean([one[score] for one in of_name]) for score in ("harmful", "refuse")},
            "called_harmful": asdict(rate([one["harmful"] >= 0 for one in of_name])),
            "steering": [asdict(one) for one in steered if (one.label, one.category) == (LABEL, name)],
            "inversion": {
                "right": {} if right is None else {LABEL: asdict(right)},
                "flips": [
                    asdict(one) for one in inversion.flips if (one.label, one.category) == (LABEL, name)
                ],
            },
        }
    return found


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
