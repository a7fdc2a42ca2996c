"""The residual stream of a decoder: where its layers are, what writes into it, and how hooks reach it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from polyrefuse_eval.errors import ChatModelError

OVERRIDE = "layers=PATH"


@dataclass(frozen=True)
class Structure:
    """The residual stream of a decoder.

    `layers`: dotted path from the model to the list of decoder layers. `writes`: for each layer, dotted
    paths from the layer to the modules whose outputs are added to the stream. `output_lengths`: for each
    layer, the length of the tuple that it returns, None where it returns a tensor. `active_stream`: the
    stream that the layers read where hidden states hold several, [streams, rows, tokens, d]; None where
    they are [rows, tokens, d].
    """

    layers: str
    writes: tuple[tuple[str, ...], ...]
    output_lengths: tuple[int | None, ...]
    active_stream: int | None = None

    def read(self, hidden: Tensor) -> Tensor:
        """Return the stream [rows, tokens, d] that the layers read in `hidden`."""
        return hidden if self.active_stream is None else hidden[self.active_stream]


def parse_structure(text: str) -> str | None:
    """Return the path of the decoder layers in `text` (`layers=model.layers`), None where it is empty."""
    key, _, value = (piece.strip() for piece in text.partition("="))
    if text and (key != "layers" or not value or "," in value):
        raise ChatModelError(
            f"unknown structure override '{text}'; expected {OVERRIDE} (what writes into the residual stream "
            "is found by a forward pass)"
        )
    return value or None


def first_tensor(output: Any) -> Tensor:
    """Return the hidden states of a module's output: the tensor itself, or a tuple's first item."""
    tensor = output[0] if isinstance(output, tuple) else output
    if not isinstance(tensor, Tensor):
        raise ChatModelError(f"a module returned {type(tensor).__name__} where hidden states were expected")
    return tensor


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """Return `output` with its hidden states replaced by `tensor`."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


def layer_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states with which a decoder layer was called."""
    hidden = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(hidden, Tensor):
        raise ChatModelError("a decoder layer was called without hidden states")
    return hidden


def with_layer_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensor: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a decoder layer with its hidden states replaced by `tensor`."""
    if args:
        return (tensor, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": tensor}


def check_finite(hidden: Tensor, where: str) -> None:
    """Raise `ChatModelError`, naming the type to take instead, where `hidden` (states, or greatest logits)
    holds numbers that are infinite or none."""
    if not bool(hidden.isfinite().all()):
        name = str(hidden.dtype).removeprefix("torch.")
        instead = "its weights are damaged, or an edit is too strong"
        if name == "float16":
            instead = "they are too large for this type; load the model with --dtype bfloat16 or float32"
        raise ChatModelError(f"{where} holds numbers that are not finite in {name}: {instead}")


def submodule(root: nn.Module, path: str, what: str) -> nn.Module:
    """Return the module at the dotted `path` below `root`; raises `ChatModelError` where there is none."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise ChatModelError(f"no module '{path}' in {type(root).__name__} for its {what}") from None


def write_modules(layers: Sequence[nn.Module], structure: Structure) -> Iterator[nn.Module]:
    """Yield the modules that write into the stream, once each: layers may share them."""
    seen: set[nn.Module] = set()
    for layer, names in zip(layers, structure.writes, strict=True):
        for name in names:
            module = submodule(layer, name, "residual writes")
            if module not in seen:
                seen.add(module)
                yield module
