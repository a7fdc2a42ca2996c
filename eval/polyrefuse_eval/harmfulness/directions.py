"""Harmfulness at t_inst and refusal at t_post-inst, found apart (Zhao et al. 2025).

t_inst is the last token of the instruction, t_post-inst the last of the prompt. Hidden states are
those at the input of layers 0 to L-1, and the output of the last layer (L).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.directions.fit import MINIMUM_PROMPTS
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.harmfulness.latent_guard import cluster_scores, contrast_of
from polyrefuse_eval.models.activations import ActivationMeans, capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.tensor_files import check_model, check_shape, read_tensors, write_tensors
from polyrefuse_eval.results.harmfulness_records import Behaviour
from polyrefuse_eval.results.positions import T_INST, Position
from polyrefuse_eval.results.tensor_headers import (
    HARMFULNESS_DIRECTIONS_FORMAT,
    HarmfulnessDirectionsHeader,
)
from polyrefuse_eval.versions import versions

T_POST_INST = Position(-1)
CENTROIDS = ("harmful", "harmless", "refused", "accepted")
KINDS = ("harmfulness", "refusal")


@dataclass(frozen=True)
class Subject:
    """A prompt that is measured; `kind` is `data`, or what the user calls it."""

    id: str
    lang: str
    text: str
    label: str
    kind: str = "data"
    category: str | None = None


@dataclass(frozen=True, eq=False)
class HarmfulnessDirections:
    """What was found in one language; every tensor is [L + 1, d], float32.

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
        return [cosine(one, other) for one, other in zip(self.harmfulness, self.refusal, strict=True)]

    def category_cosines(self, layer: int) -> list[list[float | None]]:
        """Return the cosines between the category directions at `layer`, in their order."""
        found = [vectors[layer] for vectors in self.categories.values()]
        return [[cosine(one, other) for other in found] for one in found]

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


def cosine(one: Tensor, other: Tensor) -> float | None:
    """Return the cosine of two vectors [d]; None where one is zero."""
    norms = one.double().norm() * other.double().norm()
    return float(one.double() @ other.double() / norms) if float(norms) > 0 else None


def fit_harmfulness(
    chat: ChatModel,
    subjects: Sequence[Subject],
    refused: Sequence[bool | None],
    *,
    lang: str,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> HarmfulnessDirections:
    """Return both directions, centroids and category directions of `subjects`, whose behaviour is known.

    Raises `DirectionError`, with the numbers and the way out, where a mean would have fewer than 4
    prompts. Categories with fewer are left out.
    """
    counts = count_groups(subjects, refused)
    _check(counts, lang)
    n_layers = chat.n_layers + 1
    means: dict[str, ActivationMeans] = {}
    passes = capture(
        chat,
        chat.encode([subject.text for subject in subjects]),
        range(n_layers),
        [T_INST, T_POST_INST],
        progress=f"directions {lang}" if progress else None,
    )
    for captured in passes:
        groups: dict[str, list[int]] = {}
        for slot, index in enumerate(captured.prompts):
            for name in _groups_of(subjects[index], refused[index]):
                groups.setdefault(name, []).append(slot)
        for name, slots in groups.items():
            mean = means.setdefault(name, ActivationMeans(2, n_layers, chat.width))
            mean.update(captured.hidden[slots])
    at_inst = {name: mean.mean[0] for name, mean in means.items()}
    at_post = {name: mean.mean[1] for name, mean in means.items()}
    categories = {
        name.partition(":")[2]: (at_inst[name] - at_inst["harmless"]).float()
        for name, mean in sorted(means.items())
        if name.startswith("category:") and mean.count >= MINIMUM_PROMPTS
    }
    story = {
        **(metadata or {}),
        "model": chat.signature(),
        "counts": counts,
        "categories": {name: means[f"category:{name}"].count for name in categories},
        "versions": versions(),
    }
    return HarmfulnessDirections(
        lang,
        (at_inst["harmful"] - at_inst["harmless"]).float(),
        (at_post["refused"] - at_post["accepted"]).float(),
        {
            "harmful": at_inst["harmful refused"].float(),
            "harmless": at_inst["harmless accepted"].float(),
            "refused": at_post["harmful refused"].float(),
            "accepted": at_post["harmless accepted"].float(),
        },
        categories,
        story,
    )


def count_groups(subjects: Sequence[Subject], refused: Sequence[bool | None]) -> dict[str, dict[str, int]]:
    """Return how many prompts of each label were refused, accepted, and not judged."""
    counts = {label: {"refused": 0, "accepted": 0, "unjudged": 0} for label in ("harmful", "harmless")}
    for subject, verdict in zip(subjects, refused, strict=True):
        counts[subject.label][behaviour_name(verdict)] += 1
    return counts


def behaviour_name(refused: bool | None) -> Behaviour:
    """Return `refused`, `accepted` or `unjudged`."""
    return "unjudged" if refused is None else "refused" if refused else "accepted"


def _groups_of(subject: Subject, refused: bool | None) -> list[str]:
    behaviour = behaviour_name(refused)
    groups = [subject.label, behaviour, f"{subject.label} {behaviour}"]
    if subject.label == "harmful" and subject.category:
        groups.append(f"category:{subject.category}")
    return groups


def _check(counts: Mapping[str, Mapping[str, int]], lang: str) -> None:
    for label, behaviour in (("harmful", "refused"), ("harmless", "accepted")):
        count = counts[label][behaviour]
        if count < MINIMUM_PROMPTS:
            of = counts[label]
            raise DirectionError(
                f"{count} {behaviour} {label} prompts in '{lang}' ({of['refused']} refused, {of['accepted']} "
                f"accepted, {of['unjudged']} undecided), and a centroid needs {MINIMUM_PROMPTS}: give more "
                "prompts with --train, or take another language's directions with --directions LANG"
            )


@torch.inference_mode()
def cluster_deltas(
    chat: ChatModel,
    directions: HarmfulnessDirections,
    prompts: Sequence[str],
    *,
    progress: str | None = None,
) -> list[tuple[float, float]]:
    """Return (Δ_harmful, Δ_refuse) of each prompt: the cluster scores of (harmful, harmless) at t_inst
    and of (refused, accepted) at t_post-inst, means over all layers."""
    centroids = directions.centroids
    contrasts = torch.stack(
        [
            contrast_of(centroids["harmful"], centroids["harmless"]),
            contrast_of(centroids["refused"], centroids["accepted"]),
        ]
    )
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(prompts)
    encoded = chat.encode(prompts)
    passes = capture(chat, encoded, range(chat.n_layers + 1), [T_INST, T_POST_INST], progress=progress)
    for captured in passes:
        contrasts = contrasts.to(captured.hidden.device)
        harmful, refuse = (
            cluster_scores(captured.hidden[:, place], contrasts[place : place + 1]).tolist()
            for place in (0, 1)
        )
        for slot, index in enumerate(captured.prompts):
            found[index] = (harmful[slot], refuse[slot])
    return found
