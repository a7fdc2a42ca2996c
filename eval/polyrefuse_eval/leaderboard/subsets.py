"""What the leaderboard shows of some of a run's prompts: by source, by type, and contrast pairs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.results.interventions import BASELINE_NAME
from polyrefuse_eval.results.records import Result
from polyrefuse_eval.results.subset_records import ContrastResult, SubsetResult


@dataclass(frozen=True)
class OverRefusal:
    """A run's rates on harmless prompts that look harmful, and on harmful ones beside them."""

    results: tuple[Result, ...]
    subsets: tuple[SubsetResult, ...]
    contrasts: tuple[ContrastResult, ...]

    def sides(self, judge: str) -> list[dict[str, Any]]:
        """Return over-refusal and compliance by language and condition, and pairs answered differently."""
        cells = {(r.lang, r.condition, r.label): r for r in self.results if r.judge == judge}
        pairs = {(c.lang, c.condition): c for c in self.contrasts if c.judge == judge}
        records = []
        for lang, condition in sorted(
            {(lang, condition) for lang, condition, _ in cells},
            key=lambda name: (name[0], name[1] != BASELINE_NAME, name[1]),
        ):
            safe, unsafe = (cells.get((lang, condition, label)) for label in ("harmless", "harmful"))
            pair = pairs.get((lang, condition))
            refused = None if unsafe is None else unsafe.refusal_rate
            records.append(
                {
                    "language": lang,
                    "condition": condition,
                    "over_refusal": None if safe is None else safe.refusal_rate,
                    "n_safe": 0 if safe is None else safe.n,
                    "compliance": None if refused is None else 1 - refused,
                    "n_unsafe": 0 if unsafe is None else unsafe.n,
                    "pairs": 0 if pair is None else pair.n,
                    "differently": None if pair is None else pair.differently,
                    "difference": None if pair is None else pair.difference,
                    "low": None if pair is None else pair.low,
                    "high": None if pair is None else pair.high,
                }
            )
        return records

    def types(self, judge: str) -> list[dict[str, Any]]:
        """Return unedited refusal rates by type of the prompts."""
        return subset_rows(self.subsets, judge, "type")


def subset_rows(subsets: Iterable[SubsetResult], judge: str, kind: str) -> list[dict[str, Any]]:
    """Return unedited refusal rates by source or type: none where each label has one alone."""
    chosen = [
        result
        for result in subsets
        if (result.judge, result.kind, result.condition) == (judge, kind, BASELINE_NAME)
    ]
    names = {(result.label, result.subset) for result in chosen}
    if len(names) == len({label for label, _ in names}):
        return []
    return [
        {
            "language": result.lang,
            "prompts": result.label,
            kind: result.subset,
            "n": result.n,
            "refused": result.refusal_rate,
            "low": result.low,
            "high": result.high,
        }
        for result in chosen
    ]


def markdown_rows(sides: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the unedited rows of `OverRefusal.sides` as cells of a table."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    return [
        [
            str(record["language"]),
            percent(record["over_refusal"]),
            percent(record["compliance"]),
            percent(record["differently"]),
            str(record["pairs"]),
        ]
        for record in sides
        if record["condition"] == BASELINE_NAME
    ]
