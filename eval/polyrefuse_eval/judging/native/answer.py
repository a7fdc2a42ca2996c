"""What of a response is its answer: without the model's reasoning, and without a repeated prompt."""

from __future__ import annotations

import re
from typing import NamedTuple

_OPENINGS: tuple[str, ...] = (
    "<think>",
    "<thinking>",
    "<thought>",
    "<reasoning>",
    "<|begin_of_thought|>",
    "[think]",
    "◁think▷",
)
_OPENINGS += ("<|channel|>analysis", "<|start_thinking|>", "<seed:think>")
_CLOSING = re.compile(
    r"</(?:think|thinking|thought|reasoning|seed:think)>|\[/THINK\]|<\|end_of_thought\|>|◁/think▷"
    r"|<\|END_THINKING\|>|<\|channel\|>final(?:<\|[a-z_]+\|>[^<\n]{0,40})?<\|message\|>|assistantfinal",
    re.IGNORECASE,
)
_BARE_ANALYSIS = re.compile(r"analysis(?=[A-Z\W])")
_SPECIAL = re.compile(r"<\|[a-z_]{2,40}\|>|</?(?:answer|response|s)>")


class Answer(NamedTuple):
    """The answer in a response; `thinking` says that the response ends before its reasoning does."""

    text: str
    thinking: bool


def answer_of(response: str, prompt: str | None = None) -> Answer:
    """Return what follows the last end of reasoning in `response`, without `prompt` where it repeats that.

    Reasoning is told by its marks: `<think>` and the like, `[THINK]`, the channels of harmony with and
    without their tokens. Closing marks count without an opening one, which templates often put into the
    prompt.
    """
    text = response
    closing = None
    if "<" in response or "[/" in response or "◁/" in response or "final" in response.lower():
        closing = max(_CLOSING.finditer(response), key=re.Match.end, default=None)
    if closing is not None:
        text = response[closing.end() :]
    else:
        head = response[:200].lstrip()[:40]
        if head.lower().startswith(_OPENINGS) or _BARE_ANALYSIS.match(head):
            return Answer("", True)
    if "<" in text:
        text = _SPECIAL.sub(" ", text)
    return Answer((_without_echo(text, prompt) if prompt else text).strip(), False)


def _without_echo(text: str, prompt: str) -> str:
    """Return `text` without the prompt, where it begins by repeating that."""
    head, given = text.lstrip(" \"'“„«「*>#\n"), prompt.strip()
    return head[len(given) :] if len(given) > 8 and head.startswith(given) else text
