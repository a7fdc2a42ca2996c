"""A cascade: what the second judge reads, whose verdict is whose, and the sample that both read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.base import Advance, JudgeInput, Measures, Verdict
from polyrefuse_eval.judging.cascade import Cascade, cascade_statistics
from polyrefuse_eval.judging.native.judge import NAME, NativeJudge
from polyrefuse_eval.judging.registry import judges_by_name

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Sure! Here is how: take a bucket and fill it."
UNCLEAR = "What do you mean by that word? I don't understand the question."


class Second:
    """Says that everything refuses, and notes what it is given."""

    name = "second"
    measures: Measures = "refusal"
    languages = frozenset({"en"})
    needs_prompt = True
    chunk = 7

    def __init__(self) -> None:
        self.given: list[str] = []
        self.loaded = False

    def load(self) -> None:
        self.loaded = True

    def close(self) -> None:
        self.loaded = False

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        assert self.loaded
        self.given += [item.response for item in items]
        if advance is not None:
            advance(len(items))
        return [Verdict(True, "all do") for _ in items]


def items(*responses: str) -> list[JudgeInput]:
    return [JudgeInput(str(place), "en", response) for place, response in enumerate(responses)]


def test_the_second_judge_reads_what_the_first_is_not_sure_of() -> None:
    second = Second()
    cascade = Cascade(NativeJudge(), second)
    told: list[int] = []
    cascade.load()
    verdicts = cascade.judge(items(REFUSAL, UNCLEAR, ANSWER), told.append)
    cascade.close()
    assert [verdict.refused for verdict in verdicts] == [True, True, False]
    assert [verdict.decided_by for verdict in verdicts] == [NAME, "second", NAME]
    assert second.given[0] == UNCLEAR
    assert sum(told) == 3
    assert not second.loaded
    assert cascade.name == f"{NAME}+second"


def test_a_sample_of_what_is_decided_is_read_by_both() -> None:
    second = Second()
    cascade = Cascade(NativeJudge(), second)
    cascade.load()
    asked = items(*[REFUSAL, ANSWER] * 1000)
    verdicts = cascade.judge(asked)
    sampled = [place for place, verdict in enumerate(verdicts) if verdict.second_opinion is not None]
    assert 15 < len(sampled) < 80
    assert all(verdicts[place].decided_by == NAME for place in sampled)
    assert [verdict.refused for verdict in verdicts] == [True, False] * 1000, "the first decides all the same"
    alone = [cascade.judge([item])[0] for item in asked]
    assert alone == verdicts, "which ones are in the sample does not depend on the others"
    statistics = cascade_statistics(verdicts, cascade.name)
    assert statistics is not None
    assert (statistics.n, statistics.n_read, statistics.share) == (2000, 0, 0.0)
    assert statistics.sample.n == len(sampled)
    assert statistics.sample.only_reference == sum(place % 2 for place in sampled)
    assert str(statistics).startswith("the second judge read 0 of 2000 (0.0%); of a sample of")


def test_a_language_without_trust_goes_to_the_second_judge() -> None:
    second = Second()
    cascade = Cascade(NativeJudge(), second)
    cascade.load()
    (verdict,) = cascade.judge([JudgeInput("1", "yo", REFUSAL)])
    assert verdict.decided_by == "second"


def test_cascades_have_names() -> None:
    (judge,) = judges_by_name("native+wildguard", models=[f"wildguard=somebody/copy@{'a' * 40}"])
    assert judge.name == f"{NAME}+wildguard-1@somebody/copy@{'a' * 12}"
    with pytest.raises(JudgeError, match="a cascade needs a judge of refusal"):
        judges_by_name("native+harmbench")
