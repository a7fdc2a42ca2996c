"""The arithmetic of edits: what each row of a batch has taken out of its states, or added to them.

States are [rows, tokens, d], or [streams, rows, tokens, d] in models that keep several streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy

import torch
from torch import Tensor

from polyrefuse_eval.errors import InterventionError

Tokens = str | tuple[int, ...]
"""Which tokens an edit touches: `all`, `prompt`, `decoding`, or positions counted from the
prompt's end (-1 is its last token; in a packed row, which holds several prompts, from the row's
end). Each row of a batch may name its own."""

TOKEN_SCOPES = ("all", "prompt", "decoding")

Mask = Callable[[Tokens, int], Tensor | None]
"""(scope, number of tokens) -> [tokens] of 0 and 1 on the CPU, None for all tokens."""


Transform = Callable[[Tensor], Tensor]
"""States [rows, tokens, d] -> states of the same shape."""


def check_tokens(tokens: Tokens) -> None:
    """Raise `InterventionError` where `tokens` names no scope and no positions before the prompt's end."""
    if isinstance(tokens, str):
        if tokens not in TOKEN_SCOPES:
            raise InterventionError(
                f"unknown tokens '{tokens}'; available: {', '.join(TOKEN_SCOPES)}, "
                "or positions such as (-1, -2)"
            )
    elif not tokens or any(position >= 0 for position in tokens):
        raise InterventionError(f"positions count from the prompt's end and are negative; given {tokens}")


def orthonormal(directions: Tensor, rank: int | None = None) -> Tensor:
    """Return an orthonormal basis [k', d] (float32, k' ≤ k) of the span of `directions` [k, d], by SVD.

    With `rank`, of its leading singular directions alone: those along which the unit vectors of `directions`
    have the most in common. Raises `InterventionError` where a direction is not finite, or zero.
    """
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
    basis: Tensor = right[values > 1e-6 * values[0]][:rank].float()
    return basis


class RowAblations:
    """Bases that are taken out of all rows; the k-th edits of the rows are applied together, k after k.

    rows: for each row, its edits as (directions [d] or [k, d], coefficient, scope); width: d.
    """

    def __init__(self, rows: Sequence[Sequence[tuple[Tensor, float, Tokens]]], width: int) -> None:
        self._stages: list[tuple[Tensor, Tensor, list[Tokens]]] = []
        for stage in range(max(map(len, rows), default=0)):
            edits = [row[stage] if stage < len(row) else None for row in rows]
            bases = [torch.zeros(0, width) if edit is None else orthonormal(edit[0]) for edit in edits]
            stacked = torch.zeros(len(rows), max(map(len, bases)), width)
            for index, basis in enumerate(bases):
                stacked[index, : len(basis)] = basis
            coefficients = torch.tensor([0.0 if edit is None else edit[1] for edit in edits])
            scopes: list[Tokens] = ["all" if edit is None else edit[2] for edit in edits]
            self._stages.append((stacked, coefficients, scopes))
        self._first_coefficients = [float(coefficients[0]) for _, coefficients, _ in self._stages]

    def selected(self, rows: Sequence[int]) -> RowAblations:
        """Return the edits of `rows` (indices, any number of times each)."""
        chosen = copy(self)
        chosen._stages = [
            (basis[list(rows)], coefficients[list(rows)], [scopes[row] for row in rows])
            for basis, coefficients, scopes in self._stages
        ]
        chosen._first_coefficients = [float(coefficients[0]) for _, coefficients, _ in chosen._stages]
        return chosen

    def apply(self, hidden: Tensor, mask: Mask) -> Tensor:
        """Return `hidden` without the bases, where `mask` says that the scopes hold."""
        for index, (basis, coefficients, scopes) in enumerate(self._stages):
            _check_rows(hidden, len(basis))
            if basis.device != hidden.device:
                basis = basis.to(hidden.device)
                coefficients = coefficients.to(hidden.device)
                self._stages[index] = (basis, coefficients, scopes)
            if basis.shape[:2] == (1, 1) and scopes == ["all"]:
                hidden = _without_direction(hidden, basis[0, 0], self._first_coefficients[index])
            else:
                hidden = _without_basis(hidden, basis, _scales(hidden, coefficients, scopes, mask))
        return hidden


