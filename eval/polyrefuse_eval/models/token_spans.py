"""Spans of tokens inside prompts, and edits that touch them alone: in any batch, whatever its layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.models.batching import Batch, forward, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Edits, applied
from polyrefuse_eval.models.template import EncodedPrompt

Positions = tuple[int, ...]
"""Negative, -1 the last: a scope of `intervene.Tokens`."""


def instruction_span(prompt: EncodedPrompt) -> range:
    """Return the indices of the instruction's tokens, first to t_inst."""
    return range(min(prompt.start, prompt.t_inst), prompt.t_inst + 1)


def positions_of(prompt: EncodedPrompt, span: range) -> Positions:
    """Return `span` counted from the prompt's end: the scope of an edit in `generate`."""
    return tuple(index - len(prompt) for index in span)


def row_positions(batch: Batch, prompts: Sequence[EncodedPrompt], spans: Sequence[range]) -> list[Positions]:
    """Return for each row of `batch` the positions, from the row's end, of the spans of its prompts.

    `prompts` and `spans` are those of the caller's list. In a packed batch no span may begin within
    the shared prefix (`plan_batches(..., most_shared=...)`).
    """
    n_rows, width = batch.arguments["input_ids"].shape
    found: list[list[int]] = [[] for _ in range(n_rows)]
    for index, row, end in zip(batch.prompts, batch.rows.tolist(), batch.ends.tolist(), strict=True):
        first = end - (len(prompts[index]) - 1)
        found[row] += [first + token - width for token in spans[index]]
    return [tuple(sorted(positions)) for positions in found]


@torch.inference_mode()
def edited_logits(
    chat: ChatModel,
    prompts: Sequence[EncodedPrompt],
    spans: Sequence[range],
    edits: Sequence[Callable[[Positions], Edits]],
    *,
    tokens_per_batch: int | None = None,
    progress: str | None = None,
) -> Tensor:
    """Return the first-token logits [edits, prompts, vocabulary] (float32, CPU) under each of `edits`.

    Each of `edits` makes the edits of a row from the positions that they may touch: `spans` (token
    indices) of the prompts in it.
    """
    batches = plan_batches(
        chat, prompts, tokens_per_batch, most_shared=min((span.start for span in spans), default=0)
    )
    found: Tensor | None = None
    with Progress(len(prompts) * len(edits), "answers", progress) as shown:
        for batch in batches:
            scopes = row_positions(batch, prompts, spans)
            for number, make in enumerate(edits):
                with applied(chat, [make(positions) for positions in scopes]):
                    logits = forward(chat, batch).float().cpu()
                if found is None:
                    found = torch.zeros(len(edits), len(prompts), logits.shape[-1])
                found[number, list(batch.prompts)] = logits
                shown.advance(len(batch.prompts))
    return torch.zeros(len(edits), 0, 0) if found is None else found
