"""Edits of the forward pass: directional ablation and activation addition, temporary and total.

`applied(chat, edits)` installs hooks for the length of a `with` block. They return new tensors,
work in the prefill and in every decoding step, nest, and are gone on every exit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_eval.errors import InterventionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.kv_cache import cached_tokens
from polyrefuse_eval.models.structure import (
    first_tensor,
    layer_input,
    submodule,
    with_first_tensor,
    with_layer_input,
)

Tokens = str | tuple[int, ...]
"""Which tokens an edit touches: `all`, `prompt`, `decoding`, or positions counted from the
prompt's end (-1 is its last token; in a packed row, which holds several prompts, from the row's
end). Each row of a batch may name its own."""

TOKEN_SCOPES = ("all", "prompt", "decoding")


@dataclass(frozen=True, eq=False)
class Ablation:
    """Directional ablation: x ← x - coefficient · Σ r (r·x) at every layer's input and every
    residual write of attention and MLP (Arditi et al. 2024, eq. 4).

    `directions` [d] or [k, d] of any norm; several are orthonormalised.
    """

    directions: Tensor
    coefficient: float = 1.0
    tokens: Tokens = "all"


@dataclass(frozen=True, eq=False)
class Addition:
    """Activation addition: x ← x + coefficient · direction at the input of `layer` (eq. 3).

    `direction` [d] is added as it is: give it the norm that it should have.
    """

    direction: Tensor
    layer: int
    coefficient: float = 1.0
    tokens: Tokens = "all"


Edit = Ablation | Addition
Edits = tuple[Edit, ...]
"""The edits of one row of a batch; an empty tuple is the model as it is."""

BASELINE: Edits = ()


def orthonormal(directions: Tensor) -> Tensor:
    """Return an orthonormal basis [k', d] (float32, k' ≤ k) of the span of `directions` [k, d]."""
    rows = directions.reshape(-1, directions.shape[-1]).double().cpu()
    if not bool(torch.isfinite(rows).all()):
        raise InterventionError("a direction holds values that are not finite")
    norms = rows.norm(dim=1)
    if not bool((norms > 0).all()):
        raise InterventionError("a direction of norm 0 cannot be ablated")
    units = rows / norms.unsqueeze(1)
    if len(units) == 1:
        unit: Tensor = units.float()
        return unit
    _, values, right = torch.linalg.svd(units, full_matrices=False)
    basis: Tensor = right[values > 1e-6 * values[0]].float()
    return basis


class Applied:
    """What `applied` yields: tells the hooks which rows are left, and where a new prompt begins."""

    def __init__(
        self, chat: ChatModel, rows: Sequence[Edits], uniform: bool, prompt_width: int | None
    ) -> None:
        self._given_width = prompt_width
        self._prompt_width = prompt_width
        self._offset = 0
        self._rows = list(rows)
        self.uniform = uniform
        """One edit for all rows, whatever their number."""
        self._check(chat)
        self.ablations = [tuple(edit for edit in row if isinstance(edit, Ablation)) for row in rows]
        self._ablation = _RowAblation(self.ablations, chat.width)
        self._additions = {
            layer: _RowAddition(layer, self._rows, chat.width)
            for layer in sorted({edit.layer for row in rows for edit in row if isinstance(edit, Addition)})
        }

    def _check(self, chat: ChatModel) -> None:
        for row in self._rows:
            for edit in row:
                vector = edit.directions if isinstance(edit, Ablation) else edit.direction
                if vector.shape[-1] != chat.width:
                    raise InterventionError(
                        f"a direction of width {vector.shape[-1]} does not fit {chat.name}, "
                        f"whose residual stream is {chat.width} wide"
                    )
                if isinstance(edit, Addition) and not 0 <= edit.layer < chat.n_layers:
                    raise InterventionError(
                        f"layer {edit.layer} is not in {chat.name}, which has layers 0 to {chat.n_layers - 1}"
                    )
                _check_tokens(edit.tokens)

    @property
    def layers_of_additions(self) -> list[int]:
        return list(self._additions)

    @property
    def ablates(self) -> bool:
        return any(self.ablations)

    def new_prompt(self, width: int | None = None) -> None:
        """Forget the last prompt; `width` is the next one's, else its first forward pass tells."""
        self._prompt_width = width or self._given_width

    def select(self, rows: Tensor) -> None:
        """Keep only `rows` (indices) of the batch: the others have finished."""
        if not self.uniform:
            indices = [int(row) for row in rows]
            self._ablation.select(indices)
            for addition in self._additions.values():
                addition.select(indices)

    def begin(self, past: int, width: int) -> None:
        """Note that a forward pass over `width` tokens begins behind `past` cached ones."""
        self._offset = past
        if self._prompt_width is None:
            self._prompt_width = past + width

    def ablate(self, hidden: Tensor) -> Tensor:
        """Return `hidden` [rows, tokens, d] with each row's directions taken out."""
        return self._ablation.apply(hidden, self._mask)

    def add(self, layer: int, hidden: Tensor) -> Tensor:
        """Return `hidden` [rows, tokens, d] with each row's vector of `layer` added."""
        in_prompt = self._offset < (self._prompt_width or 0)
        return self._additions[layer].apply(hidden, self._mask, in_prompt)

    def _mask(self, tokens: Tokens, width: int, device: torch.device) -> Tensor | None:
        """Return [width] of 0 and 1, None for all tokens."""
        if tokens == "all":
            return None
        columns = torch.arange(self._offset, self._offset + width, device=device)
        end = self._prompt_width or 0
        if tokens == "prompt":
            return (columns < end).float()
        if tokens == "decoding":
            return (columns >= end).float()
        wanted = torch.tensor([end + int(position) for position in tokens], device=device)
        return torch.isin(columns, wanted).float()


