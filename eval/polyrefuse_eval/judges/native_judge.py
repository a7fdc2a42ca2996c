"""The native judge behind the interface that all judges share."""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_eval.judges import native
from polyrefuse_eval.judges.base import Advance, JudgeInput, Measures, Verdict


class NativeJudge:
    """Reads responses with patterns: no model, no network, nothing to load."""

    name = native.NAME
    measures: Measures = "refusal"
    languages = None
    needs_prompt = False
    chunk = 4096

    def load(self) -> None:
        """Nothing to do: the patterns of a language are read with its first response."""

    def close(self) -> None:
        """Nothing to give back."""

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        """Return one verdict for each of `items`, in their order."""
        verdicts = native.judge_all([(item.response, item.lang, item.prompt) for item in items])
        if advance is not None:
            advance(len(items))
        return verdicts
