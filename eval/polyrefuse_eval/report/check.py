"""Check a run that somebody else made: does everything in it follow from its verdicts, and can it be true?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_data.core.schema import LABELS
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.report.check_cells import cell_problems
from polyrefuse_eval.report.check_costs import cost_problems
from polyrefuse_eval.report.check_prompts import prompt_problems
from polyrefuse_eval.report.check_request import request_problems
from polyrefuse_eval.report.check_service import service_problems
from polyrefuse_eval.report.check_settings import setting_problems
from polyrefuse_eval.report.check_times import time_problems
from polyrefuse_eval.report.check_verdicts import judged_again, not_read_again
from polyrefuse_eval.report.differing import SAMPLED, by_name, different
from polyrefuse_eval.report.tables import TABLE_FILE, tables_of
from polyrefuse_eval.results.contrast_pairs import is_fitted_on
from polyrefuse_eval.results.cost_files import ANSWER_COSTS, COSTS_FILE, read_answer_costs, read_costs
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.files import read_content
from polyrefuse_eval.results.folder import RESULTS_FILE, RunFolder, differences
from polyrefuse_eval.results.prompt_draw import limited
from polyrefuse_eval.results.records import VerdictRecord
from polyrefuse_eval.results.settings import Condition
from polyrefuse_eval.results.sources import CONTROLS
from polyrefuse_eval.results.subset_files import (
    CONTRASTS_FILE,
    PROMPTS_FILE,
    SUBSETS_FILE,
    inner_runs,
    read_contrasts,
    read_prompts,
    read_subsets,
)
from polyrefuse_eval.results.verification import answer_problems, run_problems

OF_ANSWERS = ("n_cut", "cut", "n_unfinished", "made_from")
"""Fields that no published verdict tells, or that are checked apart."""

UNCHECKED_FILES = {
    "harmfulness.json": "the numbers of harmfulness.json are",
    "scores/*.json": "the scores of candidate directions in scores/ are",
    "directions/*.safetensors": "the places of directions in directions/ are",
    "timings.jsonl": "dates and seconds in timings.jsonl are",
}
"""Files that follow from nothing else in a run, and what is said of them."""


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """What is wrong with a run, and what could not be checked; each in one line."""

    problems: tuple[str, ...]
    unchecked: tuple[str, ...]


def check_run(folder: RunFolder, data: DataFolder | None = None) -> CheckedRun:
    """Check all that a run states against its verdicts, its answers where they are there, and `data`.

    Files that are no records are problems too: nothing is raised for what the folder holds.
    """
    problems: list[str] = []
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _contradictions(folder),
        lambda: _impossible_verdicts(folder),
        lambda: cell_problems(folder),
        lambda: _recomputed(folder),
        lambda: judged_again(folder, data),
        lambda: setting_problems(folder),
        lambda: request_problems(folder, data),
        lambda: service_problems(folder),
        lambda: cost_problems(folder),
        lambda: prompt_problems(folder, data),
        lambda: time_problems(folder),
        lambda: _inner(folder),
    ]
    if data is not None:
        checks.append(lambda: _foreign_prompts(folder, data))
    for check in checks:
        try:
            problems += check()
        except RunFolderError as error:
            problems.append(str(error))
    unchecked: list[str] = []
    with suppress(RunFolderError):  # a file that is no record is among the problems
        for line in _unchecked(folder, data):
            unchecked.append(line)
    return CheckedRun(problems=tuple(dict.fromkeys(problems)), unchecked=tuple(unchecked))


def _contradictions(folder: RunFolder) -> Iterator[str]:
    summary = folder.summary()
    if summary is None:
        yield "summary.json is missing: the run is not finished"
    yield from run_problems(folder, summary)
    if (folder.path / "completions").is_dir():
        yield from answer_problems(folder)


def _impossible_verdicts(folder: RunFolder) -> Iterator[str]:
    """Yield verdicts that no run of this signature has: twice, of other languages, sources or prompts."""
    settings = folder.signature.get("settings", {})
    langs, limit = settings.get("langs"), settings.get("n_test")
    sources = {*settings.get("direction_langs", ()), *CONTROLS}
    of_prompt: dict[str, tuple[str, str]] = {}
    for judge, lang, verdicts in _verdicts(folder):
        if langs is not None and lang not in langs:
            yield f"verdicts of {judge} in '{lang}', which run.json does not name"
        seen: set[tuple[str, str]] = set()
        cells: dict[tuple[str, str], set[str]] = {}
        for verdict in verdicts:
            place = f"verdict of {judge} on {lang} {verdict.key}"
            if (verdict.label, verdict.key) in seen:
                yield f"{place} is there twice"
            seen.add((verdict.label, verdict.key))
            cells.setdefault((verdict.label, verdict.condition), set()).add(verdict.id)
            source = Condition.parse(verdict.condition).source
            if "direction_langs" in settings and source is not None and source not in sources:
                yield f"{place} is of a direction that run.json does not name"
            prompt = of_prompt.setdefault(verdict.id, (verdict.group, verdict.label))
            if prompt != (verdict.group, verdict.label):
                yield f"{place} is of another group or label than elsewhere"
        for (label, condition), ids in cells.items():
            if limit is not None and len(ids) > limit:
                yield f"{len(ids)} verdicts of {judge} on {lang} {label} {condition}; run.json allows {limit}"
            absent = ids - cells.get((label, "baseline"), set())
            if absent:
                yield (
                    f"{len(absent)} prompts of {lang} {label} {condition} have no verdict of {judge} without "
                    "an edit"
                )
    yield from _uneven(folder)


def _uneven(folder: RunFolder) -> Iterator[str]:
    """Yield conditions in which a judge has read other answers than another."""
    read: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for judge, lang, verdicts in _verdicts(folder):
        for verdict in verdicts:
            cell = read.setdefault((lang, verdict.label, verdict.condition), {})
            cell.setdefault(judge, set()).add(verdict.id)
    for name, by_judge in read.items():
        first, *others = by_judge.values()
        if any(other != first for other in others) or len(by_judge) < len(folder.judges()):
            yield f"not all judges have read the same answers of {' '.join(name)}"


def _recomputed(folder: RunFolder) -> Iterator[str]:
    """Yield what does not follow from the verdicts: rates, intervals, comparisons, agreement, summary."""
    if not (folder.path / "verdicts").is_dir():
        return
    langs = folder.signature.get("settings", {}).get("langs") or _judged_languages(folder)
    tables = tables_of(folder, langs, folder.judges())
    there = (folder.path / "completions").is_dir()
    ignored = OF_ANSWERS if not there else ("made_from",)
    pairs: tuple[tuple[str, Sequence[Any], Sequence[Any], tuple[str, ...], tuple[str, ...]], ...] = (
        (RESULTS_FILE, folder.results(), tables.results, ("lang", "label", "condition", "judge"), ()),
        (
            "comparisons.jsonl",
            folder.comparisons(),
            tables.comparisons,
            ("lang", "label", "condition", "against", "judge"),
            SAMPLED,
        ),
        ("agreement.json", folder.agreement(), tables.agreement, ("lang", "reference", "judge"), ()),
    )
    if (folder.path / PROMPTS_FILE).is_file():  # else nobody knows the types and pairs of the prompts
        subset = ("kind", "subset", "lang", "label", "condition", "judge")
        pair = ("lang", "condition", "judge")
        pairs += (
            (SUBSETS_FILE, read_subsets(folder), tables.subsets, subset, ()),
            (CONTRASTS_FILE, read_contrasts(folder), tables.contrasts, pair, SAMPLED),
        )
    for file, stated, expected, key, sampled in pairs:
        yield from different(
            f"{file}:", by_name(stated, key), by_name(expected, key), ignored=ignored, sampled=sampled
        )
    summary = folder.summary()
    if summary is not None:
        languages = [language for judge in summary.judges.values() for language in judge.languages.values()]
        if all(language.bounds is None for language in languages):  # of an older version
            ignored = (*ignored, "bounds")
        yield from different(
            "summary.json:", asdict(summary), asdict(tables.summary), ignored=ignored, sampled=SAMPLED
        )
    table = folder.path / TABLE_FILE
    if there and table.is_file() and read_content(table).decode("utf-8", "replace") != tables.markdown:
        yield f"{TABLE_FILE} is not the table of the verdicts"


def _inner(folder: RunFolder) -> Iterator[str]:
    """Yield what is wrong with the runs inside a run, and where they are not of its model or directions."""
    for inner in inner_runs(folder):
        name, signatures = inner.path.name, (folder.signature, inner.signature)
        models = [{"model": signature.get("model")} for signature in signatures]
        yield from differences(models[0], models[1], f"{name}/run.json: ")
        settings = [signature.get("settings", {}) for signature in signatures]
        for key in ("langs", "direction_langs"):
            foreign = [value for value in settings[1].get(key, ()) if value not in settings[0].get(key, ())]
            if foreign:
                yield f"{name}/run.json names {', '.join(map(str, foreign))} in {key}; run.json does not"
        if settings[1].get("over_refusal_from") is not None:
            fitted = sum(is_fitted_on(prompt.pair) for prompt in read_prompts(inner).values())
            if fitted:
                yield f"{name}/: {fitted} prompts are tested that directions of over-refusal are fitted on"
        yield from (f"{name}/: {problem}" for problem in check_run(inner).problems)


def _foreign_prompts(folder: RunFolder, data: DataFolder) -> Iterator[str]:
    """Yield verdicts on prompts that `data` does not hold, and conditions that lack prompts of it."""
    digest = folder.signature.get("data", {}).get("digest")
    if digest != data.digest:
        yield f"run.json names data of digest {digest}; '{data.path}' has {data.digest}"
    recipe = folder.signature.get("data", {}).get("recipe")
    if recipe not in (None, data.recipe):
        yield f"run.json names data of recipe '{recipe}'; '{data.path}' has '{data.recipe}'"
    settings = folder.signature.get("settings", {})
    for judge, lang, verdicts in _verdicts(folder):
        if lang not in data.languages:
            yield f"'{data.path}' holds no '{lang}', in which {judge} has verdicts"
            continue
        rows = data.rows(lang, "test")
        known = {row.id: (row.group, row.label) for row in rows}
        for verdict in verdicts:
            if known.get(verdict.id) != (verdict.group, verdict.label):
                yield f"verdict of {judge} on {lang} {verdict.key} is on a prompt that '{data.path}' lacks"
        for label in LABELS:
            of_label = [row for row in rows if row.label == label]
            tested = limited(of_label, settings.get("n_test"), settings.get("test_seed"))
            expected = {row.id for row in tested}
            read = {
                verdict.id
                for verdict in verdicts
                if (verdict.label, verdict.condition) == (label, "baseline")
            }
            if read and expected - read:
                yield (
                    f"{len(expected - read)} of {len(expected)} {label} prompts in '{lang}' have no verdict "
                    f"of {judge} without an edit"
                )


def _unchecked(folder: RunFolder, data: DataFolder | None) -> Iterator[str]:
    if not (folder.path / "verdicts").is_dir():
        yield "without verdicts/, rates are not recomputed"
    if not (folder.path / "completions").is_dir():
        yield "without completions/, it is not checked that verdicts are of the answers"
    yield (
        "that these answers are of the model, settings and directions that run.json names is taken as it is: "
        "only a run of the same command would show it"
    )
    yield from not_read_again(folder, data)
    for inner in inner_runs(folder):
        yield from (f"{inner.path.name}/: {line}" for line in not_read_again(inner))
    if read_costs(folder) and not read_answer_costs(folder):
        yield f"without {ANSWER_COSTS}/, {COSTS_FILE} is not recomputed"
    for file, what in UNCHECKED_FILES.items():
        if any(folder.path.glob(file)):
            yield f"{what} accepted unchecked: nothing here shows how they were measured"
    if data is None:
        yield "without --data, it is not checked that the prompts are those of the data set"


def _verdicts(folder: RunFolder) -> Iterator[tuple[str, str, list[VerdictRecord]]]:
    for judge in folder.judges():
        for lang in folder.judged_languages(judge):
            yield judge, lang, folder.verdicts(judge, lang)


def _judged_languages(folder: RunFolder) -> list[str]:
    return sorted({lang for judge in folder.judges() for lang in folder.judged_languages(judge)})
