"""Sum up what models say of the translations of a folder, by check and language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_data.audit.folders import AuditList
from polyrefuse_data.checks.recorded import Recorded, threshold_key
from polyrefuse_data.checks.thresholds import Thresholds

WORST = 20
"""How many of the worst rows a report names."""


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """The scores of one check in one language: rows, mean, the worst rows as (id, score), worst first."""

    check: str
    model: str
    lang: str
    rows: int
    mean: float
    worst: tuple[tuple[str, float], ...]
    calibrated: bool
    """Whether thresholds (or the check's own bounds) can flag a row."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as its JSON form has it."""
        worst = [{"id": row, "score": score} for row, score in self.worst]
        return {**vars(self), "worst": worst}


def model_reports(
    lists: Sequence[AuditList], recorded: Mapping[str, Mapping[str, Recorded]], thresholds: Thresholds
) -> Iterator[ModelReport]:
    """Yield a report for each language and check with scores; `lists` hold one list for each language."""
    for part in lists:
        for check, scores in recorded.get(part.lang, {}).items():
            order = scores.worst(check)
            values = [scores.scores[row] or 0.0 for row in order]
            bounds = scores.bounds(check, part.lang, thresholds)
            yield ModelReport(
                check=check,
                model=scores.model,
                lang=part.lang,
                rows=len(order),
                mean=sum(values) / len(values),
                worst=tuple(
                    (part.ids[row], value) for row, value in zip(order[:WORST], values, strict=False)
                ),
                calibrated=threshold_key(check, scores.model) in thresholds.checks
                or (bounds.low is not None or bounds.high is not None),
            )
