"""Harmfulness and refusal apart, as `eval harmfulness` measured them: what there is of it, drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.leaderboard.figures import Figure, language_name, pointer
from polyrefuse_eval.leaderboard.layers import LayerChart, Values, layer_chart, scale
from polyrefuse_eval.leaderboard.records import RecordTable
from polyrefuse_eval.leaderboard.runs import Run

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
    """What was measured in one language; None where it was not."""

    lang: str
    directions: str
    link: str
    counts: RecordTable | None
    separation: RecordTable | None
    scatter: Scatter | None
    chart: LayerChart | None
    categories: RecordTable | None
    by_category: RecordTable | None


def harmfulness_of(run: Run) -> list[HarmfulnessOfLanguage]:
    """Return what `run` holds of harmfulness, language by language."""
    languages = _mapping(_mapping(run.harmfulness).get("languages"))
    return [
        HarmfulnessOfLanguage(
            lang,
            str(found.get("directions", lang)),
            pointer(run.file, "harmfulness", "languages", lang),
            _counts(run, lang, _mapping(_mapping(found.get("n")).get("test"))),
            _separation(run, lang, _mapping(found.get("auroc"))),
            _scatter(_records(found.get("scatter"))),
            _chart(run, lang, found),
            _categories(run, lang, _mapping(found.get("categories"))),
            _by_category(run, lang, _mapping(found.get("by_category"))),
        )
        for lang, found in languages.items()
        if isinstance(found, Mapping)
    ]


def lacking(run: Run) -> dict[str, str]:
    """Return the languages that could not be measured, with the reason."""
    return {lang: str(why) for lang, why in _mapping(_mapping(run.harmfulness).get("lacking")).items()}


def _counts(run: Run, lang: str, counts: Mapping[str, Any]) -> RecordTable | None:
    rows = []
    for label in LABELS:
        of = _mapping(counts.get(label))
        cells: list[Figure | str | None] = [f"{label} prompts"]
        for behaviour in BEHAVIOURS:
            link = pointer(run.file, "harmfulness", "languages", lang, "n", "test", label, behaviour)
            about = f"test prompts, {language_name(lang)}, {label}, {behaviour}"
            number = _number(of.get(behaviour))
            cells.append(None if number is None else Figure(number, about, link, kind="count"))
        rows.append(tuple(cells))
    if all(cell is None for row in rows for cell in row[1:]):
        return None
    return RecordTable(("", *BEHAVIOURS), tuple(rows))


def _separation(run: Run, lang: str, found: Mapping[str, Any]) -> RecordTable | None:
    values = {name: number for name, value in found.items() if (number := _number(value)) is not None}
    if not values:
        return None
    rows = []
    for name, value in values.items():
        about = f"area under the ROC curve, {language_name(lang)}, {name}"
        link = pointer(run.file, "harmfulness", "languages", lang, "auroc", name)
        score, _, by = name.partition(" by ")
        rows.append((f"Δ_{score}", by, Figure(value, about, link, kind="number")))
    return RecordTable(("score", "tells apart by", "AUROC"), tuple(rows))


def _categories(run: Run, lang: str, found: Mapping[str, Any]) -> RecordTable | None:
    """Return the cosines between the harmfulness directions of categories, at one layer."""
    names, cosines = found.get("names"), found.get("cosine")
    if not isinstance(names, list) or not isinstance(cosines, list) or len(names) < 2:
        return None
    rows = []
    for index, (name, values) in enumerate(zip(names, cosines, strict=False)):
        cells: list[Figure | str | None] = [str(name)]
        for column, (other, value) in enumerate(
            zip(names, values if isinstance(values, list) else [], strict=False)
        ):
            about = f"cosine of {name} and {other}, {language_name(lang)}, layer {found.get('layer')}"
            start = ("harmfulness", "languages", lang, "categories", "cosine")
            number = _number(value)
            link = pointer(run.file, *start, index, column)
            cells.append(None if number is None else Figure(number, about, link, kind="number"))
        rows.append(tuple(cells))
    return RecordTable(("category", *map(str, names)), tuple(rows))


def _by_category(run: Run, lang: str, found: Mapping[str, Any]) -> RecordTable | None:
    """Return what was measured of the harmful prompts of each category."""
    rows = []
    for name, value in found.items():
        one = _mapping(value)
        start = ("harmfulness", "languages", lang, "by_category", name)
        about = f"harmful prompts, {language_name(lang)}, category {name}"
        cells: list[Figure | str | None] = [name]
        for behaviour in BEHAVIOURS[:2]:
            number = _number(_mapping(one.get("n")).get(behaviour))
            link = pointer(run.file, *start, "n", behaviour)
            told = f"{about}, {behaviour}"
            cells.append(None if number is None else Figure(number, told, link, kind="count"))
        for score in ("harmful", "refuse"):
            number = _number(one.get(score))
            link = pointer(run.file, *start, score)
            told = f"mean Δ_{score}, {about}"
            cells.append(None if number is None else Figure(number, told, link, kind="number"))
        cells.append(
            _share(one.get("called_harmful"), f"Δ_harmful ≥ 0, {about}", run, *start, "called_harmful")
        )
        flips = _mapping(one.get("inversion")).get("flips")
        cells += [_most_flipped(flips, kind, about, run, *start) for kind in ("harmfulness", "refusal")]
        rows.append(tuple(cells))
    if all(cell is None for row in rows for cell in row[1:]):
        return None
    header = ("category", "refused", "accepted", "Δ_harmful", "Δ_refuse", "Δ_harmful ≥ 0")
    return RecordTable((*header, "flipped by harmfulness", "flipped by refusal"), tuple(rows))


def _share(value: Any, about: str, run: Run, *place: str | int) -> Figure | None:
    """Return a rate with its interval, or None of nothing."""
    one = _mapping(value)
    share = _number(one.get("rate"))
    if share is None:
        return None
    ends = (_number(one.get("low")), _number(one.get("high")))
    return Figure(share, about, pointer(run.file, *place, "rate"), *ends)


def _most_flipped(flips: Any, kind: str, about: str, run: Run, *start: str | int) -> Figure | None:
    """Return the share of flipped answers at the layer where direction `kind` flips most."""
    shares = {
        index: share
        for index, one in enumerate(flips if isinstance(flips, list) else [])
        if _mapping(one).get("direction") == kind
        and (share := _number(_mapping(one.get("flipped")).get("rate"))) is not None
    }
    if not shares:
        return None
    index = max(shares, key=lambda place: shares[place])
    told = f"answers flipped by {kind} at layer {flips[index].get('layer')}, reply inversion, {about}"
    return _share(flips[index]["flipped"], told, run, *start, "inversion", "flips", index, "flipped")


def _scatter(records: Sequence[Mapping[str, Any]]) -> Scatter | None:
    placed = [
        (str(one.get("label")), str(one.get("behaviour")), x, y)
        for one in records
        if (x := _number(one.get("harmful"))) is not None and (y := _number(one.get("refuse"))) is not None
    ]
    if not placed:
        return None
    left, right, across = scale(min(one[2] for one in placed), max(one[2] for one in placed))
    bottom, top, upwards = scale(min(one[3] for one in placed), max(one[3] for one in placed))

    def x_of(value: float) -> float:
        return round(LEFT + SIZE * (value - left) / (right - left), 1)

    def y_of(value: float) -> float:
        return round(TOP + SIZE * (top - value) / (top - bottom), 1)

    groups: dict[tuple[str, str], list[str]] = {}
    for label, behaviour, x, y in placed:
        mark = "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0" if behaviour == "refused" else "m-2.5-2.5l5 5m0-5l-5 5"
        groups.setdefault((label, behaviour), []).append(f"M{x_of(x):g} {y_of(y):g}{mark}")
    return Scatter(
        tuple(Points(*name, "".join(marks), len(marks)) for name, marks in sorted(groups.items())),
        tuple((x_of(value), f"{value:g}") for value in across),
        tuple((y_of(value), f"{value:g}") for value in upwards),
        (x_of(0) if left < 0 < right else None, y_of(0) if bottom < 0 < top else None),
    )


def _chart(run: Run, lang: str, found: Mapping[str, Any]) -> LayerChart | None:
    cosines = found.get("cosine")
    panels: dict[str, Values] = {
        "cosine of the harmfulness and the refusal direction": {
            ("cosine", layer): _number(value)
            for layer, value in enumerate(cosines if isinstance(cosines, list) else [])
        },
        "share of answers flipped, reply inversion": dict(
            _rates(_records(_mapping(found.get("inversion")).get("flips")), "flipped")
        ),
        f"refusal rate, {found.get('scope', 'instruction')} steered": dict(
            _rates(_records(found.get("steering")), "refusal")
        ),
    }

    def told(layer: int) -> str:
        lines = [f"{language_name(lang)}, layer {layer}"]
        for title, values in panels.items():
            lines += [
                f"{title}: {value:.2f}" if name == "cosine" else f"{title}, {name}: {100 * value:.1f} %"
                for (name, at), value in values.items()
                if at == layer and value is not None
            ]
        return "\n".join(lines)

    link = pointer(run.file, "harmfulness", "languages", lang)
    return layer_chart(lang, panels, link, told, shares=list(panels)[1:])


def _rates(records: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[tuple[str, int], float | None]]:
    for one in records:
        layer = one.get("layer")
        if isinstance(layer, int):
            sign = "−" if (_number(one.get("sign")) or 0) < 0 else "+"
            line = f"{one.get('label')}, {sign} {one.get('direction')}"
            yield (line, layer), _number(_mapping(one.get(name)).get("rate"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _records(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