Mask = Callable[[Tokens, int, torch.device], Tensor | None]


def _check_tokens(tokens: Tokens) -> None:
    if isinstance(tokens, str):
        if tokens not in TOKEN_SCOPES:
            raise InterventionError(
                f"unknown tokens '{tokens}'; available: {', '.join(TOKEN_SCOPES)}, "
                "or positions such as (-1, -2)"
            )
    elif not tokens or any(position >= 0 for position in tokens):
        raise InterventionError(f"positions count from the prompt's end and are negative; given {tokens}")


def _check_rows(hidden: Tensor, rows: int) -> None:
    if rows not in (1, hidden.shape[0]):
        raise InterventionError(f"the batch has {hidden.shape[0]} rows and edits for {rows} were given")


def _scales(hidden: Tensor, coefficients: Tensor, scopes: list[Tokens], mask: Mask) -> Tensor:
    """Return [rows or 1, tokens or 1, 1] factors: a row's coefficient where its edit holds, else 0."""
    scales = coefficients.to(hidden.device).reshape(-1, 1)
    kinds = set(scopes)
    if kinds == {"all"}:
        return scales.unsqueeze(-1)
    width = hidden.shape[1]
    # Every row may have a scope of its own: their masks are made here, and go to the device at once.
    masks = {scope: mask(scope, width, torch.device("cpu")) for scope in kinds}
    ones = torch.ones(width)
    rows = torch.stack([ones if (one := masks[scope]) is None else one for scope in scopes])
    return (scales * rows.to(hidden.device)).unsqueeze(-1)


class _RowAblation:
    """Bases of all rows; the k-th edits of the rows are applied together, one k after another."""

    def __init__(self, rows: list[tuple[Ablation, ...]], width: int) -> None:
        depth = max((len(row) for row in rows), default=0)
        self._stages: list[tuple[Tensor, Tensor, list[Tokens]]] = []
        for stage in range(depth):
            edits = [row[stage] if stage < len(row) else None for row in rows]
            bases = [
                torch.zeros(0, width) if edit is None else orthonormal(edit.directions) for edit in edits
            ]
            size = max(len(basis) for basis in bases)
            stacked = torch.zeros(len(rows), size, width)
            for index, basis in enumerate(bases):
                stacked[index, : len(basis)] = basis
            coefficients = torch.tensor([0.0 if edit is None else edit.coefficient for edit in edits])
            scopes: list[Tokens] = ["all" if edit is None else edit.tokens for edit in edits]
            self._stages.append((stacked, coefficients, scopes))
        self._single_coefficients = [float(coefficients[0]) for _, coefficients, _ in self._stages]

    def select(self, rows: list[int]) -> None:
        self._stages = [
            (basis[rows], coefficients[rows], [scopes[row] for row in rows])
            for basis, coefficients, scopes in self._stages
        ]

    def apply(self, hidden: Tensor, mask: Mask) -> Tensor:
        for index, (basis, coefficients, scopes) in enumerate(self._stages):
            _check_rows(hidden, len(basis))
            if basis.device != hidden.device:
                basis = basis.to(hidden.device)
                coefficients = coefficients.to(hidden.device)
                self._stages[index] = (basis, coefficients, scopes)
            if basis.shape[:2] == (1, 1) and scopes == ["all"]:
                hidden = _without_one(hidden, basis[0, 0], self._single_coefficients[index])
            else:
                hidden = _without(hidden, basis, _scales(hidden, coefficients, scopes, mask))
        return hidden


def _without_one(hidden: Tensor, direction: Tensor, coefficient: float) -> Tensor:
    """Return `_without` for one direction in every row and token: one pass over the hidden states."""
    exact = hidden if hidden.dtype == torch.float64 else hidden.float()
    direction = direction.to(exact.dtype)
    flat = exact.reshape(-1, exact.shape[-1])
    result = torch.addr(flat, flat @ direction, direction, alpha=-coefficient)
    return result.view_as(exact).to(hidden.dtype)


def _without(hidden: Tensor, basis: Tensor, scales: Tensor) -> Tensor:
    """Return hidden - scales · (hidden basisᵀ) basis, computed in float32."""
    exact = hidden if hidden.dtype == torch.float64 else hidden.float()
    basis = basis.to(exact.dtype)
    scales = scales.to(exact.dtype)
    if basis.shape[1] == 1:
        projection = (exact * basis).sum(-1, keepdim=True)
        result = torch.addcmul(exact, projection * scales, basis, value=-1)
    else:
        projection = exact @ basis.transpose(1, 2)
        result = exact - (projection * scales) @ basis
    return result.to(hidden.dtype)


