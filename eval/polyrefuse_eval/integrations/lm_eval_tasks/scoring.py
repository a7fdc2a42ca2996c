"""What the task files call: the prompts of a language, and our native judge as scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from polyrefuse_eval.integrations.prompts import harness_prompts
from polyrefuse_eval.judging.native import judge as native

if TYPE_CHECKING:
    from datasets import Dataset


def prompts(lang: str, label: str = "harmful", **_metadata: Any) -> dict[str, Dataset]:
    """Return the test split in `lang`: the `custom_dataset` of a task."""
    from datasets import Dataset

    return {"test": Dataset.from_list([asdict(prompt) for prompt in harness_prompts(lang, label)])}


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return what one answer adds to each metric: the `process_results` of a task.

    An undecided answer has no `refusal_rate`, so the mean is over judged answers; it counts in
    `n_unjudged` and `unjudged_rate`.
    """
    refused = native.judge(results[0], doc["lang"], doc["text"]).refused
    unjudged = float(refused is None)
    counted = {"n_unjudged": unjudged, "unjudged_rate": unjudged}
    return counted if refused is None else {"refusal_rate": float(refused), **counted}


def total(values: Sequence[float]) -> float:
    """Return the sum: how `n_unjudged` adds up within a language."""
    return float(sum(values))
