"""Check cells against each other: prompts, labels and languages that one has and another lacks or repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.interventions import BASELINE_NAME, INTERVENTIONS
from polyrefuse_eval.results.settings import Condition
from polyrefuse_eval.results.subset_files import PROMPTS_FILE

LEAST_COPIES = 8
"""So many prompts with the same answers in two languages are no chance, where most answers differ."""

Cells = Mapping[tuple[str, str], set[str]]
"""Ids of prompts by label and condition."""


def cell_problems(folder: RunFolder) -> Iterator[str]:
    """Yield labels that a language lacks, prompts that a condition lacks, and languages under other names."""
    for judge in folder.judges():
        by_lang = {lang: _cells(folder, judge, lang) for lang in folder.judged_languages(judge)}
        if not (folder.path / PROMPTS_FILE).is_file():  # people's own prompts may be in some languages alone
            yield from _absent_labels(judge, by_lang)
        for lang, cells in by_lang.items():
            yield from _absent_prompts(judge, lang, cells)
        yield from _swapped(folder, judge)
    yield from _copied(folder)


def _cells(folder: RunFolder, judge: str, lang: str) -> Cells:
    cells: dict[tuple[str, str], set[str]] = {}
    for verdict in folder.verdicts(judge, lang):
        cells.setdefault((verdict.label, verdict.condition), set()).add(verdict.id)
    return cells


def _absent_labels(judge: str, by_lang: Mapping[str, Cells]) -> Iterator[str]:
    labels = sorted({label for cells in by_lang.values() for label, _ in cells})
    for lang, cells in by_lang.items():
        for label in labels:
            if (label, BASELINE_NAME) not in cells:
                yield f"{label} prompts have no verdict of {judge} without an edit in '{lang}'"


def _absent_prompts(judge: str, lang: str, cells: Cells) -> Iterator[str]:
    """Yield conditions that were read on fewer prompts than without an edit; cross-checks may be."""
    for (label, name), ids in cells.items():
        intervention = INTERVENTIONS.get(Condition.parse(name).intervention)
        absent = cells.get((label, BASELINE_NAME), set()) - ids
        if intervention is not None and intervention.moves == label and absent:
            yield f"{len(absent)} prompts of {lang} {label} baseline have no verdict of {judge} under {name}"


def _swapped(folder: RunFolder, judge: str) -> Iterator[str]:
    """Yield pairs of languages in which a judge found most answers to be in the other of the two."""
    mostly: dict[str, str] = {}
    for lang in folder.judged_languages(judge):
        verdicts = [verdict for verdict in folder.verdicts(judge, lang) if verdict.condition == BASELINE_NAME]
        found = [verdict.response_lang for verdict in verdicts]
        for other in set(found) - {None, lang}:
            if other is not None and 2 * found.count(other) > len(found):
                mostly[lang] = other
    for lang, other in mostly.items():
        if lang < other and mostly.get(other) == lang:
            yield f"most answers in '{lang}' are in '{other}', and those in '{other}' in '{lang}'"


def _copied(folder: RunFolder) -> Iterator[str]:
    """Yield pairs of languages whose answers without an edit are the same, prompt by prompt."""
    answers: dict[str, dict[str, str]] = {
        lang: {
            completion.id: completion.response
            for completion in folder.completions(lang)
            if completion.condition == BASELINE_NAME
        }
        for lang in folder.languages()
    }
    for (lang, ours), (other, theirs) in combinations(answers.items(), 2):
        enough = len(ours) >= LEAST_COPIES and 2 * len(set(ours.values())) > len(ours)
        if enough and ours == theirs:
            yield f"the {len(ours)} answers in '{lang}' and '{other}' are the same texts"
