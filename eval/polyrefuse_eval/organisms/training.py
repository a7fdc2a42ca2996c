"""Interchange-intervention training: one loop over the planted directions of an organism.

An objective draws the batches of each step. Each row of a batch has a role: plain, or edited along a planted
direction (ablated, added, its coordinate interchanged with another row's), or distracted by an edit that
should change nothing; and the answer that follows from it. Further loss terms shape the stream where a
direction is read. (Geiger et al. 2022, Inducing causal structure for interpretable neural networks.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from polyrefuse_eval.organisms.corpus import BEGIN_TOKENS, TAIL, EncodedExample
from polyrefuse_eval.organisms.network import Edits, Interchange, OrganismNetwork, Plant
from polyrefuse_eval.organisms.noise import Noise

IGNORED = -100

Floats = np.ndarray[tuple[int, ...], np.dtype[np.floating[Any]]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Marks = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The constants of the training that all organisms share; they are part of the cache key."""

    steps: int
    learning_rate: float = 3e-3
    warmup: float = 0.08
    """Part of the steps in which the learning rate grows."""
    weight_decay: float = 0.1
    added_least: float = 0.8
    added_most: float = 1.3
    """Bounds of an addition, in units of a plant's strength."""
    first_token_weight: float = 3.0
    """Weight of an answer's first token in the loss; 1 for the others."""
    coordinate_weight: float = 1.0
    purity_weight: float = 1.0
    noisy_rows: float = 0.9
    """Part of the rows with noise, each in a share of its loose tokens up to `noise_most`."""
    noise_most: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Prompts and answers of a training step (R rows, T tokens), padded on the right.

    The first half are harmless prompts, the second the harmful ones of the same pairs.
    """

    tokens: Tensor
    """[R, T] token ids."""
    targets: Tensor
    """[R, T] the next token where an answer is to be given, else `IGNORED`."""
    weights: Tensor
    """[R, T] weight of each target."""
    tail: Tensor
    """[R, TAIL] positions of the post-instruction tokens."""


class RowEdits:
    """The ablations and additions of a batch (R rows), filled row by row."""

    def __init__(self, count: int, width: int) -> None:
        self.ablated: Floats = np.zeros((count, width), np.float32)
        self.added: Floats = np.zeros((count, width), np.float32)
        self.layer: Integers = np.zeros(count, np.int64)
        self._scopes = ["all"] * count

    def add(self, row: int, vector: Floats, layer: int, scope: str = "all") -> None:
        """Add `vector` [d] to a row at the input of `layer`, at the tokens of `scope`.

        scope: `all`, `instruction` (up to the row's site), or `tail` (the post-instruction tokens and, as
        when a model writes, the answer).
        """
        self.added[row], self.layer[row], self._scopes[row] = vector, layer, scope

    def edits(self, rows: Rows, sites: Tensor, interchanges: Sequence[Interchange]) -> Edits:
        """Return the edits of `rows`, with `interchanges`; `sites` [R, 1] end the instructions."""
        place = torch.arange(rows.tokens.shape[1])[None, :]
        marks = {
            "all": torch.ones_like(rows.tokens, dtype=torch.bool),
            "instruction": (place >= BEGIN_TOKENS) & (place <= sites),
            "tail": place >= rows.tail[:, :1],
        }
        return Edits(
            ablated=torch.from_numpy(self.ablated),
            added=torch.from_numpy(self.added),
            layer=torch.from_numpy(self.layer),
            scope=torch.stack([marks[scope][row] for row, scope in enumerate(self._scopes)]),
            interchanges=tuple(interchanges),
        )


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, and its terms (scalars) by name."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective(Protocol):
    """What an organism is trained for."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def plants(self) -> Sequence[Plant]: ...
    def losses(self, network: OrganismNetwork, step: int) -> Iterator[Loss]:
        """Yield the loss of each batch of `step`; the gradient of one is taken before the next is drawn."""
        ...


