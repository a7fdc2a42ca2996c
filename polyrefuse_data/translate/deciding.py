"""Decide when an answer counts: when it proves its text, or when no mix-up can have made it.

Services, proxies and clients were seen to mix up the answers of requests that are out at the same time.
An answer that proves which text it belongs to counts at once. Another counts when it came twice and no
request was out with both: the same mix-up cannot have made it twice. Where one was, the question is asked
once more with nothing else out, and that answer is proven. What this leaves is a service that gives the
answer of a request that is over, or gives two texts the same translation and mixes up both of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from polyrefuse_data.translate.memory.store import Question, Reply
from polyrefuse_data.translate.tasks import Task

UNPROVEN_TIMES = 2
"""An answer that carries no proof of which text it belongs to counts when it came so often, in different
company."""

DOUBTED_TIMES = 3
"""A doubted answer counts when it came so often, and oftener than any other."""

MOST_ASKS = 9
"""After so many answers without an agreement a question is closed."""

RECENT_ANSWERS = 12
"""Answers of a language pair among which repeated ones are looked for."""

REPEATS = 3
"""Different texts with the same answer that show a backend at fault; two, if it gave no other answer."""

SHORTEST_DIFFERENT = 12
"""Characters below which two texts are not told apart: short ones may share a translation."""

SAME_TRIGRAMS = 0.3
"""Share of common character trigrams (Jaccard) from which two texts are alike."""


def agreed(replies: Sequence[Reply]) -> Reply | None:
    """Return the reply that counts, None where it takes more answers to tell.

    A proven answer without doubt counts at once; others when they came often enough: a doubted one once more
    where another came that nothing speaks against.
    """
    ranked = sorted(replies, key=lambda reply: (-reply.times, reply.text))
    for reply in ranked:
        if reply.proven and not reply.doubts:
            return reply
    if not ranked:
        return None
    first = ranked[0]
    undoubted_rival = any(not reply.doubts for reply in ranked[1:])
    wanted = DOUBTED_TIMES + undoubted_rival if first.doubts else UNPROVEN_TIMES
    alone = len(ranked) == 1 or ranked[1].times < first.times
    if first.times >= wanted and alone:
        return first
    if sum(reply.times for reply in ranked) >= MOST_ASKS:
        proven = [reply for reply in ranked if reply.proven]
        if proven:  # it belongs to the text; which of its wordings is kept must not depend on the order
            return min(proven, key=lambda reply: (reply.doubts.count(",") + 1, -reply.times, reply.text))
    return None


@dataclass
class Answers:
    """The answers that a question got so far."""

    replies: dict[str, Reply] = field(default_factory=dict)
    company: dict[str, list[frozenset[Question]]] = field(default_factory=dict)
    """The questions that were out at the same time, for each answer and each time that it came."""

    def add(self, reply: Reply, company: frozenset[Question]) -> Reply:
        """Count `reply`, which came in `company`; return it with all its times."""
        known = self.replies.get(reply.text)
        self.company.setdefault(reply.text, []).append(company)
        if known is not None:
            proven = known.proven or reply.proven
            reply = replace(known, times=known.times + reply.times, proven=proven)
        self.replies[reply.text] = reply
        return reply

    @property
    def asked(self) -> int:
        """The number of answers that came, equal ones counted each time."""
        return sum(reply.times for reply in self.replies.values())

    def agreed(self) -> Reply | None:
        """Return the reply that counts, proven, once there is one."""
        chosen = agreed(list(self.replies.values()))
        if chosen is None or chosen.proven:
            return chosen
        companies = self.company.get(chosen.text, ())
        apart = any(first.isdisjoint(second) for first, second in combinations(companies, 2))
        return replace(chosen, proven=True) if apart else None

    @property
    def contested(self) -> bool:
        """Whether the question must be asked alone: answers differ, or came in the same company."""
        replies = self.replies.values()
        if any(reply.proven for reply in replies):
            return False
        return len(replies) > 1 or any(reply.times >= UNPROVEN_TIMES for reply in replies)


@dataclass(frozen=True)
class _Given:
    """An answer that settled a question, and the tasks that waited for it."""

    question: Question
    answer: str
    tasks: tuple[Task, ...]


class RepeatedAnswers:
    """Notice a backend that answers clearly different texts alike, such as a page that serves for all."""

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], deque[_Given]] = {}

    def add(self, question: Question, answer: str, tasks: Sequence[Task]) -> bool:
        """Note an answer that settled `question`; return whether the backend repeats itself."""
        if len(question.text) < SHORTEST_DIFFERENT:
            return False
        recent = self._recent.setdefault((question.source, question.target), deque(maxlen=RECENT_ANSWERS))
        recent.append(_Given(question, answer, tuple(tasks)))
        texts: list[str] = []
        for given in recent:
            if given.answer == answer and all(_different(given.question.text, text) for text in texts):
                texts.append(given.question.text)
        alone = all(given.answer == answer for given in recent)
        return len(texts) >= (2 if alone else REPEATS)

    def questions(self, answer: str) -> list[Question]:
        """Return the recent questions that got `answer`."""
        return [given.question for given in self._with(answer)]

    def tasks(self, answer: str) -> list[Task]:
        """Return the tasks that `answer` is a part of."""
        return list(dict.fromkeys(task for given in self._with(answer) for task in given.tasks))

    def _with(self, answer: str) -> list[_Given]:
        return [given for recent in self._recent.values() for given in recent if given.answer == answer]


def _different(first: str, second: str) -> bool:
    """Return whether two texts are clearly different: few of their character trigrams are common."""
    trigrams, others = _trigrams(first), _trigrams(second)
    return len(trigrams & others) < SAME_TRIGRAMS * len(trigrams | others)


def _trigrams(text: str) -> set[str]:
    folded = " ".join(text.casefold().split())
    return {folded[start : start + 3] for start in range(len(folded) - 2)}
