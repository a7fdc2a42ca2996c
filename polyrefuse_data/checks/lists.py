"""Check whole lists: alignment with the English, duplicates, leaks between splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polyrefuse_data.checks.alignment import MINIMUM_ROWS, WINDOW_ROWS, alignment
from polyrefuse_data.checks.duplicates import Pair, exact_duplicates, near_duplicates
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.findings import Finding

LIST_CHECKS = {
    "alignment": "length correlation with the English, over a list and its windows",
    "duplicate": "the same English text twice in a label",
    "near_duplicate": "token Jaccard of two English prompts of a label",
    "leak": "an exact or near duplicate of a prompt in another split",
    "collision": "two different prompts with the same translation",
    "surface_cue": "difference of a surface cue's rates between labels; of its AUROC from 0.5",
}
"""Checks of lists by name, and what they measure."""


@dataclass(frozen=True)
class Item:
    """One English prompt with its label and split, as the duplicate checks see it."""

    id: str
    label: str
    split: str
    text: str


def alignment_findings(
    texts_en: Sequence[str],
    texts: Sequence[str],
    lang: str,
    label: str,
    split: str,
    thresholds: Thresholds,
) -> list[Finding]:
    """Return the alignment alarm for one list, if its lengths do not follow the English."""
    result = alignment(texts_en, texts)
    if thresholds.flagged("alignment", lang, result.correlation):
        message = (
            f"not parallel to the English: length correlation {result.correlation:.2f} "
            f"over {result.rows} rows"
        )
    elif thresholds.flagged("alignment_window", lang, result.lowest_window):
        message = (
            f"not parallel to the English from about row {result.window_start}: length correlation "
            f"{result.lowest_window:.2f} over {WINDOW_ROWS} rows ({result.correlation:.2f} over all)"
        )
    elif thresholds.flagged("alignment_shift", lang, result.shift_gain):
        message = (
            f"shifted by {abs(result.shift)} from about row {result.shift_start} on: length correlation "
            f"grows by {result.shift_gain:.2f} if the translations move back"
        )
    elif result.correlation is None and result.rows >= MINIMUM_ROWS:
        message = f"cannot be aligned: all {result.rows} texts of one side have the same length"
    else:
        return []
    return [Finding("alignment", "error", lang, label, split, (), message)]


def duplicate_findings(items: Sequence[Item], thresholds: Thresholds) -> list[Finding]:
    """Return exact and near duplicates among the English prompts of each label, in and across splits."""
    by_label: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    findings: list[Finding] = []
    for label, rows in by_label.items():
        texts = [row.text for row in rows]
        exact = [Pair(first, second, 1.0) for first, second in exact_duplicates(texts)]
        bound = thresholds.bounds("near_duplicate", "en").high
        near = list(near_duplicates(texts, bound)) if bound is not None else []
        findings += _by_place(rows, label, exact, "duplicate", "the English text of another row")
        findings += _by_place(rows, label, near, "near_duplicate", f"a near duplicate (Jaccard >= {bound})")
    return findings


def _by_place(
    rows: Sequence[Item], label: str, pairs: Sequence[Pair], check: str, what: str
) -> Iterator[Finding]:
    """Yield a finding for each split with pairs inside, and a leak for each two splits with pairs across."""
    places: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        first, second = sorted((rows[pair.first].split, rows[pair.second].split))
        places[first, second].append(pair)
    for (first, second), pairs_of_place in places.items():
        ids = tuple(
            dict.fromkeys(
                rows[position].id for pair in pairs_of_place for position in (pair.first, pair.second)
            )
        )
        if first == second:
            repeats = len({pair.second for pair in pairs_of_place})
            yield Finding(
                check,
                "warning" if check == "duplicate" else "note",
                None,
                label,
                first,
                ids,
                f"{counted(repeats, 'row')} with {what} of the same split",
            )
        else:
            severity = "error" if check == "duplicate" else "warning"
            pairs_across = f"{counted(len(pairs_of_place), 'pair')} across {first} and {second}"
            yield Finding(
                "leak",
                severity,
                None,
                label,
                None,
                ids,
                f"{pairs_across}: {what} stands in the other split",
            )


def collision_findings(items: Sequence[Item], texts: Sequence[str], lang: str) -> list[Finding]:
    """Return rows of one language whose translations are equal though their English is not."""
    english_of: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item, text in zip(items, texts, strict=True):
        if text.strip():
            english_of[item.label, text].append(item)
    by_place: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (label, _), rows in english_of.items():
        if len({row.text for row in rows}) > 1:
            by_place[label, rows[-1].split] += [row.id for row in rows]
    return [
        Finding(
            "collision",
            "note",
            lang,
            label,
            split,
            tuple(ids),
            f"{counted(len(ids), 'row')} with the translation of a row whose English differs",
        )
        for (label, split), ids in by_place.items()
    ]
