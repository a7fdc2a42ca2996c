"""How prompts are dealt to rows: all of them once, in rows of like length, as long as the prefix asks."""

from __future__ import annotations

import random

import pytest
import torch
from tiny import chat_model

from polyrefuse_eval.models import batching, packing
from polyrefuse_eval.models import chat as chat_module


def _lengths(count: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [max(7, round(draw.lognormvariate(2.85, 0.34)) + 4) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 32, 128, 572])
def test_rows_hold_every_prompt_once_and_differ_by_a_few_tokens(count: int) -> None:
    lengths = _lengths(count, count)
    rows = packing.even_rows(lengths, 125)
    assert sorted(index for row in rows for index in row) == list(range(count))
    assert all(rows)
    used = [sum(lengths[index] for index in row) for row in rows]
    assert max(used) - min(used) <= 3


def test_an_exchange_shortens_the_longest_row() -> None:
    # 9 + 4 + 4 against 8 + 3: that a 4 moves is best; 4 for 3 or 9 for 8 would change one token only.
    lengths = [9, 4, 4, 8, 3]
    rows = [[0, 1, 2], [3, 4]]
    packing.exchange(rows, lengths)
    used = sorted(sum(lengths[index] for index in row) for row in rows)
    assert used == [13, 15]
    assert sorted(index for row in rows for index in row) == list(range(5))


def test_nothing_is_exchanged_where_it_does_not_help() -> None:
    for rows, lengths in (([[0], [1]], [9, 3]), ([[0, 1]], [5, 5]), ([[0, 1], [2]], [3, 3, 6])):
        before = [list(row) for row in rows]
        packing.exchange(rows, lengths)
        assert rows == before


def test_a_row_is_as_long_as_makes_its_tokens_cheapest() -> None:
    chat = chat_model()
    pairs = packing.PAIRS_PER_TOKEN * chat.width

    def cost(prefix: int, own: float) -> float:
        return (pairs * (prefix + own) + (prefix + own) ** 2) / own

    for prefix in (200, 300):
        length = batching._row_length(chat, prefix)
        own = length - prefix
        assert cost(prefix, own) <= min(cost(prefix, own - 20), cost(prefix, own + 20))
    assert batching._row_length(chat, 0) == batching.TOKENS_PER_ROW["cpu"]


def test_a_model_is_tried_in_seven_passes_and_only_once() -> None:
    chat = chat_model()
    passes: list[torch.Size] = []
    chat.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    assert batching.can_pack(chat)
    assert batching.can_pad(chat)
    assert chat.ends_only
    # Two prompts alone; packed as they are, disturbed and in two rows; padded as they are and disturbed.
    assert [shape[0] for shape in passes] == [1, 1, 1, 1, 2, 2, 2]


def test_the_tokenizer_is_hashed_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_model()
    hashed = []
    original = chat_module.tokenizer_hash
    monkeypatch.setattr(
        chat_module, "tokenizer_hash", lambda tokenizer: hashed.append(tokenizer) or original(tokenizer)
    )
    assert chat.signature() == chat.signature()
    assert hashed == [chat.tokenizer]
    assert chat.signature()["tokenizer_hash"] == original(chat.tokenizer)
