"""What the conditions of a finished run cost: measured on its own unedited answers to harmless prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from polyrefuse_eval.directions.finder import stored_directions
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.harm_gate import HarmGate
from polyrefuse_eval.directions.places import direction_file, gate_file
from polyrefuse_eval.directions.span import Span
from polyrefuse_eval.errors import ChatModelError, RunFolderError
from polyrefuse_eval.models.answer_costs import ANSWER_TOKENS, answer_costs
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.report.costs import condition_costs, cost_table
from polyrefuse_eval.results.cost_files import (
    COSTS_TABLE,
    answer_costs_file,
    read_answer_costs,
    write_costs,
)
from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder, differences, write_text
from polyrefuse_eval.results.interventions import BASELINE_NAME, INTERVENTIONS
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import Condition
from polyrefuse_eval.results.sources import fitted_sources
from polyrefuse_eval.results.validation import read_records, write_records
from polyrefuse_eval.runs.tasks import edits_of


def check_run(folder: RunFolder, data: DataFolder, langs: Sequence[str] | None) -> list[str]:
    """Return the languages of the run to measure, by default all; loads no model.

    Raises `RunFolderError` where the run is not finished, `data` are not its data, or a language has no
    unedited answers to harmless prompts.
    """
    if not folder.complete:
        raise RunFolderError(f"'{folder.path}' is not finished; run the same command again to resume")
    digest = folder.signature.get("data", {}).get("digest")
    if digest != data.digest:
        raise RunFolderError(
            f"'{data.path}' is not the data of '{folder.path}': "
            f"digest {data.digest} there, {digest} in the run"
        )
    settings = folder.signature.get("settings", {})
    stated = isinstance(folder.signature.get("model"), Mapping) and settings.get("direction_langs")
    if not stated or settings.get("seed") is None:
        raise RunFolderError(
            f"'{folder.path / RUN_FILE}' does not say which model and directions the run has; get it again"
        )
    measured = [lang for lang in folder.languages() if _baselines(folder, lang)]
    unknown = [lang for lang in langs or () if lang not in measured]
    if unknown or not measured:
        raise RunFolderError(
            f"'{folder.path}' has no unedited answers to harmless prompts in "
            f"{', '.join(unknown) or 'any language'}; "
            f"it has them in: {', '.join(measured) or 'none'}"
        )
    return list(langs or measured)


def measure_costs(
    chat: ChatModel,
    folder: RunFolder,
    data: DataFolder,
    langs: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    max_tokens: int = ANSWER_TOKENS,
    progress: bool = False,
    on_finished: Callable[[], None] = lambda: None,
) -> list[ConditionCost]:
    """Measure what each condition of the run costs in `langs`; write and return the costs.

    The first `limit` unedited answers to harmless prompts are read in each language, of each its first
    `max_tokens` tokens. `costs/LANG.jsonl` is written when a language is done, and is not measured again;
    then `costs.jsonl` and `costs.md`. `on_finished` is called after each file. Raises `ChatModelError` where
    `chat` is not the run's model, and what `check_run` raises.
    """
    wanted = check_run(folder, data, langs)
    differing = differences(folder.signature["model"], chat.signature())
    if differing:
        raise ChatModelError(f"the model is not that of '{folder.path}' ({'; '.join(differing)})")
    with folder.locked():
        for lang in wanted:
            answers = _baselines(folder, lang)[:limit]
            conditions = _conditions(folder, lang)
            file = answer_costs_file(folder, lang)
            if _is_measured(file, answers, conditions, max_tokens):
                continue
            records = _measure(chat, folder, data, answers, conditions, max_tokens, progress)
            write_records(file, records)
            on_finished()
        costs = condition_costs(read_answer_costs(folder))
        write_costs(folder, costs)
        write_text(folder.path / COSTS_TABLE, cost_table(costs))
        on_finished()
    return costs


def _baselines(folder: RunFolder, lang: str) -> list[Completion]:
    """Return the unedited answers to harmless prompts that are not empty."""
    return [
        completion
        for completion in folder.completions(lang)
        if completion.label == "harmless"
        and completion.condition == BASELINE_NAME
        and completion.response.strip()
    ]


def _conditions(folder: RunFolder, lang: str) -> list[str]:
    """Return the conditions, the baseline aside, under which the run has answers in `lang`."""
    names = dict.fromkeys(completion.condition for completion in folder.completions(lang))
    return [name for name in names if name != BASELINE_NAME]


def _is_measured(file: Path, answers: Sequence[Completion], conditions: Sequence[str], limit: int) -> bool:
    wanted = {(answer.id, condition, limit) for answer in answers for condition in conditions}
    return file.is_file() and wanted == {
        (record.id, record.condition, record.limit) for record in read_records(AnswerCostRecord, file)
    }


def _measure(
    chat: ChatModel,
    folder: RunFolder,
    data: DataFolder,
    answers: Sequence[Completion],
    conditions: Sequence[str],
    max_tokens: int,
    progress: bool,
) -> list[AnswerCostRecord]:
    """Return a record for each condition and answer."""
    lang = answers[0].lang
    prompts = {row.id: row.text for row in data.prompts(lang, "test", "harmless")}
    foreign = [answer.id for answer in answers if answer.id not in prompts]
    if foreign:
        raise RunFolderError(
            f"'{folder.path}' has {len(foreign)} answers in '{lang}' to prompts that '{data.path}' lacks, "
            f"the first to {foreign[0]}"
        )
    coefficient = folder.signature["settings"].get("coefficient", 1.0)
    parsed = {name: Condition.parse(name, coefficient) for name in conditions}
    directions = _directions(chat, folder, parsed)
    texts = [prompts[answer.id] for answer in answers]
    costs = answer_costs(
        chat,
        list(zip(texts, (answer.response for answer in answers), strict=True)),
        {name: edits_of(condition, directions) for name, condition in parsed.items()},
        max_tokens=max_tokens,
        progress=f"cost of conditions {lang}" if progress else None,
    )
    unedited = {name: _unedited_answers(chat, folder, condition, texts) for name, condition in parsed.items()}
    return [
        AnswerCostRecord(
            id=answer.id,
            group=answer.group,
            lang=lang,
            condition=name,
            limit=max_tokens,
            **asdict(cost.unedited if is_unedited else cost),
        )
        for name, of_condition in costs.items()
        for answer, cost, is_unedited in zip(answers, of_condition, unedited[name], strict=True)
    ]


def _unedited_answers(
    chat: ChatModel, folder: RunFolder, condition: Condition, prompts: Sequence[str]
) -> list[bool]:
    """Return for each prompt whether `condition` does nothing on it: the model takes it for harmless."""
    if condition.source is None or not INTERVENTIONS[condition.intervention].where_harmful:
        return [False] * len(prompts)
    gate = HarmGate.load(folder.path / gate_file(condition.source), chat)
    return [not is_harmful for is_harmful in gate.takes_for_harmful(chat, prompts)]


def _directions(
    chat: ChatModel, folder: RunFolder, conditions: Mapping[str, Condition]
) -> dict[str, Direction | Span]:
    """Return the directions that `conditions` use, by source."""
    settings, path = folder.signature["settings"], folder.path
    sources = dict.fromkeys(condition.source for condition in conditions.values() if condition.source)
    fitted = fitted_sources(settings["direction_langs"], settings["langs"])
    first = next((source for source in fitted if (path / direction_file(source)).is_file()), fitted[0])
    return stored_directions(path, list(sources), first, settings["seed"], settings["langs"], chat)
