"""What changed from one run to another, language by language, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from polyrefuse_data.core.display import visible
from polyrefuse_data.core.paths import real_path
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.report.groups import Groups, Verdicts, by_cell
from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.folder import RESULTS_FILE, RUN_FILE, SUMMARY_FILE, RunFolder, differences
from polyrefuse_eval.results.interventions import ABLATION
from polyrefuse_eval.results.settings import Condition, is_language, own_source
from polyrefuse_eval.results.verification import verify_run
from polyrefuse_eval.statistics.rates import holm, rate

FORMAT = "polyrefuse-compare-1"
ALPHA = 0.05
TRANSFER = "refusal, others ablated"
MEASURES = ("refusal", "over-refusal", "refusal, ablated", TRANSFER)
"""Refusal of harmful prompts; of harmless ones; of harmful ones with the language's own direction ablated;
and with the directions of other languages ablated, those that both runs have."""


@dataclass(frozen=True, kw_only=True)
class RunChange:
    """One measure in one language by one judge: `first` and `second` are refusal rates over the `n`
    prompts (answers, where several directions were ablated in turn) judged in both runs, `difference`
    is second - first; the rest as in `records.Comparison`, Holm's correction over the languages of one
    measure."""

    judge: str
    measure: str
    lang: str
    n: int
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class RunComparison:
    """All changes; `notes` say what else differs, or is left out."""

    first: str
    second: str
    changes: tuple[RunChange, ...]
    notes: tuple[str, ...]


def is_compared(name: str) -> bool:
    """Return whether a file of a run, by its name in the folder, takes part in a comparison."""
    return name in (RUN_FILE, RESULTS_FILE, SUMMARY_FILE) or name.startswith("verdicts/")


def compare_runs(first: RunFolder, second: RunFolder) -> RunComparison:
    """Compare two runs on the same data by the judges that have read both.

    Raises `RunFolderError`, saying what differs, for runs of other data or without a common judge, and for a
    finished run whose files do not hold together.
    """
    for folder in (first, second):
        if folder.complete:
            verify_run(folder, answers=(folder.path / "completions").is_dir())
    theirs, ours = first.signature, second.signature
    other_data = differences(_data(theirs), _data(ours))
    if other_data:
        raise RunFolderError(
            f"'{first.path}' and '{second.path}' cannot be compared: they measure different prompts "
            f"({'; '.join(other_data)})"
        )
    judges = [judge for judge in theirs["judges"] if judge in ours["judges"]]
    if not judges:
        raise RunFolderError(
            f"'{first.path}' and '{second.path}' cannot be compared: no judge has read both "
            f"({', '.join(theirs['judges'])} there, {', '.join(ours['judges'])} here); judge one of them "
            "again with: polyrefuse eval rescore"
        )
    notes = [
        f"left out: judge {judge} has read only one of the runs"
        for judge in sorted(set(theirs["judges"]) ^ set(ours["judges"]))
    ]
    notes += [
        f"also different: {difference}"
        for name in ("model", "settings", "versions")
        for difference in differences({name: theirs.get(name)}, {name: ours.get(name)})
    ]
    changes = [change for judge in judges for change in _by_judge(judge, first, second)]
    if not changes:
        raise RunFolderError(f"'{first.path}' and '{second.path}' have no language and condition in common")
    return RunComparison(_name(first, theirs), _name(second, ours), tuple(changes), tuple(notes))


def comparison_json(comparison: RunComparison) -> dict[str, Any]:
    """Return a comparison as plain JSON."""
    return {
        "format": FORMAT,
        "first": comparison.first,
        "second": comparison.second,
        "changes": [vars(change) for change in comparison.changes],
        "notes": list(comparison.notes),
    }


def comparison_table(comparison: RunComparison) -> str:
    """Return a comparison as Markdown."""
    rows = [
        [
            change.judge,
            change.measure,
            change.lang,
            str(change.n),
            _percent(change.first),
            _percent(change.second),
            _interval(change),
            "" if change.p_holm is None else f"{change.p_holm:.3g}",
            verdict(change),
        ]
        for change in comparison.changes
    ]
    header = ["judge", "measure", "language", "prompts", "A %", "B %", "B - A [95 %]", "p (Holm)", ""]
    notes = "".join(f"- {visible(note)}\n" for note in comparison.notes)
    return (
        f"A: {visible(comparison.first)}\nB: {visible(comparison.second)}\n\n{table(header, rows)}\n"
        "Refusal rates over prompts judged in both. Intervals: paired bootstrap over prompt groups; p: exact "
        f"sign-flip test, Holm's correction over languages; more than chance: p (Holm) at most {ALPHA}.\n"
        + (f"\n{notes}" if notes else "")
    )


def verdict(change: RunChange) -> str:
    """Return `up`, `down`, or `no change shown`."""
    if change.p_holm is None or change.difference is None:
        return "not measured"
    if change.p_holm > ALPHA:
        return "no change shown"
    return "up" if change.difference > 0 else "down"


def _by_judge(judge: str, first: RunFolder, second: RunFolder) -> Iterable[RunChange]:
    cells = [
        by_cell(
            verdict for lang in folder.judged_languages(judge) for verdict in folder.verdicts(judge, lang)
        )
        for folder in (first, second)
    ]
    langs = [lang for lang in _langs(cells[0]) if lang in _langs(cells[1])]
    for measure in MEASURES:
        label = "harmless" if measure == "over-refusal" else "harmful"
        pairs: dict[str, tuple[Verdicts, Verdicts]] = {}
        for lang in langs:
            if measure == TRANSFER:
                sources = [
                    source for source in _sources(lang, cells[0]) if source in _sources(lang, cells[1])
                ]
                own = own_source(lang, sources)
                others = [
                    ABLATION.condition(source) for source in sources if source != own and is_language(source)
                ]
                if others:
                    pairs[lang] = (_merged(lang, others, cells[0]), _merged(lang, others, cells[1]))
                continue
            names = [_condition(measure, lang, of_run) for of_run in cells]
            if all(
                name is not None and (lang, label, name) in of for name, of in zip(names, cells, strict=True)
            ):
                pairs[lang] = (cells[0][lang, label, str(names[0])], cells[1][lang, label, str(names[1])])
        if not pairs:
            continue
        groups = Groups(verdict.group for pair in pairs.values() for verdict in pair[0].values())
        changes = [
            RunChange(
                judge=judge,
                measure=measure,
                lang=lang,
                n=change.n,
                first=rates[0],
                second=rates[1],
                difference=change.difference,
                low=change.low,
                high=change.high,
                p=change.p,
                p_holm=None,
            )
            for lang, change in zip(pairs, groups.changes(list(pairs.values())), strict=True)
            for rates in [_rates(*pairs[lang])]
        ]
        adjusted = holm([change.p for change in changes])
        yield from (replace(change, p_holm=p) for change, p in zip(changes, adjusted, strict=True))


def _condition(measure: str, lang: str, cells: Mapping[tuple[str, str, str], Verdicts]) -> str | None:
    """Return the condition that `measure` reads in one run."""
    if measure != "refusal, ablated":
        return "baseline"
    own = own_source(lang, _sources(lang, cells))
    return None if own is None else ABLATION.condition(own)


def _sources(lang: str, cells: Mapping[tuple[str, str, str], Verdicts]) -> list[str]:
    """Return whose directions were ablated in `lang`, whole."""
    names = [Condition.parse(name) for of, label, name in cells if (of, label) == (lang, "harmful")]
    return [
        str(condition.source)
        for condition in names
        if condition.intervention == ABLATION.name and condition.coefficient == 1.0
    ]


def _merged(lang: str, conditions: Iterable[str], cells: Mapping[tuple[str, str, str], Verdicts]) -> Verdicts:
    """Return the verdicts on harmful prompts under all of `conditions`, by condition and prompt."""
    return {
        f"{condition}/{prompt}": verdict
        for condition in conditions
        for prompt, verdict in cells[lang, "harmful", condition].items()
    }


def _rates(first: Verdicts, second: Verdicts) -> tuple[float | None, float | None]:
    both = [
        (verdict.refused, second[prompt].refused)
        for prompt, verdict in first.items()
        if prompt in second and verdict.refused is not None and second[prompt].refused is not None
    ]
    return rate([before for before, _ in both]).rate, rate([after for _, after in both]).rate


def _langs(cells: Iterable[tuple[str, str, str]]) -> list[str]:
    return list(dict.fromkeys(lang for lang, _, _ in cells))


def _data(signature: Mapping[str, Any]) -> Mapping[str, Any]:
    data: Mapping[str, Any] = signature.get("data", {})
    return {"digest": data.get("digest")}


def _name(folder: RunFolder, signature: Mapping[str, Any]) -> str:
    model = signature.get("model", {})
    return f"{real_path(folder.path).name} ({model.get('model')}@{model.get('revision')})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _interval(change: RunChange) -> str:
    if change.difference is None or change.low is None or change.high is None:
        return ""
    return f"{100 * change.difference:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
