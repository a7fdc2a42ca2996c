"""Sum up the quality of a build's translations by language, label and split, for manifest and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyrefuse_data.build.model import Package
from polyrefuse_data.checks.recorded import Recorded
from polyrefuse_data.core.schema import Row
from polyrefuse_data.translate.memory.store import HUMAN

SUMMED = ("round_trip",)
"""Checks without a model whose means are shown beside those of models."""

WORST = 5
"""How many of the worst rows a card names for each check and language."""


def quality_summary(rows: Sequence[Row], recorded: Mapping[str, Recorded]) -> dict[str, Any]:
    """Return means of one language's checks by label and split, rows reviewed, and the worst rows' ids."""
    places: dict[str, list[Row]] = {}
    for row in rows:
        places.setdefault(f"{row.label}-{row.split}", []).append(row)
    return {
        "means": {
            place: {
                check: mean for check in (*SUMMED, *recorded) if (mean := _mean(members, check)) is not None
            }
            for place, members in places.items()
        },
        "reviewed": {place: sum(_is_human(row) for row in members) for place, members in places.items()},
        "worst": {
            check: [rows[row].id for row in scores.worst(check)[:WORST]] for check, scores in recorded.items()
        },
    }


def _mean(rows: Sequence[Row], check: str) -> float | None:
    scores = [score for row in rows if (score := row.scores.get(check)) is not None]
    return round(sum(scores) / len(scores), 4) if scores else None


def _is_human(row: Row) -> bool:
    return row.translator.startswith(f"backend:{HUMAN}|")


def quality_table(package: Package) -> dict[str, Any] | None:
    """Return the card's table of quality: checks, lines and worst rows; None for a build without scores."""
    summaries = {
        lang: part.summary["quality"] for lang, part in package.parts.items() if part.summary.get("quality")
    }
    present = {
        check for summary in summaries.values() for means in summary["means"].values() for check in means
    }
    checks = [check for check in (*SUMMED, *package.measured) if check in present]
    if not checks:
        return None
    lines = [
        {
            "lang": lang,
            "place": place,
            "cells": [f"{means[check]:.3f}" if check in means else "-" for check in checks],
            "reviewed": summary["reviewed"][place],
        }
        for lang, summary in summaries.items()
        for place, means in summary["means"].items()
        if means
    ]
    worst = [
        (lang, check, ids) for lang, summary in summaries.items() for check, ids in summary["worst"].items()
    ]
    return {"checks": checks, "lines": lines, "worst": worst}
