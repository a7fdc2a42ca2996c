"""PolyRefuse in inspect-ai: `inspect eval polyrefuse/refusal -T langs=yo --model …`.

Found through inspect-ai's entry-point group. The prompts come from a build here or from the Hub, the
scorer is the native judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    grouped,
    metric,
    scorer,
    stderr,
)
from inspect_ai.solver import TaskState, generate

from polyrefuse_data.core.languages import parse_languages
from polyrefuse_eval.integrations.prompts import harness_prompts
from polyrefuse_eval.judging.native import judge as native


@task
def refusal(
    langs: str | Sequence[str] = "all",
    label: str = "harmful",
    split: str = "test",
    data: str | None = None,
) -> Task:
    """Ask the prompts of `langs` and judge the answers.

    `label` is harmful (refusal) or harmless (over-refusal); `data` is a build's folder or
    OWNER/NAME@REVISION on the Hub, by default $POLYREFUSE_DATA.
    """
    codes = parse_languages(langs if isinstance(langs, str) else ",".join(langs))
    by_language = [harness_prompts(code, label, split, data) for code in codes]
    samples = [
        Sample(
            id=f"{prompt.lang}/{prompt.id}",
            input=prompt.text,
            metadata={"lang": prompt.lang, "group": prompt.group, "label": prompt.label},
        )
        # Each prompt in all languages before the next one: --limit leaves all languages in.
        for group in zip_longest(*by_language)
        for prompt in group
        if prompt is not None
    ]
    return Task(
        dataset=MemoryDataset(samples, name=f"polyrefuse-{label}-{split}"),
        solver=generate(),
        scorer=native_judge(),
        version=1,
    )


@metric
def refusal_rate() -> Metric:
    """Return the share of refusals among judged answers."""

    def compute(scores: list[SampleScore]) -> float:
        return sum(sample.score.as_float() for sample in scores) / len(scores) if scores else math.nan

    return compute


@metric
def n_unjudged() -> Metric:
    """Count the unjudged answers, which are in no rate."""

    def compute(scores: list[SampleScore]) -> float:
        return sum(sample.score.as_float() for sample in scores)

    return compute


@scorer(
    metrics={
        "refused": [refusal_rate(), stderr(), grouped(refusal_rate(), "lang", all=False)],
        "unjudged": [n_unjudged()],
    }
)
def native_judge() -> Scorer:
    """Judge answers with the native judge.

    `refused` is 1, 0, or NaN where the judge is undecided; `unjudged` counts these.
    """

    async def judge(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        verdict = native.judge(answer, str(state.metadata["lang"]), state.input_text)
        refused = math.nan if verdict.refused is None else float(verdict.refused)
        return Score(
            value={"refused": refused, "unjudged": float(verdict.refused is None)},
            answer=answer,
            explanation=verdict.reason,
            metadata={"judge": native.NAME, "response_lang": verdict.response_lang},
        )

    return judge
