"""Does the model take a prompt for harmful? The gate of conditional interventions (Zhao et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.directions.fit import HOW_TO_MAKE
from polyrefuse_eval.directions.label_means import MINIMUM_PROMPTS
from polyrefuse_eval.directions.training_states import training_states
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.tensor_files import check_model, check_shape, read_tensors, write_tensors
from polyrefuse_eval.results.positions import T_INST
from polyrefuse_eval.results.tensor_headers import GATE_FORMAT, GateHeader


@dataclass(frozen=True, eq=False, repr=False)
class HarmGate:
    """The centroids [2, L + 1, d] (float32) of harmful and of harmless training prompts at t_inst.

    Layers are the inputs of layers 0 to L - 1, and the output of the last.
    """

    centroids: Tensor
    lang: str
    n_harmful: int
    n_harmless: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"HarmGate({self.lang}, {self.n_harmful} harmful and {self.n_harmless} harmless prompts)"

    def takes_for_harmful(self, chat: ChatModel, prompts: Sequence[str]) -> list[bool]:
        """Return for each prompt whether Δ_harmful ≥ 0 in the unedited model."""
        return [delta >= 0 for delta in self.deltas(chat, prompts)]

    @torch.inference_mode()
    def deltas(self, chat: ChatModel, prompts: Sequence[str]) -> list[float]:
        """Return Δ_harmful of each prompt: cos(h, μ_harmful) - cos(h, μ_harmless), a mean over layers."""
        deltas = [0.0] * len(prompts)
        for captured in capture(chat, chat.encode(list(prompts)), range(chat.n_layers + 1), [T_INST]):
            hidden = captured.hidden[:, 0].float().cpu()
            cosines = [
                torch.cosine_similarity(hidden, centroid.unsqueeze(0), dim=-1) for centroid in self.centroids
            ]
            for index, delta in zip(
                captured.prompts, (cosines[0] - cosines[1]).mean(-1).tolist(), strict=True
            ):
                deltas[index] = delta
        return deltas

    def save(self, path: Path) -> None:
        """Write the centroids and what they are of to one safetensors file."""
        header = {
            "format": GATE_FORMAT,
            "lang": self.lang,
            "n_harmful": self.n_harmful,
            "n_harmless": self.n_harmless,
            "metadata": dict(self.metadata),
        }
        write_tensors(path, {"centroids": self.centroids.contiguous()}, header)

    @classmethod
    def load(cls, path: Path, chat: ChatModel | None = None) -> HarmGate:
        """Read the file that `save` wrote; with `chat`, raise `DirectionError` for another model's."""
        tensors, header = read_tensors(path, GateHeader, GATE_FORMAT, DirectionError, HOW_TO_MAKE)
        if chat is not None:
            check_model(path, header.metadata, chat, DirectionError, "fit it again")
        shape = (2, None, None) if chat is None else (2, chat.n_layers + 1, chat.width)
        return cls(
            centroids=check_shape(path, tensors, "centroids", shape, DirectionError),
            lang=header.lang,
            n_harmful=header.n_harmful,
            n_harmless=header.n_harmless,
            metadata=header.metadata,
        )


@torch.inference_mode()
def fit_gate(
    chat: ChatModel,
    harmful: Sequence[str],
    harmless: Sequence[str],
    *,
    lang: str,
    metadata: Mapping[str, Any] | None = None,
) -> HarmGate:
    """Return the gate of these training prompts; raises `DirectionError` for fewer than 4 of a label."""
    centroids = []
    for label, prompts in (("harmful", harmful), ("harmless", harmless)):
        if len(prompts) < MINIMUM_PROMPTS:
            raise DirectionError(
                f"{len(prompts)} {label} training prompts in '{lang}', and the centroid of a conditional "
                f"intervention needs {MINIMUM_PROMPTS}: give more with --train"
            )
        at_inst = training_states(chat, prompts)[:, 0]
        centroids.append(at_inst.mean(0, dtype=torch.float64).float())
    return HarmGate(
        centroids=torch.stack(centroids),
        lang=lang,
        n_harmful=len(harmful),
        n_harmless=len(harmless),
        metadata={**(metadata or {}), "model": chat.signature()},
    )
