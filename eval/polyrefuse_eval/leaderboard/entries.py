"""One line of the leaderboard: what one judge says of one run, in every language and on average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.leaderboard.figures import Figure, language_name, mean_of, of_mapping, of_result, pointer
from polyrefuse_eval.leaderboard.runs import Run

SITE_FILE = "leaderboard.json"
PARTS = {
    "kept_own": "refusals kept under ablation of the language's own direction, else of the first",
    "half_strength": "ablation strength that leaves half of the refusals",
    "kept_transfer": "refusals kept under ablation of other languages' directions, mean",
}


@dataclass(frozen=True)
class LanguageRow:
    """What was measured in one language: rates unedited, with a direction ablated, and the summary."""

    lang: str
    source: str | None
    """Whose direction is ablated in `ablated`."""
    baseline: Figure | None
    ablated: Figure | None
    over_refusal: Figure | None
    change: Figure | None
    robustness: Figure | None
    parts: Mapping[str, Figure | None]

    def count(self, name: str) -> Figure | None:
        """Return `n` or `n_unjudged` of the harmful prompts without an edit, as a number to show."""
        if self.baseline is None:
            return None
        about = {"n": "answers judged", "n_unjudged": "answers undecided"}[name]
        link = self.baseline.link.removesuffix("refusal_rate") + name
        told = f"{about}, {language_name(self.lang)}, harmful prompts, no edit"
        return Figure(getattr(self.baseline, name), told, link, kind="count")

    def json(self) -> dict[str, Any]:
        names = ("baseline", "ablated", "over_refusal", "change", "robustness")
        found = {name: _json(getattr(self, name)) for name in names}
        return {
            "source": self.source,
            **found,
            "parts": {name: _json(part) for name, part in self.parts.items()},
        }


@dataclass(frozen=True)
class Entry:
    """What `judge` says of `run`. Means are over the languages that were judged."""

    run: Run
    judge: str
    languages: tuple[LanguageRow, ...]
    baseline: Figure | None
    ablated: Figure | None
    over_refusal: Figure | None
    robustness: Figure | None
    worst: Figure | None
    worst_lang: str

    @property
    def n(self) -> int:
        """Judged answers in all languages and conditions."""
        return sum(result.n for result in self.run.results if result.judge == self.judge)

    @property
    def n_unjudged(self) -> int:
        """Answers on which the judge could not decide."""
        return sum(result.n_unjudged for result in self.run.results if result.judge == self.judge)

    def count(self, name: str) -> Figure:
        """Return `n` or `n_unjudged` as a number to show."""
        about = {"n": "answers judged", "n_unjudged": "answers undecided"}[name]
        link = pointer(SITE_FILE, "entries", self.run.name, self.judge, name)
        told = f"{about}, all languages and conditions; judge {self.judge}"
        return Figure(getattr(self, name), told, link, kind="count")

    def row(self, lang: str) -> LanguageRow | None:
        """Return the row of `lang`, or None where it was not measured."""
        return next((row for row in self.languages if row.lang == lang), None)

    def json(self) -> dict[str, Any]:
        """The line as `leaderboard.json` holds it."""
        return {
            "model": self.run.model,
            "revision": self.run.revision,
            "test_organism": self.run.is_organism,
            "file": self.run.file,
            "n": self.n,
            "n_unjudged": self.n_unjudged,
            "robustness": _json(self.robustness),
            "worst": None if self.worst is None else {"lang": self.worst_lang, **self.worst.json()},
            "baseline": _json(self.baseline),
            "ablated": _json(self.ablated),
            "over_refusal": _json(self.over_refusal),
            "languages": {row.lang: row.json() for row in self.languages},
        }


def entry_of(run: Run, judge: str) -> Entry:
    """Return the line of `judge` on `run`; what its summary lacks is None."""
    summary = _mapping(run.summary, "judges", judge)
    rows = tuple(
        _row(run, judge, lang, _mapping(summary, "languages", lang))
        for lang in dict.fromkeys(result.lang for result in run.results if result.judge == judge)
    )

    def mean(name: str, about: str) -> Figure | None:
        link = pointer(SITE_FILE, "entries", run.name, judge, name, "value")
        return mean_of([getattr(row, name) for row in rows if getattr(row, name)], about, link)

    start = ("summary", "judges", judge)
    worst = _mapping(summary, "worst")
    worst_lang = str(worst.get("lang") or "")
    return Entry(
        run,
        judge,
        rows,
        mean("baseline", "refusal rate on harmful prompts, no edit"),
        mean("ablated", "refusal rate on harmful prompts, direction ablated"),
        mean("over_refusal", "refusal rate on harmless prompts, no edit"),
        of_mapping(
            _mapping(summary, "mean"),
            f"refusal robustness, mean of the languages; judge {judge}",
            pointer(run.file, *start, "mean", "value"),
        ),
        of_mapping(
            worst,
            f"refusal robustness, {language_name(worst_lang)}, the least of the languages; judge {judge}",
            pointer(run.file, *start, "worst", "value"),
        ),
        worst_lang,
    )


def _row(run: Run, judge: str, lang: str, summary: Mapping[str, Any]) -> LanguageRow:
    def rate(condition: str, label: str) -> Figure | None:
        for index, result in enumerate(run.results):
            if (result.lang, result.label, result.condition, result.judge) == (lang, label, condition, judge):
                return of_result(result, run.file, index)
        return None

    source = _source(run, judge, lang, summary)
    ablation = f"ablation:{source}"
    start = ("summary", "judges", judge, "languages", lang)
    parts = _mapping(summary, "robustness", "parts")
    return LanguageRow(
        lang,
        source,
        rate("baseline", "harmful"),
        rate(ablation, "harmful"),
        rate("baseline", "harmless"),
        _change(run, judge, lang, ablation),
        of_mapping(
            _mapping(summary, "robustness"),
            f"refusal robustness, {language_name(lang)}; judge {judge}",
            pointer(run.file, *start, "robustness", "value"),
        ),
        {
            name: of_mapping(
                {"value": parts.get(name)},
                f"{about}, {language_name(lang)}; judge {judge}",
                pointer(run.file, *start, "robustness", "parts", name),
            )
            for name, about in PARTS.items()
        },
    )


def _source(run: Run, judge: str, lang: str, summary: Mapping[str, Any]) -> str | None:
    """Return whose direction tells most of `lang` when ablated: the one that the summary names, else
    the language's own, else the first that is no control."""
    there = [
        result.source
        for result in run.results
        if (result.lang, result.label, result.judge) == (lang, "harmful", judge)
        and result.condition == f"ablation:{result.source}"
    ]
    wanted = [_mapping(summary, "ablated").get("source"), lang]
    wanted += [source for source in there if source not in ("random", "shuffled")]
    return next((source for source in wanted if source in there), None)


def _change(run: Run, judge: str, lang: str, condition: str) -> Figure | None:
    for index, comparison in enumerate(run.comparisons):
        if (comparison.lang, comparison.label, comparison.judge) != (lang, "harmful", judge):
            continue
        if comparison.condition == condition and comparison.against == "baseline":
            adjusted = "" if comparison.p_holm is None else f"; p = {comparison.p_holm:.3g} after Holm"
            return Figure(
                comparison.difference,
                f"change of the refusal rate, {language_name(lang)}, {condition} against baseline, paired "
                f"by prompt group{adjusted}; judge {judge}",
                pointer(run.file, "comparisons", index, "difference"),
                comparison.low,
                comparison.high,
                comparison.n,
                0,
            )
    return None


def _mapping(found: Any, *path: str) -> Mapping[str, Any]:
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _json(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.json()
