"""Prompts into forward passes without waste: several prompts share one row, apart by their mask.

Where a model allows it (tried once, see `can_pack`), the prompts of a batch stand one after
another in a single row: the prefix that all share once, then each prompt's own tokens, which see
the prefix and themselves. Nothing is padded and nothing is computed twice. Other models get
left-padded batches of prompts of similar length.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.template import EncodedPrompt

TOKENS_PER_BATCH = {"cpu": 320, "cuda": 2048}
"""Where a pass is compute-bound already and the square of the attention mask is still small."""

PACKABLE_ATTENTION = ("sdpa", "eager")
"""Attention implementations that take a mask of our own."""


@dataclass(frozen=True)
class Batch:
    """Arguments of one forward pass.

    `prompts` are indices into the caller's list; prompt `i` of the batch ends at row `rows[i]`,
    column `ends[i]`, and its own tokens stand directly before.
    """

    arguments: dict[str, Tensor]
    prompts: tuple[int, ...]
    rows: Tensor
    ends: Tensor
    packed: bool

    def gather(self, hidden: Tensor, offsets: Tensor) -> Tensor:
        """Return `hidden` [rows, columns, d] at `ends + offsets`: [prompts, positions, d].

        `offsets` [prompts, positions] are 0 for a prompt's last token, negative before it.
        """
        device = hidden.device
        columns = (self.ends.unsqueeze(1) + offsets).to(device)
        return hidden[self.rows.to(device).unsqueeze(1), columns]


def plan_batches(
    chat: ChatModel, prompts: Sequence[EncodedPrompt], tokens_per_batch: int | None = None
) -> list[Batch]:
    """Return the batches that run each of `prompts` once, sorted by length."""
    if not prompts:
        return []
    budget = tokens_per_batch or TOKENS_PER_BATCH.get(chat.device.type, 1024)
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    if can_pack(chat) and not _exceeds_window(chat, prompts):
        prefix = shared_prefix(prompts)
        return [
            _packed(chat, prompts, part, prefix)
            for part in _divide(order, [len(prompt) - prefix for prompt in prompts], budget - prefix, False)
        ]
    lengths = [len(prompt) for prompt in prompts]
    return [_padded(chat, prompts, part) for part in _divide(order, lengths, budget, True)]


def _divide(order: list[int], lengths: list[int], budget: int, padded: bool) -> list[list[int]]:
    """Cut `order` (by rising length) into parts of even cost, none above `budget` tokens if it can."""
    total = sum(lengths)
    parts = max(1, -(-total // max(1, budget)))
    target = min(budget, -(-total // parts) + max(lengths) // 2)
    cut: list[list[int]] = [[]]
    used = 0
    for index in order:
        cost = lengths[index] * (len(cut[-1]) + 1) if padded else used + lengths[index]
        if cut[-1] and cost > target:
            cut.append([])
            cost = lengths[index]
        cut[-1].append(index)
        used = cost
    return cut


def shared_prefix(prompts: Sequence[EncodedPrompt]) -> int:
    """Return how many first tokens all `prompts` share, short of any instruction's last token."""
    limit = min(prompt.t_inst for prompt in prompts)
    first = prompts[0].ids
    length = 0
    while length < limit and all(prompt.ids[length] == first[length] for prompt in prompts):
        length += 1
    return length


def _packed(chat: ChatModel, prompts: Sequence[EncodedPrompt], part: list[int], prefix: int) -> Batch:
    ids = list(prompts[part[0]].ids[:prefix])
    positions = list(range(prefix))
    owners = [-1] * prefix
    ends = []
    for slot, index in enumerate(part):
        own = prompts[index].ids[prefix:]
        ids += own
        positions += range(prefix, prefix + len(own))
        owners += [slot] * len(own)
        ends.append(len(ids) - 1)
    owner = torch.tensor(owners)
    column = torch.arange(len(ids))
    visible = (owner.unsqueeze(1) == owner) | (owner == -1)
    visible &= column.unsqueeze(1) >= column
    mask = torch.zeros(visible.shape, dtype=chat.dtype).masked_fill_(~visible, torch.finfo(chat.dtype).min)
    device = chat.device
    return Batch(
        {
            "input_ids": torch.tensor([ids], device=device),
            "position_ids": torch.tensor([positions], device=device),
            "attention_mask": mask[None, None].to(device),
        },
        tuple(part),
        torch.zeros(len(part), dtype=torch.long),
        torch.tensor(ends),
        True,
    )


