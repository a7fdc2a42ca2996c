"""Export an intervention to the `steered` model of lm-evaluation-harness, verified by logits.

There, ablation is `clamp` to 0 on the embeddings, attention, MLP and layers, and addition at the
input of layer L is `add` on the output of layer L-1 (or of the embeddings). The file is a torch
archive of tensors and plain values, which is what `lm_eval --model steered` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrefuse_data.core.files import replacing
from polyrefuse_eval.errors import InterventionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Addition, Edit, Transformation, applied
from polyrefuse_eval.models.row_edits import orthonormal

SteerConfig = dict[str, dict[str, Any]]
"""Hookpoint (a module's name below `model.base_model`) to what happens to its output."""


def steer_config(chat: ChatModel, edit: Edit) -> SteerConfig:
    """Return the hookpoints equivalent to `edit`; raise `InterventionError` where there are none."""
    if isinstance(edit, Transformation):
        raise InterventionError("lm-eval's steered model adds or clamps a vector; this edit does neither")
    if edit.tokens != "all":
        raise InterventionError("lm-eval's steered model edits all tokens; this edit is for some of them")
    base = chat.model.base_model
    names = {id(module): name for name, module in base.named_modules()}
    layers = [names[id(layer)] for layer in chat.layers]
    embeddings = names[id(chat.model.get_input_embeddings())]
    if isinstance(edit, Addition):
        vector = edit.direction.detach().float().cpu()
        point = layers[edit.layer - 1] if edit.layer else embeddings
        return {point: _entry("add", vector, edit.coefficient)}
    basis = orthonormal(edit.directions)
    if len(basis) != 1 or edit.coefficient != 1.0:
        raise InterventionError(
            "lm-eval's steered model clamps one direction to 0 in full; "
            f"given {len(basis)} directions at coefficient {edit.coefficient}"
        )
    points = [embeddings]
    for layer, writes in zip(layers, chat.structure.writes, strict=True):
        points += [*(f"{layer}.{write}" for write in writes), layer]
    return {point: _entry("clamp", basis[0], 0.0) for point in points}


def _entry(action: str, vector: Tensor, coefficient: float) -> dict[str, Any]:
    return {
        "steering_vector": vector.clone(),
        "steering_coefficient": coefficient,
        "action": action,
        "bias": None,
        "head_index": None,
    }


def export_steered(chat: ChatModel, edit: Edit, path: Path) -> Path:
    """Write `edit` for `lm_eval --model steered --model_args pretrained=…,steer_path=PATH`.

    Raises `InterventionError`, and writes nothing, where the logits under lm-eval's steering differ from
    those under `edit`.
    """
    if path.suffix not in (".pt", ".pth"):
        raise InterventionError(f"lm-eval reads a steer file by its ending .pt; given '{path.name}'")
    config = steer_config(chat, edit)
    difference = largest_difference(chat, edit, config)
    limit = 1e-3 if chat.dtype in (torch.float32, torch.float64) else 5e-2
    if not difference <= limit:
        raise InterventionError(
            f"lm-eval's steering would differ from ours on {chat.name} (by {difference:.1e} of the logits' "
            "spread), so nothing was exported"
        )
    with replacing(path) as file:
        torch.save(config, file)
    return path


@torch.inference_mode()
def largest_difference(chat: ChatModel, edit: Edit, config: SteerConfig) -> float:
    """Return the largest difference of logits under both, relative to their standard deviation."""
    difference = 0.0
    for prompt in chat.encode(["Name a colour.", "How far is the nearest of the big stars?"]):
        ids = torch.tensor([prompt.ids], device=chat.device)
        with applied(chat, edit):
            ours = chat.model(input_ids=ids).logits.float()
        with steered(chat, config):
            theirs = chat.model(input_ids=ids).logits.float()
        difference = max(difference, float((ours - theirs).abs().max() / ours.std()))
    return difference


@contextmanager
def steered(chat: ChatModel, config: SteerConfig) -> Iterator[None]:
    """Edit the outputs of the hookpoints of `config` by the published meaning of lm-eval's actions:
    `add` adds coefficient · vector; `clamp` sets the component along vector / ‖vector‖ to coefficient."""
    modules = dict(chat.model.base_model.named_modules())
    missing = [point for point in config if point not in modules]
    if missing:
        raise InterventionError(f"{chat.name} has no modules {', '.join(missing)}")
    with ExitStack() as stack:
        for point, entry in config.items():
            stack.callback(modules[point].register_forward_hook(_hook(entry)).remove)
        yield


def _hook(entry: dict[str, Any]) -> Callable[..., Any]:
    coefficient = float(entry["steering_coefficient"])

    def edit(hidden: Tensor) -> Tensor:
        vector = entry["steering_vector"].to(hidden.device, hidden.dtype)
        if entry["action"] == "add":
            shifted: Tensor = hidden + coefficient * vector
            return shifted
        unit = vector / vector.norm()
        clamped: Tensor = hidden + unit * (coefficient - (hidden * unit).sum(-1, keepdim=True))
        return clamped

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return hook
