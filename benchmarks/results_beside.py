"""Tables of docs/results.md: a direction without over-refusal, and guards on prompts inside templates."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Comparison, Result
from polyrefuse_eval.results.subset_files import over_refusal_run
from polyrefuse_eval.statistics.rates import wilson

WITHOUT = ("baseline", "ablation:en", "ablation:en-over-refusal")
"""Conditions of the run with a direction without over-refusal."""


def without_over_refusal(
    run: Path, rate: Callable[[Result | None], str], change: Callable[[Comparison | None], tuple[str, str]]
) -> str:
    """Return rates by prompts and condition, what each ablation changes, and what is left of the direction.

    `rate` and `change` show a result, and a paired difference with its p.
    """
    folder = RunFolder.existing(run)
    inner = over_refusal_run(folder)
    if inner is None:
        raise SystemExit(f"{run} has no run on prompts that look harmful")
    parts = (
        ("harmful test prompts", folder, "harmful"),
        ("harmful contrasts (XSTest)", inner, "harmful"),
        ("harmless that look harmful (XSTest)", inner, "harmless"),
    )
    rows = []
    for name, part, label in parts:
        results = {row.condition: row for row in part.results() if row.label == label}
        changes = {
            row.condition: row
            for row in part.comparisons()
            if row.label == label and row.against == "baseline"
        }
        points = [change(changes.get(condition))[0] for condition in WITHOUT[1:]]
        rows.append([name, *(rate(results.get(condition)) for condition in WITHOUT), *points])
    header = ["prompts", *WITHOUT, *(f"{condition}: points" for condition in WITHOUT[1:])]
    return f"{table(header, rows)}\n{_left(run)}"


def _left(run: Path) -> str:
    """Return a line with what is left of the direction, and what its part was fitted on."""
    from polyrefuse_eval.directions.fit import Direction

    told = Direction.load(run / "directions" / "en-over-refusal.safetensors").metadata["over_refusal"]
    counts = told["counts"]
    return (
        f"Cosine of refusal and over-refusal {told['cosine']:.2f}; {100 * told['left']:.0f} % of the "
        f"direction's norm are left. Fitted on {counts['n_looking_harmful_kept']} of "
        f"{counts['n_looking_harmful']} harmless contrast prompts, those that the model leans to refuse, and "
        f"{counts['n_harmless_kept']} of {counts['n_harmless']} plain ones.\n"
    )


def templates(guards: Sequence[tuple[str, Path]]) -> str:
    """Return how many harmful prompts inside templates each guard misses, by how the prompts end."""
    rows = []
    for name, file in guards:
        scored = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        ends = [unicodedata.category(row["prompt"].rstrip()[-1]).startswith("P") for row in scored]
        missed = [not row["unsafe"] for row in scored]
        groups = (
            missed,
            [miss for miss, end in zip(missed, ends, strict=True) if end],
            [miss for miss, end in zip(missed, ends, strict=True) if not end],
        )
        rows.append([name, *map(_share, groups)])
    return table(["guard", "missed", "of those that end with punctuation", "of the others"], rows)


def _share(marks: Sequence[bool]) -> str:
    """Return marks among all with the 95 % interval of their share, such as 44/100 [35, 54]."""
    if not marks:
        return "–"
    low, high = wilson(sum(marks), len(marks))
    return f"{sum(marks)}/{len(marks)} [{100 * low:.0f}, {100 * high:.0f}]"
