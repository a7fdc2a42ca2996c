"""Tables in colour: transfer from source to target languages, and refusal by ablation strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_eval.leaderboard.entries import Entry
from polyrefuse_eval.leaderboard.figures import Figure, of_result
from polyrefuse_eval.results.interventions import ABLATION, BASELINE_NAME, INTERVENTIONS
from polyrefuse_eval.results.sources import CONTROLS, POOLED

STEPS = 20
"""The colour scale has `STEPS` + 1 colours, classes h0 to h20 of the page's style."""

LAST = (POOLED, *CONTROLS)
"""Sources whose rows stand below those of languages and spans."""


@dataclass(frozen=True)
class GridRow:
    """A row of a grid: its name, and a number for each column or None where it was not measured."""

    name: str
    cells: tuple[Figure | None, ...]


@dataclass(frozen=True)
class Grid:
    """Numbers by row and target language. `rows_are` names what the rows stand for."""

    title: str
    rows_are: str
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]


def shade(figure: Figure) -> int | None:
    """Return the colour of a share, 0 to `STEPS`, or None where there is no number."""
    return None if figure.value is None else round(STEPS * min(1.0, max(0.0, figure.value)))


TRANSFERS: dict[tuple[str, str], str] = {
    **{
        (row.name, row.moves): f"Transfer: refusal of {row.moves} prompts, direction {row.participle}"
        for row in INTERVENTIONS.values()
    },
    **{
        (row.name, row.cross_checks): f"Refusal of {row.cross_checks} prompts, direction {row.participle}"
        for row in INTERVENTIONS.values()
    },
}
"""The transfer tables, by intervention and label of the prompts; first those that interventions are for."""


def transfers(entry: Entry) -> list[Grid]:
    """Return the transfer tables that `entry` has results for."""
    return [grid for edit, label in TRANSFERS if (grid := transfer(entry, edit, label)) is not None]


def transfer(entry: Entry, intervention: str, label: str) -> Grid | None:
    """Return refusal rates under `intervention` at full strength: a row for each source of the direction.

    The first row is without an edit, the last are the directions of all languages and the controls.
    None without directions.
    """
    figures = {
        (result.source or "", result.lang): of_result(result, entry.run.file, index)
        for index, result in enumerate(entry.run.results)
        if (result.judge, result.label) == (entry.judge, label)
        and (
            result.condition == BASELINE_NAME
            or (result.intervention == intervention and "@" not in result.condition)
        )
    }
    langs = tuple(row.lang for row in entry.languages)
    sources = list(dict.fromkeys(source for source, _ in figures if source))
    if not sources:
        return None
    own = [lang for lang in langs if lang in sources]
    others = sorted({*sources} - {*own, *LAST})
    order = ["", *own, *others, *(name for name in LAST if name in sources)]
    rows = [GridRow(name or "no edit", tuple(figures.get((name, lang)) for lang in langs)) for name in order]
    return Grid(TRANSFERS[intervention, label], "direction from", langs, tuple(rows))


def strengths(entry: Entry) -> Grid | None:
    """Return refusal rates of harmful prompts by strength of ablation, of the direction that the
    table of languages shows; None where only one strength was tried."""
    langs = tuple(row.lang for row in entry.languages)
    figures: dict[tuple[float, str], Figure] = {}
    for index, result in enumerate(entry.run.results):
        if (result.judge, result.label) != (entry.judge, "harmful"):
            continue
        row = entry.row(result.lang)
        if result.condition == BASELINE_NAME:
            figures[0.0, result.lang] = of_result(result, entry.run.file, index)
        elif row is not None and row.source == result.source and result.intervention == ABLATION.name:
            strength = 1.0 if result.coefficient is None else result.coefficient
            figures[strength, result.lang] = of_result(result, entry.run.file, index)
    values = sorted({strength for strength, _ in figures})
    if len(values) < 3:
        return None
    rows = tuple(_strength_row(value, figures, langs) for value in values)
    return Grid("Refusal of harmful prompts by strength of ablation", "strength", langs, rows)


def _strength_row(value: float, figures: dict[tuple[float, str], Figure], langs: Sequence[str]) -> GridRow:
    return GridRow(
        "no edit" if value == 0 else f"{value:g}", tuple(figures.get((value, lang)) for lang in langs)
    )
