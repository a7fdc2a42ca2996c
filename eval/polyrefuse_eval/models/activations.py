"""Read the residual stream at chosen layers and positions, one pass for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.models.batching import Batch, forward, forward_without_head, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.partial_forward import bypassed, mlp_only_at
from polyrefuse_eval.models.structure import check_finite, first_tensor, layer_input
from polyrefuse_eval.models.template import EncodedPrompt
from polyrefuse_eval.results.positions import T_INST, Position


def all_positions(chat: ChatModel) -> tuple[Position, ...]:
    """Return every post-instruction position, first to last, then t_inst."""
    count = len(chat.post_instruction)
    return (*(Position(offset) for offset in range(-count, 0)), T_INST)


@dataclass(frozen=True)
class Captured:
    """Of one batch: hidden states [prompts, positions, layers, d] and maybe last-token logits."""

    prompts: tuple[int, ...]
    hidden: Tensor
    logits: Tensor | None


@torch.inference_mode()
def capture(
    chat: ChatModel,
    prompts: Sequence[EncodedPrompt],
    layers: Sequence[int],
    positions: Sequence[Position],
    *,
    logits: bool = False,
    tokens_per_batch: int | None = None,
    progress: str | None = None,
) -> Iterator[Captured]:
    """Yield the residual stream of `prompts` at the input of each of `layers`, batch by batch.

    Layer `n_layers` is the output of the last layer. Layers that nobody reads, and without
    `logits` the head, are not computed. `progress` names the step in its progress.
    """
    _check_layers(chat, layers)
    batches = plan_batches(chat, prompts, tokens_per_batch)
    with Progress(len(prompts), "prompts", progress) as shown:
        for batch in batches:
            yield _capture_batch(chat, batch, prompts, layers, positions, logits)
            shown.advance(len(batch.prompts))


def _check_layers(chat: ChatModel, layers: Sequence[int]) -> None:
    if not layers or min(layers) < 0 or max(layers) > chat.n_layers:
        raise ValueError(f"layers must be within 0 and {chat.n_layers}; given {list(layers)}")


def _capture_batch(
    chat: ChatModel,
    batch: Batch,
    prompts: Sequence[EncodedPrompt],
    layers: Sequence[int],
    positions: Sequence[Position],
    logits: bool,
) -> Captured:
    offsets = torch.tensor([[offset_from_end(prompts[i], one) for one in positions] for i in batch.prompts])
    found: dict[int, Tensor] = {}

    def keep(layer: int, hidden: Tensor) -> None:
        states = batch.gather(hidden, offsets)
        check_finite(states, f"the input of layer {layer} of {chat.name}")
        found[layer] = states

    with ExitStack() as stack:
        for index in layers:
            stack.callback(_watch(chat, index, keep).remove)
        if not logits:
            stack.enter_context(bypassed(chat, range(max(layers), chat.n_layers)))
            if chat.ends_only and max(layers) > 0:
                read = (batch.ends.unsqueeze(1) + offsets).flatten()
                rows = batch.rows.repeat_interleave(len(positions))
                stack.enter_context(mlp_only_at(chat, max(layers) - 1, rows, read))
        if logits:
            last = forward(chat, batch, ends_only=None if max(layers) < chat.n_layers else False)
        else:
            forward_without_head(chat, batch)
            last = None
    hidden = torch.stack([found[index].to(found[layers[0]].device) for index in layers], dim=2)
    return Captured(batch.prompts, hidden, last)


def _watch(chat: ChatModel, layer: int, keep: Any) -> Any:
    def at_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(layer, chat.structure.read(layer_input(args, kwargs)))

    def at_output(_module: nn.Module, _args: Any, output: Any) -> None:
        keep(layer, chat.structure.read(first_tensor(output)))

    if layer == chat.n_layers:
        return chat.layers[-1].register_forward_hook(at_output)
    return chat.layers[layer].register_forward_pre_hook(at_input, with_kwargs=True)


def offset_from_end(prompt: EncodedPrompt, position: Position) -> int:
    """Return the index of `position` relative to the last token of `prompt` (0 is the last)."""
    if position == T_INST:
        return prompt.t_inst - (len(prompt) - 1)
    if not -prompt.n_post <= position.offset < 0:
        raise ValueError(f"position {position.offset} is not among {prompt.n_post} post-instruction tokens")
    return position.offset + 1


class ActivationMeans:
    """Running mean of captured hidden states, in float64: `update`, then `mean`."""

    def __init__(self, n_positions: int, n_layers: int, width: int) -> None:
        self.total = torch.zeros(n_positions, n_layers, width, dtype=torch.float64)
        self.count = 0

    def update(self, hidden: Tensor) -> None:
        """Add `hidden` [prompts, positions, layers, d]."""
        self.total += hidden.sum(0, dtype=torch.float64).cpu()
        self.count += hidden.shape[0]

    @property
    def mean(self) -> Tensor:
        """Mean [positions, layers, d] in float64; of nothing it is not defined."""
        if self.count == 0:
            raise ValueError("the mean of no activations is not defined")
        return self.total / self.count
