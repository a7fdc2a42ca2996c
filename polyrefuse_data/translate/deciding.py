"""When does an answer count? When it proves which text it belongs to, or when no mix-up can have made it.

Services, proxies and clients were seen to mix up the answers of requests that are out at the same time.
An answer that proves which text it belongs to counts at once. Another counts when it came twice and no
request was out with both: the same mix-up cannot have made it twice. Where one was, the question is asked
once more with nothing else out, and that answer is proven. What this leaves is a service that gives the
answer of a request that is over, or gives two texts the same translation and mixes up both of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from polyrefuse_data.translate.memory.store import Question, Reply

UNPROVEN_TIMES = 2
"""An answer that carries no proof of which text it belongs to counts when it came so often, in different
company."""

DOUBTED_TIMES = 3
"""A doubted answer counts when it came so often, and oftener than any other."""

MOST_ASKS = 9
"""After so many answers without an agreement a question is closed."""


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
    """What a question got so far."""

    replies: dict[str, Reply] = field(default_factory=dict)
    company: dict[str, list[frozenset[Question]]] = field(default_factory=dict)
    """For each answer of this run, each time it came: the questions that were out meanwhile."""

    def add(self, reply: Reply, company: frozenset[Question]) -> Reply:
        known = self.replies.get(reply.text)
        self.company.setdefault(reply.text, []).append(company)
        if known is not None:
            proven = known.proven or reply.proven
            reply = replace(known, times=known.times + reply.times, proven=proven)
        self.replies[reply.text] = reply
        return reply

    @property
    def asked(self) -> int:
        """How many answers came, equal ones counted each time."""
        return sum(reply.times for reply in self.replies.values())

    def agreed(self) -> Reply | None:
        """Return the reply that counts, proven, once there is one."""
        chosen = agreed(list(self.replies.values()))
        if chosen is None or chosen.proven:
            return chosen
        apart = any(one.isdisjoint(two) for one, two in combinations(self.company.get(chosen.text, ()), 2))
        return replace(chosen, proven=True) if apart else None

    @property
    def contested(self) -> bool:
        """Whether only an answer with nothing else out can tell: answers differ, or came in one company."""
        replies = self.replies.values()
        if any(reply.proven for reply in replies):
            return False
        return len(replies) > 1 or any(reply.times >= UNPROVEN_TIMES for reply in replies)
