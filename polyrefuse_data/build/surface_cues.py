"""Sum up the surface cues of a build's prompts by language and split, for manifest and card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from polyrefuse_data.build.model import LanguagePart, Package
from polyrefuse_data.checks.surface_cue_report import COLUMNS, surface_cue_cells
from polyrefuse_data.checks.surface_cues import SurfaceCues, surface_cues_by_split
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.schema import SPLITS, Row


def surface_cue_summary(lang: str, rows: Sequence[Row], thresholds: Thresholds) -> dict[str, Any]:
    """Return the surface cues of one language's rows by split, as the manifest has them."""
    texts: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        texts.setdefault((row.label, row.split), []).append(row.text)
    return {each.split: each.to_dict() for each in surface_cues_by_split(lang, texts, thresholds)}


def stored_surface_cues(parts: Iterable[LanguagePart]) -> list[SurfaceCues]:
    """Return what `surface_cue_summary` wrote of the languages of a build."""
    return [
        SurfaceCues.from_dict(part.summary["surface_cues"][split])
        for part in parts
        for split in SPLITS
        if split in part.summary.get("surface_cues", {})
    ]


def surface_cue_table(package: Package) -> dict[str, Any] | None:
    """Return the card's table of surface cues; None for a build with one label alone."""
    measured = stored_surface_cues(package.parts.values())
    if not measured:
        return None
    lines = [(each.lang, each.split, surface_cue_cells(each)) for each in measured]
    return {"columns": COLUMNS, "lines": lines}
