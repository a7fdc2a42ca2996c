"""What prompts of each kind show: behaviour, and both cluster scores side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polyrefuse_eval.harmfulness.by_kind import by_kind
from polyrefuse_eval.harmfulness.instructions import build_instructions, user_instructions
from polyrefuse_eval.results.harmfulness_records import BehaviourCounts, Point
from polyrefuse_eval.results.user_prompts import UserPrompt
from polyrefuse_eval.statistics.rates import rate


def point(kind: str, label: str, behaviour: str, harmful: float, refuse: float) -> Point:
    return Point(
        id=f"{kind}-{harmful}-{refuse}",
        label=label,
        kind=kind,
        category=None,
        behaviour=behaviour,  # type: ignore[arg-type]
        harmful=harmful,
        refuse=refuse,
    )


POINTS = [
    point("data", "harmful", "refused", 0.5, 0.25),
    point("data", "harmful", "refused", 0.25, 0.5),
    point("data", "harmless", "accepted", -0.5, -0.25),
    point("suffix", "harmful", "accepted", 0.25, -0.5),
    point("suffix", "harmful", "unjudged", -0.75, -0.25),
]


def test_each_kind_and_label_has_its_own_measures() -> None:
    measures = by_kind(POINTS)
    assert {kind: list(by_label) for kind, by_label in measures.items()} == {
        "data": ["harmful", "harmless"],
        "suffix": ["harmful"],
    }
    suffix = measures["suffix"]["harmful"]
    assert suffix.n == BehaviourCounts(refused=0, accepted=1, unjudged=1)
    assert (suffix.harmful, suffix.refuse) == (-0.25, -0.375)
    assert suffix.called_harmful == rate([True, False])
    assert suffix.called_refused == rate([False, False])


def test_without_prompts_of_a_user_there_is_nothing_to_tell_apart() -> None:
    assert by_kind(POINTS[:3]) == {}
    assert by_kind([]) == {}


def test_a_rate_of_other_prompts_is_no_measure() -> None:
    measures = by_kind(POINTS)["data"]["harmful"]
    with pytest.raises(ValueError, match="called_harmful is of 1 of 2 prompts"):
        replace(measures, called_harmful=rate([True]))


def test_the_kind_of_a_users_prompt_is_that_of_its_point() -> None:
    prompts = [UserPrompt("How do I knit?", "harmless", "en", "hobby"), UserPrompt("Wie?", "harmful", "de")]
    assert [(i.kind, i.label) for i in user_instructions(prompts, "en")] == [("hobby", "harmless")]
    assert build_instructions([]) == []
