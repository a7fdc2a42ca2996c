"""A judge that is a function of one completion: no model to load, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polyrefuse_eval.judging.base import Advance, JudgeInput, Measures, Verdict


@dataclass(frozen=True, kw_only=True)
class RuleJudge:
    """A `Judge` of one function; `name` holds its version, to be raised with every change of a verdict."""

    name: str
    rule: Callable[[JudgeInput], Verdict]
    measures: Measures = "refusal"
    languages: frozenset[str] | None = None
    needs_prompt: bool = False
    chunk: int = 1024

    def load(self) -> None:
        """Load nothing."""

    def close(self) -> None:
        """Free nothing."""

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        """Return one verdict for each of `items`, in their order."""
        verdicts = [self.rule(item) for item in items]
        if advance is not None:
            advance(len(items))
        return verdicts
