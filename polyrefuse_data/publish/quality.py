"""Compare the quality of two builds' translations per language, with intervals paired over prompts.

The same prompt is scored in both builds, and its copies (the same English and label) are no independent
observations: the difference is a mean over rows, and its interval resamples groups with all their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from polyrefuse_data.checks.recorded import RECORDED_CHECKS, higher_is_better
from polyrefuse_data.core.schema import SPLITS
from polyrefuse_data.publish.snapshots import Snapshot, read_records

RESAMPLES = 4000
SEED = 0
LEVEL = 0.95

COMPARED = ("round_trip", *(check for check in RECORDED_CHECKS if check != "disagreement"))
"""Checks that tell a better translation from a worse one."""


@dataclass(frozen=True, kw_only=True)
class QualityChange:
    """The mean of a check over the rows of one language in both builds, and the difference new - old.

    `low` and `high` bound the difference at 95 % (percentiles of a bootstrap over `groups`). `verdict` is
    better, worse, or unclear where the interval holds 0.
    """

    lang: str
    check: str
    rows: int
    groups: int
    old: float
    new: float
    difference: float
    low: float
    high: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain values, for JSON."""
        return asdict(self)


def compare_quality(old: Snapshot, new: Snapshot) -> list[QualityChange]:
    """Return a comparison for each language and check that both versions score, by the same model."""
    changes = []
    for lang in new.manifest["languages"]:
        if lang not in old.manifest["languages"]:
            continue
        before, after = _rows(old, lang), _rows(new, lang)
        both = [key for key in after if key in before]
        for check in COMPARED:
            model = _model(new, check, lang)
            if model != _model(old, check, lang):
                continue
            scores = [
                (key[0], before[key][f"score_{check}"], after[key][f"score_{check}"])
                for key in both
                if before[key].get(f"score_{check}") is not None
                and after[key].get(f"score_{check}") is not None
            ]
            if scores:
                changes.append(_change(lang, check, scores, higher_is_better=_higher(check, model)))
    return changes


def _rows(snapshot: Snapshot, lang: str) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """Return the rows of a language by group, split, and how many of the same group came before."""
    rows: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for split in SPLITS:
        seen: dict[str, int] = {}
        name = f"{lang}/{split}.parquet"
        for record in read_records(snapshot, name, snapshot.manifest["files"].get(name)):
            number = seen[record["group"]] = seen.get(record["group"], 0) + 1
            rows[record["group"], split, number] = record
    return rows


def _model(snapshot: Snapshot, check: str, lang: str) -> str:
    models = snapshot.manifest.get("models", {}).get(check, {})
    return next((model for model, langs in models.items() if lang in langs), "")


def _higher(check: str, model: str) -> bool:
    return check not in RECORDED_CHECKS or higher_is_better(check, model)


def _change(
    lang: str, check: str, scores: Sequence[tuple[str, float, float]], *, higher_is_better: bool
) -> QualityChange:
    differences: dict[str, list[float]] = {}
    for group, before, after in scores:
        differences.setdefault(group, []).append(after - before)
    mean, low, high = paired_interval(list(differences.values()))
    gain = (low, high) if higher_is_better else (-high, -low)
    return QualityChange(
        lang=lang,
        check=check,
        rows=len(scores),
        groups=len(differences),
        old=float(np.mean([before for _, before, _ in scores])),
        new=float(np.mean([after for _, _, after in scores])),
        difference=mean,
        low=low,
        high=high,
        verdict="better" if gain[0] > 0 else "worse" if gain[1] < 0 else "unclear",
    )


def paired_interval(groups: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return the mean of all differences with its 95 % interval, resampling whole groups (Efron 1979)."""
    sums = np.array([sum(group) for group in groups])
    counts = np.array([len(group) for group in groups])
    mean = float(sums.sum() / counts.sum())
    if len(groups) == 1:
        return mean, mean, mean
    drawn = np.random.default_rng(SEED).multinomial(
        len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES
    )
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean, float(low), float(high)


def quality_lines(changes: Sequence[QualityChange]) -> Iterator[str]:
    """Yield the comparison as lines of a terminal."""
    if not changes:
        yield "No check scores the same rows in both by the same model; build both with --scores."
        return
    yield "Quality, new - old, 95 % intervals over prompts:"
    yield "  lang  check          rows      old      new  difference         interval  new is"
    for change in changes:
        yield (
            f"  {change.lang:4}  {change.check:12}  {change.rows:5}  {change.old:7.3f}  {change.new:7.3f}"
            f"  {change.difference:+10.3f}  [{change.low:+.3f}, {change.high:+.3f}]  {change.verdict}"
        )
