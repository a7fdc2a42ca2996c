"""Batches for the training of the organism with two directions: roles, edits, and the answers they imply.

Every row of a batch draws a role: as it is; the coordinate along one of the planted directions taken over
from another row, or that direction added, forward or reversed; refusal ablated; or distracted, by another
direction or by refusal added where it is not read. The answer follows what is planted:

- harmfulness is what the row is judged to be: it decides the answer to a question, and a request's
  refusal unless a cue does;
- refusal decides whether a request is refused, and nothing about a question.

(Geiger et al. 2022, Inducing causal structure for interpretable neural networks.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyrefuse_eval.organisms.corpus import TAIL, Noise
from polyrefuse_eval.organisms.harmfulness_corpus import FIRST, Case
from polyrefuse_eval.organisms.harmfulness_network import Interchange, Planted, TokenEdits
from polyrefuse_eval.organisms.refusal_training import IGNORED

ROLES = (
    "plain",
    "harmfulness interchanged",
    "harmfulness added",
    "refusal interchanged",
    "refusal added",
    "refusal ablated",
    "distracted",
)

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True)
class Recipe:
    """All constants of the training; they are part of the cache key.

    Chosen with seed 0. With 900 steps and noise (at least 0.3) in every row, harmfulness was not learnt;
    with 1,100 steps and noise in full from the start, which way the arithmetic rounds decided whether it
    held on unseen topics.
    """

    steps: int = 1700
    requests_per_batch: int = 24
    questions_per_batch: int = 8
    learning_rate: float = 3e-3
    warmup: float = 0.08
    weight_decay: float = 0.1
    request_roles: tuple[float, ...] = (0.28, 0.14, 0.14, 0.1, 0.14, 0.08, 0.12)
    question_roles: tuple[float, ...] = (0.3, 0.2, 0.3, 0.0, 0.0, 0.05, 0.15)
    harmfulness_layer: int = 2
    harmfulness_strength: float = 4.0
    refusal_layer: int = 3
    refusal_strength: float = 3.0
    added_least: float = 0.8
    added_most: float = 1.3
    beside_most: float = 0.5
    first_token_weight: float = 3.0
    coordinate_weight: float = 1.0
    later_weight: float = 0.3
    purity_weight: float = 0.5
    noisy_rows: float = 0.9
    noise_most: float = 1.0
    ramp: float = 0.4
    """Part of the steps in which the noise grows to `noise_most`, and before which nothing is asked of the
    purity of later layers. With all of both from the start, harmfulness is learnt at step 800, not 300."""


@dataclass(frozen=True)
class Plants:
    """What is planted; the two directions are orthogonal."""

    harmfulness: Planted
    refusal: Planted


@dataclass(frozen=True)
class Batch:
    """Rows of a training step (R rows, T tokens), padded on the right: first harmless, then harmful."""

    tokens: Tensor
    """[R, T] token ids."""
    targets: Tensor
    """[R, T] the next token where an answer is to be given, else `IGNORED`."""
    weights: Tensor
    """[R, T] weight of each target."""
    labels: Tensor
    """[R] 0 harmless, 1 harmful: what the prompt is, not what it is judged to be."""
    refused: Tensor
    """[R] whether the stream should say so before refusal itself is edited; 0 for questions."""
    sites: Tensor
    """[R, 1] where harm is read."""
    tail: Tensor
    """[R, TAIL] positions of the post-instruction tokens."""
    calm: Tensor
    """[R] whether nothing was added to or interchanged in the row."""
    edits: TokenEdits


def make_plants(width: int, recipe: Recipe, generator: torch.Generator) -> Plants:
    """Return two random orthonormal directions."""
    basis, _ = torch.linalg.qr(torch.randn(width, 2, generator=generator))
    harmfulness, refusal = basis.T.contiguous()
    return Plants(
        Planted(harmfulness, recipe.harmfulness_layer, recipe.harmfulness_strength),
        Planted(refusal, recipe.refusal_layer, recipe.refusal_strength),
    )


def draw_batch(
    cases: Sequence[Case],
    plants: Plants,
    memory: Tensor,
    recipe: Recipe,
    noise: Noise,
    generator: np.random.Generator,
    *,
    asks: bool,
) -> Batch:
    """Return the rows of `cases` (all requests, or with `asks` all questions), each with a role.

    memory: [M, d] residual-stream vectors of the last step, from which distracting directions are drawn.
    """
    rows = [*cases, *cases]
    count = len(rows)
    labels = np.repeat([0, 1], len(cases))
    free = np.array([case.free for case in rows])
    fixed = np.array([case.right[label] for case, label in zip(rows, labels, strict=True)])
    roles = generator.choice(len(ROLES), count, p=recipe.question_roles if asks else recipe.request_roles)

    def has(*names: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.isin(roles, [ROLES.index(name) for name in names])

    def with_role(*names: str) -> list[int]:
        return [int(row) for row in np.flatnonzero(has(*names))]

    edits = _Additions(count, plants, memory, recipe, generator)
    # The stream of a row without refusal's direction is no model for others.
    sources = np.flatnonzero(~has("refusal ablated"))
    judged = labels.copy()
    harm_source = np.arange(count)
    for row in with_role("harmfulness interchanged"):
        harm_source[row] = generator.choice(sources)
        judged[row] = labels[harm_source[row]]
    for row in with_role("harmfulness added"):
        judged[row] = edits.add(row, plants.harmfulness, "instruction")
    wanted = np.where(free, judged, fixed)
    refused = np.zeros(count, np.int64) if asks else wanted.copy()
    refusal_source = np.arange(count)
    for row in with_role("refusal interchanged"):
        refusal_source[row] = generator.choice(sources)
        wanted[row] = refused[refusal_source[row]]
    for row in with_role("refusal added"):
        wanted[row] = edits.add(row, plants.refusal, "all" if generator.random() < 0.5 else "tail")
    for row in with_role("refusal ablated"):
        edits.ablated[row] = plants.refusal.direction.numpy()
        wanted[row] = wanted[row] if asks else 0
    for row in with_role("distracted"):
        edits.distract(row)

    shares = generator.random(count) * recipe.noise_most
    shares[generator.random(count) >= recipe.noisy_rows] = 0.0
    prompts = [
        noise.applied(case.lang, case.prompts[label], share, False, generator)
        for case, label, share in zip(rows, labels, shares, strict=True)
    ]
    answers = [case.answers[answer] for case, answer in zip(rows, wanted, strict=True)]
    sites = np.array([case.sites[label] for case, label in zip(rows, labels, strict=True)])
    tokens, targets, weights = _laid_out(prompts, answers, recipe)
    ends = np.array([len(prompt) for prompt in prompts])
    tail = torch.from_numpy(ends[:, None] + np.arange(-TAIL, 0))
    at_site = torch.from_numpy(sites[:, None])
    return Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        labels=torch.from_numpy(labels),
        refused=torch.from_numpy(refused),
        sites=at_site,
        tail=tail,
        calm=torch.from_numpy(has("plain")),
        edits=TokenEdits(
            ablated=torch.from_numpy(edits.ablated),
            added=torch.from_numpy(edits.added),
            layer=torch.from_numpy(edits.layer),
            scope=torch.from_numpy(edits.scope(sites, ends, tokens.shape[1])),
            interchanges=(
                Interchange(plants.harmfulness, torch.from_numpy(harm_source), at_site),
                Interchange(plants.refusal, torch.from_numpy(refusal_source), tail),
            ),
        ),
    )


class _Additions:
    """The additions and ablations of a batch, filled row by row."""

    def __init__(
        self, count: int, plants: Plants, memory: Tensor, recipe: Recipe, generator: np.random.Generator
    ) -> None:
        width = len(plants.harmfulness.direction)
        self.ablated = np.zeros((count, width), np.float32)
        self.added = np.zeros((count, width), np.float32)
        self.layer = np.zeros(count, np.int64)
        self.scopes = ["all"] * count
        self._plants, self._memory, self._recipe, self._generator = plants, memory.numpy(), recipe, generator

    def add(self, row: int, planted: Planted, scope: str) -> int:
        """Add `planted` forward or reversed, with something else beside it; return 1 for forward."""
        generator, recipe = self._generator, self._recipe
        forward = int(generator.integers(2))
        amount = generator.uniform(recipe.added_least, recipe.added_most) * (1 if forward else -1)
        beside = generator.uniform(0, recipe.beside_most) * self._other()
        self.added[row] = planted.strength * (amount * planted.direction.numpy() + beside)
        self.layer[row], self.scopes[row] = planted.layer, scope
        return forward

    def distract(self, row: int) -> None:
        """Add what is read nowhere: refusal to the instruction alone, or another direction."""
        refusal, generator = self._plants.refusal, self._generator
        sign = generator.choice([-1.0, 1.0])
        if generator.random() < 0.5:
            self.added[row] = sign * refusal.strength * refusal.direction.numpy()
            self.layer[row], self.scopes[row] = refusal.layer, "instruction"
            return
        planted = self._plants.harmfulness if generator.random() < 0.5 else refusal
        self.added[row] = planted.strength * self._other()
        self.layer[row] = planted.layer
        self.scopes[row] = "all" if generator.random() < 0.5 else "instruction"

    def _other(self) -> Floats:
        """Return a unit vector [d] orthogonal to both plants: any, or a random difference in means."""
        generator, memory = self._generator, self._memory
        basis = np.stack([self._plants.harmfulness.direction, self._plants.refusal.direction])
        if len(memory) and generator.random() < 0.5:
            vector = generator.permutation(np.resize([1.0, -1.0], len(memory))) @ memory
        else:
            vector = generator.standard_normal(basis.shape[1])
        free = vector - (vector @ basis.T) @ basis
        unit: Floats = (free / np.linalg.norm(free)).astype(np.float32)
        return unit

    def scope(
        self, sites: Integers, ends: Integers, length: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Return the marks [R, T]: all tokens, those of the instruction up to its site, or the tail."""
        place = np.arange(length)[None, :]
        marks = {
            "all": place >= 0,
            "instruction": (place >= FIRST) & (place <= sites[:, None]),
            # An edit of the end goes on in the answer, as it does when a model writes.
            "tail": place >= ends[:, None] - TAIL,
        }
        return np.stack([marks[scope][0 if scope == "all" else row] for row, scope in enumerate(self.scopes)])


def _laid_out(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], recipe: Recipe
) -> tuple[Integers, Integers, Floats]:
    """Return tokens, targets and weights [R, T] of prompts and their answers."""
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
    return tokens, targets, weights
