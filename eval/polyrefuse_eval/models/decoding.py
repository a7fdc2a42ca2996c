"""Rows that grow token by token, behind a cache where the model's cache can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.batching import (
    PROBE_TEXTS,
    accepted_arguments,
    can_pack,
    can_pad,
    checked_logits,
    kept_logits,
    left_padded,
    same_logits,
)
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.kv_cache import cache_argument, cache_of

DECODING_ERROR = 1e-2
"""Of the logits' spread. transformers computes a step of a recurrent state otherwise than a whole pass: tiny
Nemotron-H models differ by 1e-3 in float32; a state that is wrong, by 1 and more."""


class Decoding:
    """A batch of left-padded `rows` (token ids): alternate `logits` and `append`.

    `cached`: only the tokens appended last are computed; else every pass is over all tokens.
    """

    def __init__(self, chat: ChatModel, rows: Sequence[Sequence[int]], *, cached: bool) -> None:
        self._chat = chat
        self._cached = cached
        self._cache: Any = None
        self._arguments = left_padded(chat, rows)

    def logits(self) -> Tensor:
        """Return the logits [rows, vocabulary] after the last token of each row."""
        output = self._chat.model(
            **accepted_arguments(self._chat, dict(self._arguments)),
            **(cache_argument(self._chat.model, self._cache) if self._cached else {}),
            use_cache=self._cached,
            **kept_logits(self._chat, 1),
        )
        self._cache = cache_of(output) if self._cached else None
        return checked_logits(self._chat, output.logits[:, -1])

    def append(self, tokens: Tensor) -> None:
        """Put one of `tokens` [rows] behind each row."""
        ids, mask, positions = (
            self._arguments[name] for name in ("input_ids", "attention_mask", "position_ids")
        )
        next_ids, next_positions = tokens.unsqueeze(1), positions[:, -1:] + 1
        self._arguments = {
            "input_ids": next_ids if self._cached else torch.cat([ids, next_ids], dim=1),
            "attention_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1),
            "position_ids": next_positions if self._cached else torch.cat([positions, next_positions], dim=1),
        }

    def keep(self, rows: Sequence[int]) -> Tensor:
        """Keep only `rows` of the batch, and return them as indices on the model's device."""
        indices = torch.tensor(list(rows), device=self._arguments["input_ids"].device)
        if self._cached:
            self._cache.reorder_cache(indices)
        self._arguments = {name: value[indices] for name, value in self._arguments.items()}
        return indices


@torch.inference_mode()
def can_cache(chat: ChatModel) -> bool:
    """Return whether decoding behind the model's cache gives the logits of whole passes; tried once.

    A model whose prompts can share a row has no state but attention's keys and values, which are trusted;
    caches of recurrent states and convolutions are tried, as is leaving a row out of them.
    """
    if chat.caches is None:
        chat.caches = can_pack(chat) or _decodes_alike(chat)
    return chat.caches


def _decodes_alike(chat: ChatModel) -> bool:
    first, second, other = (prompt.ids for prompt in chat.encode(PROBE_TEXTS))
    if not can_pad(chat):
        length = min(len(first), len(second))
        first, second = first[:length], second[-length:]
    steps = 4
    tokens = [*other[-steps:]]

    def run(rows: Sequence[Sequence[int]], cached: bool, leave: int | None = None) -> Tensor:
        decoding, logits = Decoding(chat, rows, cached=cached), []
        for step, token in enumerate(tokens):
            logits.append(decoding.logits()[-1])
            if step == leave:
                decoding.keep([len(rows) - 1])
                rows = rows[-1:]
            decoding.append(torch.full((len(rows),), token, device=chat.device))
        return torch.stack(logits).float()

    try:
        together = run([first, second], True, leave=steps // 2)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
        AttributeError,
        NotImplementedError,
        ChatModelError,
    ):
        return False
    return same_logits(chat, together, run([second], False), DECODING_ERROR)
