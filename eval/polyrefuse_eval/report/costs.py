"""What the conditions of a run cost, from its records of single answers: means and a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.statistics.rates import interval, resampled_rates, resamples


def condition_costs(records: Mapping[str, Sequence[AnswerCostRecord]]) -> list[ConditionCost]:
    """Return the cost of each condition in each language, from `records` by language."""
    return [
        _mean(list(of_condition))
        for of_lang in records.values()
        for _, of_condition in groupby(of_lang, lambda record: record.condition)
    ]


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
