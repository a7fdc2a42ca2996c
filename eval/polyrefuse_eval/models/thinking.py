"""What a model thinks before it answers: how thoughts are marked, and where the answer begins."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ThinkingMarks:
    """A block of thoughts: from `opening` to `closing`, behind which the answer begins.

    `empty` is a block without thoughts, as it is put behind a prompt. `before_closing` may stand between
    the thoughts and `closing`.
    """

    opening: str
    closing: str
    empty: str
    before_closing: str = ""


MARKS = (
    ThinkingMarks("<think>", "</think>", "<think>\n\n</think>\n\n"),
    ThinkingMarks("[THINK]", "[/THINK]", "[THINK][/THINK]"),
    # Harmony: thoughts and answer are messages of two channels.
    ThinkingMarks(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|channel|>final<|message|>",
        "<|end|><|start|>assistant",
    ),
    ThinkingMarks("<|START_THINKING|>", "<|END_THINKING|>", "<|START_THINKING|><|END_THINKING|>"),
    ThinkingMarks("<|channel>thought\n", "<channel|>", "<|channel>thought\n<channel|>"),
    ThinkingMarks("<seed:think>", "</seed:think>", "<seed:think></seed:think>"),
    ThinkingMarks("<thinking>", "</thinking>", "<thinking>\n\n</thinking>\n\n"),
)
"""Qwen, DeepSeek, GLM and many others; Mistral; gpt-oss; Cohere; Gemma 4; Seed-OSS; others."""

SWITCH_NAME = re.compile(r"\b[a-z_]*(?:think|reason)[a-z_]*\b")
"""Names in a template that may be the variable by which it lets a model think."""

SWITCH_VALUES: tuple[tuple[Any, Any], ...] = ((False, True), ("none", "high"), ("low", "high"))
"""What such a variable is set to, to forbid and to allow thoughts: the first pair that makes a difference."""


def marks_of(tokenizer: Any, template: str) -> ThinkingMarks | None:
    """Return the marks that the template writes or the tokenizer has as tokens; None where there are none."""
    tokens = tokenizer.get_added_vocab()
    for marks in MARKS:
        if marks.closing in template or marks.opening in template or marks.closing in tokens:
            return marks
    return None


def is_open(marks: ThinkingMarks, text: str) -> bool:
    """Return whether `text` ends inside a block of thoughts."""
    return text.rfind(marks.opening) > text.rfind(marks.closing)


def closing_text(marks: ThinkingMarks, text: str) -> str:
    """Return what closes the block of thoughts in which `text` ends, as an empty one."""
    if marks.opening not in marks.empty:
        return marks.before_closing + marks.closing
    begun = next(size for size in range(len(marks.empty), -1, -1) if text.endswith(marks.empty[:size]))
    return marks.empty[begun:] if begun else marks.closing


@dataclass(frozen=True)
class Parts:
    """What a model wrote: `reasoning`, None where it thought nothing; the `ids` of its answer, None where its
    thoughts were cut off before it."""

    reasoning: str | None
    ids: tuple[int, ...] | None


def split_thoughts(tokenizer: Any, marks: ThinkingMarks | None, ids: Sequence[int], inside: bool) -> Parts:
    """Divide `ids`, which a model wrote, into its thoughts and its answer.

    `inside`: the prompt ends inside a block of thoughts. White space that opens the answer is left out.
    """
    if marks is None:
        return Parts(None, tuple(ids))
    text = _text(tokenizer, ids)
    thoughts, closing, _ = text.partition(marks.closing)
    if not closing and not inside and not text.lstrip().startswith(marks.opening):
        return Parts(None, tuple(ids))
    thoughts = thoughts.rpartition(marks.opening)[2].strip()
    if marks.before_closing:
        thoughts = thoughts.removesuffix(marks.before_closing).rstrip()
    if not closing:
        return Parts(thoughts, None)
    first = bisect_left(
        range(len(ids)), True, key=lambda count: marks.closing in _text(tokenizer, ids[:count])
    )
    while first < len(ids) and not _text(tokenizer, ids[first : first + 1]).strip():
        first += 1
    return Parts(thoughts or None, tuple(ids[first:]))


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


RECENT = 24
"""How many of the last tokens are read to see a mark: more than any mark has."""


class RowProgress:
    """One answer while it is made: its tokens, and whether it is still among thoughts.

    `inside`: the prompt ends inside a block of thoughts. `answer_tokens` and `thinking_tokens` are how many
    tokens each may take; without `thinking_tokens` both share `answer_tokens`.
    """

    def __init__(
        self,
        tokenizer: Any,
        marks: ThinkingMarks | None,
        *,
        inside: bool,
        answer_tokens: int,
        thinking_tokens: int | None,
    ) -> None:
        self.ids: list[int] = []
        self.ended = False
        self._tokenizer, self._marks = tokenizer, marks
        self._inside = self._began_inside = inside
        self._answer_tokens, self._thinking_tokens = answer_tokens, thinking_tokens
        self._begun = 0

    @property
    def finished(self) -> bool:
        """Whether the model ended the answer, or used up its tokens."""
        limit = self._thinking_tokens if self._inside else self._answer_tokens
        return self.ended or len(self.ids) - self._begun >= (limit or self._answer_tokens)

    def take(self, token: int, stop_ids: frozenset[int]) -> None:
        """Add `token`, or end at one of `stop_ids`."""
        if token in stop_ids:
            self.ended = True
            return
        self.ids.append(token)
        if self._marks is None or self._thinking_tokens is None or self._begun:
            return
        recent = _text(self._tokenizer, self.ids[-RECENT:])
        if self._inside and self._marks.closing in recent:
            self._inside, self._begun = False, len(self.ids)
        elif not self._began_inside and len(self.ids) <= RECENT:
            # A part of the opening mark may still become one.
            text, opening = recent.lstrip(), self._marks.opening
            self._inside = text.startswith(opening) or (bool(text) and opening.startswith(text))
