"""Tables of `harmfulness.json`. Pure: a record in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

KINDS = ("harmfulness", "refusal")


def harmfulness_tables(record: Mapping[str, Any]) -> str:
    """Return the run's tables: clusters, reply inversion and steering by language."""
    languages: Mapping[str, Any] = record["languages"]
    parts = [
        "## Harmfulness and refusal\n\n" + _clusters(languages),
        "## Reply inversion\n\n" + _inversion(languages),
        "## Steering the instruction\n\n" + _steering(languages),
    ]
    if any(one["by_category"] for one in languages.values()):
        parts.append("## By category of harm\n\n" + _by_category(languages))
    for lang, reason in record["lacking"].items():
        parts.append(f"{lang} is left out: {reason}\n")
    return "\n".join(parts)


def best_flips(inversion: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the rate of flips, of both labels together, at the layer where direction `kind` flips
    most; None where there is none."""
    by_layer: dict[int, list[int]] = {}
    for one in inversion["flips"]:
        if one["direction"] == kind:
            total = by_layer.setdefault(one["layer"], [0, 0])
            total[0] += one["flipped"]["hits"]
            total[1] += one["flipped"]["n"]
    shares = {layer: hits / n for layer, (hits, n) in by_layer.items() if n}
    if not shares:
        return None
    layer = max(shares, key=lambda one: shares[one])
    hits, n = by_layer[layer]
    return {"layer": layer, "share": shares[layer], "hits": hits, "n": n}


def _clusters(languages: Mapping[str, Any]) -> str:
    rows = []
    for lang, one in languages.items():
        test, cosines = one["n"]["test"], [value for value in one["cosine"] if value is not None]
        rows.append(
            [
                lang,
                *(
                    f"{test[label]['refused']} / {test[label]['accepted']}"
                    for label in ("harmful", "harmless")
                ),
                _number(one["auroc"]["harmful by label"]),
                _number(one["auroc"]["refuse by label"]),
                _number(one["auroc"]["harmful by behaviour"]),
                _number(one["auroc"]["refuse by behaviour"]),
                f"{min(cosines):.2f} to {max(cosines):.2f}" if cosines else "",
            ]
        )
    header = [
        "language", "harmful: refused / accepted", "harmless: refused / accepted",
        "AUROC Δ_harmful, label", "AUROC Δ_refuse, label", "AUROC Δ_harmful, behaviour",
        "AUROC Δ_refuse, behaviour", "cosine of the directions, over layers",
    ]  # fmt: skip
    return _markdown(header, rows)


def _inversion(languages: Mapping[str, Any]) -> str:
    rows = []
    for lang, one in languages.items():
        right = one["inversion"]["right"]
        cells = [lang, *(_share(right.get(label)) for label in ("harmful", "harmless"))]
        for kind in KINDS:
            best = best_flips(one["inversion"], kind)
            cells.append("" if best is None else f"{100 * best['share']:.1f} % (layer {best['layer']})")
        rows.append(cells)
    header = ["language", "right, harmful", "right, harmless", *(f"flipped by {kind}" for kind in KINDS)]
    note = "\nRight: unedited answers. Flipped: share of these, at the layer where it is largest.\n"
    return _markdown(header, rows) + note


def _steering(languages: Mapping[str, Any]) -> str:
    rows = []
    for lang, one in languages.items():
        cells = [lang]
        for label in ("harmful", "harmless"):
            mine = [step for step in one["steering"] if step["label"] == label]
            cells.append(_share(next((step["refusal"] for step in mine if step["layer"] is None), None)))
            choose = min if label == "harmful" else max
            for kind in KINDS:
                known = [
                    step for step in mine if step["direction"] == kind and step["refusal"]["rate"] is not None
                ]
                best = choose(known, key=lambda step: step["refusal"]["rate"], default=None)
                cells.append(
                    "" if best is None else f"{100 * best['refusal']['rate']:.1f} % (layer {best['layer']})"
                )
        rows.append(cells)
    header = ["language"]
    for label, way in (("harmful", "less"), ("harmless", "plus")):
        header += [f"{label}, unedited", *(f"{label}, {way} {kind}" for kind in KINDS)]
    note = "\nRefusal rates; steered at the layer where the effect is largest.\n"
    return _markdown(header, rows) + note


def _by_category(languages: Mapping[str, Any]) -> str:
    """Return a row for each category: its prompts in all languages together."""
    rows = []
    for name in sorted({name for one in languages.values() for name in one["by_category"]}):
        found = [one["by_category"][name] for one in languages.values() if name in one["by_category"]]
        counts = {key: sum(one["n"][key] for one in found) for key in ("refused", "accepted")}
        called = _pooled(one["called_harmful"] for one in found)
        steering = _together([step for one in found for step in one["steering"]], "refusal")
        flips = _together([flip for one in found for flip in one["inversion"]["flips"]], "flipped")
        unedited = [shares for (_, layer), shares in steering.items() if layer is None]
        cells = [name, f"{counts['refused']} / {counts['accepted']}", _percent(called)]
        cells.append(_percent(unedited[0]) if unedited else "")
        cells += [_extreme(min, steering, kind) for kind in KINDS]
        cells += [_extreme(max, flips, kind) for kind in KINDS]
        rows.append(cells)
    header = [
        "category", "refused / accepted", "Δ_harmful ≥ 0", "refused, unedited",
        *(f"refused, less {kind}" for kind in KINDS), *(f"flipped by {kind}" for kind in KINDS),
    ]  # fmt: skip
    note = (
        "\nHarmful prompts of all languages together; steered and flipped: those of them that were, at the "
        "layer where the effect is largest. By language: `by_category` in harmfulness.json.\n"
    )
    return _markdown(header, rows) + note


def _pooled(rates: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return hits and n of `rates` together."""
    known = list(rates)
    return sum(one["hits"] for one in known), sum(one["n"] for one in known)


def _together(
    records: Sequence[Mapping[str, Any]], name: str
) -> dict[tuple[str | None, int | None], tuple[int, int]]:
    """Return hits and n of the rates called `name` by direction and layer, of all `records` together."""
    keys = dict.fromkeys((one["direction"], one["layer"]) for one in records)
    return {
        key: _pooled(one[name] for one in records if (one["direction"], one["layer"]) == key) for key in keys
    }


def _extreme(
    choose: Callable[..., Any], found: Mapping[tuple[str | None, int | None], tuple[int, int]], kind: str
) -> str:
    """Return the least or greatest share of direction `kind`, with its layer."""
    shares = {layer: one for (of, layer), one in found.items() if of == kind and one[1]}
    if not shares:
        return ""
    layer = choose(shares, key=lambda at: shares[at][0] / shares[at][1])
    return f"{_percent(shares[layer])} (layer {layer})"


def _percent(share: tuple[int, int]) -> str:
    hits, n = share
    return f"{100 * hits / n:.1f} % of {n}" if n else ""


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + " --- |" * len(header))
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None or rate["rate"] is None else f"{100 * rate['rate']:.1f} %"
