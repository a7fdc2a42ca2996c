"""Which prompts does a model refuse: by its answers, or by the first token of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from polyrefuse_eval.directions.refusal_tokens import RefusalTokens, refusal_scores
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.batching import (
    accepted_arguments,
    kept_logits,
    left_padded,
    memory_told,
    next_rows,
)
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, default_batch_size, generate
from polyrefuse_eval.models.intervene import BASELINE, Edits, applied

ANSWER_TOKENS = 32
"""Enough of an answer to see whether it opens with a refusal."""

TOKEN_PROMPTS = 32
"""Prompts of each label whose answers show how refusals begin."""


@dataclass(frozen=True, eq=False)
class Ask:
    """A prompt in `lang`, asked under `edits` (their positions count from the prompt's end)."""

    prompt: str
    lang: str
    edits: Edits = BASELINE


Refuses = Callable[[Sequence[Ask]], "list[bool | None]"]
"""Whether the model refuses each; None where that cannot be told."""


def by_answers(
    chat: ChatModel,
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    batch_size: int | None = None,
    progress: str | None = None,
) -> Refuses:
    """Return the reading by greedy answers and the native judge."""

    def refuses(asks: Sequence[Ask]) -> list[bool | None]:
        requests = [Request(str(index), ask.prompt, ask.edits) for index, ask in enumerate(asks)]
        found: list[bool | None] = [None] * len(asks)
        for answers in generate(
            chat, requests, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress
        ):
            for answer in answers:
                index = int(answer.key)
                found[index] = native.refuses(answer.text, asks[index].lang)
        return found

    return refuses


def by_first_token(
    chat: ChatModel,
    tokens: Mapping[str, RefusalTokens],
    *,
    batch_size: int | None = None,
    progress: str | None = None,
) -> Refuses:
    """Return the reading by the sign of the refusal score, with the refusal `tokens` of each language:
    one pass, no answer, and blind to what comes after the first token."""

    @torch.inference_mode()
    def refuses(asks: Sequence[Ask]) -> list[bool | None]:
        encoded = chat.encode([ask.prompt for ask in asks])
        order = sorted(range(len(asks)), key=lambda index: (len(encoded[index]), index))
        size = batch_size or default_batch_size(chat, encoded)
        found: list[bool | None] = [None] * len(asks)
        with tqdm(total=len(asks), desc=progress, disable=True if progress is None else None) as bar:
            while order:
                part = next_rows(chat, encoded, order, size)
                order = order[len(part) :]
                arguments = accepted_arguments(
                    chat, dict(left_padded(chat, [encoded[index].ids for index in part]))
                )
                with memory_told(chat), applied(chat, [asks[index].edits for index in part]):
                    output = chat.model(**arguments, use_cache=False, **kept_logits(chat, 1))
                for row, index in enumerate(part):
                    score = refusal_scores(output.logits[row, -1:], tokens[asks[index].lang].ids)
                    found[index] = bool(score > 0)
                bar.update(len(part))
        return found

    return refuses