class _RowAddition:
    """Vectors that each row adds at one layer; a row's k-th vectors are added together."""

    def __init__(self, layer: int, rows: list[Edits], width: int) -> None:
        by_scope: list[dict[Tokens, Tensor]] = []
        for row in rows:
            sums: dict[Tokens, Tensor] = {}
            for edit in row:
                if isinstance(edit, Addition) and edit.layer == layer:
                    vector = edit.coefficient * edit.direction.detach().float().cpu()
                    sums[edit.tokens] = sums[edit.tokens] + vector if edit.tokens in sums else vector
            by_scope.append(sums)
        self._stages: list[tuple[Tensor, Tensor, list[Tokens]]] = []
        for stage in range(max(map(len, by_scope), default=0)):
            vectors = torch.zeros(len(rows), 1, width)
            used = torch.zeros(len(rows))
            scopes: list[Tokens] = ["all"] * len(rows)
            for index, sums in enumerate(by_scope):
                if stage < len(sums):
                    scopes[index], vectors[index, 0] = list(sums.items())[stage]
                    used[index] = 1
            # A row that adds nothing shares the scope of the others, so that they need no mask of their own.
            common = next(scope for scope, one in zip(scopes, used, strict=True) if one)
            scopes = [scope if one else common for scope, one in zip(scopes, used, strict=True)]
            self._stages.append((vectors, used, scopes))

    def select(self, rows: list[int]) -> None:
        self._stages = [
            (vectors[rows], used[rows], [scopes[row] for row in rows])
            for vectors, used, scopes in self._stages
        ]

    def apply(self, hidden: Tensor, mask: Mask, in_prompt: bool) -> Tensor:
        for index, (vectors, used, scopes) in enumerate(self._stages):
            _check_rows(hidden, len(vectors))
            if not in_prompt and not {"all", "decoding"}.intersection(scopes):
                continue
            placed = vectors.to(hidden.device, hidden.dtype)
            self._stages[index] = (placed, used, scopes)
            if set(scopes) == {"all"}:
                hidden = hidden + placed
            else:
                hidden = hidden + placed * _scales(hidden, used, scopes, mask).to(hidden.dtype)
        return hidden


@contextmanager
def applied(
    chat: ChatModel, edits: Edit | Edits | Sequence[Edits], *, prompt_width: int | None = None
) -> Iterator[Applied]:
    """Edit every forward pass of `chat.model` inside the block.

    `edits` is one edit or a tuple of them, for every row; or a list with one tuple of edits for
    each row of the batch. At one site a row's ablations come before its additions. For edits of
    other than all tokens, the first forward pass in the block tells how wide the (left-padded)
    prompt is, unless `prompt_width` does; `Applied.new_prompt` begins another.

    Raises `InterventionError` where an edit does not fit the model, or where the model is compiled
    by `torch.compile`, which does not see hooks that come and go.
    """
    if isinstance(edits, Ablation | Addition):
        edits = (edits,)
    uniform = isinstance(edits, tuple)
    rows: list[Edits] = [edits] if isinstance(edits, tuple) else list(edits)
    _refuse_compiled(chat)
    state = Applied(chat, rows, uniform, prompt_width)
    with ExitStack() as stack:
        _install(chat, state, stack)
        yield state


def _install(chat: ChatModel, state: Applied, stack: ExitStack) -> None:
    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        state.begin(cached_tokens(kwargs), tokens.shape[1])

    def ablate_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return with_layer_input(args, kwargs, state.ablate(layer_input(args, kwargs)))

    def ablate_write(_module: nn.Module, _args: Any, output: Any) -> Any:
        return with_first_tensor(output, state.ablate(first_tensor(output)))

    def adder(layer: int) -> Callable[..., Any]:
        def add_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return with_layer_input(args, kwargs, state.add(layer, layer_input(args, kwargs)))

        return add_input

    parent, _, _ = chat.structure.layers.rpartition(".")
    decoder = submodule(chat.model, parent, "decoder")
    stack.callback(decoder.register_forward_pre_hook(note, with_kwargs=True).remove)
    if state.ablates:
        for layer in chat.layers:
            stack.callback(layer.register_forward_pre_hook(ablate_input, with_kwargs=True).remove)
            for name in (chat.structure.attention, chat.structure.mlp):
                write = submodule(layer, name, "residual writes")
                stack.callback(write.register_forward_hook(ablate_write).remove)
    for index in state.layers_of_additions:
        hook = chat.layers[index].register_forward_pre_hook(adder(index), with_kwargs=True)
        stack.callback(hook.remove)


def _refuse_compiled(chat: ChatModel) -> None:
    for module in chat.model.modules():
        if getattr(module, "_orig_mod", None) is not None or getattr(module, "_compiled_call_impl", None):
            raise InterventionError(
                f"{chat.name} is compiled by torch.compile, which does not see hooks that come and go; "
                "edit the model that was not compiled"
            )
