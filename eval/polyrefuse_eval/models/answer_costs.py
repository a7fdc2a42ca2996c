"""What an edit costs: how far it moves a model from answers that the model itself gives.

Teacher-forced: the unedited model's answers are read, not made anew, so a whole answer is one pass, and all
edits are measured on the same tokens. The divergence at the first token alone, by which directions are
chosen, underestimates an edit that derails an answer later on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.models.batching import (
    TOKENS_PER_BATCH,
    Batch,
    accepted_arguments,
    checked_logits,
    memory_told,
    plan_batches,
)
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Edits, applied
from polyrefuse_eval.models.partial_forward import head_only_at
from polyrefuse_eval.models.template import EncodedPrompt

ANSWER_TOKENS = 64
"""How many tokens of an answer are read; most derailments show within a sentence or two."""

LOGITS_PER_BATCH = 2**26
"""Logits of one pass that are kept for comparison: 256 MiB in float32."""

ROWS_AT_ONCE = 16
"""Rows of logits that are reduced together: each intermediate result is as large as they are."""


@dataclass(frozen=True, kw_only=True)
class AnswerCost:
    """What one edit costs on one answer, and on the prompt before it; sums over tokens, in nats.

    `kl` is Σ KL(unedited ‖ edited) over the `n_tokens` tokens of the answer, `first_kl` its first term.
    `cross_entropy` is -Σ log q(token) under the edited model, `unedited_cross_entropy` under the unedited
    one; the same of the `n_prompt_tokens` tokens of the prompt behind its first in `prompt_cross_entropy` and
    `unedited_prompt_cross_entropy`.
    """

    n_tokens: int
    kl: float
    first_kl: float
    cross_entropy: float
    unedited_cross_entropy: float
    n_prompt_tokens: int
    prompt_cross_entropy: float
    unedited_prompt_cross_entropy: float

    @property
    def unedited(self) -> AnswerCost:
        """The cost on the same answer of an edit that does nothing on its prompt."""
        return replace(
            self,
            kl=0.0,
            first_kl=0.0,
            cross_entropy=self.unedited_cross_entropy,
            prompt_cross_entropy=self.unedited_prompt_cross_entropy,
        )


@dataclass(frozen=True)
class Reading:
    """Where the tokens that are read of one prompt and its answer stand: indices into their ids."""

    prompt: range
    answer: range

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.answer]


@torch.inference_mode()
def answer_costs(
    chat: ChatModel,
    answers: Sequence[tuple[str, str]],
    edits: Mapping[str, Edits],
    *,
    max_tokens: int = ANSWER_TOKENS,
    progress: str | None = None,
) -> dict[str, list[AnswerCost]]:
    """Return the cost of each of `edits` (name to edits) on each of `answers` (prompt, answer), in order.

    The first `max_tokens` tokens of an answer are read; an answer without a token costs nothing. `progress`
    names the step. Raises `ChatModelError` where a prompt and its answer do not fit into the context.
    """
    encoded, readings = _encode(chat, answers, max_tokens)
    costs: dict[str, list[AnswerCost | None]] = {name: [None] * len(answers) for name in edits}
    first_own = min((prompt.start for prompt in encoded), default=0)
    with Progress(len(answers) * len(edits), "answers", progress) as shown:
        for batch in plan_batches(chat, encoded, logits_budget(chat), most_shared=first_own):
            # Where the tokens stand that are read, and which they are
            rows, columns, targets = token_places(batch, encoded, readings)
            unedited = logits_at(chat, batch, rows, columns)
            for name, edit in edits.items():
                with applied(chat, edit):
                    edited = logits_at(chat, batch, rows, columns)
                measured = _measure(unedited, edited, targets)
                _deal(costs[name], batch, readings, measured)
                shown.advance(len(batch.prompts))
    return {name: [cost for cost in of_edit if cost is not None] for name, of_edit in costs.items()}


def _encode(
    chat: ChatModel, answers: Sequence[tuple[str, str]], max_tokens: int
) -> tuple[list[EncodedPrompt], list[Reading]]:
    """Return each prompt with the first tokens of its answer behind it, and where both stand."""
    encoded: list[EncodedPrompt] = []
    readings: list[Reading] = []
    for prompt, (_, answer) in zip(chat.encode([text for text, _ in answers]), answers, strict=True):
        tokens = chat.tokenizer(answer, add_special_tokens=False)["input_ids"][:max_tokens]
        encoded.append(replace(prompt, ids=(*prompt.ids, *tokens)))
        first = min(prompt.start, prompt.t_inst)
        readings.append(
            Reading(range(first + 1, prompt.t_inst + 1), range(len(prompt), len(prompt) + len(tokens)))
        )
    chat.fit_context(encoded, [text for text, _ in answers])
    return encoded, readings


def logits_budget(chat: ChatModel) -> int:
    """Return how many tokens a batch holds, so that the logits of all of them fit."""
    vocabulary = chat.n_embeddings
    return max(64, min(TOKENS_PER_BATCH.get(chat.device.type, 1024), LOGITS_PER_BATCH // vocabulary))


def token_places(
    batch: Batch, encoded: Sequence[EncodedPrompt], readings: Sequence[Reading]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return row and column of the token before each one that is read, and its id: [tokens] each.

    `encoded` are the prompts that `batch` was planned of.
    """
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for index, row, end in zip(batch.prompts, batch.rows.tolist(), batch.ends.tolist(), strict=True):
        first = end - (len(encoded[index]) - 1)
        tokens = readings[index].tokens
        rows += [row] * len(tokens)
        columns += [first + token - 1 for token in tokens]
        targets += [encoded[index].ids[token] for token in tokens]
    return torch.tensor(rows), torch.tensor(columns), torch.tensor(targets)