class RowAdditions:
    """Vectors that the rows add at one layer; a row's k-th vectors are added together.

    rows: for each row, the sum [d] of its vectors for each scope; width: d.
    """

    def __init__(self, rows: Sequence[Mapping[Tokens, Tensor]], width: int) -> None:
        self._stages: list[tuple[Tensor, Tensor, list[Tokens]]] = []
        for stage in range(max(map(len, rows), default=0)):
            vectors = torch.zeros(len(rows), 1, width)
            used = torch.zeros(len(rows))
            scopes: list[Tokens] = ["all"] * len(rows)
            for index, sums in enumerate(rows):
                if stage < len(sums):
                    scopes[index], vectors[index, 0] = list(sums.items())[stage]
                    used[index] = 1
            # A row that adds nothing shares the scope of the others, so that they need no mask of their own.
            common = next(scope for scope, adds in zip(scopes, used, strict=True) if adds)
            scopes = [scope if adds else common for scope, adds in zip(scopes, used, strict=True)]
            self._stages.append((vectors, used, scopes))

    def selected(self, rows: Sequence[int]) -> RowAdditions:
        """Return the vectors of `rows` (indices, any number of times each)."""
        chosen = copy(self)
        chosen._stages = [
            (vectors[list(rows)], used[list(rows)], [scopes[row] for row in rows])
            for vectors, used, scopes in self._stages
        ]
        return chosen

    def apply(self, hidden: Tensor, mask: Mask, in_prompt: bool) -> Tensor:
        """Return `hidden` [rows, tokens, d] with the vectors added; `in_prompt`: its first token is one of
        the prompt's."""
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


class RowTransformations:
    """Functions of states that are applied to the rows at one layer.

    rows: for each row, its functions and their scopes, in the order in which they are applied.
    """

    def __init__(self, rows: Sequence[Sequence[tuple[Transform, Tokens]]]) -> None:
        self._rows = list(rows)

    def __bool__(self) -> bool:
        return any(self._rows)

    def selected(self, rows: Sequence[int]) -> RowTransformations:
        """Return the functions of `rows` (indices, any number of times each)."""
        return RowTransformations([self._rows[row] for row in rows])

    def apply(self, hidden: Tensor, mask: Mask) -> Tensor:
        """Return `hidden` [rows, tokens, d] with the functions applied where `mask` says that scopes hold."""
        _check_rows(hidden, len(self._rows))
        parts = [hidden] if len(self._rows) == 1 else list(torch.split(hidden, 1))
        for index, functions in enumerate(self._rows):
            for function, scope in functions:
                changed = function(parts[index]).to(hidden.dtype)
                tokens = mask(scope, hidden.shape[-2])
                if tokens is not None:
                    chosen = tokens.to(hidden.device).bool().unsqueeze(-1)
                    changed = torch.where(chosen, changed, parts[index])
                parts[index] = changed
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _check_rows(hidden: Tensor, rows: int) -> None:
    if rows not in (1, hidden.shape[-3]):
        raise InterventionError(f"the batch has {hidden.shape[-3]} rows and edits for {rows} were given")


def _scales(hidden: Tensor, coefficients: Tensor, scopes: list[Tokens], mask: Mask) -> Tensor:
    """Return [rows or 1, tokens or 1, 1] factors: a row's coefficient where its edit holds, else 0."""
    scales = coefficients.to(hidden.device).reshape(-1, 1)
    kinds = set(scopes)
    if kinds == {"all"}:
        return scales.unsqueeze(-1)
    width = hidden.shape[-2]
    # Every row may have a scope of its own: their masks are made here, and go to the device at once.
    everywhere = torch.ones(width)
    masks = {scope: everywhere if (held := mask(scope, width)) is None else held for scope in kinds}
    rows = torch.stack([masks[scope] for scope in scopes])
    return (scales * rows.to(hidden.device)).unsqueeze(-1)


def _without_direction(hidden: Tensor, direction: Tensor, coefficient: float) -> Tensor:
    """Return `_without_basis` for one direction in every row and token: one pass over the states."""
    exact = hidden if hidden.dtype == torch.float64 else hidden.float()
    direction = direction.to(exact.dtype)
    flat = exact.reshape(-1, exact.shape[-1])
    result = torch.addr(flat, flat @ direction, direction, alpha=-coefficient)
    return result.view_as(exact).to(hidden.dtype)


def _without_basis(hidden: Tensor, basis: Tensor, scales: Tensor) -> Tensor:
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
