"""Rows that grow token by token, behind a cache where the model's cache can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
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
from polyrefuse_eval.models.intervene import Applied
from polyrefuse_eval.models.kv_cache import cache_argument, cache_of

DECODING_ERROR = 1e-2
"""Of the logits' spread. transformers computes a step of a recurrent state otherwise than a whole pass: tiny
Nemotron-H models differ by 1e-3 in float32; a state that is wrong, by 1 and more."""


class Decoding:
    """A batch of rows (token ids), left-padded: `begin` it, then `step` token by token.

    Rows stand in slots. Where rows may join, a row that has ended leaves its slot to another; elsewhere a
    batch stays what it was when it began, but for the rows that `keep` leaves out.

    cached: only the tokens appended last are computed; else every pass is over all tokens.
    joins: rows may join (see `can_join`), which takes a cache.
    state: the edits of the block in which the batch is decoded; None where there are none.
    """

    def __init__(
        self, chat: ChatModel, *, cached: bool, joins: bool = False, state: Applied | None = None
    ) -> None:
        self._chat = chat
        self._cached = cached
        self._joins = joins
        self._state = state
        self._cache: Any = None
        self._arguments: dict[str, Tensor] = {}
        self._edits: list[int] = []

    @property
    def n_slots(self) -> int:
        """How many slots there are, of which some may be without a row."""
        return len(self._edits)

    @property
    def width(self) -> int:
        """How many columns of tokens are behind each slot, padding among them."""
        return int(self._arguments["attention_mask"].shape[1]) if self._arguments else 0

    def begin(self, rows: Sequence[Sequence[int]], edits: Sequence[int]) -> Tensor:
        """Begin a batch with `rows`; return the logits [rows, vocabulary] after the last token of each.

        edits: for each row, the index of its edits among those that the block was opened with.
        """
        self._edits = list(edits)
        self._arguments = left_padded(self._chat, rows)
        self._cache = None
        self._new_prompt(self._edits)
        logits, self._cache = self._pass(self._arguments, None)
        if self._joins:
            slot_cache().hold_slots(self._cache)
        return logits

    def join(self, slots: Sequence[int], rows: Sequence[Sequence[int]], edits: Sequence[int]) -> Tensor:
        """Put `rows` into `slots`, of which those behind the last are new; return their logits.

        Raises no error for a slot that has a row: the new one takes its place.
        """
        joining = left_padded(self._chat, rows)
        self._new_prompt(edits)
        logits, cache = self._pass(joining, None)
        slot_cache().place(self._cache, slots, cache)
        n_slots = max(self.n_slots, max(slots) + 1)
        width = max(self.width, joining["attention_mask"].shape[1])
        self._edits += [0] * (n_slots - self.n_slots)
        for slot, edit in zip(slots, edits, strict=True):
            self._edits[slot] = edit
        for name, value in self._arguments.items():
            # Positions and ids matter at the last column alone.
            columns = width if name == "attention_mask" else 1
            grown = value.new_zeros(n_slots, columns)
            grown[: len(value), max(0, columns - value.shape[1]) :] = value[:, -columns:]
            grown[list(slots)] = 0
            given = joining[name][:, -columns:]
            grown[list(slots), columns - given.shape[1] :] = given
            self._arguments[name] = grown
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Put one of `tokens` [slots] behind each row; return the logits [slots, vocabulary] after it."""
        ids, mask, positions = (
            self._arguments[name] for name in ("input_ids", "attention_mask", "position_ids")
        )
        next_ids, next_positions = tokens.unsqueeze(1), positions[:, -1:] + 1
        self._arguments = {
            "input_ids": next_ids if self._cached else torch.cat([ids, next_ids], dim=1),
            "attention_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1),
            "position_ids": next_positions if self._cached else torch.cat([positions, next_positions], dim=1),
        }
        if self._state is not None:
            self._state.assign(self._edits)
            if self._cached:
                self._state.end_prompt()
        logits, self._cache = self._pass(self._arguments, self._cache)
        return logits

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only the rows in `slots`, in this order."""
        indices = torch.tensor(list(slots), device=self._arguments["input_ids"].device)
        if self._cached:
            self._cache.reorder_cache(indices)
        self._arguments = {name: value[indices] for name, value in self._arguments.items()}
        self._edits = [self._edits[slot] for slot in slots]

    def trim(self, slots: Sequence[int]) -> None:
        """Give up the first columns that are padding in all of `slots`; of use where rows join."""
        mask = self._arguments["attention_mask"]
        padding = int(mask[list(slots)].amax(0).argmax())
        if padding:
            slot_cache().trim(self._cache, padding)
            self._arguments["attention_mask"] = mask[:, padding:]

    def _new_prompt(self, edits: Sequence[int]) -> None:
        if self._state is not None:
            self._state.assign(edits)
            self._state.new_prompt()

    def _pass(self, arguments: dict[str, Tensor], cache: Any) -> tuple[Tensor, Any]:
        output = self._chat.model(
            **accepted_arguments(self._chat, dict(arguments)),
            **(cache_argument(self._chat.model, cache) if self._cached else {}),
            use_cache=self._cached,
            **kept_logits(self._chat, 1),
        )
        logits = checked_logits(self._chat, output.logits[:, -1])
        return logits, cache_of(output) if self._cached else None


def slot_cache() -> Any:
    """Return the module `slot_cache`: transformers, from which it derives, is imported with a model only."""
    return import_module("polyrefuse_eval.models.slot_cache")


@torch.inference_mode()
def can_join(chat: ChatModel) -> bool:
    """Return whether rows may join a batch that is being decoded; tried once.

    The cache must hold keys and values alone: recurrent states and convolutions cannot be padded, and a cache
    of another kind (of a static size, say) has no place for a row. So must prompts keep apart in one row,
    which shows that attention goes by the mask.
    """
    if chat.joins is None:
        chat.joins = can_cache(chat) and can_pack(chat)
        if chat.joins:
            (prompt,) = chat.encode(PROBE_TEXTS[:1])
            arguments = accepted_arguments(chat, left_padded(chat, [prompt.ids]))
            cache = cache_of(chat.model(**arguments, use_cache=True, **kept_logits(chat, 1)))
            chat.joins = bool(slot_cache().can_hold_slots(cache))
    return chat.joins


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
    tokens = other[-3:]

    def run(rows: Sequence[Sequence[int]], *, cached: bool) -> Tensor:
        """Return the logits of the last of `rows`, which stays alone behind the second token."""
        decoding = Decoding(chat, cached=cached)
        logits = [decoding.begin(rows, [0] * len(rows))[-1]]
        for step, token in enumerate(tokens):
            logits.append(decoding.step(torch.full((decoding.n_slots,), token, device=chat.device))[-1])
            if step == 1:
                decoding.keep([decoding.n_slots - 1])
        return torch.stack(logits).float()

    try:
        together = run([first, second], cached=True)
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
    return same_logits(chat, together, run([second], cached=False), DECODING_ERROR)
