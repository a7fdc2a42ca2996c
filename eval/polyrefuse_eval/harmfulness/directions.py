"""The harmfulness direction at t_inst and the refusal direction at t_post-inst (Zhao et al. 2025).

t_inst is the last token of the instruction, t_post-inst the last of the prompt. Hidden states are
those at the input of layers 0 to L-1, and the output of the last layer (L).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from polyrefuse_data.core.schema import LABELS
from polyrefuse_eval.directions.label_means import MINIMUM_PROMPTS
from polyrefuse_eval.directions.training_states import training_states
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.harmfulness.instructions import Instruction
from polyrefuse_eval.models.activations import ActivationMeans
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.tensor_files import check_model, check_shape, read_tensors, write_tensors
from polyrefuse_eval.results.harmfulness_records import Behaviour
from polyrefuse_eval.results.positions import Position
from polyrefuse_eval.results.tensor_headers import (
    HARMFULNESS_DIRECTIONS_FORMAT,
    HarmfulnessDirectionsHeader,
)
from polyrefuse_eval.versions import versions

T_POST_INST = Position(-1)
CENTROIDS = ("harmful", "harmless", "refused", "accepted")
KINDS = ("harmfulness", "refusal")


@dataclass(frozen=True, eq=False)
class HarmfulnessDirections:
    """The directions of one language; every tensor is [L + 1, d], float32.

    `harmfulness`: mean of harmful minus mean of harmless prompts at t_inst. `refusal`: mean of
    refused minus mean of accepted prompts at t_post-inst, whatever their label. `centroids`: means of
    refused harmful (`harmful`) and accepted harmless (`harmless`) prompts at t_inst, and of the same
    prompts at t_post-inst (`refused`, `accepted`). `categories`: mean of the harmful prompts of a
    category minus mean of harmless ones, at t_inst.
    """

    lang: str
    harmfulness: Tensor
    refusal: Tensor
    centroids: Mapping[str, Tensor]
    categories: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def vectors(self, kind: str) -> Tensor:
        """Return the direction called `kind` [L + 1, d]."""
        return self.harmfulness if kind == "harmfulness" else self.refusal

    def cosines(self) -> list[float | None]:
        """Return the cosine between the two directions by layer; None where one does not exist."""
        return [cosine(*pair) for pair in zip(self.harmfulness, self.refusal, strict=True)]

    def category_cosines(self, layer: int) -> list[list[float | None]]:
        """Return the cosines between the category directions at `layer`, in their order."""
        directions = [vectors[layer] for vectors in self.categories.values()]
        return [[cosine(first, second) for second in directions] for first in directions]

    def save(self, path: Path) -> None:
        """Write all tensors and metadata as one safetensors file."""
        tensors = {"harmfulness": self.harmfulness, "refusal": self.refusal}
        tensors |= {f"centroid.{name}": tensor for name, tensor in self.centroids.items()}
        tensors |= {f"category.{name}": tensor for name, tensor in self.categories.items()}
        header = {
            "format": HARMFULNESS_DIRECTIONS_FORMAT,
            "lang": self.lang,
            "categories": list(self.categories),
            "metadata": dict(self.metadata),
        }
        write_tensors(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, header)

    @classmethod
    def load(cls, path: Path, chat: ChatModel | None = None) -> HarmfulnessDirections:
        """Read what `save` wrote; with `chat`, raise `DirectionError` where it is another model's."""
        tensors, header = read_tensors(
            path,
            HarmfulnessDirectionsHeader,
            HARMFULNESS_DIRECTIONS_FORMAT,
            DirectionError,
            "polyrefuse eval harmfulness",
        )
        if chat is not None:
            check_model(path, header.metadata, chat, DirectionError, "measure this one")
        shape = (None, None) if chat is None else (chat.n_layers + 1, chat.width)

        def tensor(name: str) -> Tensor:
            return check_shape(path, tensors, name, shape, DirectionError)

        return cls(
            lang=header.lang,
            harmfulness=tensor("harmfulness"),
            refusal=tensor("refusal"),
            centroids={name: tensor(f"centroid.{name}") for name in CENTROIDS},
            categories={name: tensor(f"category.{name}") for name in header.categories},
            metadata=header.metadata,
        )


