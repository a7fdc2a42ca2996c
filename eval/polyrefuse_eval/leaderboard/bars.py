"""Bars of refusal with and without an edit: their geometry in the units of the view box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_eval.leaderboard.entries import Entry, LanguageRow
from polyrefuse_eval.leaderboard.figures import Figure

BAR_LEFT, BAR_WIDTH, BAR_ROW = 34, 230, 30
"""Where bars begin, how long 100 % is, and the height of one language."""


@dataclass(frozen=True)
class Bar:
    """One bar with its whisker: a refusal rate and its interval."""

    kind: str
    figure: Figure
    y: float
    width: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BarRow:
    """The bars of one language, and its numbers in print."""

    lang: str
    y: float
    bars: tuple[Bar, ...]
    text: str


@dataclass(frozen=True)
class Bars:
    """Baseline against ablated, a row for each language."""

    rows: tuple[BarRow, ...]
    height: float
    ticks: tuple[tuple[float, str], ...]
    sources: str


def bars(entry: Entry) -> Bars | None:
    """Return the bars of `entry`, or None where no answer under ablation was judged."""
    shown = [row for row in entry.languages if row.ablated is not None and row.ablated.value is not None]
    if not shown:
        return None
    rows = []
    for number, row in enumerate(shown):
        top = 22 + number * BAR_ROW
        drawn = [
            _bar(kind, figure, top + offset)
            for kind, figure, offset in (("baseline", row.baseline, 2), ("ablated", row.ablated, 14))
            if figure is not None
        ]
        text = " → ".join("–" if bar.figure.value is None else bar.figure.short for bar in drawn)
        rows.append(BarRow(row.lang, top, tuple(drawn), text))
    ticks = tuple((BAR_LEFT + BAR_WIDTH * share / 100, f"{share}") for share in (0, 25, 50, 75, 100))
    return Bars(tuple(rows), 22 + len(rows) * BAR_ROW + 4, ticks, _sources(shown))


def _sources(rows: Sequence[LanguageRow]) -> str:
    """Return whose direction is ablated: `its own direction, else that of en`."""
    sources = sorted({row.source for row in rows if row.source})
    others = sorted({row.source for row in rows if row.source and row.source != row.lang})
    if not others:
        return "its own direction"
    if len(sources) == 1:
        return f"the direction of {sources[0]}"
    return "its own direction, else that of " + ", ".join(others)


def _bar(kind: str, figure: Figure, y: float) -> Bar:
    def along(value: float | None) -> float | None:
        return None if value is None else round(BAR_LEFT + BAR_WIDTH * value, 1)

    width = round(BAR_WIDTH * (figure.value or 0.0), 1)
    return Bar(kind, figure, y, width, along(figure.low), along(figure.high))
