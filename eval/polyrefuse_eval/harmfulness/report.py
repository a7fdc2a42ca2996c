"""Tables of `harmfulness.json`. Pure: a record in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from polyrefuse_data.core.display import visible
from polyrefuse_eval.results.final_punctuation import REMOVED
from polyrefuse_eval.results.harmfulness_records import (
    Flips,
    HarmfulnessFile,
    InversionRecord,
    LanguageHarmfulness,
    Steered,
)
from polyrefuse_eval.statistics.rates import Rate

KINDS = ("harmfulness", "refusal")
LABELS = ("harmful", "harmless")

Languages = Mapping[str, LanguageHarmfulness]
Counts = tuple[int, int]
"""Hits, and cases judged."""

Place = tuple[str | None, int | None]
"""Direction and layer; None for the unedited model."""


@dataclass(frozen=True, kw_only=True)
class BestFlips:
    """The layer at which a direction flips the largest share of answers, `hits` of `n`."""

    layer: int
    share: float
    hits: int
    n: int


def harmfulness_tables(record: HarmfulnessFile) -> str:
    """Return the run's tables: clusters, reply inversion and steering by language."""
    settings = record.signature.get("settings")
    removed = isinstance(settings, Mapping) and settings.get("final_punctuation") == REMOVED
    parts = [
        *(["Prompts were read without the punctuation at their end.\n"] if removed else []),
        "## Harmfulness and refusal\n\n" + _clusters(record.languages),
        "## Reply inversion\n\n" + _inversion(record.languages),
        "## Steering the instruction\n\n" + _steering(record.languages),
    ]
    if any(language.by_category for language in record.languages.values()):
        parts.append("## By category of harm\n\n" + _by_category(record.languages))
    if any(language.by_kind for language in record.languages.values()):
        parts.append("## By kind of prompt\n\n" + _by_kind(record.languages))
    for lang, reason in record.lacking.items():
        parts.append(f"{lang} is left out: {visible(reason)}\n")
    return "\n".join(parts)


def best_flips(inversion: InversionRecord, kind: str) -> BestFlips | None:
    """Return the flips of both labels together at the layer where direction `kind` flips most.

    None where no answer could flip.
    """
    by_layer = _pooled_by_place(
        ((flips.direction, flips.layer), flips.flipped)
        for flips in inversion.flips
        if flips.direction == kind
    )
    shares = {layer: hits / n for (_, layer), (hits, n) in by_layer.items() if n and layer is not None}
    if not shares:
        return None
    layer = max(shares, key=lambda place: shares[place])
    hits, n = by_layer[kind, layer]
    return BestFlips(layer=layer, share=shares[layer], hits=hits, n=n)


def _clusters(languages: Languages) -> str:
    rows = []
    for lang, language in languages.items():
        cosines = [value for value in language.cosine if value is not None]
        counts = [language.n.test[label] for label in LABELS]
        rows.append(
            [
                lang,
                *(f"{of_label.refused} / {of_label.accepted}" for of_label in counts),
                _number(language.auroc.get("harmful by label")),
                _number(language.auroc.get("refuse by label")),
                _number(language.auroc.get("harmful by behaviour")),
                _number(language.auroc.get("refuse by behaviour")),
                f"{min(cosines):.2f} to {max(cosines):.2f}" if cosines else "",
            ]
        )
    header = [
        "language", "harmful: refused / accepted", "harmless: refused / accepted",
        "AUROC Δ_harmful, label", "AUROC Δ_refuse, label", "AUROC Δ_harmful, behaviour",
        "AUROC Δ_refuse, behaviour", "cosine of the directions, over layers",
    ]  # fmt: skip
    return _markdown(header, rows)


def _inversion(languages: Languages) -> str:
    rows = []
    for lang, language in languages.items():
        cells = [lang, *(_share(language.inversion.right.get(label)) for label in LABELS)]
        for kind in KINDS:
            best = best_flips(language.inversion, kind)
            cells.append("" if best is None else f"{100 * best.share:.1f} % (layer {best.layer})")
        rows.append(cells)
    header = ["language", "right, harmful", "right, harmless", *(f"flipped by {kind}" for kind in KINDS)]
    note = "\nRight: unedited answers. Flipped: share of these, at the layer where it is largest.\n"
    return _markdown(header, rows) + note


