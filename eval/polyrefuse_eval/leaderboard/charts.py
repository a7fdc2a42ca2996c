"""Geometry of the charts, in the units of their view boxes; the page's template draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.leaderboard.entries import Entry
from polyrefuse_eval.leaderboard.figures import Figure, pointer
from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.select import CandidateScore

BAR_LEFT, BAR_WIDTH, BAR_ROW = 34, 230, 30
"""Where bars begin, how long 100 % is, and the height of one language."""

CURVE_LEFT, CURVE_WIDTH, CURVE_HEIGHT, CURVE_GAP = 40, 300, 120, 44
CURVES = {
    "refusal_score": "refusal score under ablation (log-odds, less is better)",
    "steering_score": "refusal score under addition (log-odds, more is better)",
    "kl_div_score": "KL, unedited to ablated (nats, less is better)",
}


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
    sources = list(dict.fromkeys("its own" if row.source == row.lang else f"{row.source}" for row in shown))
    return Bars(tuple(rows), 22 + len(rows) * BAR_ROW + 4, ticks, ", ".join(sources))


def _bar(kind: str, figure: Figure, y: float) -> Bar:
    def along(value: float | None) -> float | None:
        return None if value is None else round(BAR_LEFT + BAR_WIDTH * value, 1)

    width = round(BAR_WIDTH * (figure.value or 0.0), 1)
    return Bar(kind, figure, y, width, along(figure.low), along(figure.high))


@dataclass(frozen=True)
class Panel:
    """One score by layer: a line for each position."""

    title: str
    top: float
    lines: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]
    chosen: tuple[float, float] | None


@dataclass(frozen=True)
class Slice:
    """One layer across all panels: what hovering it tells."""

    layer: int
    x: float
    width: float
    told: str


@dataclass(frozen=True)
class Curves:
    """Refusal, steering and KL scores by layer of the candidate directions of one language."""

    lang: str
    positions: tuple[str, ...]
    panels: tuple[Panel, ...]
    slices: tuple[Slice, ...]
    layers: tuple[tuple[float, str], ...]
    height: float
    link: str
    chosen: str


def curves(run: Run) -> list[Curves]:
    """Return the curves of each language that a direction was selected for."""
    return [
        _curves(run, lang, scores, (run.chosen or {}).get(lang))
        for lang, scores in (run.scores or {}).items()
        if any(_finite(getattr(score, name)) for score in scores for name in CURVES)
    ]


def _curves(
    run: Run, lang: str, scores: Sequence[CandidateScore], chosen: tuple[int | str, int] | None
) -> Curves:
    positions = tuple(dict.fromkeys(str(score.position) for score in scores))
    layers = sorted({score.layer for score in scores})
    first, last = layers[0], max(layers[-1], layers[0] + 1)
    step = CURVE_WIDTH / (last - first)

    def x_of(layer: int) -> float:
        return round(CURVE_LEFT + (layer - first) * step, 1)

    link = pointer(run.file, "scores", lang)
    panels: list[Panel] = []
    for name, title in CURVES.items():
        values = {(str(score.position), score.layer): getattr(score, name) for score in scores}
        finite = [value for value in values.values() if _finite(value)]
        if not finite:
            continue
        top = 22 + len(panels) * (CURVE_HEIGHT + CURVE_GAP)
        low, high, ticks = _scale(min(finite), max(finite))

        def y_of(value: float, top: float = top, low: float = low, high: float = high) -> float:
            return round(top + CURVE_HEIGHT * (high - value) / (high - low), 1)

        lines = tuple(
            _path([(x_of(layer), values.get((position, layer))) for layer in layers], y_of)
            for position in positions
        )
        at = None if chosen is None else values.get((str(chosen[0]), chosen[1]))
        mark = None
        if chosen is not None and at is not None and _finite(at):
            mark = (x_of(chosen[1]), y_of(at))
        panels.append(Panel(title, top, lines, tuple((y_of(tick), f"{tick:g}") for tick in ticks), mark))
    every = max(1, math.ceil(len(layers) / 10))
    return Curves(
        lang,
        positions,
        tuple(panels),
        tuple(
            Slice(layer, round(x_of(layer) - step / 2, 1), round(step, 1), _told(lang, layer, scores))
            for layer in layers
        ),
        tuple((x_of(layer), str(layer)) for layer in layers[::every]),
        22 + len(panels) * (CURVE_HEIGHT + CURVE_GAP) - CURVE_GAP + 36,
        link,
        "" if chosen is None else f"position {chosen[0]}, layer {chosen[1]}",
    )


def _path(points: Sequence[tuple[float, float | None]], y_of: Any) -> str:
    """Return an SVG path through the points that have a value, broken where one has none.

    A point alone becomes a short line, so that it is seen.
    """
    parts: list[str] = []
    down = False
    for x, value in points:
        if value is None or not _finite(value):
            down = False
            continue
        parts.append(f"{'L' if down else 'M'}{x:g} {y_of(value):g}" + ("" if down else "h.01"))
        down = True
    return "".join(parts)


def _told(lang: str, layer: int, scores: Sequence[CandidateScore]) -> str:
    lines = [f"direction of {lang}, layer {layer}: refusal, steering, KL"]
    for score in scores:
        if score.layer == layer:
            values = ", ".join(
                f"{value:.3g}" if _finite(value) else "not computed"
                for value in (getattr(score, name) for name in CURVES)
            )
            lines.append(f"position {score.position}: {values}")
    return "\n".join(lines)


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return the ends of an axis over `low` to `high` and three to six round ticks on it."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 4)
    start, end = math.floor(low / step), math.ceil(high / step)
    if start == end:
        end += 1
    return start * step, end * step, [round(number * step, 10) for number in range(start, end + 1)]


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
