"""Cluster scores of instructions at t_inst and t_post-inst (Zhao et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from polyrefuse_data.core.statistics import auroc
from polyrefuse_eval.harmfulness.directions import T_POST_INST, HarmfulnessDirections, behaviour_name
from polyrefuse_eval.harmfulness.instructions import Instruction
from polyrefuse_eval.harmfulness.latent_guard import cluster_scores, contrast_of
from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.harmfulness_records import Point, ScoreName
from polyrefuse_eval.results.positions import T_INST


def cluster_scatter(
    chat: ChatModel,
    directions: HarmfulnessDirections,
    instructions: Sequence[Instruction],
    refused: Sequence[bool | None],
    *,
    progress: str | None = None,
) -> list[Point]:
    """Return the cluster scores of `instructions`, whose behaviour is known, as points of a plot."""
    texts = [instruction.text for instruction in instructions]
    deltas = cluster_deltas(chat, directions, texts, progress=progress)
    return [
        Point(
            id=instruction.id,
            label=instruction.label,
            kind=instruction.kind,
            category=instruction.category,
            behaviour=behaviour_name(verdict),
            harmful=round(harmful, 6),
            refuse=round(refuse, 6),
        )
        for instruction, verdict, (harmful, refuse) in zip(instructions, refused, deltas, strict=True)
    ]


@torch.inference_mode()
def cluster_deltas(
    chat: ChatModel,
    directions: HarmfulnessDirections,
    prompts: Sequence[str],
    *,
    progress: str | None = None,
) -> list[tuple[float, float]]:
    """Return (Δ_harmful, Δ_refuse) of each prompt, means over all layers.

    They are the cluster scores of (harmful, harmless) at t_inst and of (refused, accepted) at t_post-inst.
    """
    centroids = directions.centroids
    contrasts = torch.stack(
        [
            contrast_of(centroids["harmful"], centroids["harmless"]),
            contrast_of(centroids["refused"], centroids["accepted"]),
        ]
    )
    deltas: list[tuple[float, float]] = [(0.0, 0.0)] * len(prompts)
    encoded = chat.encode(prompts)
    passes = capture(chat, encoded, range(chat.n_layers + 1), [T_INST, T_POST_INST], progress=progress)
    for captured in passes:
        contrasts = contrasts.to(captured.hidden.device)
        harmful, refuse = (
            cluster_scores(captured.hidden[:, place], contrasts[place : place + 1]).tolist()
            for place in (0, 1)
        )
        for slot, index in enumerate(captured.prompts):
            deltas[index] = (harmful[slot], refuse[slot])
    return deltas


def aurocs(scatter: Sequence[Point]) -> dict[ScoreName, float | None]:
    """Return how well each cluster score tells harmful from harmless, and refused from accepted."""

    def area(score: str, name: str, positive: str, negative: str) -> float | None:
        scores = [
            [getattr(point, score) for point in scatter if getattr(point, name) == value]
            for value in (positive, negative)
        ]
        return auroc(*scores)

    return {
        "harmful by label": area("harmful", "label", "harmful", "harmless"),
        "harmful by behaviour": area("harmful", "behaviour", "refused", "accepted"),
        "refuse by label": area("refuse", "label", "harmful", "harmless"),
        "refuse by behaviour": area("refuse", "behaviour", "refused", "accepted"),
    }
