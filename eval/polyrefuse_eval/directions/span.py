"""The span of several directions, which are ablated together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.errors import DirectionError, InterventionError
from polyrefuse_eval.models.row_edits import orthonormal


@dataclass(frozen=True, eq=False, repr=False)
class Span:
    """A span of directions: `unit` [k, d] (float32), an orthonormal basis; `sources` are its directions'."""

    unit: Tensor
    sources: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Span({'+'.join(self.sources)}, rank {len(self.unit)}, width {self.unit.shape[-1]})"

    @property
    def vector(self) -> NoReturn:
        """Raise `InterventionError`: several directions have no one norm."""
        raise InterventionError(f"{self!r} can be ablated and not added; give one direction")

    @property
    def layer(self) -> NoReturn:
        """Raise `InterventionError`: several directions have no one layer."""
        raise InterventionError(f"{self!r} has no layer of its own; give one direction")


def span_of(directions: Sequence[Direction], rank: int | None = None) -> Span:
    """Return the span of `directions`, or of its `rank` leading singular directions.

    The unit vectors are decomposed, so that each direction counts the same whatever its norm. Raises
    `DirectionError` where there are no directions, they are of models of different width, or span fewer than
    `rank` dimensions.
    """
    widths = sorted({len(direction.unit) for direction in directions})
    if len(widths) != 1:
        given = f"directions of width {', '.join(map(str, widths))}" if widths else "no direction"
        raise DirectionError(f"a span needs directions of one model; given {given}")
    basis = orthonormal(torch.stack([direction.unit for direction in directions]), rank)
    if rank is not None and len(basis) < rank:
        raise DirectionError(
            f"{len(directions)} directions span {len(basis)} dimensions; {rank} were asked for"
        )
    return Span(unit=basis, sources=tuple(direction.lang for direction in directions))
