"""Find the structure of a decoder by forward passes on a few tokens, never by names, and prove it.

The layers are the modules of a list that run one on the output of another; the writes of a layer are the
modules whose outputs add up to what the layer adds to its input. The proof: with a random direction ablated
at every site, nothing of it is left in any layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.structure import (
    OVERRIDE,
    Structure,
    check_finite,
    first_tensor,
    layer_input,
    submodule,
    with_first_tensor,
    with_layer_input,
    write_modules,
)

PROBE_TOKENS = 16
"""How many tokens of a prompt the probing passes read."""

DEEPEST = 3
"""How far below a layer its writes are looked for."""

TOLERANCE = 1e-5
"""Relative error up to which float32 states are equal; coarser types are given twice their precision."""


@torch.inference_mode()
def find_structure(model: nn.Module, token_ids: Tensor, layers: str | None = None) -> Structure:
    """Return the structure of `model`, found and proved by three passes over `token_ids` [1, tokens].

    `layers` is the path of the decoder layers, where the caller knows it. Raises `ChatModelError` where
    the layers are not found, or where what they add to the stream cannot be told from their modules.
    """
    token_ids = token_ids[:, -PROBE_TOKENS:]
    if layers is None:
        layers = _find_layers(model, token_ids)
    stack = list(submodule(model, layers, "decoder layers").children())
    if not stack:
        raise ChatModelError(
            f"'{layers}' holds no decoder layers; name their list with --structure {OVERRIDE}"
        )
    probe = _WriteProbe(model, stack)
    probe.run(token_ids)
    config: Any = model.config
    active = getattr(config.get_text_config(), "altup_active_idx", 0) if probe.several_streams else None
    structure = Structure(layers, tuple(probe.writes), tuple(probe.output_lengths), active)
    _prove(model, structure, token_ids)
    return structure


def _run(model: nn.Module, token_ids: Tensor) -> None:
    model(input_ids=token_ids, use_cache=False)


def _find_layers(model: nn.Module, token_ids: Tensor) -> str:
    """Return the path of the longest list whose modules run once each, one on the output of the other."""
    lists = {path: list(m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    calls: dict[nn.Module, list[tuple[Any, Any]]] = {}

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        hidden = args[0] if args else kwargs.get("hidden_states")
        calls.setdefault(module, []).append((_fingerprint(hidden), _fingerprint(output)))

    with ExitStack() as stack:
        for module in {module for modules in lists.values() for module in modules}:
            stack.callback(module.register_forward_hook(record, with_kwargs=True).remove)
        _run(model, token_ids)

    def is_chain(modules: list[nn.Module]) -> bool:
        ends = [calls.get(module, []) for module in modules]
        if any(len(end) != 1 or None in end[0] for end in ends):
            return False
        return all(before[0][1] == after[0][0] for before, after in pairwise(ends))

    chains = {path: len(modules) for path, modules in lists.items() if is_chain(modules)}
    if not chains:
        raise ChatModelError(
            f"no list of modules in {type(model).__name__} runs as decoder layers do, each on the output of "
            "the one before; models of this kind cannot be measured"
        )
    longest: str = max(chains, key=lambda path: chains[path])
    return longest


def _fingerprint(output: Any) -> str | None:
    """Return what tells hidden states apart, even those that are not finite; None for anything else."""
    tensor = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(tensor, Tensor) or tensor.dim() < 3 or not tensor.is_floating_point():
        return None
    return f"{float(tensor.float().sum())} {float(tensor.float().norm())}"


class _WriteProbe:
    """Watches one pass, and tells of each layer what it adds to the stream when it ends."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        self.model = model
        self.layers = layers
        self.writes: list[tuple[str, ...]] = []
        self.output_lengths: list[int | None] = []
        self.several_streams = False
        self._running = -1
        self._input = torch.empty(0)
        self._outputs: dict[str, list[Tensor]] = {}

    def run(self, token_ids: Tensor) -> None:
        with ExitStack() as stack:
            for index, layer in enumerate(self.layers):
                stack.callback(layer.register_forward_pre_hook(self._begin(index), with_kwargs=True).remove)
                for name, module in layer.named_modules():
                    if name and name.count(".") < DEEPEST:
                        stack.callback(module.register_forward_hook(self._keep(index, name)).remove)
                stack.callback(layer.register_forward_hook(self._end).remove)
            _run(self.model, token_ids)

    def _begin(self, index: int) -> Callable[..., None]:
        def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._running, self._outputs = index, {}
            self._input = _exact(layer_input(args, kwargs))

        return begin

    def _keep(self, index: int, name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) and output else output
            if isinstance(tensor, Tensor) and tensor.dim() == 2:
                tensor = tensor.unsqueeze(0)  # some modules see all rows as one list of tokens
            # A module may be shared by several layers.
            shaped = isinstance(tensor, Tensor) and tensor.shape == self._input.shape[-3:]
            if self._running == index and shaped:
                self._outputs.setdefault(name, []).append(_exact(tensor))

        return keep

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        hidden = first_tensor(output)
        self.output_lengths.append(len(output) if isinstance(output, tuple) else None)
        if hidden.shape != self._input.shape:
            raise ChatModelError(
                f"layer {self._running} of {type(self.model).__name__} turns hidden states of shape "
                f"{list(self._input.shape)} into {list(hidden.shape)}; models of this kind cannot be measured"
            )
        self.several_streams = hidden.dim() == 4
        check_finite(hidden, f"the output of layer {self._running} of {type(self.model).__name__}")
        writes = _writes(self._input, self._outputs, _exact(hidden), _tolerance(hidden.dtype))
        if writes is None:
            raise ChatModelError(_unproved(self.model, self._running))
        self.writes.append(writes)
        self._running = -1


