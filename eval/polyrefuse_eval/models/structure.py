"""Where a decoder keeps its layers, and which modules write into the residual stream.

Found by the shape of the module tree and proved by one short forward pass, so that a new model
family needs no class of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_eval.errors import ChatModelError

ATTENTION_NAMES = ("self_attn", "self_attention", "attention", "attn")
MLP_NAMES = ("mlp", "block_sparse_moe", "feed_forward", "ffn", "moe")
POST_NORM_NAMES = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""Families that normalise after attention and MLP (Gemma-2, Gemma-3, OLMo-2; GLM-4): what enters
the residual stream there is the norm's output, not the attention's or the MLP's."""

OVERRIDE = "layers=PATH,attention=NAME,mlp=NAME"


@dataclass(frozen=True)
class Structure:
    """Dotted paths: `layers` from the model, `attention` and `mlp` from a layer.

    `attention` and `mlp` name the modules whose outputs are added to the residual stream.
    """

    layers: str
    attention: str
    mlp: str


def parse_structure(text: str) -> dict[str, str]:
    """Return the overrides in `text` (`layers=model.layers,attention=self_attn,mlp=mlp`)."""
    overrides: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key.strip() not in ("layers", "attention", "mlp") or not value.strip():
            raise ChatModelError(f"unknown structure override '{part}'; expected {OVERRIDE}")
        overrides[key.strip()] = value.strip()
    return overrides


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


def submodule(root: nn.Module, path: str, what: str) -> nn.Module:
    """Return the module at the dotted `path` below `root`."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise ChatModelError(
            f"no module '{path}' in {type(root).__name__} for its {what}; say where it is with "
            f"--structure {OVERRIDE}"
        ) from None


def find_structure(model: nn.Module, n_layers: int, overrides: dict[str, str] | None = None) -> Structure:
    """Return where `model` keeps its `n_layers` decoder layers, their attention and their MLP.

    Raises `ChatModelError`, naming the override, where the shape is not known.
    """
    given = overrides or {}
    layers = given.get("layers") or _find_layers(model, n_layers)
    stack = submodule(model, layers, "decoder layers")
    first = next(stack.children(), None)
    if first is None:
        raise ChatModelError(f"'{layers}' holds no decoder layers; say where they are with --structure")
    children = dict(first.named_children())
    attention, mlp = given.get("attention"), given.get("mlp")
    for attention_norm, mlp_norm in POST_NORM_NAMES:
        if attention_norm in children and mlp_norm in children:
            attention, mlp = attention or attention_norm, mlp or mlp_norm
    attention = attention or next((name for name in ATTENTION_NAMES if name in children), None)
    mlp = mlp or next((name for name in MLP_NAMES if name in children), None)
    if attention is None or mlp is None:
        missing = "attention" if attention is None else "MLP"
        raise ChatModelError(
            f"no known {missing} module in {type(first).__name__} (it has {', '.join(children)}); "
            f"name it with --structure {OVERRIDE}"
        )
    for layer in stack.children():
        submodule(layer, attention, "attention")
        submodule(layer, mlp, "MLP")
    return Structure(layers, attention, mlp)


def _find_layers(model: nn.Module, n_layers: int) -> str:
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    decoders = [
        path
        for path, module in found
        if any(name in dict(module[0].named_children()) for name in ATTENTION_NAMES)
        and not any(part in path for part in ("vision", "visual", "audio", "encoder"))
    ]
    if not decoders and len(found) == 1:
        decoders = [found[0][0]]
    if len(decoders) != 1:
        known = ", ".join(decoders or [path for path, _ in found]) or "none"
        raise ChatModelError(
            f"the decoder layers of {type(model).__name__} were not found (lists of {n_layers} modules: "
            f"{known}); name them with --structure {OVERRIDE}"
        )
    return str(decoders[0])


@torch.inference_mode()
def prove_structure(model: nn.Module, structure: Structure, token_ids: Tensor) -> list[int | None]:
    """Check on `token_ids` [1, tokens] that each layer adds its two writes to its input.

    output - input must be a combination of the attention's and the MLP's outputs (combination,
    since some families scale them). Raises `ChatModelError`, naming the override, otherwise.
    Returns, for each layer, the length of the tuple that it returns, None where it is a tensor.
    """
    inputs: list[Tensor] = []
    writes: list[Tensor] = []
    outputs: list[Any] = []
    with _watching(model, structure, inputs, writes, outputs):
        model(input_ids=token_ids, use_cache=False)
    tolerance = 1e-3 if inputs[0].dtype in (torch.float32, torch.float64) else 1e-1
    for index, (before, output) in enumerate(zip(inputs, outputs, strict=True)):
        after = first_tensor(output)
        pair = torch.stack([write.double().flatten() for write in writes[2 * index : 2 * index + 2]], dim=1)
        added = (after.double() - before.to(after.device).double()).flatten().to(pair.device)
        scales = torch.linalg.lstsq(pair.cpu(), added.cpu().unsqueeze(1)).solution
        left = (pair.cpu() @ scales).squeeze(1) - added.cpu()
        scale = max(float(added.norm()), tolerance * float(before.double().norm()))
        if float(left.norm()) > tolerance * scale:
            raise ChatModelError(
                f"layer {index} of {type(model).__name__} does not add the outputs of "
                f"'{structure.attention}' and '{structure.mlp}' to its input; name the modules that "
                f"write into the residual stream with --structure {OVERRIDE}"
            )
    return [len(output) if isinstance(output, tuple) else None for output in outputs]


@contextmanager
def _watching(
    model: nn.Module,
    structure: Structure,
    inputs: list[Tensor],
    writes: list[Tensor],
    outputs: list[Any],
) -> Iterator[None]:
    handles = []
    try:
        for layer in submodule(model, structure.layers, "decoder layers").children():
            handles.append(
                layer.register_forward_pre_hook(
                    lambda _module, args, kwargs: inputs.append(layer_input(args, kwargs)), with_kwargs=True
                )
            )
            handles.append(layer.register_forward_hook(lambda _m, _a, output: outputs.append(output)))
            for name in (structure.attention, structure.mlp):
                module = submodule(layer, name, "residual writes")
                handles.append(
                    module.register_forward_hook(lambda _m, _a, output: writes.append(first_tensor(output)))
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
