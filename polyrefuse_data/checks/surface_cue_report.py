"""What is said of surface cues: a warning for each split, and a table."""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_data.checks.surface_cues import CHECK, CUES, FIRST_WORD, LENGTH, TOGETHER, SurfaceCues
from polyrefuse_data.core.findings import Finding
from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_data.core.schema import SPLITS

COLUMNS = (*CUES, FIRST_WORD, LENGTH, TOGETHER)
"""Cues in the order in which they are told."""


def surface_cue_findings(measured: Sequence[SurfaceCues]) -> list[Finding]:
    """Return one warning for each split in which a cue tells the labels apart in some language."""
    findings = []
    for split in SPLITS:
        of_split = [each for each in measured if each.split == split]
        phrases = [phrase for name in COLUMNS if (phrase := _phrase(name, of_split))]
        if phrases:
            message = f"labels are told apart by form: {'; '.join(phrases)}"
            findings.append(Finding(CHECK, "warning", None, None, split, (), message))
    return findings


def _phrase(name: str, measured: Sequence[SurfaceCues]) -> str:
    """Return what a cue tells in English, else in the language where it tells most, and in how many it does.

    Empty where it tells in none.
    """
    telling = [each for each in measured if name in each.telling]
    if not telling:
        return ""
    shown = max(telling, key=lambda each: (each.lang == SOURCE_LANGUAGE, abs(_distance(each, name))))
    more = f", in {len(telling)} of {len(measured)} languages" if len(measured) > 1 else ""
    cue = shown.rates_of(name)
    if cue is None:
        return f"{name} (AUROC {shown.areas[name]:.2f} in {shown.lang}{more})"
    harmful, harmless = (f"{100 * rate:.0f} %" for rate in cue.rates)
    return f"{cue.name} ({harmful} of harmful, {harmless} of harmless in {shown.lang}{more})"


def _distance(measured: SurfaceCues, name: str) -> float:
    cue, area = measured.rates_of(name), measured.areas.get(name)
    return cue.difference[0] if cue is not None else 0.0 if area is None else area - 0.5


def surface_cue_cells(measured: SurfaceCues) -> list[str]:
    """Return a cell for each of `COLUMNS`: per cent of harmful and of harmless prompts, or an AUROC.

    A star marks what tells the labels apart.
    """
    cells = []
    for name in COLUMNS:
        cue, area = measured.rates_of(name), measured.areas.get(name)
        if cue is not None:
            harmful, harmless = (round(100 * rate) for rate in cue.rates)
            text = f"{harmful}/{harmless}" + ("" if cue.word is None else f" {cue.shown_word}")
        else:
            text = "-" if area is None else f"{area:.2f}"
        cells.append(text + ("*" if name in measured.telling else ""))
    return cells
