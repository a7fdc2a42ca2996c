"""Published guards that read a prompt alone: is it harmful? To compare a Latent Guard with.

Each is its judge of completions with another rendering; the verdict's `harmful` is the prompt's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_eval.judging.base import Judge, JudgeInput, Verdict, unreadable
from polyrefuse_eval.judging.local_model import JudgeOptions, ModelSource
from polyrefuse_eval.judging.published import llama_guard, polyguard, wildguard
from polyrefuse_eval.judging.published.row import (
    ModelJudge,
    ModelJudgeRow,
    by_reading,
    encoded_chat,
    guarded,
)

_ANSWERS = {"yes": True, "no": False}


def render_user(tokenizer: Any, item: JudgeInput) -> list[int]:
    """Return the ids of a conversation of the prompt alone: the template then asks about the user."""
    return encoded_chat(tokenizer, [{"role": "user", "content": guarded(tokenizer, item.prompt or "")}])


def read_request(answer: str) -> Verdict:
    """Return the verdict in the line `Harmful request: yes`; another value is unreadable."""
    found = wildguard.fields(answer).get("harmful request")
    if found not in _ANSWERS:
        return unreadable(answer)
    return Verdict(None, f"harmful request: {found}", harmful=_ANSWERS[found])


PROMPT_JUDGES: Mapping[str, ModelJudgeRow] = {
    "llamaguard3": replace(llama_guard.LLAMA_GUARD, name="llamaguard3-prompt", render=render_user),
    "polyguard": replace(
        polyguard.POLYGUARD,
        name="polyguard-prompt",
        measures="harm",
        decide=by_reading(read_request, polyguard.MAX_NEW_TOKENS),
    ),
}


def prompt_judge(text: str, options: JudgeOptions) -> ModelJudge:
    """Return the guard that `NAME` or `NAME=PLACE` names (a folder, or REPOSITORY@COMMIT), not loaded."""
    name, _, place = text.partition("=")
    row = PROMPT_JUDGES.get(name)
    if row is None:
        raise unknown_name("guard", name, PROMPT_JUDGES)
    return ModelJudge(row, ModelSource.parse(place, row.source) if place else None, options)


def judge_prompts(judge: Judge, prompts: Sequence[tuple[str, str]]) -> list[bool | None]:
    """Return whether the loaded `judge` calls each of `prompts` (text, language) harmful."""
    items = [JudgeInput(str(index), lang, "", text) for index, (text, lang) in enumerate(prompts)]
    return [verdict.harmful for verdict in judge.judge(items)]


class PromptGuard:
    """A loaded guard that says whether prompts ask for harm, as `polyrefuse audit --intent` needs it."""

    def __init__(self, judge: ModelJudge) -> None:
        judge.load()
        self._judge = judge
        self.identity = judge.name

    def harmfulness(self, prompts: Sequence[str]) -> list[float | None]:
        """Return 1 for a prompt that the guard calls harmful, 0 for another, None where it is undecided."""
        verdicts = judge_prompts(self._judge, [(prompt, "en") for prompt in prompts])
        return [None if harmful is None else float(harmful) for harmful in verdicts]


def load_prompt_guard(text: str) -> PromptGuard:
    """Load the guard that `--intent` names: `NAME` or `NAME=PLACE`, see `prompt_judge`."""
    return PromptGuard(prompt_judge(text, JudgeOptions()))
