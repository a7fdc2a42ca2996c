"""Refusal rates with and without an edit as points with whiskers: geometry in the units of the view box.

A point is seen wherever it stands, where a bar of length 0 would be nothing but its whisker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_eval.leaderboard.entries import Entry, LanguageRow
from polyrefuse_eval.leaderboard.figures import Figure, language_name, shorten

AXIS_LEFT, AXIS_WIDTH, ROW_HEIGHT = 112, 200, 34
"""Where 0 % is, how long 100 % is, and the height of one language."""

WIDTH = AXIS_LEFT + AXIS_WIDTH + 62
"""The view box: names of languages on the left, numbers on the right."""

LABEL_LENGTH = 16
"""Characters of a language's name that fit on the left."""

TOP = 24
"""Where the first language begins, below the ticks."""


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """One refusal rate, where it is drawn, and the ends of its interval; None where nothing was judged."""

    kind: str
    figure: Figure
    x: float | None
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """The rates of one language, and its numbers in print."""

    label: str
    y: float
    points: tuple[RatePoint, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class RateChart:
    """Unedited answers against answers with a direction ablated, a row for each language."""

    rows: tuple[RateRow, ...]
    height: float
    ticks: tuple[tuple[float, str], ...]
    sources: str


def rate_chart(entry: Entry) -> RateChart | None:
    """Return the rates of `entry` by language, or None where no answer was judged."""
    shown = [row for row in entry.languages if row.baseline is not None and row.baseline.value is not None]
    if not shown:
        return None
    rows = []
    for number, row in enumerate(shown):
        top = TOP + number * ROW_HEIGHT
        points = tuple(
            _point(kind, figure, top + offset)
            for kind, figure, offset in (("baseline", row.baseline, 10), ("ablated", row.ablated, 23))
            if figure is not None
        )
        text = " → ".join("–" if point.figure.value is None else point.figure.short for point in points)
        label = shorten(language_name(row.lang), LABEL_LENGTH)
        rows.append(RateRow(label=label, y=top, points=points, text=text))
    ticks = tuple((_across(share / 100), f"{share}") for share in (0, 25, 50, 75, 100))
    height = TOP + len(rows) * ROW_HEIGHT + 4
    return RateChart(rows=tuple(rows), height=height, ticks=ticks, sources=_sources(shown))


def _sources(rows: Sequence[LanguageRow]) -> str:
    """Return whose direction is ablated: `its own direction, else that of en`; nothing without an edit."""
    sources = sorted({row.source for row in rows if row.source})
    others = sorted({row.source for row in rows if row.source and row.source != row.lang})
    if not sources:
        return ""
    if not others:
        return "its own direction"
    if len(sources) == 1:
        return f"the direction of {sources[0]}"
    return "its own direction, else that of " + ", ".join(others)


def _across(share: float) -> float:
    return round(AXIS_LEFT + AXIS_WIDTH * share, 1)


def _point(kind: str, figure: Figure, y: float) -> RatePoint:
    x, low, high = (
        None if value is None else _across(value) for value in (figure.value, figure.low, figure.high)
    )
    return RatePoint(kind=kind, figure=figure, x=x, y=y, low=low, high=high)
