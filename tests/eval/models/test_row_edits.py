"""Edits of the rows of a batch: selected rows are edited as they are alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polyrefuse_eval.models.row_edits import RowAblations

WIDTH = 8


def everywhere(_tokens: object, _width: int) -> None:
    """A mask of edits on all tokens."""


def ablated(directions: Tensor, coefficients: list[float], hidden: Tensor, rows: list[int]) -> Tensor:
    given = [[(direction, value, "all")] for direction, value in zip(directions, coefficients, strict=True)]
    return RowAblations(given, WIDTH).selected(rows).apply(hidden, everywhere)


@pytest.mark.parametrize("rows", [[0], [1], [2, 1], [1, 1, 0, 2]])
def test_selected_rows_keep_their_own_direction_and_strength(rows: list[int]) -> None:
    directions = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    coefficients = [0.25, 1.0, 0.5]
    hidden = torch.randn(len(rows), 4, WIDTH, generator=torch.Generator().manual_seed(2))
    units = directions / directions.norm(dim=-1, keepdim=True)
    expected = torch.stack(
        [
            states - coefficients[row] * (states @ units[row]).unsqueeze(-1) * units[row]
            for states, row in zip(hidden, rows, strict=True)
        ]
    )
    torch.testing.assert_close(
        ablated(directions, coefficients, hidden, rows), expected, atol=1e-5, rtol=1e-5
    )
