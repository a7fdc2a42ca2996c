"""Draw harmfulness and refusal, as `eval harmfulness` measured them apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from polyrefuse_eval.leaderboard.figures import Figure, language_name, pointer
from polyrefuse_eval.leaderboard.layers import LayerChart, Values, layer_chart, scale
from polyrefuse_eval.leaderboard.records import RecordTable
from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.results.harmfulness_records import (
    CategoryCosines,
    CategoryMeasures,
    Flips,
    LanguageHarmfulness,
    Point,
)
from polyrefuse_eval.statistics.rates import Rate

LEFT, TOP, SIZE = 44, 22, 260
"""The scatter's frame: its corner, and how wide and high it is."""

LABELS = ("harmful", "harmless")
BEHAVIOURS = ("refused", "accepted", "unjudged")


@dataclass(frozen=True)
class Points:
    """The prompts of one label and behaviour: a path of small marks, and how many there are."""

    label: str
    behaviour: str
    path: str
    count: int


@dataclass(frozen=True)
class Scatter:
    """Δ_harmful across, Δ_refuse upwards; `zero` is where the axes cross, None where that is outside."""

    points: tuple[Points, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    zero: tuple[float | None, float | None]


@dataclass(frozen=True)
class HarmfulnessOfLanguage:
    """The tables and charts of one language; None where nothing was measured."""

    lang: str
    directions: str
    link: str
    counts: RecordTable
    separation: RecordTable | None
    scatter: Scatter | None
    chart: LayerChart | None
    categories: RecordTable | None
    by_category: RecordTable | None


Cells = list[Figure | str | None]


@dataclass(frozen=True)
class _Part:
    """What was measured in one language of a run, and where that stands in the run's JSON."""

    run: Run
    lang: str
    measured: LanguageHarmfulness

    @property
    def name(self) -> str:
        return language_name(self.lang)

    def link(self, *place: str | int) -> str:
        return pointer(self.run.file, "harmfulness", "languages", self.lang, *place)

    def count(self, value: int, about: str, *place: str | int) -> Figure:
        return Figure(value, about, self.link(*place), kind="count")

    def number(self, value: float | None, about: str, *place: str | int) -> Figure | None:
        return None if value is None else Figure(value, about, self.link(*place), kind="number")

    def share(self, rate: Rate, about: str, *place: str | int) -> Figure | None:
        """Return a rate with its interval, or None of nothing."""
        if rate.rate is None:
            return None
        return Figure(rate.rate, about, self.link(*place, "rate"), rate.low, rate.high)


def harmfulness_of(run: Run) -> list[HarmfulnessOfLanguage]:
    """Return what `run` holds of harmfulness, language by language."""
    languages = {} if run.harmfulness is None else run.harmfulness.languages
    return [_language(_Part(run, lang, measured)) for lang, measured in languages.items()]


def _language(part: _Part) -> HarmfulnessOfLanguage:
    return HarmfulnessOfLanguage(
        lang=part.lang,
        directions=part.measured.directions,
        link=part.link(),
        counts=_counts(part),
        separation=_separation(part),
        scatter=_scatter(part.measured.scatter),
        chart=_chart(part),
        categories=_categories(part, part.measured.categories),
        by_category=_by_category(part),
    )


def lacking(run: Run) -> dict[str, str]:
    """Return the languages that could not be measured, with the reason."""
    return {} if run.harmfulness is None else dict(run.harmfulness.lacking)


def _counts(part: _Part) -> RecordTable:
    rows = []
    for label in LABELS:
        counts = part.measured.n.test[label]
        cells: Cells = [f"{label} prompts"]
        for behaviour in BEHAVIOURS:
            about = f"test prompts, {part.name}, {label}, {behaviour}"
            cells.append(part.count(getattr(counts, behaviour), about, "n", "test", label, behaviour))
        rows.append(tuple(cells))
    return RecordTable(("", *BEHAVIOURS), tuple(rows))


def _separation(part: _Part) -> RecordTable | None:
    rows = []
    for name, value in part.measured.auroc.items():
        about = f"area under the ROC curve, {part.name}, {name}"
        score, _, by = name.partition(" by ")
        if value is not None:
            rows.append((f"Δ_{score}", by, part.number(value, about, "auroc", name)))
    return RecordTable(("score", "tells apart by", "AUROC"), tuple(rows)) if rows else None


def _categories(part: _Part, categories: CategoryCosines) -> RecordTable | None:
    """Return the cosines between the harmfulness directions of categories, at one layer."""
    if len(categories.names) < 2:
        return None
    rows = []
    for row, (name, cosines) in enumerate(zip(categories.names, categories.cosine, strict=True)):
        cells: Cells = [name]
        for column, (other, value) in enumerate(zip(categories.names, cosines, strict=True)):
            about = f"cosine of {name} and {other}, {part.name}, layer {categories.layer}"
            cells.append(part.number(value, about, "categories", "cosine", row, column))
        rows.append(tuple(cells))
    return RecordTable(("category", *categories.names), tuple(rows))


def _by_category(part: _Part) -> RecordTable | None:
    """Return what was measured of the harmful prompts of each category."""
    measures = part.measured.by_category
    rows = tuple(_category_row(part, name, measure) for name, measure in measures.items())
    if not rows:
        return None
    header = ("category", "refused", "accepted", "Δ_harmful", "Δ_refuse", "Δ_harmful ≥ 0")
    return RecordTable((*header, "flipped by harmfulness", "flipped by refusal"), rows)


def _category_row(part: _Part, name: str, measure: CategoryMeasures) -> tuple[Figure | str | None, ...]:
    start = ("by_category", name)
    about = f"harmful prompts, {part.name}, category {name}"
    cells: Cells = [name]
    for behaviour in BEHAVIOURS[:2]:
        count = getattr(measure.n, behaviour)
        cells.append(part.count(count, f"{about}, {behaviour}", *start, "n", behaviour))
    cells.append(part.number(measure.harmful, f"mean Δ_harmful, {about}", *start, "harmful"))
    cells.append(part.number(measure.refuse, f"mean Δ_refuse, {about}", *start, "refuse"))
    called = f"Δ_harmful ≥ 0, {about}"
    cells.append(part.share(measure.called_harmful, called, *start, "called_harmful"))
    for kind in ("harmfulness", "refusal"):
        cells.append(_most_flipped(part, measure.inversion.flips, kind, about, *start))
    return tuple(cells)


def _most_flipped(
    part: _Part, flips: Sequence[Flips], kind: str, about: str, *start: str | int
) -> Figure | None:
    """Return the share of flipped answers at the layer where direction `kind` flips most."""
    shares = {
        index: flip.flipped.rate
        for index, flip in enumerate(flips)
        if flip.direction == kind and flip.flipped.rate is not None
    }
    if not shares:
        return None
    index = max(shares, key=lambda place: shares[place])
    flipped = f"answers flipped by {kind} at layer {flips[index].layer}, reply inversion, {about}"
    return part.share(flips[index].flipped, flipped, *start, "inversion", "flips", index, "flipped")


def _scatter(points: Sequence[Point]) -> Scatter | None:
    if not points:
        return None
    left, right, across = _scale([point.harmful for point in points])
    bottom, top, upwards = _scale([point.refuse for point in points])

    def x_of(value: float) -> float:
        return round(LEFT + SIZE * (value - left) / (right - left), 1)

    def y_of(value: float) -> float:
        return round(TOP + SIZE * (top - value) / (top - bottom), 1)

    groups: dict[tuple[str, str], list[str]] = {}
    for point in points:
        is_refused = point.behaviour == "refused"
        mark = "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0" if is_refused else "m-2.5-2.5l5 5m0-5l-5 5"
        path = f"M{x_of(point.harmful):g} {y_of(point.refuse):g}{mark}"
        groups.setdefault((point.label, point.behaviour), []).append(path)
    return Scatter(
        tuple(Points(*name, "".join(marks), len(marks)) for name, marks in sorted(groups.items())),
        tuple((x_of(value), f"{value:g}") for value in across),
        tuple((y_of(value), f"{value:g}") for value in upwards),
        (x_of(0) if left < 0 < right else None, y_of(0) if bottom < 0 < top else None),
    )


def _scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    return scale(min(values), max(values))


def _chart(part: _Part) -> LayerChart | None:
    measured = part.measured
    flips = (
        (flip.label, flip.sign, flip.direction, flip.layer, flip.flipped) for flip in measured.inversion.flips
    )
    steering = (
        (step.label, step.sign, step.direction, step.layer, step.refusal) for step in measured.steering
    )
    panels: dict[str, Values] = {
        "cosine of the harmfulness and the refusal direction": {
            ("cosine", layer): value for layer, value in enumerate(measured.cosine)
        },
        "share of answers flipped, reply inversion": dict(_rates(flips)),
        f"refusal rate, {measured.scope} steered": dict(_rates(steering)),
    }

    def hover_text(layer: int) -> str:
        lines = [f"{part.name}, layer {layer}"]
        for title, values in panels.items():
            lines += [
                f"{title}: {value:.2f}" if name == "cosine" else f"{title}, {name}: {100 * value:.1f} %"
                for (name, at), value in values.items()
                if at == layer and value is not None
            ]
        return "\n".join(lines)

    return layer_chart(part.lang, panels, part.link(), hover_text, shares=list(panels)[1:])


def _rates(
    steps: Iterable[tuple[str, int, str | None, int | None, Rate]],
) -> Iterator[tuple[tuple[str, int], float | None]]:
    """Yield (line, layer) and rate of (label, sign, direction, layer, rate); nothing of unedited models."""
    for label, sign, direction, layer, rate in steps:
        if layer is not None:
            yield (f"{label}, {'−' if sign < 0 else '+'} {direction}", layer), rate.rate
