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
    "refusal_score": "refusal score under ablation (log-odds, less is better)",
    "steering_score": "refusal score under addition (log-odds, more is better)",
    "kl_div_score": "KL, unedited to ablated (nats, less is better)",
}

Values = Mapping[tuple[str, int], float | None]
"""A value for each line and layer; None, or no entry, where there is none."""


@dataclass(frozen=True)
class Panel:
    """One quantity by layer: a path for each line, and where the chosen candidate is."""

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
    first, last = layers[0], max(layers[-1], layers[0] + 1)
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
    low, high, ticks = scale(0.0, 1.0) if is_share else scale(min(finite), max(finite))

    def y_of(value: float) -> float:
        return round(top + HEIGHT * (high - value) / (high - low), 1)

    at = None if chosen is None else values.get(chosen)
    mark = None
    if chosen is not None and at is not None and _finite(at):
        mark = (x_of(chosen[1]), y_of(at))
    lines = tuple(
        _path([(x_of(layer), values.get((name, layer))) for layer in layers], y_of) for name in names
    )
    return Panel(title, top, lines, tuple((y_of(tick), f"{tick:g}") for tick in ticks), mark)


def _scores(
    run: Run, lang: str, scores: Sequence[CandidateScore], chosen: tuple[int | str, int] | None
) -> LayerChart | None:
    def told(layer: int) -> str:
        lines = [f"direction of {lang}, layer {layer}: refusal, steering, KL"]
        for score in scores:
            if score.layer == layer:
                shown = (
                    f"{value:.3g}" if _finite(value) else "not computed"
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
    """Return an SVG path through the points that have a value, broken where one has none.

    A point between two that have none becomes a short line, so that it is seen.
    """
    known = [value is not None and _finite(value) for _, value in points]
    parts: list[str] = []
    for index, (x, value) in enumerate(points):
        if value is None or not known[index]:
            continue
        begins = index == 0 or not known[index - 1]
        alone = begins and (index + 1 == len(points) or not known[index + 1])
        at = f"{x:g} {y_of(value):g}"
        parts.append(f"M{at}m-2.5 0h5" if alone else f"M{at}" if begins else f"L{at}")
    return "".join(parts)


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