def _padded(chat: ChatModel, prompts: Sequence[EncodedPrompt], part: list[int]) -> Batch:
    arguments = left_padded(chat, [prompts[index].ids for index in part])
    width = arguments["input_ids"].shape[1]
    return Batch(arguments, tuple(part), torch.arange(len(part)), torch.full((len(part),), width - 1), False)


def left_padded(chat: ChatModel, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and `position_ids` [rows, width] of left-padded `rows`.

    Positions are counted from each row's first token, so padding does not move them.
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([[chat.pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    device = chat.device
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": positions.to(device),
    }


def _exceeds_window(chat: ChatModel, prompts: Sequence[EncodedPrompt]) -> bool:
    # Our mask has no sliding window, which only prompts longer than it would feel.
    window = getattr(chat.model.config.get_text_config(), "sliding_window", None)
    return window is not None and max(len(prompt) for prompt in prompts) >= int(window)


def accepted_arguments(chat: ChatModel, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of `arguments` that the model's forward takes (some take no position ids)."""
    known = inspect.signature(type(chat.model).forward).parameters
    return {name: value for name, value in arguments.items() if name in known}


def forward(chat: ChatModel, batch: Batch, *, logits: bool = True) -> Tensor | None:
    """Run `batch`; return the logits after each prompt's last token [prompts, vocabulary].

    With `logits=False` the language-model head is left out, and None comes back: for hooks that
    only read.
    """
    if not logits:
        arguments = accepted_arguments(chat, dict(batch.arguments))
        chat.model.base_model(**arguments, use_cache=False)
        return None
    arguments = accepted_arguments(chat, dict(batch.arguments))
    if batch.packed:
        keep = batch.ends.to(batch.arguments["input_ids"].device)
        result: Tensor = chat.model(**arguments, use_cache=False, logits_to_keep=keep).logits[0]
        return result
    result = chat.model(**arguments, use_cache=False, logits_to_keep=1).logits[:, -1]
    return result


@torch.inference_mode()
def can_pack(chat: ChatModel) -> bool:
    """Return whether prompts in one row keep apart in this model; tried once, then remembered.

    Two prompts behind a shared prefix must give the logits that they give alone, and the second
    must not feel a change of the first.
    """
    if chat.packs is None:
        chat.packs = _try_packing(chat)
    return chat.packs


def _try_packing(chat: ChatModel) -> bool:
    if getattr(chat.model.config, "_attn_implementation", None) not in PACKABLE_ATTENTION:
        return False
    texts = ["Name a colour.", "How far is the nearest of the big stars?", "Sing about rain, now and then."]
    first, second, other = chat.encode(texts)
    prefix = shared_prefix([first, second, other])
    try:
        together = forward(chat, _packed(chat, [first, second], [0, 1], prefix))
        disturbed = forward(chat, _packed(chat, [other, second], [0, 1], prefix))
        alone = [forward(chat, _padded(chat, [prompt], [0])) for prompt in (first, second)]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    if together is None or disturbed is None or alone[0] is None or alone[1] is None:
        return False
    exact = chat.dtype in (torch.float32, torch.float64)
    spread = float(together.float().std()) + 1e-6
    expected = torch.cat([alone[0], alone[1]]).float()
    leak = float((together[1].float() - disturbed[1].float()).abs().max())
    error = float((together.float() - expected).abs().max())
    return leak <= (1e-4 if exact else 5e-2) * spread and error <= (1e-3 if exact else 0.3) * spread
