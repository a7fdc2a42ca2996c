"""Lines by layer: candidate scores, cosines, rates. Geometry in the units of the view box."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.directions.selection import CandidateScore
from polyrefuse_eval.leaderboard.figures import pointer
from polyrefuse_eval.leaderboard.runs import Run

LEFT, WIDTH, HEIGHT, GAP = 44, 300, 120, 44
"""Where a panel begins, how wide and high it is, and the room between two."""

VIEW = LEFT + WIDTH + 16
"""Width of the view box, with room for the last tick."""

SCORES = {
    "refusal_score": "refusal score under ablation (log-odds, lower is better)",
    "steering_score": "refusal score under addition (log-odds, higher is better)",
    "kl_div_score": "KL, unedited to ablated (nats, lower is better)",
}

NEVER_NEGATIVE = frozenset({SCORES["kl_div_score"]})
"""Panels whose axis begins at 0: small differences of small numbers are not to look large."""

SMALL = 1e-3
"""Ticks that are all smaller are written with a power of ten, which stands in the title of the panel."""

Values = Mapping[tuple[str, int], float | None]
"""A value for each line and layer; None, or no entry, where there is none."""


@dataclass(frozen=True)
class Panel:
    """One quantity by layer: a path and lone points for each line, and where the chosen candidate is.

    `factor` is the power of ten of the ticks, such as `×10⁻⁵`; empty where they are written as they are.
    """

    title: str
    factor: str
    top: float
    lines: tuple[str, ...]
    dots: tuple[tuple[tuple[float, float], ...], ...]
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
class LayerChart:
    """Panels above each other with the same layers; `names` are the lines' names."""

    lang: str
    names: tuple[str, ...]
    panels: tuple[Panel, ...]
    slices: tuple[Slice, ...]
    layers: tuple[tuple[float, str], ...]
    height: float
    link: str
    chosen: str = ""
    values: str = "[]"
    """JSON of what is drawn: panel, line, and layers with their values to 6 digits."""


def score_charts(run: Run) -> list[LayerChart]:
    """Return the candidate scores of each language that a direction was selected for."""
    charts = (
        _scores(run, lang, scores, (run.chosen or {}).get(lang))
        for lang, scores in (run.scores or {}).items()
    )
    return [chart for chart in charts if chart is not None]


def layer_chart(
    lang: str,
    panels: Mapping[str, Values],
    link: str,
    told: Callable[[int], str],
    chosen: tuple[str, int] | None = None,
    shares: Collection[str] = (),
) -> LayerChart | None:
    """Return the chart of `panels`, title to values; None where no value is finite.

    `told` says what hovering a layer tells; `chosen` is the line and layer to mark; panels named in
    `shares` go from 0 to 1, others as far as their values.
    """
    shown = {title: values for title, values in panels.items() if any(map(_finite, values.values()))}
    places = [place for values in shown.values() for place in values]
    if not places:
        return None
    names = tuple(dict.fromkeys(name for name, _ in places))
    layers = sorted({layer for _, layer in places})
    first, last = layers[0], layers[-1]
    if first == last:  # a single layer stands in the middle
        first, last = first - 1, first + 1
    step = WIDTH / (last - first)

    def x_of(layer: int) -> float:
        return round(LEFT + (layer - first) * step, 1)

    drawn = tuple(
        _panel(title, values, names, layers, x_of, 22 + number * (HEIGHT + GAP), chosen, title in shares)
        for number, (title, values) in enumerate(shown.items())
    )
    every = math.ceil(len(layers) / 10)
    slices = (
        Slice(layer=layer, x=round(x_of(layer) - step / 2, 1), width=round(step, 1), told=told(layer))
        for layer in layers
    )
    return LayerChart(
        lang=lang,
        names=names,
        panels=drawn,
        slices=tuple(slices),
        layers=tuple((x_of(layer), str(layer)) for layer in layers[::every]),
        height=22 + len(drawn) * (HEIGHT + GAP) - GAP + 36,
        link=link,
        chosen="" if chosen is None else f"position {chosen[0]}, layer {chosen[1]}",
        values=_values_json(shown, names, layers),
    )


