"""The edit of each intervention: a function of a direction and a coefficient, by the intervention's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from polyrefuse_eval.models.intervene import Ablation, Addition, Edit
from polyrefuse_eval.results.interventions import (
    ABLATION,
    ADDITION,
    CONDITIONAL_ABLATION,
    CONDITIONAL_ADDITION,
    Intervention,
)


class EditDirection(Protocol):
    """What an edit needs of a direction: `unit` [d] (float32), `vector` [d] of its norm, and its `layer`.

    Of a span, `unit` is a basis [k, d], and the others raise `InterventionError`: several directions have no
    one norm and no one layer.
    """

    @property
    def unit(self) -> Tensor: ...
    @property
    def vector(self) -> Tensor: ...
    @property
    def layer(self) -> int: ...


def ablate(direction: EditDirection, coefficient: float) -> Edit:
    """Take the direction, or a span, out of every layer: directional ablation (Arditi et al. 2024, eq. 4)."""
    return Ablation(direction.unit, coefficient)


def add(direction: EditDirection, coefficient: float) -> Edit:
    """Add the difference in means at its layer: activation addition (Arditi et al. 2024, eq. 3)."""
    return Addition(direction.vector, direction.layer, coefficient)


EDITS: dict[str, Callable[[EditDirection, float], Edit]] = {
    ABLATION.name: ablate,
    ADDITION.name: add,
    CONDITIONAL_ABLATION.name: ablate,
    CONDITIONAL_ADDITION.name: add,
}
"""Name of the intervention to its edit; a row for each of `results.interventions.INTERVENTIONS`."""


def edit_with(intervention: Intervention, direction: EditDirection, coefficient: float = 1.0) -> Edit:
    """Return the edit that `intervention` makes with `direction`."""
    return EDITS[intervention.name](direction, coefficient)
