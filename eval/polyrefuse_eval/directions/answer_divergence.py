"""KL(unedited ‖ edited) along the unedited model's own answers, a mean a token: a score of candidates.

The first token alone underestimates a direction whose ablation derails an answer later on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polyrefuse_eval.directions.refusal_tokens import FirstTokenReference
from polyrefuse_eval.models.answer_costs import Reading, logits_at, logits_budget, token_places
from polyrefuse_eval.models.batching import Batch, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import generate


@dataclass(frozen=True, eq=False)
class AnswerBatch:
    """Prompts with the first tokens of their unedited answers: one teacher-forced pass.

    `rows` and `columns` [tokens] are where each token of an answer is predicted, `counts` how many tokens
    those of each prompt in `batch.prompts` are; `reference` holds the unedited distributions.
    """

    batch: Batch
    rows: Tensor
    columns: Tensor
    counts: tuple[int, ...]
    reference: FirstTokenReference

    def kl(self, chat: ChatModel) -> Tensor:
        """Return the mean KL a token of each prompt under the edits that are applied [prompts] (nats)."""
        divergences = self.reference.kl(logits_at(chat, self.batch, self.rows, self.columns)).cpu()
        return torch.stack([of_prompt.mean() for of_prompt in torch.split(divergences, list(self.counts))])


@torch.inference_mode()
def answer_batches(
    chat: ChatModel, prompts: Sequence[str], n_tokens: int, tokens_per_batch: int | None = None
) -> list[AnswerBatch]:
    """Answer `prompts` greedily without an edit; return passes over the first `n_tokens` of each answer.

    The end of an answer is one of its tokens. With one token, this is the KL of the first token.
    """
    answers = {
        int(answer.key): answer
        for batch in generate(chat, list(prompts), max_new_tokens=n_tokens)
        for answer in batch
    }
    # Put each answer behind its prompt. Of the last token only the place is read, so any will do for the end.
    end = chat.tokenizer.eos_token_id or 0
    encoded, readings = [], []
    for index, prompt in enumerate(chat.encode(list(prompts))):
        answer = answers[index]
        tokens = (*answer.ids, end)[:n_tokens] if answer.ended else answer.ids[:n_tokens]
        encoded.append(replace(prompt, ids=(*prompt.ids, *tokens)))
        readings.append(Reading(range(0), range(len(prompt), len(prompt) + len(tokens))))
    first_own = min(prompt.start for prompt in encoded)
    batches = []
    for batch in plan_batches(chat, encoded, tokens_per_batch or logits_budget(chat), most_shared=first_own):
        rows, columns, _ = token_places(batch, encoded, readings)
        reference = FirstTokenReference(logits_at(chat, batch, rows, columns))
        counts = tuple(len(readings[index].answer) for index in batch.prompts)
        batches.append(AnswerBatch(batch, rows, columns, counts, reference))
    return batches