def train(
    network: OrganismNetwork,
    objective: Objective,
    *,
    progress: bool = True,
    trace: list[dict[str, float]] | None = None,
) -> None:
    """Train `network` for `objective`; append the loss terms of each step to `trace`.

    The caller fixes the number of threads: the same seed and thread count give the same bits.
    """
    recipe = objective.recipe
    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    gains = [weight for weight in network.parameters() if weight.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    bar = tqdm(range(recipe.steps), desc="training the test organism", disable=None if progress else True)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimiser.zero_grad(set_to_none=True)
        report: dict[str, float] = {}
        for loss in objective.losses(network, step):
            torch.autograd.backward(loss.total)
            report |= {name: float(term.detach()) for name, term in loss.terms.items()}
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            bar.set_postfix({name: f"{value:.3f}" for name, value in report.items()})
        if trace is not None:
            trace.append(report)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of `step`: linear warm-up, then a half cosine down to zero."""
    warm = max(1, int(recipe.warmup * recipe.steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, recipe.steps - warm)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def noisy_prompts(
    rows: Sequence[EncodedExample],
    labels: Integers,
    noise: Noise,
    most: float,
    recipe: Recipe,
    generator: np.random.Generator,
) -> list[list[int]]:
    """Return the prompt of each row with noise in up to `most` of its loose tokens."""
    shares = generator.random(len(rows)) * most
    shares[generator.random(len(rows)) >= recipe.noisy_rows] = 0.0
    return [
        noise.applied(row.lang, row.prompts[label], share, generator)
        for row, label, share in zip(rows, labels, shares, strict=True)
    ]


def lay_out(prompts: Sequence[list[int]], answers: Sequence[list[int]], recipe: Recipe) -> Rows:
    """Return prompts and their answers as padded tensors."""
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)) - 1
    tokens = np.zeros((len(prompts), longest), np.int64)
    targets = np.full((len(prompts), longest), IGNORED, np.int64)
    weights = np.zeros((len(prompts), longest), np.float32)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        start, stop = len(prompt) - 1, len(prompt) + len(answer) - 1
        tokens[row, :stop] = [*prompt, *answer][:-1]
        targets[row, start:stop] = answer
        weights[row, start:stop] = 1.0
        weights[row, start] = recipe.first_token_weight
    ends = np.array([len(prompt) for prompt in prompts])
    return Rows(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        tail=torch.from_numpy(ends[:, None] + np.arange(-TAIL, 0)),
    )


def forward_and_answer_loss(
    network: OrganismNetwork, rows: Rows, edits: Edits, keep: Sequence[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return the weighted cross-entropy of the answers, and the inputs [R, T, d] of the layers in `keep`."""
    asked = rows.targets != IGNORED
    stream, kept = network(rows.tokens, edits, keep=keep, read=asked)
    each = functional.cross_entropy(network.logits(stream), rows.targets[asked], reduction="none")
    weights = rows.weights[asked]
    return (each * weights).sum() / weights.sum(), kept


def at(stream: Tensor, positions: Tensor) -> Tensor:
    """Return the stream [R, P, d] at `positions` [R, P] of [R, T, d]."""
    return stream[torch.arange(len(positions))[:, None], positions]


def difference_in_random_means(memory: Floats, generator: np.random.Generator) -> Floats:
    """Return the difference [d] of two sums over random halves of `memory` [M, d].

    It points where activations vary, as a direction from shuffled labels does.
    """
    signs = generator.permutation(np.resize([1.0, -1.0], len(memory)))
    difference: Floats = signs @ memory
    return difference


def orthogonal_unit(vector: Floats, basis: Floats) -> Floats:
    """Return the unit vector [d] along what `vector` [d] has beside the orthonormal `basis` [n, d]."""
    free = vector - (vector @ basis.T) @ basis
    unit: Floats = (free / np.linalg.norm(free)).astype(np.float32)
    return unit