def _values_json(panels: Mapping[str, Values], names: Sequence[str], layers: Sequence[int]) -> str:
    lines = [
        [title, name, [[layer, float(f"{value:.6g}")] for layer, value in points]]
        for title, values in panels.items()
        for name in names
        if (points := [(layer, value) for layer in layers if _finite(value := values.get((name, layer)))])
    ]
    return json.dumps(lines, separators=(",", ":"))


def _panel(
    title: str,
    values: Values,
    names: Sequence[str],
    layers: Sequence[int],
    x_of: Callable[[int], float],
    top: float,
    chosen: tuple[str, int] | None,
    is_share: bool,
) -> Panel:
    finite = [value for value in values.values() if value is not None and _finite(value)]
    least = min(0.0, *finite) if title in NEVER_NEGATIVE else min(finite)
    low, high, ticks = scale(0.0, 1.0) if is_share else scale(least, max(finite))
    power = _power(ticks)

    def y_of(value: float) -> float:
        return round(top + HEIGHT * (high - value) / (high - low), 1)

    at = None if chosen is None else values.get(chosen)
    mark = None
    if chosen is not None and at is not None and _finite(at):
        mark = (x_of(chosen[1]), y_of(at))
    by_line = [[(x_of(layer), values.get((name, layer))) for layer in layers] for name in names]
    return Panel(
        title=title,
        factor=f"×10{str(power).translate(RAISED)}" if power else "",
        top=top,
        lines=tuple(_path(points, y_of) for points in by_line),
        dots=tuple(tuple((x, y_of(value)) for x, value in _alone(points)) for points in by_line),
        ticks=tuple((y_of(tick), f"{float(f'{tick / 10.0**power:.12g}'):g}") for tick in ticks),
        chosen=mark,
    )


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(ticks: Sequence[float]) -> int:
    """Return the power of ten that ticks are written with, 0 where they are not small."""
    largest = max(map(abs, ticks))
    return math.floor(math.log10(largest)) if 0 < largest < SMALL else 0


def plain_number(value: float) -> str:
    """Return `value` to three digits, a small one as `6.84 × 10⁻⁵`."""
    digits, _, power = f"{value:.3g}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(RAISED)}" if power else digits


def _scores(
    run: Run, lang: str, scores: Sequence[CandidateScore], chosen: tuple[int | str, int] | None
) -> LayerChart | None:
    def told(layer: int) -> str:
        lines = [f"direction of {lang}, layer {layer}: refusal, steering, KL"]
        for score in scores:
            if score.layer == layer:
                shown = (
                    plain_number(value) if _finite(value) else "not computed"
                    for value in (getattr(score, name) for name in SCORES)
                )
                lines.append(f"position {score.position}: {', '.join(shown)}")
        return "\n".join(lines)

    panels = {
        title: {(str(score.position), score.layer): getattr(score, name) for score in scores}
        for name, title in SCORES.items()
    }
    mark = None if chosen is None else (str(chosen[0]), chosen[1])
    return layer_chart(lang, panels, pointer(run.file, "scores", lang), told, mark)


def _path(points: Sequence[tuple[float, float | None]], y_of: Callable[[float], float]) -> str:
    """Return an SVG path through the points that have a value, broken where one has none."""
    pieces = [[f"{x:g} {y_of(value):g}" for x, value in piece] for piece in _pieces(points)]
    return "".join("M" + "L".join(piece) for piece in pieces if len(piece) > 1)


def _alone(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """Return the points that have a value between two that have none: no line goes through them."""
    return [piece[0] for piece in _pieces(points) if len(piece) == 1]


def _pieces(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Return the points that have a value, divided where one has none."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, value in points:
        if value is not None and _finite(value):
            pieces[-1].append((x, value))
        else:
            pieces.append([])
    return pieces


def scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return the ends of an axis over `low` to `high` and two to six round ticks on it.

    It spans a hundredth of its values at least: ticks of more digits would not fit beside it.
    """
    span = max(high - low, 0.01 * max(abs(low), abs(high))) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 4)
    start, end = math.floor(low / step), math.ceil(high / step)
    if start == end:
        end += 1
    return start * step, end * step, [float(f"{number * step:.12g}") for number in range(start, end + 1)]


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