def logits_at(chat: ChatModel, batch: Batch, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the logits [tokens, vocabulary] of `batch` at `rows`, `columns`."""
    arguments = accepted_arguments(chat, dict(batch.arguments))
    with ExitStack() as stack:
        stack.enter_context(memory_told(chat))
        if chat.model.get_output_embeddings() is None:
            logits = chat.model(**arguments, use_cache=False).logits[rows, columns]
        else:
            stack.enter_context(head_only_at(chat, rows, columns))
            logits = chat.model(**arguments, use_cache=False).logits[0]
        return checked_logits(chat, logits)


def _measure(unedited: Tensor, edited: Tensor, targets: Tensor) -> Tensor:
    """Return KL(unedited ‖ edited), and the two cross-entropies, of each token: [tokens, 3] (float64)."""
    parts = []
    for first in range(0, len(targets), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        log_p = torch.log_softmax(unedited[part].float(), -1)
        log_q = torch.log_softmax(edited[part].float(), -1)
        token = targets[part, None].to(log_p.device)
        entropies = [-log.gather(-1, token)[:, 0].double() for log in (log_q, log_p)]
        # A token that is impossible in both distributions has log p - log q of no number, and p of 0.
        difference = (log_p - log_q).nan_to_num_(0.0)
        kl = (log_p.exp() * difference).sum(-1, dtype=torch.float64)
        parts.append(torch.stack([kl.clamp_(min=0.0), *entropies], 1).cpu())
    return torch.cat(parts) if parts else torch.zeros(0, 3, dtype=torch.float64)


def _deal(
    costs: list[AnswerCost | None], batch: Batch, readings: Sequence[Reading], measured: Tensor
) -> None:
    """Set the costs of the answers in `batch` from what was `measured` of their tokens, in its order."""
    start = 0
    for index in batch.prompts:
        reading = readings[index]
        of_prompt = measured[start : start + len(reading.prompt)]
        of_answer = measured[start + len(reading.prompt) : start + len(reading.tokens)]
        start += len(reading.tokens)
        costs[index] = AnswerCost(
            n_tokens=len(of_answer),
            kl=float(of_answer[:, 0].sum()),
            first_kl=float(of_answer[0, 0]) if len(of_answer) else 0.0,
            cross_entropy=float(of_answer[:, 1].sum()),
            unedited_cross_entropy=float(of_answer[:, 2].sum()),
            n_prompt_tokens=len(of_prompt),
            prompt_cross_entropy=float(of_prompt[:, 1].sum()),
            unedited_prompt_cross_entropy=float(of_prompt[:, 2].sum()),
        )
