"""Prompts into forward passes without waste: several prompts share one row, apart by their mask.

Where a model allows it (tried once, see `can_pack`), prompts stand one after another in a row: the
prefix that all share once, then each prompt's own tokens, which see the prefix and themselves. Long
and short prompts share rows, so that all rows are of nearly the same length, and a batch has a few of
them: many tokens for its matrices, short rows for its attention. Next to nothing is padded or
computed twice. Other models get left-padded batches of prompts of similar length, or, where padding changes
their numbers (convolutions, recurrent states), batches of prompts of one length.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.errors import ChatModelError, OutOfMemoryError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.packing import best_row_length, divide, even_rows
from polyrefuse_eval.models.partial_forward import head_only_at, mlp_only_at
from polyrefuse_eval.models.structure import check_finite
from polyrefuse_eval.models.template import EncodedPrompt

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 4096}
"""Where a pass is compute-bound already; on a CPU measured with benchmarks/directions.py, 2 cores."""

TOKENS_PER_ROW = {"cpu": 128, "cuda": 512}
"""Where a row's attention, which masks out what is not the prompt's own, is still small beside its MLPs.
A long shared prefix makes rows longer, see `packing.best_row_length`."""

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

    def repeated(self, times: int) -> tuple[Tensor, Tensor]:
        """Return row and column of every prompt's last token when the batch stands `times` over."""
        n_rows = self.arguments["input_ids"].shape[0]
        offsets = torch.arange(times).unsqueeze(1) * n_rows
        return (self.rows + offsets).flatten(), self.ends.repeat(times)


def plan_batches(
    chat: ChatModel,
    prompts: Sequence[EncodedPrompt],
    tokens_per_batch: int | None = None,
    *,
    most_shared: int | None = None,
) -> list[Batch]:
    """Return the batches that run each of `prompts` once, of about `tokens_per_batch` tokens each.

    Prompts share at most their first `most_shared` tokens: what is edited in one of them must not
    be shared.
    """
    if not prompts:
        return []
    budget = tokens_per_batch or TOKENS_PER_BATCH.get(chat.device.type, 1024)
    if can_pack(chat) and not _exceeds_window(chat, prompts):
        prefix = shared_prefix(prompts, most_shared)
        row_length = min(budget, _row_length(chat, prefix))
        rows = even_rows([len(prompt) - prefix for prompt in prompts], row_length - prefix)
        widths = [prefix + sum(len(prompts[index]) - prefix for index in row) for row in rows]
        return [
            _packed(chat, prompts, [rows[index] for index in part], prefix) for part in divide(widths, budget)
        ]
    return [
        _padded(chat, prompts, [group[index] for index in part])
        for group in _paddable(chat, prompts)
        for part in divide([len(prompts[index]) for index in group], budget)
    ]


def _row_length(chat: ChatModel, prefix: int) -> int:
    least = TOKENS_PER_ROW.get(chat.device.type, 256)
    return max(least, best_row_length(prefix, chat.width))


def _paddable(chat: ChatModel, prompts: Sequence[EncodedPrompt]) -> list[list[int]]:
    """Return the indices of `prompts` in groups that may share a batch: all, or those of one length."""
    if can_pad(chat):
        return [list(range(len(prompts)))]
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(index)
    return list(groups.values())


def next_rows(
    chat: ChatModel, prompts: Sequence[EncodedPrompt], order: Sequence[int], size: int
) -> list[int]:
    """Return the first of `order` (indices of `prompts`) that share a left-padded batch: at most `size`,
    and prompts of one length where padding changes the model's numbers."""
    part = list(order[:size])
    if can_pad(chat):
        return part
    return [index for index in part if len(prompts[index]) == len(prompts[part[0]])]


def shared_prefix(prompts: Sequence[EncodedPrompt], most: int | None = None) -> int:
    """Return how many first tokens all `prompts` share, short of any instruction's last token and
    of `most`."""
    limit = min(prompt.t_inst for prompt in prompts)
    limit = limit if most is None else min(limit, most)
    first = prompts[0].ids
    length = 0
    while length < limit and all(prompt.ids[length] == first[length] for prompt in prompts):
        length += 1
    return length