def cosine(first: Tensor, second: Tensor) -> float | None:
    """Return the cosine of two vectors [d]; None where one is zero."""
    first, second = first.double(), second.double()
    norms = first.norm() * second.norm()
    return float(first @ second / norms) if float(norms) > 0 else None


def fit_harmfulness(
    chat: ChatModel,
    instructions: Sequence[Instruction],
    refused: Sequence[bool | None],
    *,
    lang: str,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> HarmfulnessDirections:
    """Return both directions, centroids and category directions of `instructions`, whose behaviour is known.

    Raises `DirectionError`, with the numbers and the way out, where a mean would have fewer than 4
    prompts. Categories with fewer are left out.
    """
    counts = count_groups(instructions, refused)
    _check(counts, lang)
    # Sum the hidden states of each group of instructions at t_inst and t_post-inst, in one pass.
    n_layers = chat.n_layers + 1
    means: dict[str, ActivationMeans] = {}
    for label in LABELS:
        indices = [index for index, instruction in enumerate(instructions) if instruction.label == label]
        texts = [instructions[index].text for index in indices]
        states = training_states(chat, texts, progress=f"directions {lang}" if progress else None)
        groups: dict[str, list[int]] = {}
        for row, index in enumerate(indices):
            for name in _groups_of(instructions[index], refused[index]):
                groups.setdefault(name, []).append(row)
        for name, rows in groups.items():
            means.setdefault(name, ActivationMeans(2, n_layers, chat.width)).update(states[rows])
    # Harmfulness is a difference by label at t_inst, refusal one by behaviour at t_post-inst.
    at_inst = {name: mean.mean[0] for name, mean in means.items()}
    at_post = {name: mean.mean[1] for name, mean in means.items()}
    categories = {
        name.partition(":")[2]: (at_inst[name] - at_inst["harmless"]).float()
        for name, mean in sorted(means.items())
        if name.startswith("category:") and mean.count >= MINIMUM_PROMPTS
    }
    origin = {
        **(metadata or {}),
        "model": chat.signature(),
        "counts": counts,
        "categories": {name: means[f"category:{name}"].count for name in categories},
        "versions": versions(),
    }
    return HarmfulnessDirections(
        lang=lang,
        harmfulness=(at_inst["harmful"] - at_inst["harmless"]).float(),
        refusal=(at_post["refused"] - at_post["accepted"]).float(),
        centroids={
            "harmful": at_inst["harmful refused"].float(),
            "harmless": at_inst["harmless accepted"].float(),
            "refused": at_post["harmful refused"].float(),
            "accepted": at_post["harmless accepted"].float(),
        },
        categories=categories,
        metadata=origin,
    )


def count_groups(
    instructions: Sequence[Instruction], refused: Sequence[bool | None]
) -> dict[str, dict[str, int]]:
    """Return how many instructions of each label were refused, accepted, and not judged."""
    counts = {label: {"refused": 0, "accepted": 0, "unjudged": 0} for label in ("harmful", "harmless")}
    for instruction, verdict in zip(instructions, refused, strict=True):
        counts[instruction.label][behaviour_name(verdict)] += 1
    return counts


def behaviour_name(refused: bool | None) -> Behaviour:
    """Return `refused`, `accepted` or `unjudged`."""
    return "unjudged" if refused is None else "refused" if refused else "accepted"


def _groups_of(instruction: Instruction, refused: bool | None) -> list[str]:
    behaviour = behaviour_name(refused)
    groups = [instruction.label, behaviour, f"{instruction.label} {behaviour}"]
    if instruction.label == "harmful" and instruction.category:
        groups.append(f"category:{instruction.category}")
    return groups


def _check(counts: Mapping[str, Mapping[str, int]], lang: str) -> None:
    for label, behaviour in (("harmful", "refused"), ("harmless", "accepted")):
        count = counts[label][behaviour]
        if count < MINIMUM_PROMPTS:
            by_behaviour = counts[label]
            raise DirectionError(
                f"{count} {behaviour} {label} prompts in '{lang}' ({by_behaviour['refused']} refused, "
                f"{by_behaviour['accepted']} accepted, {by_behaviour['unjudged']} undecided), and a centroid "
                f"needs {MINIMUM_PROMPTS}: give more prompts with --train, or take another language's "
                "directions with --directions LANG"
            )
