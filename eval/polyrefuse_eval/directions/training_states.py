"""Hidden states of training prompts, read once and kept for every command that takes means of them.

Directions read the post-instruction tokens of all layers, which are too many to keep. Gates, harmfulness
directions and guards read t_inst and t_post-inst, which are kept: two states a layer and prompt. Prompts are
read in groups of a fixed size, so that a state has the same bits whoever asked for it first, and the first
100 prompts of a language share groups with its first 128.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.directions.kept_entries import KeptEntries
from polyrefuse_eval.models.activations import Captured, all_positions, capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.content_cache import STATES

GROUP = 32
"""Prompts that are read and kept together: about as many tokens as a batch has on a CPU."""

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
STATES_FILE = "states.safetensors"


def capture_training(
    chat: ChatModel, texts: Sequence[str], *, progress: str | None = None
) -> Iterator[Captured]:
    """Yield states at all positions and all layers' inputs, the last one's output, and last-token logits.

    What `training_states` returns of the same `texts` is kept on the way. `progress` names the step.
    """
    kept = KeptEntries(chat)
    with Progress(len(texts), "prompts", progress) as shown:
        for first in range(0, len(texts), GROUP):
            for captured in _capture_group(chat, kept, texts[first : first + GROUP]):
                yield replace(captured, prompts=tuple(first + index for index in captured.prompts))
                shown.advance(len(captured.prompts))


def training_states(chat: ChatModel, texts: Sequence[str], *, progress: str | None = None) -> Tensor:
    """Return the residual stream [prompts, 2, n_layers + 1, d] of `texts` at t_inst and t_post-inst.

    At the input of each layer, and last at the output of the last one: kept, or read now. `progress` names
    the step.
    """
    kept = KeptEntries(chat)
    groups = []
    with Progress(len(texts), "prompts", progress) as shown:
        for first in range(0, len(texts), GROUP):
            group = texts[first : first + GROUP]
            states = kept_states(chat, kept, group)
            if states is None:
                states = _in_order(_capture_group(chat, kept, group))
            groups.append(states)
            shown.advance(len(group))
    return torch.cat(groups) if groups else torch.empty(0, *_shape(chat), dtype=chat.dtype)


def _capture_group(chat: ChatModel, kept: KeptEntries, texts: Sequence[str]) -> Iterator[Captured]:
    """Yield what is read of one group of prompts, batch by batch, and keep its states."""
    passes = []
    encoded = chat.encode(texts)
    for captured in capture(chat, encoded, range(chat.n_layers + 1), all_positions(chat), logits=True):
        passes.append(captured)
        yield captured
    kept.keep(STATES, {"texts": [*texts]}, {STATES_FILE: save({"states": _in_order(passes)})})


def _in_order(passes: Iterable[Captured]) -> Tensor:
    """Return the states at t_inst, which is the last of all positions, and at t_post-inst before it, of all
    prompts in `passes` in their order."""
    batches = list(passes)
    order = torch.tensor([prompt for captured in batches for prompt in captured.prompts]).argsort()
    return torch.cat([captured.hidden[:, [-1, -2]].cpu() for captured in batches])[order].contiguous()


def kept_states(chat: ChatModel, kept: KeptEntries, texts: Sequence[str]) -> Tensor | None:
    """Return the kept states of a group; None where none of the right shape are, or not all finite."""
    files = kept.load(STATES, {"texts": [*texts]})
    try:
        states = None if files is None else load(files[STATES_FILE])["states"]
    except (KeyError, ValueError, RuntimeError, SafetensorError):
        return None
    if states is None or states.shape != (len(texts), *_shape(chat)) or states.dtype not in TYPES:
        return None
    return states if bool(states.isfinite().all()) else None


def _shape(chat: ChatModel) -> tuple[int, int, int]:
    return 2, chat.n_layers + 1, chat.width