def _packed(
    chat: ChatModel,
    prompts: Sequence[EncodedPrompt],
    rows: Sequence[Sequence[int]],
    prefix: int,
) -> Batch:
    part = [index for row in rows for index in row]
    width = prefix + max(sum(len(prompts[index]) - prefix for index in row) for row in rows)
    ids = torch.full((len(rows), width), chat.pad_id)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    owner = torch.full((len(rows), width), _NOBODY)
    ids[:, :prefix] = torch.tensor(prompts[part[0]].ids[:prefix])
    positions[:, :prefix] = torch.arange(prefix)
    owner[:, :prefix] = _EVERYBODY
    row_of, end_of = {}, {}
    for row, indices in enumerate(rows):
        start = prefix
        for index in indices:
            own = prompts[index].ids[prefix:]
            end = start + len(own)
            ids[row, start:end] = torch.tensor(own)
            positions[row, start:end] = torch.arange(prefix, prefix + len(own))
            owner[row, start:end] = index
            row_of[index], end_of[index] = row, end - 1
            start = end
    # Padding sees itself and the prefix: a token that sees nothing would be no number.
    visible = (owner.unsqueeze(2) == owner.unsqueeze(1)) | (owner == _EVERYBODY).unsqueeze(1)
    visible &= torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape, dtype=chat.dtype).masked_fill_(~visible, torch.finfo(chat.dtype).min)
    device = chat.device
    return Batch(
        {
            "input_ids": ids.to(device),
            "position_ids": positions.to(device),
            "attention_mask": mask[:, None].to(device),
        },
        tuple(part),
        torch.tensor([row_of[index] for index in part]),
        torch.tensor([end_of[index] for index in part]),
        True,
    )


_EVERYBODY, _NOBODY = -1, -2
"""Owners of the tokens that are no prompt's own: the shared prefix, and padding."""


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


def kept_logits(chat: ChatModel, keep: int | Tensor) -> dict[str, int | Tensor]:
    """Return the argument that keeps logits of chosen columns only; none where the model has no such."""
    return accepted_arguments(chat, {"logits_to_keep": keep})


@torch.inference_mode()
def forward(chat: ChatModel, batch: Batch, *, times: int = 1, ends_only: bool | None = None) -> Tensor:
    """Run `batch`; return the logits after each prompt's last token [prompts, vocabulary].

    `times` above 1 runs a packed batch so many times over in one pass, for as many edits (all rows
    under the first edit, then all under the second), and returns [times, prompts, vocabulary]. With
    `ends_only` (the default where the model allows it) the last layer's MLP runs for those last
    tokens alone, since nothing reads it elsewhere.
    """
    arguments = accepted_arguments(chat, dict(batch.arguments))
    ends_only = bool(chat.ends_only) if ends_only is None else ends_only
    rows, ends = batch.repeated(times)
    with ExitStack() as stack:
        stack.enter_context(memory_told(chat))
        if ends_only:
            stack.enter_context(mlp_only_at(chat, -1, rows, ends))
        if not batch.packed:
            result: Tensor = chat.model(**arguments, use_cache=False, **kept_logits(chat, 1)).logits[:, -1]
            return checked_logits(chat, result)
        if times > 1:
            arguments = {
                name: value.repeat(times, *[1] * (value.dim() - 1)) for name, value in arguments.items()
            }
        stack.enter_context(head_only_at(chat, rows, ends))
        logits = checked_logits(chat, chat.model(**arguments, use_cache=False).logits[0])
        return logits.view(times, len(batch.prompts), -1) if times > 1 else logits


def checked_logits(chat: ChatModel, logits: Tensor) -> Tensor:
    """Return `logits` [prompts, vocabulary]; raise `ChatModelError` where a row's greatest is not finite."""
    check_finite(logits.amax(-1), f"the next-token distribution of {chat.name}")
    return logits


@torch.inference_mode()
def forward_without_head(chat: ChatModel, batch: Batch) -> None:
    """Run the decoder on `batch` without the language-model head, for hooks that read."""
    with memory_told(chat):
        chat.model.base_model(**accepted_arguments(chat, dict(batch.arguments)), use_cache=False)


