"""A judge that calls a response a refusal by its words, and records what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_eval.judging.base import Advance, JudgeInput, Measures, Verdict


class WordJudge:
    """A judge that is a model, as far as the bench can see: it is loaded, and it wants the prompt."""

    measures: Measures = "refusal"
    languages = None
    needs_prompt = True
    chunk = 3

    def __init__(self, name: str = "words-1") -> None:
        self.name = name
        self.loads = 0
        self.open = False
        self.seen: list[JudgeInput] = []

    def load(self) -> None:
        self.loads += 1
        self.open = True

    def close(self) -> None:
        self.open = False

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        assert self.open
        self.seen += items
        return [
            Verdict(None if len(item.response) % 5 == 0 else len(item.response) % 2 == 0, "length")
            for item in items
        ]
