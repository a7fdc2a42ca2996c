"""The organism's network with edits that touch chosen tokens only: additions, interchanges, ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrefuse_eval.organisms.network import Block, OrganismNetwork, without


@dataclass(frozen=True)
class Planted:
    """A planted unit vector [d], the layer at whose input it is read, and its strength.

    strength: difference along `direction` between the two classes, in units of the stream.
    """

    direction: Tensor
    layer: int
    strength: float


@dataclass(frozen=True)
class Interchange:
    """Each row takes over the coordinate along `planted` that its source row has, at `positions`.

    source: [B] batch indices, a row's own for none. positions: [B, P] token indices.
    """

    planted: Planted
    source: Tensor
    positions: Tensor


@dataclass(frozen=True)
class TokenEdits:
    """What to change in the residual stream of each row of a batch (B rows, T tokens, width d).

    ablated: [B, d] unit vectors, projected out of the input of every layer and of the output of every
        attention and MLP; a row of zeros leaves that batch row alone.
    added: [B, d], added to the input of layer `layer` [B] at the tokens marked in `scope` [B, T].
    """

    ablated: Tensor
    added: Tensor
    layer: Tensor
    scope: Tensor
    interchanges: tuple[Interchange, ...]


class TokenEditedNetwork(OrganismNetwork):
    """The network of the organism; its rows can be edited at chosen tokens."""

    def forward(  # type: ignore[override]
        self, tokens: Tensor, edits: TokenEdits, keep: Sequence[int] = (), read: Tensor | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the final normed stream [B, T, d] and, for the layers in `keep`, their inputs.

        The inputs kept are those before an addition or interchange at that layer. An interchange comes
        before an addition, so that what is taken over is never what was added.
        read: [B, T] marks the N tokens whose final stream is read: that alone is returned, [N, d].
        """
        cosine = self.cosine[: tokens.shape[1]]
        sine = self.sine[: tokens.shape[1]]
        ablated = edits.ablated if bool(edits.ablated.any()) else None
        kept: dict[int, Tensor] = {}
        stream: Tensor = self.embed_tokens(tokens)
        for index, block in enumerate(self.layers):
            assert isinstance(block, Block)  # noqa: S101  (for the type checker)
            stream = without(stream, ablated)
            if index in keep:
                kept[index] = stream
            for interchange in edits.interchanges:
                if interchange.planted.layer == index:
                    stream = interchanged(stream, interchange)
            here = (edits.layer == index)[:, None] & edits.scope
            stream = stream + here[..., None] * edits.added[:, None, :]
            stream = block.through(stream, cosine, sine, ablated, read if block is self.layers[-1] else None)
        return self.norm(stream), kept


def interchanged(stream: Tensor, interchange: Interchange) -> Tensor:
    """Return `stream` [B, T, d] after `interchange` (Geiger et al. 2022, interchange intervention)."""
    direction, positions = interchange.planted.direction, interchange.positions
    rows = torch.arange(len(stream))[:, None]
    coordinate = stream[rows, positions] @ direction
    change = coordinate[interchange.source] - coordinate
    shift = torch.zeros(stream.shape[:2], dtype=stream.dtype)
    shift = shift.index_put((rows.expand_as(positions), positions), change)
    return stream + shift[..., None] * direction
