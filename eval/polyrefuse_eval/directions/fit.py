"""Fit difference-in-means directions at every layer and position; save them with what they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.directions.label_means import LABELS_IN_WORDS, LabelMeans
from polyrefuse_eval.directions.refusal_tokens import GivenTokens, RefusalTokens
from polyrefuse_eval.directions.training_states import capture_training
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.activations import all_positions, capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.tensor_files import check_model, check_shape, read_tensors, write_tensors
from polyrefuse_eval.results.positions import Position
from polyrefuse_eval.results.tensor_headers import (
    DIRECTION_FORMAT,
    SET_FORMAT,
    DirectionHeader,
    DirectionSetHeader,
)

HOW_TO_MAKE = "polyrefuse eval extract, then select"
UNIT_TOLERANCE = 1e-2
"""How far the length of a stored unit vector may be from 1: types of 8 bits of mantissa hold it to 0.4 %."""


@dataclass(frozen=True, eq=False, repr=False)
class DirectionSet:
    """Harmful minus harmless mean activations by position and layer input (Arditi et al. 2024, eq. 2).

    `vectors` [positions, layers, d] float64; `positions` and `layers` label the first two axes.
    """

    lang: str
    vectors: Tensor
    positions: tuple[Position, ...]
    layers: tuple[int, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        places = f"{len(self.positions)} positions, {len(self.layers)} layers, width {self.vectors.shape[-1]}"
        return f"DirectionSet({self.lang}, {places})"

    def at(self, position: Position, layer: int) -> Tensor:
        """Return the difference in means [d] (float64) at `position` of the input of `layer`."""
        if position not in self.positions or layer not in self.layers:
            known = ", ".join(str(known.label) for known in self.positions)
            raise DirectionError(
                f"no direction at position {position.label}, layer {layer}; positions: {known}, "
                f"layers: {self.layers[0]}-{self.layers[-1]}"
            )
        return self.vectors[self.positions.index(position), self.layers.index(layer)]

    def save(self, path: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write the vectors and the metadata to one safetensors file."""
        header = {
            "format": SET_FORMAT,
            "lang": self.lang,
            "positions": [position.label for position in self.positions],
            "layers": list(self.layers),
            "metadata": dict(self.metadata),
        }
        write_tensors(Path(path), {"vectors": self.vectors.to(dtype).contiguous()}, header)

    @classmethod
    def load(cls, path: str | Path) -> DirectionSet:
        """Read the file that `save` wrote; raise `DirectionError` for any other."""
        path = Path(path)
        tensors, header = read_tensors(path, DirectionSetHeader, SET_FORMAT, DirectionError, HOW_TO_MAKE)
        shape = (len(header.positions), len(header.layers), None)
        return cls(
            lang=header.lang,
            vectors=check_shape(path, tensors, "vectors", shape, DirectionError).double(),
            positions=tuple(Position.parse(label) for label in header.positions),
            layers=header.layers,
            metadata=header.metadata,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """One direction: `unit` [d] (float32) of norm 1, the `norm` of the difference in means, and its place.

    `unit * norm` is the difference in means at `position` of the input of `layer` (resid_pre), harmful
    minus harmless: adding it leads to refusal. `kind` is `difference_in_means` or that of a control.
    """

    unit: Tensor
    norm: float
    layer: int
    position: Position
    lang: str
    kind: str = "difference_in_means"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        place = f"layer {self.layer}, position {self.position.label}"
        return f"Direction({self.lang}, {self.kind}, {place}, norm {self.norm:.3g}, width {len(self.unit)})"

    @property
    def vector(self) -> Tensor:
        """The difference in means [d] itself."""
        return self.unit * self.norm

    def save(self, path: str | Path) -> None:
        """Write the unit vector and the metadata to one safetensors file."""
        header = {
            "format": DIRECTION_FORMAT,
            "site": "resid_pre",
            "norm": self.norm,
            "layer": self.layer,
            "position": self.position.label,
            "position_kind": self.position.kind,
            "lang": self.lang,
            "kind": self.kind,
            "metadata": dict(self.metadata),
        }
        write_tensors(Path(path), {"direction": self.unit.float().contiguous()}, header)

    @classmethod
    def load(cls, path: str | Path, chat: ChatModel | None = None) -> Direction:
        """Read the file that `save` wrote; with `chat`, raise `DirectionError` for another model's."""
        path = Path(path)
        tensors, header = read_tensors(path, DirectionHeader, DIRECTION_FORMAT, DirectionError, HOW_TO_MAKE)
        if chat is not None:
            check_model(path, header.metadata, chat, DirectionError, "extract it again")
            if header.layer >= chat.n_layers:
                raise DirectionError(
                    f"'{path}' is of layer {header.layer}; {chat.name} has layers 0 to {chat.n_layers - 1}"
                )
        width = None if chat is None else chat.width
        unit = check_shape(path, tensors, "direction", (width,), DirectionError)
        length = float(unit.double().norm())
        if abs(length - 1) > UNIT_TOLERANCE:
            raise DirectionError(f"'{path}' holds a direction of length {length:g}; expected a unit vector")
        return cls(
            unit=unit,
            norm=header.norm,
            layer=header.layer,
            position=Position.parse(header.position),
            lang=header.lang,
            kind=header.kind,
            metadata=header.metadata,
        )


def direction_at(
    directions: DirectionSet, position: Position | int | str, layer: int, **metadata: Any
) -> Direction:
    """Return the direction at `position` of the input of `layer`, with `metadata` added to the set's.

    `position` may be its label: -1, -2, … or `t_inst`. Raises `DirectionError` where the set has no such
    place, or the means do not differ.
    """
    if not isinstance(position, Position):
        position = Position.parse(position)
    vector = directions.at(position, layer)
    norm = float(vector.norm())
    if not norm > 0:
        raise DirectionError(f"the means at position {position.label}, layer {layer} are identical")
    unit = (vector / norm).float()
    return Direction(
        unit, norm, layer, position, directions.lang, metadata={**directions.metadata, **metadata}
    )


def random_direction(like: Direction, seed: int = 0) -> Direction:
    """Return a control: a random direction with the norm and place of `like`."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(like.unit.shape, generator=generator, dtype=torch.float64)
    return replace(
        like, unit=(vector / vector.norm()).float(), kind="random", metadata={**like.metadata, "seed": seed}
    )


def fit_directions(
    chat: ChatModel,
    harmful: Sequence[str],
    harmless: Sequence[str],
    *,
    lang: str = "en",
    positions: Sequence[Position] | None = None,
    refusal_tokens: GivenTokens | Sequence[RefusalTokens] | None = None,
    shuffle_labels: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
    names: tuple[str, str] = LABELS_IN_WORDS,
) -> DirectionSet:
    """Return mean(harmful) - mean(harmless) at `positions` of all layer inputs (Arditi et al. 2024, eq. 2).

    `positions` default to the post-instruction tokens and the last token of the instruction. With
    `refusal_tokens` only harmful prompts with a refusal score above 0 and harmless prompts below 0 count; the
    metadata says how many. They are given once for all prompts, as `RefusalTokens`, words or ids, or as one
    `RefusalTokens` for each prompt, the harmful first.
    `shuffle_labels` is the seed of the control whose labels are permuted. Raises `DirectionError` where
    fewer than `MINIMUM_PROMPTS` of a label are left.
    """
    positions = tuple(positions) if positions is not None else all_positions(chat)
    passes = capture(
        chat,
        chat.encode([*harmful, *harmless]),
        range(chat.n_layers),
        positions,
        logits=refusal_tokens is not None,
        tokens_per_batch=tokens_per_batch,
        progress=f"extract {lang}" if progress else None,
    )
    means = LabelMeans(chat, len(harmful), len(harmless), positions, lang, refusal_tokens, [shuffle_labels])
    for captured in passes:
        means.update(captured)
    vectors, origin = means.difference(shuffle_labels, metadata, names)
    return DirectionSet(lang, vectors, positions, tuple(range(chat.n_layers)), origin)


def fit_training_directions(
    chat: ChatModel,
    harmful: Sequence[str],
    harmless: Sequence[str],
    *,
    lang: str,
    refusal_tokens: Sequence[RefusalTokens] | None,
    shuffles: Sequence[int | None],
    metadata: Mapping[str, Any],
    progress: bool = False,
) -> dict[int | None, DirectionSet | DirectionError]:
    """Return the directions of these training prompts for each of `shuffles`, from one pass.

    None stands for the labels as they are, a seed for the control whose labels are permuted. Hidden states at
    the instruction's end are kept (see `training_states`). A set of too few prompts is its `DirectionError`.
    """
    positions, layers = all_positions(chat), tuple(range(chat.n_layers))
    means = LabelMeans(chat, len(harmful), len(harmless), positions, lang, refusal_tokens, shuffles)
    for label, first, texts in zip(LABELS_IN_WORDS, (0, len(harmful)), (harmful, harmless), strict=True):
        step = f"extract {lang}, {label}" if progress else None
        for captured in capture_training(chat, texts, progress=step):
            means.update(captured, first)
    found: dict[int | None, DirectionSet | DirectionError] = {}
    for seed in shuffles:
        try:
            vectors, origin = means.difference(seed, metadata, LABELS_IN_WORDS)
            found[seed] = DirectionSet(lang, vectors, positions, layers, origin)
        except DirectionError as error:
            found[seed] = error
    return found
