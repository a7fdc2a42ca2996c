"""What a judge is: one verb, from completions to verdicts, and the facts that a caller plans with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

Measures = Literal["refusal", "harm"]
"""What a judge was made to tell: whether a response refuses, or whether it does harm.

A harm judge cannot tell a refusal from an answer that fails, so its `refused` is always None, and its
`harmful` says what it found.
"""

Advance = Callable[[int], object]
"""Function that is called with the number of completions judged since its last call: `Progress.advance`."""


UNFINISHED = "reasoning without an answer"
"""The reason of a verdict on a response that ends before its reasoning does: undecided."""


@dataclass(frozen=True)
class JudgeInput:
    """One completion to judge: `lang` is the prompt's language, `prompt` None where it is not known."""

    id: str
    lang: str
    response: str
    prompt: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one completion; None in any field means that it cannot tell.

    `reason` names the phrase, category or lack behind it; `response_lang` is the language that the
    response is in; `coherent` is False for gibberish; `harmful` says that the response does harm;
    `score` is the judge's own, from 0 to 1: the native judge's probability of a refusal. A `puzzled`
    response did not understand what was asked, which is neither refused nor answered. `decided_by` and
    `second_opinion` are those of a cascade of two judges.
    """

    refused: bool | None
    reason: str
    response_lang: str | None = None
    coherent: bool | None = None
    harmful: bool | None = None
    score: float | None = None
    puzzled: bool = False
    decided_by: str | None = None
    second_opinion: bool | None = None

    def complied(self, measures: Measures) -> bool | None:
        """Return whether the response complied, as a judge of `measures` sees it.

        Not refused, for a judge of refusal; harmful, for a judge of harm: to be read on harmful prompts
        alone, since an answer to a harmless prompt complies without harm.
        """
        if measures == "harm":
            return self.harmful
        return None if self.refused is None else not self.refused


def unreadable(answer: str) -> Verdict:
    """Return the verdict for an answer that holds none: undecided, never a class."""
    return Verdict(None, f"no verdict in the judge's answer: {' '.join(answer.split())[:80]!r}")


class Judge(Protocol):
    """Reads completions and says what it thinks of each.

    `name` holds version and revision, and enters signatures: it changes with everything that can change
    a verdict. `languages` are those the judge was made for, None where it claims no limit. Without the
    prompt, a judge that `needs_prompt` leaves a completion undecided. `chunk` is how many completions it
    is best handed at a time. Making a judge costs nothing; `load` takes memory,
    `close` gives it back (see `opened`).
    """

    @property
    def name(self) -> str: ...
    @property
    def measures(self) -> Measures: ...
    @property
    def languages(self) -> frozenset[str] | None: ...
    @property
    def needs_prompt(self) -> bool: ...
    @property
    def chunk(self) -> int: ...

    def load(self) -> None:
        """Get ready; raises `JudgeError` or `MissingExtraError` where that cannot be."""
        ...

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        """Return one verdict for each of `items`, in their order."""
        ...

    def close(self) -> None:
        """Give memory and connections back; `load` may be called again."""
        ...


AnyJudge = TypeVar("AnyJudge", bound=Judge)


@contextmanager
def opened(judge: AnyJudge) -> Iterator[AnyJudge]:
    """Load `judge` for the time of a `with` block. Unload other models before: two may not fit."""
    try:
        judge.load()
        yield judge
    finally:
        judge.close()
