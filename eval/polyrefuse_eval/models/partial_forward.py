"""Run only a part of a decoder: leave out layers, start at one with given hidden states, or let an
MLP or the head see only the tokens that are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.structure import (
    first_tensor,
    layer_input,
    with_first_tensor,
    with_layer_input,
)

MLP_NAMES = ("mlp", "block_sparse_moe", "feed_forward", "ffn", "moe")
"""What families call the MLP, which computes each token by itself: `mlp_only_at` saves the tokens that nobody
reads. Under another name it saves nothing."""


@contextmanager
def bypassed(chat: ChatModel, layers: range) -> Iterator[None]:
    """Let `layers` return their input unchanged, at no cost; restored on every exit."""
    with ExitStack() as stack:
        for index in layers:
            replace_forward(stack, chat.layers[index], _pass_through(chat.structure.output_lengths[index]))
        yield


@contextmanager
def starting_at(chat: ChatModel, layer: int, hidden: Tensor) -> Iterator[None]:
    """Give `hidden` [rows, columns, d] to `layer` as its input and leave out the layers before it."""

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = layer_input(args, kwargs)
        return with_layer_input(args, kwargs, hidden.to(given.device))

    with ExitStack() as stack:
        stack.enter_context(bypassed(chat, range(layer)))
        handle = chat.layers[layer].register_forward_pre_hook(enter, with_kwargs=True)
        stack.callback(handle.remove)
        yield


@contextmanager
def mlp_only_at(chat: ChatModel, layer: int, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Let the MLP of `layer` see only the tokens at `rows`, `columns` [n]; elsewhere it gives zeros."""
    children = dict(chat.layers[layer].named_children())
    module = next((children[name] for name in MLP_NAMES if name in children), None)
    if module is None:
        yield
        return
    original = module.forward

    def at_tokens(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        where = (rows.to(hidden.device), columns.to(hidden.device))
        output = original(hidden[where].unsqueeze(0), *args, **kwargs)
        full = torch.zeros_like(hidden)
        full[where] = first_tensor(output).view(-1, hidden.shape[-1])
        return with_first_tensor(output, full)

    with ExitStack() as stack:
        replace_forward(stack, module, at_tokens)
        yield


@contextmanager
def head_only_at(chat: ChatModel, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Let the language-model head see only the tokens at `rows`, `columns` [n]: logits [1, n, vocabulary]."""

    def at_tokens(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = args
        return (hidden[rows.to(hidden.device), columns.to(hidden.device)].unsqueeze(0), *rest)

    head = chat.model.get_output_embeddings()
    with ExitStack() as stack:
        stack.callback(head.register_forward_pre_hook(at_tokens).remove)
        yield


def _pass_through(output_length: int | None) -> Callable[..., Any]:
    def unchanged(*args: Any, **kwargs: Any) -> Any:
        hidden = layer_input(args, kwargs)
        # Older releases return a tuple; what else stands in it is only read when asked for.
        return hidden if output_length is None else (hidden, *[None] * (output_length - 1))

    return unchanged


def replace_forward(stack: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> None:
    """Let `module` run `forward` until `stack` closes."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    if own is None:
        stack.callback(module.__dict__.pop, "forward", None)
    else:
        stack.callback(module.__dict__.__setitem__, "forward", own)
