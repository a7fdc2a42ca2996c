"""One line of the leaderboard: what one judge says of one run, in every language and on average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_eval.leaderboard.figures import Figure, language_name, mean_of, of_result, pointer
from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.results.interventions import ABLATION, INTERVENTIONS
from polyrefuse_eval.results.summary_records import Estimate, LanguageSummary, Robustness, Worst
from polyrefuse_eval.statistics.rates import Rate

SITE_FILE = "leaderboard.json"
PARTS = {
    "refused_english": "harmful prompts refused with the English direction ablated",
    "refused_own": "harmful prompts refused with the language's own direction ablated",
    "kept_own": "refusals kept under ablation of the language's own direction, or of the first if "
    "it has none",
    "half_strength": "ablation strength that leaves half of the refusals",
    "kept_transfer": "refusals kept under ablation of other languages' directions, mean",
}

COMPREHENSION = {
    "gap": "refusal rate on harmful minus harmless prompts, no edit",
    "in_language": "answers in the prompt's language, no edit",
    "in_english": "answers in English, no edit",
    "incoherent": "incoherent answers, no edit",
    "puzzled": "answers that misunderstood the request, no edit",
    "cut": "answers cut off at the longest length allowed, no edit",
}
"""What tells whether a model understood a language, by the field of `Comprehension`."""

COSTS = {f"kl_{row.participle}": row for row in INTERVENTIONS.values() if row.default}
"""Name of a cost to its intervention: the KL a token along unedited answers to harmless prompts."""


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
    comprehension: Mapping[str, Figure | None]
    costs: Mapping[str, Figure | None]
    """What the direction of `source` costs when it is ablated or added, by the names of `COSTS`."""
    is_ranked: bool = True
    """Whether it counts in means and ranks: its answers are not mostly incoherent."""

    def count(self, name: str) -> Figure | None:
        """Return `n` or `n_unjudged` of the harmful prompts without an edit, as a number to show."""
        if self.baseline is None:
            return None
        about = {"n": "answers judged", "n_unjudged": "answers undecided"}[name]
        link = self.baseline.link.removesuffix("refusal_rate") + name
        description = f"{about}, {language_name(self.lang)}, harmful prompts, no edit"
        return Figure(getattr(self.baseline, name), description, link, kind="count")

    def json(self) -> dict[str, Any]:
        names = ("baseline", "ablated", "over_refusal", "change", "robustness")
        figures = {name: _json(getattr(self, name)) for name in names}
        return {
            "source": self.source,
            **figures,
            "parts": {name: _json(part) for name, part in self.parts.items()},
            "comprehension": {name: _json(figure) for name, figure in self.comprehension.items()},
            "costs": {name: _json(figure) for name, figure in self.costs.items()},
            "ranked": self.is_ranked,
        }


@dataclass(frozen=True)
class Entry:
    """What `judge` says of `run`, languages in the order of their codes, as everywhere on the page.

    Means are over the languages that were judged and can be ranked.
    """

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
    def has_edits(self) -> bool:
        """Whether anything was measured with an edit: a run without directions has only unedited answers."""
        return any(result.source for result in self.run.results if result.judge == self.judge)

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
        description = f"{about}, all languages and conditions; judge {self.judge}"
        return Figure(getattr(self, name), description, link, kind="count")

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
    summary = None if run.summary is None else run.summary.judges.get(judge)
    languages = {} if summary is None else summary.languages
    rows = tuple(
        _row(run, judge, lang, languages.get(lang))
        for lang in sorted({result.lang for result in run.results if result.judge == judge})
    )

    def mean(name: str, about: str) -> Figure | None:
        link = pointer(SITE_FILE, "entries", run.name, judge, name, "value")
        figures = [getattr(row, name) for row in rows if row.is_ranked and getattr(row, name)]
        return mean_of(figures, about, link)

    def of_summary(name: str, estimate: Estimate | Worst | None, about: str) -> Figure | None:
        link = pointer(run.file, "summary", "judges", judge, name, "value")
        return _estimated(estimate, f"refusal robustness, {about}; judge {judge}", link)

    worst = None if summary is None else summary.worst
    least = "" if worst is None else worst.lang
    return Entry(
        run=run,
        judge=judge,
        languages=rows,
        baseline=mean("baseline", "refusal rate on harmful prompts, no edit"),
        ablated=mean("ablated", "refusal rate on harmful prompts, direction ablated"),
        over_refusal=mean("over_refusal", "refusal rate on harmless prompts, no edit"),
        robustness=of_summary("mean", None if summary is None else summary.mean, "mean of the languages"),
        worst=of_summary("worst", worst, f"{language_name(least)}, the lowest of the languages"),
        worst_lang=least,
    )


def _row(run: Run, judge: str, lang: str, summary: LanguageSummary | None) -> LanguageRow:
    def rate(condition: str, label: str) -> Figure | None:
        for index, result in enumerate(run.results):
            if (result.lang, result.label, result.condition, result.judge) == (lang, label, condition, judge):
                return of_result(result, run.file, index)
        return None

    source = _source(run, judge, lang, summary)
    start = ("summary", "judges", judge, "languages", lang, "robustness")
    robustness = None if summary is None else summary.robustness
    parts = {} if robustness is None else asdict(robustness.parts)
    return LanguageRow(
        lang=lang,
        source=source,
        baseline=rate("baseline", "harmful"),
        ablated=rate(ABLATION.condition(source), "harmful"),
        over_refusal=rate("baseline", "harmless"),
        change=_change(run, judge, lang, ABLATION.condition(source)),
        robustness=_estimated(
            robustness,
            f"refusal robustness, {language_name(lang)}; judge {judge}",
            pointer(run.file, *start, "value"),
        ),
        parts={
            name: None
            if parts.get(name) is None
            else Figure(
                parts[name],
                f"{about}, {language_name(lang)}; judge {judge}",
                pointer(run.file, *start, "parts", name),
                kind="number",
            )
            for name, about in PARTS.items()
        },
        comprehension=_comprehension(run, judge, lang, summary),
        costs=_costs(run, lang, source),
        is_ranked=summary is None or summary.is_ranked,
    )


def _comprehension(
    run: Run, judge: str, lang: str, summary: LanguageSummary | None
) -> dict[str, Figure | None]:
    """Return the numbers of `COMPREHENSION` in one language; None where the run does not state them."""
    stated = None if summary is None else summary.comprehension
    figures: dict[str, Figure | None] = dict.fromkeys(COMPREHENSION)
    if stated is None:
        return figures
    place = ("summary", "judges", judge, "languages", lang, "comprehension")
    for name, about in COMPREHENSION.items():
        of_lang = f"{about}, {language_name(lang)}; judge {judge}"
        if name == "gap":
            gap = stated.gap
            link = pointer(run.file, *place, name, "value")
            figure = Figure(gap.value, of_lang, link, gap.low, gap.high, kind="points")
        else:
            share: Rate = getattr(stated, name)
            link = pointer(run.file, *place, name, "rate")
            figure = Figure(share.rate, of_lang, link, share.low, share.high, share.n, share.n_unjudged)
        if figure.value is not None:
            figures[name] = figure
    return figures


def _costs(run: Run, lang: str, source: str | None) -> dict[str, Figure | None]:
    """Return the numbers of `COSTS` in one language; None where the run does not state them."""
    figures: dict[str, Figure | None] = dict.fromkeys(COSTS)
    for index, cost in enumerate(run.costs):
        for name, intervention in COSTS.items():
            if cost.kl_per_token is None or (cost.lang, cost.condition) != (
                lang,
                intervention.condition(source),
            ):
                continue
            figures[name] = Figure(
                cost.kl_per_token,
                f"KL(unedited ‖ edited) in nats a token along {cost.n} unedited answers to harmless prompts, "
                f"{language_name(lang)}, {cost.condition}",
                pointer(run.file, "costs", index, "kl_per_token"),
                cost.low,
                cost.high,
                kind="number",
            )
    return figures


def _estimated(estimate: Estimate | Worst | Robustness | None, about: str, link: str) -> Figure | None:
    if estimate is None or estimate.value is None:
        return None
    return Figure(estimate.value, about, link, estimate.low, estimate.high, kind="number")


def _source(run: Run, judge: str, lang: str, summary: LanguageSummary | None) -> str | None:
    """Return whose direction tells most of `lang` when ablated: the one that the summary names, else
    the language's own, else the first that is no control."""
    there = [
        result.source
        for result in run.results
        if (result.lang, result.label, result.judge) == (lang, "harmful", judge)
        and result.condition == ABLATION.condition(result.source)
    ]
    named = None if summary is None or summary.ablated is None else summary.ablated.source
    wanted = [named, lang]
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
                kind="points",
            )
    return None


def _json(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.json()
