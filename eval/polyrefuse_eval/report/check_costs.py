"""Check what a run states of the costs of its conditions: does it follow from those of single answers?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from polyrefuse_eval.report.costs import condition_costs, cost_table
from polyrefuse_eval.report.differing import by_name, different
from polyrefuse_eval.results.cost_files import (
    ANSWER_COSTS,
    COSTS_FILE,
    COSTS_TABLE,
    read_answer_costs,
    read_costs,
)
from polyrefuse_eval.results.cost_records import AnswerCostRecord
from polyrefuse_eval.results.files import read_content
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.interventions import BASELINE_NAME

ENDS = ("low", "high")
UNEDITED = (
    "group",
    "limit",
    "n_tokens",
    "unedited_cross_entropy",
    "n_prompt_tokens",
    "unedited_prompt_cross_entropy",
)
"""Fields that no edit changes: the same of an answer under every condition."""


def cost_problems(folder: RunFolder) -> Iterator[str]:
    """Yield what is wrong with the costs of a run; nothing where none were measured."""
    by_lang, costs = read_answer_costs(folder), read_costs(folder)
    if by_lang:
        stated = by_name(costs, ("lang", "condition"))
        expected = by_name(condition_costs(by_lang), ("lang", "condition"))
        basis = f"{ANSWER_COSTS}/ gives"
        yield from different(f"{COSTS_FILE}:", stated, expected, sampled=ENDS, basis=basis)
        yield from _impossible(folder, by_lang)
    table = folder.path / COSTS_TABLE
    if table.is_file() and read_content(table).decode("utf-8", "replace") != cost_table(costs):
        yield f"{COSTS_TABLE} is not the table of {COSTS_FILE}"


def _impossible(folder: RunFolder, by_lang: Mapping[str, Sequence[AnswerCostRecord]]) -> Iterator[str]:
    """Yield records of conditions or answers that the run does not have, twice, or that differ unedited."""
    measured = {(result.lang, result.condition) for result in folder.results()}
    asked = _asked(folder)
    for lang, records in by_lang.items():
        seen: set[tuple[str, str]] = set()
        of_answer: dict[str, AnswerCostRecord] = {}
        answers: dict[str, set[str]] = {}
        for record in records:
            place = f"{ANSWER_COSTS}/{lang}.jsonl: {record.condition} on {record.id}"
            if record.lang != lang or (lang, record.condition) not in measured:
                yield f"{place} is of a language or condition without results"
            elif record.condition == BASELINE_NAME:
                yield f"{place} is of no edit"
            if (record.id, record.condition) in seen:
                yield f"{place} is there twice"
            seen.add((record.id, record.condition))
            answers.setdefault(record.condition, set()).add(record.id)
            if asked is not None and asked.get((lang, record.id)) != record.group:
                yield f"{place} is of no harmless prompt that was answered without an edit"
            first = of_answer.setdefault(record.id, record)
            for name in UNEDITED:
                yield from different(
                    f"{place}: {name}",
                    getattr(record, name),
                    getattr(first, name),
                    basis=f"its record under {first.condition} states",
                )
        if len({frozenset(ids) for ids in answers.values()}) > 1:
            yield f"{ANSWER_COSTS}/{lang}.jsonl: not all conditions were measured on the same answers"


def _asked(folder: RunFolder) -> dict[tuple[str, str], str] | None:
    """Return the groups of harmless prompts that were answered without an edit, by language and id; None
    where there are no verdicts to tell."""
    if not (folder.path / "verdicts").is_dir():
        return None
    return {
        (lang, verdict.id): verdict.group
        for judge in folder.judges()
        for lang in folder.judged_languages(judge)
        for verdict in folder.verdicts(judge, lang)
        if (verdict.label, verdict.condition) == ("harmless", BASELINE_NAME)
    }
