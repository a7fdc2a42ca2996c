"""Records of what conditions cost: how far they move a model from its own answers to harmless prompts.

Divergences and entropies are in nats; no record holds a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, with_config

from polyrefuse_eval.results.fields import ConditionName, Count, Lang, Name, check, check_ends, check_ratio
from polyrefuse_eval.results.validation import STRICT

Nats = Annotated[float, Field(ge=0, le=1e12)]
Positive = Annotated[int, Field(ge=1, le=10**6)]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class AnswerCostRecord:
    """What `condition` costs on one stored answer of the unedited model, of which `limit` tokens are read.

    Sums over `n_tokens` tokens, as in `models.answer_costs.AnswerCost`; those of the prompt over
    `n_prompt_tokens`.
    """

    id: Name
    group: Name
    lang: Lang
    condition: ConditionName
    limit: Positive
    n_tokens: Count
    kl: Nats
    first_kl: Nats
    cross_entropy: Nats
    unedited_cross_entropy: Nats
    n_prompt_tokens: Count
    prompt_cross_entropy: Nats
    unedited_prompt_cross_entropy: Nats

    def __post_init__(self) -> None:
        check(self.n_tokens <= self.limit, f"{self.n_tokens} tokens were read of at most {self.limit}")
        check(self.first_kl <= self.kl * (1 + 1e-6) + 1e-9, "the first token's KL is above the answer's")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ConditionCost:
    """What `condition` costs in `lang`: means over `n_tokens` tokens of `n` answers to harmless prompts.

    `kl_per_token` is the mean of KL(unedited ‖ edited) over the tokens, with its 95 % bootstrap interval
    over prompt groups; `first_kl` that of the first token of each answer. Entropies are per token: of the
    answers, and of the prompts themselves, edited and unedited.
    """

    lang: Lang
    condition: ConditionName
    limit: Positive
    n: Count
    n_tokens: Count
    kl_per_token: Nats | None
    low: Nats | None
    high: Nats | None
    first_kl: Nats | None
    cross_entropy: Nats | None
    unedited_cross_entropy: Nats | None
    n_prompt_tokens: Count
    prompt_cross_entropy: Nats | None
    unedited_prompt_cross_entropy: Nats | None

    def __post_init__(self) -> None:
        check_ends("kl_per_token", self.kl_per_token, (self.low, self.high))
        check((self.kl_per_token is None) == (self.n_tokens == 0), "kl_per_token is not that of its tokens")
        check(self.n_tokens <= self.n * self.limit, f"{self.n_tokens} tokens of {self.n} answers")
        if self.kl_per_token is None:
            check_ratio("cross_entropy", self.cross_entropy, None)
