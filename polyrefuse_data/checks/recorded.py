"""Decide on recorded scores: those of models, and how far candidate translations differ.

Each check is better one way, and each model has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from polyrefuse_data.checks.thresholds import Bounds, Thresholds

UNRELATED = 75.0
"""Disagreement that texts of different prompts have: of random pairs of texts of the published release, 95 %
lie above 74 in German, above 95 in Chinese, and between these in the other languages."""


@dataclass(frozen=True, kw_only=True)
class RecordedCheck:
    """A check whose scores are recorded, mostly from a model: what it measures, and what flagged rows are."""

    name: str
    measures: str
    flagged: str
    higher_is_better: bool = True
    severity: str = "warning"
    default: Bounds = field(default_factory=Bounds)
    """The bounds where none are calibrated."""
    floor: float | None = None
    """The lowest upper bound that calibration sets; None for any."""


_RECORDED_CHECKS = (
    RecordedCheck(
        name="quality",
        measures="quality (COMET) or errors (MetricX) of the translation, estimated without a reference",
        flagged="are translated worse than a trusted folder's rows, by an estimate of quality",
    ),
    RecordedCheck(
        name="similarity",
        measures="cosine of the translation, or of its back-translation, with the English",
        flagged="are farther from their English than a trusted folder's rows",
    ),
    RecordedCheck(
        name="nearest",
        measures="cosine with the nearest other English, minus that with the own",
        flagged="are nearer to the English of another row: swapped, shifted, about something else",
        higher_is_better=False,
        default=Bounds(high=0.0),
        floor=0.0,
    ),
    RecordedCheck(
        name="harm",
        measures="probability of harm of the English, minus that of the back-translation",
        flagged="have become harmless: their back-translation does not ask for the harm of the English",
        higher_is_better=False,
        default=Bounds(high=0.5),
    ),
    RecordedCheck(
        name="disagreement",
        measures="100 minus the chrF (beta 1) of the translation with the most similar other candidate",
        flagged="are translated very differently by every other translator",
        higher_is_better=False,
        default=Bounds(high=UNRELATED),
    ),
)

RECORDED_CHECKS: dict[str, RecordedCheck] = {check.name: check for check in _RECORDED_CHECKS}
"""Checks with recorded scores, in the order of the published columns."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The scores of `model` (kind, name and revision) for the rows of a list, None where there is none."""

    model: str
    scores: Sequence[float | None]

    def bounds(self, check: str, lang: str, thresholds: Thresholds) -> Bounds:
        """Return the calibrated bounds of the check by this model; the check's own where there are none."""
        key = threshold_key(check, self.model)
        return thresholds.bounds(key, lang) if key in thresholds.checks else RECORDED_CHECKS[check].default

    def flags(self, check: str, lang: str, thresholds: Thresholds) -> list[bool]:
        """Return whether each score is outside the bounds."""
        bounds = self.bounds(check, lang, thresholds)
        return [score is not None and not bounds.accept(score) for score in self.scores]

    def worst(self, check: str) -> list[int]:
        """Return the rows that have a score, the worst first."""
        rows = [row for row, score in enumerate(self.scores) if score is not None]
        return sorted(rows, key=lambda row: badness(check, self.model, self.scores[row] or 0.0), reverse=True)


def threshold_key(check: str, model: str) -> str:
    """Return the name under which thresholds hold the bounds of a check by one model."""
    return f"{check} {model}"


def higher_is_better(check: str, model: str) -> bool:
    """Return whether a higher score is a better translation."""
    return RECORDED_CHECKS[check].higher_is_better and not model.startswith("metricx:")


def badness(check: str, model: str, score: float) -> float:
    """Return the score turned so that the worst row has the highest."""
    return -score if higher_is_better(check, model) else score