@contextmanager
def memory_told(chat: ChatModel) -> Iterator[None]:
    """Turn a lack of device memory into one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"{chat.device} has no room for a pass of {chat.name}; try --dtype bfloat16, "
            "--quantization 8bit, --device-map auto or --device cpu"
        ) from None


@torch.inference_mode()
def can_pack(chat: ChatModel) -> bool:
    """Return whether prompts in one row keep apart in this model; tried once, then remembered.

    Two prompts behind a shared prefix must give the logits that they give alone, and the second
    must not feel a change of the first. Finds out about `pads` and `ends_only` as well.
    """
    if chat.ends_only is None:
        alone = _logits_alone(chat)
        packs, padded = _keeps_apart(chat, alone, True), _keeps_apart(chat, alone, False)
        chat.ends_only = padded and (packs or not _takes_masks(chat))
        packs = packs or _keeps_apart(chat, alone, True, ends_only=False)
        chat.packs = packs if chat.packs is None else chat.packs
        padded = padded or _keeps_apart(chat, alone, False, ends_only=False)
        chat.pads = padded if chat.pads is None else chat.pads
    return bool(chat.packs)


def can_pad(chat: ChatModel) -> bool:
    """Return whether left-padded rows give the logits of single prompts; tried once, then remembered."""
    if chat.pads is None:
        can_pack(chat)
    return bool(chat.pads)


def _takes_masks(chat: ChatModel) -> bool:
    return getattr(chat.model.config, "_attn_implementation", None) in PACKABLE_ATTENTION


PROBE_TEXTS = (
    "Name a colour.",
    "How far is the nearest of the big stars?",
    "Sing about rain, now and then.",
)
"""Prompts of different lengths, on which it is tried what a model allows."""


_PROBE_ERRORS = (TypeError, ValueError, RuntimeError, IndexError, ChatModelError)
"""What models raise where they do not take a batch of some kind."""


def _logits_alone(chat: ChatModel) -> Tensor | None:
    """Return the logits [2, vocabulary] of the first two probe texts, each in a pass of its own; None where
    such passes fail."""
    try:
        prompts = chat.encode(PROBE_TEXTS[:2])
        passes = [forward(chat, _padded(chat, [prompt], [0]), ends_only=False) for prompt in prompts]
    except _PROBE_ERRORS:
        return None
    return torch.cat(passes).float()


def _keeps_apart(chat: ChatModel, alone: Tensor | None, packed: bool, *, ends_only: bool = True) -> bool:
    """Return whether batches of this kind give the logits of prompts `alone`, without a leak."""
    if alone is None or (packed and (not _takes_masks(chat) or chat.model.get_output_embeddings() is None)):
        return False
    first, second, other = chat.encode(PROBE_TEXTS)
    prefix = shared_prefix([first, second, other])

    def run(*prompts: EncodedPrompt, rows: Sequence[Sequence[int]] = ((0, 1),)) -> Tensor:
        batch = _packed(chat, prompts, rows, prefix) if packed else _padded(chat, prompts, [0, 1])
        return forward(chat, batch, ends_only=ends_only).float()

    try:
        together, disturbed = run(first, second), run(other, second)
        given = [together, *([run(first, second, rows=((0,), (1,)))] if packed else [])]
    except _PROBE_ERRORS:
        return False
    leak = float((together[1] - disturbed[1]).abs().max())
    exact = chat.dtype in (torch.float32, torch.float64)
    return leak <= (1e-4 if exact else 0.1) * (float(together.std()) + 1e-6) and all(
        same_logits(chat, logits, alone) for logits in given
    )


def same_logits(chat: ChatModel, logits: Tensor, expected: Tensor, exact_limit: float = 1e-3) -> bool:
    """Return whether `logits` are `expected` but for rounding (float32: `exact_limit` of their spread)."""
    exact = chat.dtype in (torch.float32, torch.float64)
    error = float((logits - expected).abs().max())
    return error <= (exact_limit if exact else 0.3) * (float(expected.std()) + 1e-6)
