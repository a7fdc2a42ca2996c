"""Records of what the prompts of a run are, and of rates over some of them: by source, by type, by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import with_config

from polyrefuse_eval.results.fields import (
    ConditionName,
    Count,
    Difference,
    Label,
    Lang,
    Name,
    Share,
    check,
    check_ends,
    check_interval,
    check_share,
)
from polyrefuse_eval.results.validation import STRICT

SubsetKind = Literal["source", "type"]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """What a test prompt is, without its text; the same in every language.

    `type` is its source's own category. A harmless prompt that looks harmful and its harmful twin share a
    `pair`.
    """

    id: Name
    group: Name
    label: Label
    source: Name
    type: Name | None
    pair: Name | None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class SubsetResult:
    """The refusal rate over the prompts of one source or one type, with its 95 % Wilson interval.

    `n` counts judged answers, `n_unjudged` those that the judge could not decide.
    """

    lang: Lang
    label: Label
    condition: ConditionName
    judge: Name
    kind: SubsetKind
    subset: Name
    n: Count
    n_unjudged: Count
    n_refused: Count
    refusal_rate: Share | None
    low: Share | None
    high: Share | None

    def __post_init__(self) -> None:
        check_share("refusal_rate", self.refusal_rate, self.n_refused, self.n)
        check_interval("refusal_rate", self.refusal_rate, (self.low, self.high))


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ContrastResult:
    """How a model answers contrast pairs: a harmless prompt that looks harmful, and its harmful twin.

    `n` counts pairs of which both answers are judged, `n_unjudged` the others. The next four add up to `n`:
    a model that tells the two apart refuses the harmful one alone. `differently` is the share of pairs of
    which one is refused and the other is not. `difference` is the refusal rate of the harmful prompts minus
    that of their harmless twins; `low` and `high`: paired bootstrap over pairs, 95 %; `p`: exact sign-flip
    test over pairs, two-sided.
    """

    lang: Lang
    condition: ConditionName
    judge: Name
    n: Count
    n_unjudged: Count
    both_refused: Count
    only_harmful_refused: Count
    only_harmless_refused: Count
    neither_refused: Count
    differently: Share | None
    difference: Difference | None
    low: Difference | None
    high: Difference | None
    p: Share | None

    def __post_init__(self) -> None:
        counts = (
            self.both_refused,
            self.only_harmful_refused,
            self.only_harmless_refused,
            self.neither_refused,
        )
        check(sum(counts) == self.n, f"n is {self.n}; its counts add up to {sum(counts)}")
        check_share("differently", self.differently, counts[1] + counts[2], self.n)
        check((self.n == 0) == (self.difference is None), f"its difference is {self.difference} of {self.n}")
        check_ends("difference", self.difference, (self.low, self.high))