def _unproved(model: nn.Module, layer: int) -> str:
    return (
        f"what layer {layer} of {type(model).__name__} adds to the residual stream is not a sum of its "
        "modules' outputs; directions cannot be ablated in models of this kind"
    )


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64, copy=True)


def _tolerance(dtype: torch.dtype) -> float:
    return max(TOLERANCE, 2 * torch.finfo(dtype).eps)


def _writes(
    before: Tensor, outputs: dict[str, list[Tensor]], after: Tensor, tolerance: float
) -> tuple[str, ...] | None:
    """Return the modules whose `outputs`, with the layer's input `before`, add up to its output `after`.

    The least deep modules are tried first, and one factor for each write (scaled writes, a scaled layer)
    before one for each token and write (streams that are mixed, as in AltUp). None where no sum fits.
    """
    for by_token in (False, True):
        for depth in range(1, DEEPEST + 1):
            names = _distinct({name: kept for name, kept in outputs.items() if name.count(".") < depth})
            found = _Sum(before, [outputs[name] for name in names], after, by_token).least(tolerance)
            if found is not None:
                return tuple(names[index] for index in found)
    return None


def _distinct(outputs: dict[str, list[Tensor]]) -> list[str]:
    """Return the names in the order of their calls, without those whose output a less deep module repeats."""
    names: list[str] = []
    for name in sorted(outputs, key=lambda name: (name.count("."), len(outputs[name]))):
        earlier = [output for other in names for output in outputs[other]]
        if not all(any(torch.equal(output, other) for other in earlier) for output in outputs[name]):
            names.append(name)
    return sorted(names, key=list(outputs).index)


class _Sum:
    """Least squares of a layer's output on its input and on its modules' outputs.

    before, after: [1, tokens, d] or [streams, 1, tokens, d]; modules: for each, its outputs [1, tokens, d].
    """

    def __init__(self, before: Tensor, modules: list[list[Tensor]], after: Tensor, by_token: bool) -> None:
        width = before.shape[-1]
        inputs, targets = before.reshape(-1, *before.shape[-2:]), after.reshape(-1, *after.shape[-2:])
        columns = [*inputs, *(output[0] for outputs in modules for output in outputs)]
        # Each token counts alike, however large its state is.
        norms = targets.norm(dim=-1).amax(0).clamp(min=1e-30).reshape(1, -1, 1)
        table = torch.stack([*columns, *targets], dim=-1) / norms.reshape(-1, 1, 1)
        table = table if by_token else table.reshape(1, -1, table.shape[-1])
        # An orthogonal map shortens the columns and keeps all angles between them.
        table = torch.linalg.qr(table, mode="r").R
        self._size = 1.0 if by_token else (table.shape[0] * targets.shape[1]) ** 0.5
        self._columns, self._targets = table[..., : len(columns)], table[..., len(columns) :]
        self._input = list(range(len(inputs)))
        self._of_module: list[list[int]] = []
        first = len(inputs)
        for outputs in modules:
            self._of_module.append(list(range(first, first + len(outputs))))
            first += len(outputs)
        # With as many columns as dimensions everything would fit.
        self._tells = len(columns) < width // 2 or not by_token

    def least(self, tolerance: float) -> list[int] | None:
        """Return the fewest modules that explain the output together with the input; None if none do."""
        kept = [index for index in range(len(self._of_module)) if self._error([index], False) > tolerance]
        error = self._error(kept)
        if not self._tells or error > tolerance:
            return None
        limit = min(tolerance, max(TOLERANCE, 2 * error))
        # Backwards: a module that returns the stream itself is called after the one that writes into it.
        for index in reversed(list(kept)):
            without = [other for other in kept if other != index]
            if self._error(without) <= limit:
                kept = without
        return kept if self._error(kept, False) > limit else None

    def _error(self, modules: Sequence[int], with_input: bool = True) -> float:
        """Return the greatest part of a state's norm that the sum of `modules` leaves unexplained."""
        chosen = self._input if with_input else []
        chosen = [*chosen, *(column for index in modules for column in self._of_module[index])]
        columns = self._columns[..., chosen]
        scales = columns.norm(dim=1, keepdim=True).clamp(min=1e-30)
        columns = columns / scales
        solved = torch.linalg.lstsq(columns, self._targets, rcond=1e-10, driver="gelsd").solution
        return float((columns @ solved - self._targets).norm(dim=1).max()) / self._size


@torch.inference_mode()
def _prove(model: nn.Module, structure: Structure, token_ids: Tensor) -> None:
    """Raise `ChatModelError` where a layer still outputs a random direction that is ablated at every site."""
    layers = list(submodule(model, structure.layers, "decoder layers").children())
    directions: dict[int, Tensor] = {}
    left: list[float] = []

    def without(hidden: Tensor) -> Tensor:
        width = hidden.shape[-1]
        if width not in directions:
            vector = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            directions[width] = vector / vector.norm()
        unit = directions[width].to(hidden.device, torch.float32)
        exact = hidden.float()
        return (exact - (exact @ unit).unsqueeze(-1) * unit).to(hidden.dtype)

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return with_layer_input(args, kwargs, without(layer_input(args, kwargs)))

    def write(_module: nn.Module, _args: Any, output: Any) -> Any:
        return with_first_tensor(output, without(first_tensor(output)))

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = first_tensor(output)
        share = (_exact(hidden) @ directions[hidden.shape[-1]]).abs() / _exact(hidden).norm(dim=-1)
        left.append(float(share.nan_to_num(0.0).max()) / _tolerance(hidden.dtype))

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(leave).remove)
        for module in write_modules(layers, structure):
            stack.callback(module.register_forward_hook(write).remove)
        _run(model, token_ids)
    for index, share in enumerate(left):
        if share > 1:
            raise ChatModelError(_unproved(model, index))
