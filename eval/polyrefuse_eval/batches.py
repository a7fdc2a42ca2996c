"""Prompts into forward passes without waste: several prompts share one row, apart by their mask.

Where a model allows it (tried once, see `can_pack`), the prompts of a batch stand one after
another in a single row: the prefix that all share once, then each prompt's own tokens, which see
the prefix and themselves. Nothing is padded and nothing is computed twice. Other models get
left-padded batches of prompts of similar length.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.bypass import replace_forward
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.errors import OutOfMemoryError
from polyrefuse_eval.structure import MLP_NAMES, first_tensor, with_first_tensor
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
    chat: ChatModel,
    prompts: Sequence[EncodedPrompt],
    tokens_per_batch: int | None = None,
    *,
    most_shared: int | None = None,
) -> list[Batch]:
    """Return the batches that run each of `prompts` once, sorted by length.

    Prompts share at most their first `most_shared` tokens: what is edited in one of them must not
    be shared.
    """
    if not prompts:
        return []
    budget = tokens_per_batch or TOKENS_PER_BATCH.get(chat.device.type, 1024)
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    if can_pack(chat) and not _exceeds_window(chat, prompts):
        prefix = shared_prefix(prompts, most_shared)
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


def kept_logits(chat: ChatModel, keep: int | Tensor) -> dict[str, int | Tensor]:
    """Return the argument that keeps logits of chosen columns only; none where the model has no such."""
    return accepted_arguments(chat, {"logits_to_keep": keep})


@torch.inference_mode()
def forward(chat: ChatModel, batch: Batch, *, times: int = 1, ends_only: bool | None = None) -> Tensor:
    """Run `batch`; return the logits after each prompt's last token [prompts, vocabulary].

    `times` above 1 runs a packed batch in so many rows, for as many edits, and returns
    [times, prompts, vocabulary]. With `ends_only` (the default where the model allows it) the last
    layer's MLP runs for those last tokens alone, since nothing reads it elsewhere.
    """
    arguments = accepted_arguments(chat, dict(batch.arguments))
    ends_only = bool(chat.ends_only) if ends_only is None else ends_only
    with memory_told(chat), last_mlp_at_ends(chat, batch) if ends_only else nullcontext():
        if not batch.packed:
            result: Tensor = chat.model(**arguments, use_cache=False, **kept_logits(chat, 1)).logits[:, -1]
            return result
        for name in ("input_ids", "position_ids"):
            if times > 1 and name in arguments:
                arguments[name] = arguments[name].expand(times, -1)
        keep = batch.ends.to(batch.arguments["input_ids"].device)
        logits: Tensor = chat.model(**arguments, use_cache=False, **kept_logits(chat, keep)).logits
        if logits.shape[1] != len(keep):
            logits = logits[:, keep]
        return logits if times > 1 else logits[0]


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


@contextmanager
def last_mlp_at_ends(chat: ChatModel, batch: Batch) -> Iterator[None]:
    """Let the last layer's MLP see only each prompt's last token; elsewhere it gives zeros."""
    children = dict(chat.layers[-1].named_children())
    module = next((children[name] for name in MLP_NAMES if name in children), None)
    if module is None:
        yield
        return
    original = module.forward
    device = batch.arguments["input_ids"].device
    columns = batch.ends.to(device) if batch.packed else batch.ends[:1].to(device)

    def at_ends(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = original(hidden[:, columns.to(hidden.device)], *args, **kwargs)
        full = torch.zeros_like(hidden)
        full[:, columns.to(hidden.device)] = first_tensor(output)
        return with_first_tensor(output, full)

    with ExitStack() as stack:
        replace_forward(stack, module, at_ends)
        yield


@torch.inference_mode()
def can_pack(chat: ChatModel) -> bool:
    """Return whether prompts in one row keep apart in this model; tried once, then remembered.

    Two prompts behind a shared prefix must give the logits that they give alone, and the second
    must not feel a change of the first. Finds out about `ends_only` as well.
    """
    if chat.ends_only is None:
        packs, padded = _probe(chat, True), _probe(chat, False)
        chat.ends_only = padded and (packs or not _takes_masks(chat))
        found = packs or _probe(chat, True, ends_only=False)
        chat.packs = found if chat.packs is None else chat.packs
    return bool(chat.packs)


def _takes_masks(chat: ChatModel) -> bool:
    return getattr(chat.model.config, "_attn_implementation", None) in PACKABLE_ATTENTION


def _probe(chat: ChatModel, packed: bool, *, ends_only: bool = True) -> bool:
    """Return whether batches of this kind give the logits of prompts alone, without a leak."""
    if packed and not _takes_masks(chat):
        return False
    texts = ["Name a colour.", "How far is the nearest of the big stars?", "Sing about rain, now and then."]
    first, second, other = chat.encode(texts)
    prefix = shared_prefix([first, second, other])

    def run(*prompts: EncodedPrompt) -> Tensor:
        part = list(range(len(prompts)))
        batch = _packed(chat, prompts, part, prefix) if packed else _padded(chat, prompts, part)
        return forward(chat, batch, ends_only=ends_only).float()

    try:
        together, disturbed = run(first, second), run(other, second)
        alone = [forward(chat, _padded(chat, [prompt], [0]), ends_only=False) for prompt in (first, second)]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    exact = chat.dtype in (torch.float32, torch.float64)
    spread = float(together.std()) + 1e-6
    leak = float((together[1] - disturbed[1]).abs().max())
    error = float((together - torch.cat(alone).float()).abs().max())
    return leak <= (1e-4 if exact else 0.1) * spread and error <= (1e-3 if exact else 0.3) * spread
