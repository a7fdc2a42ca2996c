"""Race candidates: score them on a few prompts, drop what cannot be chosen, go on with the others.

All candidates see the same prompts in the same order, so that differences between them are paired. After each
round a candidate is dropped where a bound says that it cannot be chosen by the current step of the rule:

- KL: the sum so far over the number of all prompts exceeds the limit. Certain, as no KL is below 0.
- Steering: the upper bound of the mean over all prompts is below the limit.
- Refusal: the lower bound of the mean difference to the best candidate so far that is known to pass the
  filters exceeds 0 (or, of the score itself, the step's limit).

The last two bounds are Student's for m of n prompts without replacement, mean ± t·s/√m·√(1 - m/n): certain at
m = n, before that at levels at which all tests of one candidate together fail with a probability of at most
1 - `CONFIDENCE`, as far as scores are normal. Only where a test fails for the very candidate that all scores
would choose, another is chosen. The scores of the chosen one are complete, over all prompts, in either case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polyrefuse_eval.directions.selection import (
    CandidateScore,
    Dropped,
    Selection,
    Step,
    rule_steps,
    select,
)
from polyrefuse_eval.results.positions import Position
from polyrefuse_eval.statistics.student import t_quantile

Array = npt.NDArray[np.float64]

Key = tuple[Position, int]
"""A candidate: its position, and the layer at whose input it is."""

REFUSAL, STEERING, KL = "refusal", "steering", "kl_div"
SCORES = (STEERING, KL, REFUSAL)
"""Names of the scores, the cheapest first."""

CONFIDENCE = 0.99
"""Probability, at least, that no test drops the candidate that all scores would choose."""

FIRST_PROMPTS = 8
"""Prompts of the first round; each further round doubles their number."""

LEAST_DEVIATION = 1.0
"""Nats. A few prompts that happen to agree say little of the others (scores are cut off at ±18.4 nats, where
many prompts may stand), so a smaller deviation counts as this one. A guard that was set, not measured."""

Measure = Callable[[str, Sequence[Key], int], Array]
"""(score, candidates, round) -> scores [candidates, prompts of the round] in nats."""


def round_ends(n: int) -> tuple[int, ...]:
    """Return how many of `n` prompts are measured at the end of each round.

    >>> round_ends(32), round_ends(5)
    ((8, 16, 32), (5,))
    """
    ends = []
    end = FIRST_PROMPTS
    while end < n:
        ends.append(end)
        end *= 2
    return (*ends, n)


class PromptScores:
    """The scores of candidates by prompt, of which the first rounds are known; each is measured once.

    `counts`: the number of prompts of each score.
    """

    def __init__(self, measure: Measure, counts: dict[str, int]) -> None:
        self.counts = counts
        self._measure = measure
        self._values: dict[tuple[str, Key], Array] = {}
        self._ends = {score: round_ends(n) for score, n in counts.items()}
        self.n_rounds = max(map(len, self._ends.values()))

    def extend(self, score: str, candidates: Sequence[Key], round_index: int | None = None) -> None:
        """Measure `score` of `candidates` up to a round, by default the last."""
        ends = self._ends[score]
        last = len(ends) - 1 if round_index is None else min(round_index, len(ends) - 1)
        for index in range(last + 1):
            missing = [key for key in candidates if len(self.values(score, key)) < ends[index]]
            if missing:
                for key, values in zip(missing, self._measure(score, missing, index), strict=True):
                    self._values[score, key] = np.concatenate([self.values(score, key), values])

    @property
    def size(self) -> int:
        """Number of scores of a prompt that were measured."""
        return sum(map(len, self._values.values()))

    def values(self, score: str, key: Key) -> Array:
        """Return the scores of the prompts that were measured [prompts]."""
        return self._values.get((score, key), np.zeros(0))

    def mean(self, score: str, key: Key) -> float | None:
        """Return the mean over all prompts; None before all are measured."""
        values = self.values(score, key)
        return float(values.mean()) if len(values) == self.counts[score] else None

    def candidate_score(self, key: Key) -> CandidateScore:
        """Return the scores of a candidate that are complete."""
        return CandidateScore(
            position=key[0].label,
            layer=key[1],
            refusal_score=self.mean(REFUSAL, key),
            steering_score=self.mean(STEERING, key),
            kl_div_score=self.mean(KL, key),
        )


@dataclass
class Race:
    """Choose among `candidates` by a rule, with as few scores by prompt in `table` as decide the choice."""

    table: PromptScores
    candidates: Sequence[Key]
    n_layers: int

    def __post_init__(self) -> None:
        self.dropped: list[Dropped] = []
        # One half of the error is for tests against a limit, one after each round but the last;
        # the other for those against a better candidate, which may be any.
        half = (1 - CONFIDENCE) / 2
        self._limit_tail = half / max(1, self.table.n_rounds - 1)
        self._leader_tail = self._limit_tail / len(self.candidates)

    def select(self, rule: str = "robust") -> Selection:
        """Return the selection of `rule`; `dropped` then says what was dropped."""
        for step in rule_steps(rule):
            if self._chosen(step):
                break
        return select([self.table.candidate_score(key) for key in self.candidates], rule, self.n_layers)

    def _chosen(self, step: Step) -> bool:
        """Complete the scores of what `step` selects; return whether any candidate passes it."""
        running = [key for key in self.candidates if step.allows_layer(key[1], self.n_layers)]
        leader = None
        for index in range(self.table.n_rounds):
            if step.min_steering is not None:
                running = self._within_limit(STEERING, running, step, index)
            running = self._within_limit(REFUSAL, running, step, index)
            leader = self._leader(running, step)
            if leader is None:
                return False
            running = self._near(running, leader, step)
        # Candidates with the leader's score compete by their KL.
        best = self.table.mean(REFUSAL, leader) if leader is not None else None
        tied = [key for key in running if self.table.mean(REFUSAL, key) == best]
        for score in SCORES:
            self.table.extend(score, tied)
        return True

    def _within_limit(self, score: str, keys: Sequence[Key], step: Step, round_index: int) -> list[Key]:
        """Measure `score` up to a round; return the candidates that may be within its limit."""
        self.table.extend(score, keys, round_index)
        return [key for key in keys if not self._exceeds(score, key, step)]

    def _leader(self, keys: list[Key], step: Step) -> Key | None:
        """Return the candidate of the least refusal score so far that passes the filters; remove from `keys`
        those before it, which do not."""
        for key in sorted(keys, key=lambda key: float(self.table.values(REFUSAL, key).mean())):
            if self._passes(key, step):
                return key
            keys.remove(key)
        return None

    def _passes(self, key: Key, step: Step) -> bool:
        """Return whether a candidate passes the filters; measure it until that is sure."""
        for score in (STEERING, KL):
            if score == STEERING and step.min_steering is None:
                continue
            for index in range(self.table.n_rounds):
                if not self._within_limit(score, [key], step, index):
                    return False
        return True

    def _near(self, keys: Sequence[Key], leader: Key, step: Step) -> list[Key]:
        """Return the candidates whose refusal score may be as low as the leader's."""
        best, n = self.table.values(REFUSAL, leader), self.table.counts[REFUSAL]
        near = []
        for key in keys:
            difference = self.table.values(REFUSAL, key) - best
            bound = float(difference.mean()) - half_width(difference, n, self._leader_tail)
            if len(difference) < n and bound > 0:
                self._drop(REFUSAL, key, step, bound, 0.0, than=leader)
            else:
                near.append(key)
        return near

    def _exceeds(self, score: str, key: Key, step: Step) -> bool:
        """Return whether a candidate is out of a limit of `step`, and note that it is dropped."""
        limit = {STEERING: step.min_steering, KL: step.max_kl, REFUSAL: step.max_refusal}[score]
        if limit is None:
            return False
        values, n = self.table.values(score, key), self.table.counts[score]
        mean, width = float(values.mean()), half_width(values, n, self._limit_tail)
        if score == STEERING:
            bound, exceeds = mean + width, mean + width < limit
        elif score == KL:
            bound = mean if len(values) == n else float(values.sum()) / n
            exceeds = bound > limit
        else:
            bound, exceeds = mean - width, mean - width > limit
        if exceeds:
            self._drop(score, key, step, bound, limit)
        return exceeds

    def _drop(
        self, score: str, key: Key, step: Step, bound: float, limit: float, than: Key | None = None
    ) -> None:
        self.dropped.append(
            Dropped(
                position=key[0].label,
                layer=key[1],
                step=step.name,
                score=score,
                prompts=len(self.table.values(score, key)),
                bound=bound,
                limit=limit,
                than=None if than is None else (than[0].label, than[1]),
            )
        )


def half_width(sample: Array, n: int, tail: float) -> float:
    """Return how far the mean of all `n` prompts can be from that of `sample`, at a level of `tail`.

    Student's bound to one side, with the correction for a sample without replacement (Cochran 1977, section
    2.8); 0 where the sample is everything, infinite where it is one prompt.
    """
    m = len(sample)
    if m >= n:
        return 0.0
    if m < 2:
        return math.inf
    deviation = max(float(sample.std(ddof=1)), LEAST_DEVIATION)
    return t_quantile(tail, m - 1) * deviation * math.sqrt((1 - m / n) / m)
