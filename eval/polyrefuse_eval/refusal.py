"""How much a first-token distribution leans to refusal, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

REFUSAL_EPSILON = 1e-8
"""Added to both probabilities of the log-odds, as in the code of Arditi et al. 2024."""

KL_EPSILON = 1e-6
"""Added to probabilities inside the logarithms of the KL divergence, as in the same code."""

ROWS_AT_ONCE = 8
"""Logits read at once: what is computed of them in between is as large as they are, or twice."""


@dataclass(frozen=True)
class RefusalTokens:
    """First tokens of a model's refusals in one language.

    `coverage` is the share of the model's refusals that begin with one of `ids`, None where the
    list was given by hand. `n_refusals` is how many refusals it was found from.
    """

    lang: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...] = ()
    coverage: float | None = None
    n_refusals: int = 0
    n_prompts: int = 0

    def to_json(self) -> dict[str, object]:
        return {
            "lang": self.lang,
            "ids": list(self.ids),
            "tokens": list(self.tokens),
            "coverage": self.coverage,
            "n_refusals": self.n_refusals,
            "n_prompts": self.n_prompts,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> RefusalTokens:
        values = {**record, "ids": tuple(record["ids"]), "tokens": tuple(record["tokens"])}  # type: ignore[arg-type]
        return cls(**values)  # type: ignore[arg-type]


def refusal_scores(logits: Tensor, refusal_ids: tuple[int, ...]) -> Tensor:
    """Return log p - log(1 - p) [prompts] (float64), p the summed probability of `refusal_ids`.

    `logits` [prompts, vocabulary] are those of the first generated token (Arditi et al. 2024,
    refusal metric). Above 0 the model leans to refuse.
    """
    return torch.cat([_refusal_scores(part, list(refusal_ids)) for part in torch.split(logits, ROWS_AT_ONCE)])


def _refusal_scores(logits: Tensor, refusal_ids: list[int]) -> Tensor:
    exact = logits.float()
    log_p = exact[:, refusal_ids].double().logsumexp(-1) - exact.logsumexp(-1).double()
    p = log_p.exp()
    return (p + REFUSAL_EPSILON).log() - (1 - p + REFUSAL_EPSILON).log()


class FirstTokenReference:
    """Unedited first-token distributions, against which edited ones are compared."""

    def __init__(self, logits: Tensor) -> None:
        """`logits` [prompts, vocabulary] of the unedited model."""
        self._p = torch.softmax(logits.float(), -1)
        self._p_log_p = torch.cat([_cross(p, p) for p in torch.split(self._p, ROWS_AT_ONCE)])

    def kl(self, logits: Tensor) -> Tensor:
        """Return KL(unedited ‖ edited) [prompts] (float64, nats) for edited `logits`."""
        parts = zip(torch.split(self._p, ROWS_AT_ONCE), torch.split(logits, ROWS_AT_ONCE), strict=True)
        return self._p_log_p - torch.cat([_cross(p, torch.softmax(rows.float(), -1)) for p, rows in parts])


def _cross(p: Tensor, q: Tensor) -> Tensor:
    """Return Σ p · log q [prompts] (float64)."""
    return (q + KL_EPSILON).log_().mul_(p).sum(-1, dtype=torch.float64)
