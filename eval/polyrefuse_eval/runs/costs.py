"""What the conditions of a finished run cost: measured on its own unedited answers to harmless prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

from polyrefuse_eval.directions.finder import stored_directions
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.places import direction_file
from polyrefuse_eval.directions.span import Span
from polyrefuse_eval.errors import ChatModelError, RunFolderError
from polyrefuse_eval.models.answer_costs import ANSWER_TOKENS, answer_costs
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder, differences, write_text
from polyrefuse_eval.results.interventions import BASELINE_NAME
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import Condition
from polyrefuse_eval.results.sources import fitted_sources
from polyrefuse_eval.results.validation import read_records, write_records
from polyrefuse_eval.runs.tasks import edits_of
from polyrefuse_eval.statistics.rates import interval, resampled_rates, resamples

COSTS_FILE = "costs.jsonl"
COSTS_TABLE = "costs.md"


def check_run(folder: RunFolder, data: DataFolder, langs: Sequence[str] | None) -> list[str]:
    """Return the languages of the run to measure, by default all; loads no model.

    Raises `RunFolderError` where the run is not finished, `data` are not its data, or a language has no
    unedited answers to harmless prompts.
    """
    if not folder.complete:
        raise RunFolderError(f"'{folder.path}' is not finished; run the same command again to go on")
    digest = folder.signature.get("data", {}).get("digest")
    if digest != data.digest:
        raise RunFolderError(
            f"'{data.path}' is not the data of '{folder.path}': "
            f"digest {data.digest} there, {digest} in the run"
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
            if _is_measured(_costs_file(folder, lang), answers, conditions, max_tokens):
                continue
            records = _measure(chat, folder, data, answers, conditions, max_tokens, progress)
            write_records(_costs_file(folder, lang), records)
            on_finished()
        costs = [cost for path in sorted((folder.path / "costs").glob("*.jsonl")) for cost in _means(path)]
        write_records(folder.path / COSTS_FILE, costs)
        write_text(folder.path / COSTS_TABLE, cost_table(costs))
        on_finished()
    return costs


def cost_table(costs: Sequence[ConditionCost]) -> str:
    """Return the costs as Markdown."""
    header = [
        "language",
        "condition",
        "KL a token",
        "first token",
        "answers",
        "unedited",
        "prompts",
        "unedited",
    ]
    rows = [
        [
            cost.lang,
            cost.condition,
            "not measured"
            if cost.kl_per_token is None or cost.low is None or cost.high is None
            else f"{cost.kl_per_token:.3f} [{cost.low:.3f}, {cost.high:.3f}]",
            *(
                "" if value is None else f"{value:.3f}"
                for value in (
                    cost.first_kl,
                    cost.cross_entropy,
                    cost.unedited_cross_entropy,
                    cost.prompt_cross_entropy,
                    cost.unedited_prompt_cross_entropy,
                )
            ),
        ]
        for cost in costs
    ]
    counts = sorted({(cost.n, cost.limit) for cost in costs})
    read = "; ".join(f"{n} answers, at most {limit} tokens each" for n, limit in counts)
    return table(header, rows) + (
        f"\nIn nats a token, on the unedited model's own answers to harmless prompts ({read}). KL(unedited ‖ "
        "edited) with its 95 % bootstrap interval over prompts; cross-entropy of the answers and of the "
        "prompts, under the edit and unedited.\n"
    )


def _costs_file(folder: RunFolder, lang: str) -> Path:
    return folder.path / "costs" / f"{lang}.jsonl"


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
    coefficient = folder.signature["settings"].get("coefficient", 1.0)
    parsed = {name: Condition.parse(name, coefficient) for name in conditions}
    directions = _directions(chat, folder, parsed)
    costs = answer_costs(
        chat,
        [(prompts[answer.id], answer.response) for answer in answers],
        {name: edits_of(condition, directions) for name, condition in parsed.items()},
        max_tokens=max_tokens,
        progress=f"cost of conditions {lang}" if progress else None,
    )
    return [
        AnswerCostRecord(
            id=answer.id,
            group=answer.group,
            lang=lang,
            condition=name,
            limit=max_tokens,
            **asdict(cost),
        )
        for name, of_condition in costs.items()
        for answer, cost in zip(answers, of_condition, strict=True)
    ]


def _directions(
    chat: ChatModel, folder: RunFolder, conditions: Mapping[str, Condition]
) -> dict[str, Direction | Span]:
    """Return the directions that `conditions` use, by source."""
    settings, path = folder.signature["settings"], folder.path
    sources = dict.fromkeys(condition.source for condition in conditions.values() if condition.source)
    fitted = fitted_sources(settings["direction_langs"], settings["langs"])
    first = next((source for source in fitted if (path / direction_file(source)).is_file()), fitted[0])
    return stored_directions(path, list(sources), first, settings["seed"], settings["langs"], chat)


def _means(file: Path) -> list[ConditionCost]:
    """Return the cost of each condition, from the records of a language."""
    records = read_records(AnswerCostRecord, file)
    return [
        _mean(list(of_condition)) for _, of_condition in groupby(records, lambda record: record.condition)
    ]


def _mean(records: Sequence[AnswerCostRecord]) -> ConditionCost:
    # Prompts of one group are drawn together, as in all intervals of a run
    groups = {group: place for place, group in enumerate(dict.fromkeys(record.group for record in records))}
    sums, tokens = np.zeros((len(groups), 1)), np.zeros((len(groups), 1))
    for record in records:
        sums[groups[record.group], 0] += record.kl
        tokens[groups[record.group], 0] += record.n_tokens
    low, high = interval(resampled_rates(resamples(len(groups)), sums, tokens)) or (None, None)
    n_tokens = sum(record.n_tokens for record in records)
    n_prompt_tokens = sum(record.n_prompt_tokens for record in records)
    begun = [record.first_kl for record in records if record.n_tokens]

    def per_token(name: str, n: int) -> float | None:
        return sum(getattr(record, name) for record in records) / n if n else None

    return ConditionCost(
        lang=records[0].lang,
        condition=records[0].condition,
        limit=records[0].limit,
        n=len(records),
        n_tokens=n_tokens,
        kl_per_token=per_token("kl", n_tokens),
        low=low,
        high=high,
        first_kl=sum(begun) / len(begun) if begun else None,
        cross_entropy=per_token("cross_entropy", n_tokens),
        unedited_cross_entropy=per_token("unedited_cross_entropy", n_tokens),
        n_prompt_tokens=n_prompt_tokens,
        prompt_cross_entropy=per_token("prompt_cross_entropy", n_prompt_tokens),
        unedited_prompt_cross_entropy=per_token("unedited_prompt_cross_entropy", n_prompt_tokens),
    )
