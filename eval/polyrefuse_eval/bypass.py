"""Run only a part of a decoder: leave out layers, or start at one with given hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.structure import layer_input, with_layer_input


@contextmanager
def bypassed(chat: ChatModel, layers: range) -> Iterator[None]:
    """Let `layers` return their input unchanged, at no cost; restored on every exit."""
    with ExitStack() as stack:
        for index in layers:
            replace_forward(stack, chat.layers[index], _pass_through(chat.layer_outputs[index]))
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