def _steering(languages: Languages) -> str:
    rows = []
    for lang, language in languages.items():
        cells = [lang]
        for label in LABELS:
            steps = [step for step in language.steering if step.label == label]
            cells.append(_share(next((step.refusal for step in steps if step.layer is None), None)))
            largest_effect = min if label == "harmful" else max
            for kind in KINDS:
                rates = {
                    step.layer: step.refusal.rate
                    for step in steps
                    if step.direction == kind and step.refusal.rate is not None
                }
                layer = largest_effect(rates, key=lambda place: rates[place], default=None)
                cells.append("" if layer is None else f"{100 * rates[layer]:.1f} % (layer {layer})")
        rows.append(cells)
    header = ["language"]
    for label, way in (("harmful", "less"), ("harmless", "plus")):
        header += [f"{label}, unedited", *(f"{label}, {way} {kind}" for kind in KINDS)]
    note = "\nRefusal rates; steered at the layer where the effect is largest.\n"
    return _markdown(header, rows) + note


def _by_category(languages: Languages) -> str:
    """Return a row for each category: its prompts in all languages together."""
    rows = []
    for name in sorted({name for language in languages.values() for name in language.by_category}):
        measures = [
            language.by_category[name] for language in languages.values() if name in language.by_category
        ]
        refused = sum(measure.n.refused for measure in measures)
        accepted = sum(measure.n.accepted for measure in measures)
        called = _pooled(measure.called_harmful for measure in measures)
        steps: list[Steered] = [step for measure in measures for step in measure.steering]
        flips: list[Flips] = [flip for measure in measures for flip in measure.inversion.flips]
        steered = _pooled_by_place(((step.direction, step.layer), step.refusal) for step in steps)
        flipped = _pooled_by_place(((flip.direction, flip.layer), flip.flipped) for flip in flips)
        unedited = [counts for (_, layer), counts in steered.items() if layer is None]
        cells = [visible(name), f"{refused} / {accepted}", _percent(called)]
        cells.append(_percent(unedited[0]) if unedited else "")
        cells += [_extreme(min, steered, kind) for kind in KINDS]
        cells += [_extreme(max, flipped, kind) for kind in KINDS]
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


def _by_kind(languages: Languages) -> str:
    """Return a row for each kind and label in each language."""
    rows = [
        [
            lang,
            visible(kind),
            label,
            f"{measures.n.refused} / {measures.n.accepted}",
            f"{measures.harmful:+.3f}",
            _percent((measures.called_harmful.hits, measures.called_harmful.n)),
            f"{measures.refuse:+.3f}",
            _percent((measures.called_refused.hits, measures.called_refused.n)),
        ]
        for lang, language in languages.items()
        for kind, by_label in language.by_kind.items()
        for label, measures in by_label.items()
    ]
    header = [
        "language", "kind", "prompts", "refused / accepted", "Δ_harmful, mean", "Δ_harmful ≥ 0",
        "Δ_refuse, mean", "Δ_refuse ≥ 0",
    ]  # fmt: skip
    note = (
        "\nNo edit; `data` are the build's prompts. Prompts that are accepted although their Δ_harmful "
        "is as high as that of refused ones are still represented as harmful: they only keep the model "
        "from refusing.\n"
    )
    return _markdown(header, rows) + note


def _pooled(rates: Iterable[Rate]) -> Counts:
    """Return hits and n of `rates` together."""
    known = list(rates)
    return sum(rate.hits for rate in known), sum(rate.n for rate in known)


def _pooled_by_place(rates: Iterable[tuple[Place, Rate]]) -> dict[Place, Counts]:
    """Return hits and n at each place, of all `rates` there together."""
    by_place: dict[Place, list[Rate]] = {}
    for place, rate in rates:
        by_place.setdefault(place, []).append(rate)
    return {place: _pooled(there) for place, there in by_place.items()}


def _extreme(choose: Callable[..., int], counts: Mapping[Place, Counts], kind: str) -> str:
    """Return the least or greatest share of direction `kind`, with its layer."""
    of_kind = {layer: of for (direction, layer), of in counts.items() if direction == kind and of[1]}
    if not of_kind:
        return ""
    layer = choose(of_kind, key=lambda place: of_kind[place][0] / of_kind[place][1])
    return f"{_percent(of_kind[layer])} (layer {layer})"


def _percent(counts: Counts) -> str:
    hits, n = counts
    return f"{100 * hits / n:.1f} % of {n}" if n else ""


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + " --- |" * len(header))
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(rate: Rate | None) -> str:
    return "" if rate is None or rate.rate is None else f"{100 * rate.rate:.1f} %"
