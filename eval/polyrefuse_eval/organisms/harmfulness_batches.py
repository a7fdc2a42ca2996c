"""Batches for the harmfulness organism: roles, edits, and the answers that follow from them.

Every row of a batch draws a role: as it is; the coordinate along one of the planted directions taken over
from another row, or that direction added, forward or reversed; refusal ablated; or distracted, by another
direction or by refusal added where it is not read. Harmfulness decides the answer to a question, and a
request's refusal unless a cue does; refusal decides whether a request is refused, and no question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyrefuse_eval.organisms import training
from polyrefuse_eval.organisms.corpus import EncodedExample
from polyrefuse_eval.organisms.network import Edits, Interchange, Plant
from polyrefuse_eval.organisms.noise import Noise
from polyrefuse_eval.organisms.training import Floats, Integers, RowEdits, Rows

ROLES = (
    "plain",
    "harmfulness interchanged",
    "harmfulness added",
    "refusal interchanged",
    "refusal added",
    "refusal ablated",
    "distracted",
)


@dataclass(frozen=True, kw_only=True)
class Recipe(training.Recipe):
    """All constants of the training; they are part of the cache key.

    Chosen with seed 0. With 900 steps and noise (at least 0.3) in every row, harmfulness was not learnt;
    with 1,100 steps and noise in full from the start, which way the arithmetic rounds decided whether it
    held on unseen topics.
    """

    steps: int = 1700
    requests_per_batch: int = 24
    questions_per_batch: int = 8
    request_roles: tuple[float, ...] = (0.28, 0.14, 0.14, 0.1, 0.14, 0.08, 0.12)
    question_roles: tuple[float, ...] = (0.3, 0.2, 0.3, 0.0, 0.0, 0.05, 0.15)
    harmfulness_layer: int = 2
    harmfulness_strength: float = 4.0
    refusal_layer: int = 3
    refusal_strength: float = 3.0
    beside_most: float = 0.5
    """Most of another direction that is added beside a plant, in units of its strength."""
    later_weight: float = 0.3
    purity_weight: float = 0.5
    ramp: float = 0.4
    """Part of the steps in which the noise grows to `noise_most`, and before which nothing is asked of the
    purity of later layers. With all of both from the start, harmfulness is learnt at step 800, not 300."""


@dataclass(frozen=True, kw_only=True)
class Plants:
    """The planted directions, one each, orthogonal."""

    harmfulness: Plant
    refusal: Plant


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A training step's rows (R rows), first all harmless, then all harmful, and their edits."""

    rows: Rows
    labels: Tensor
    """[R] 0 harmless, 1 harmful: what the prompt is, not what it is judged to be."""
    refused: Tensor
    """[R] whether the stream should say so before refusal itself is edited; 0 for questions."""
    sites: Tensor
    """[R, 1] where harm is read."""
    plain: Tensor
    """[R] whether the row is unedited."""
    edits: Edits


def make_plants(width: int, recipe: Recipe, generator: torch.Generator) -> Plants:
    """Return two random orthonormal directions."""
    basis, _ = torch.linalg.qr(torch.randn(width, 2, generator=generator))
    harmfulness, refusal = basis.T.contiguous()
    return Plants(
        harmfulness=Plant(
            name="harmfulness",
            directions=harmfulness[None],
            layer=recipe.harmfulness_layer,
            strength=recipe.harmfulness_strength,
        ),
        refusal=Plant(
            name="refusal",
            directions=refusal[None],
            layer=recipe.refusal_layer,
            strength=recipe.refusal_strength,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Roles:
    """The roles of a batch, and what follows from them; indices of rows [R]."""

    edits: RowEdits
    harm_source: Integers
    refusal_source: Integers
    refused: Integers
    wanted: Integers
    """Which answer each row should give."""
    plain: Tensor


def _draw_roles(
    rows: Sequence[EncodedExample],
    labels: Integers,
    plants: Plants,
    memory: Floats,
    recipe: Recipe,
    generator: np.random.Generator,
    are_questions: bool,
) -> _Roles:
    """Draw the role of each row."""
    count = len(rows)
    by_harm = np.array([row.by_harm for row in rows])
    by_cue = np.array([row.right[label] for row, label in zip(rows, labels, strict=True)])
    weights = recipe.question_roles if are_questions else recipe.request_roles
    roles = generator.choice(len(ROLES), count, p=weights)

    def with_role(name: str) -> list[int]:
        return [int(row) for row in np.flatnonzero(roles == ROLES.index(name))]

    edits = RowEdits(count, memory.shape[1])

    def add(row: int, plant: Plant, scope: str) -> int:
        """Add `plant` forward or reversed, with another direction beside it; return 1 for forward."""
        forward = int(generator.integers(2))
        amount = generator.uniform(recipe.added_least, recipe.added_most) * (1 if forward else -1)
        beside = generator.uniform(0, recipe.beside_most) * _other(plants, memory, generator)
        edits.add(row, plant.strength * (amount * plant.directions[0].numpy() + beside), plant.layer, scope)
        return forward

    # The stream of a row without refusal's direction is no model for others.
    sources = np.flatnonzero(roles != ROLES.index("refusal ablated"))
    # Edits of harmfulness change what a row is judged to be, and so the answer where harm decides it.
    judged = labels.copy()
    harm_source = np.arange(count)
    for row in with_role("harmfulness interchanged"):
        harm_source[row] = generator.choice(sources)
        judged[row] = labels[harm_source[row]]
    for row in with_role("harmfulness added"):
        judged[row] = add(row, plants.harmfulness, "instruction")
    wanted = np.where(by_harm, judged, by_cue)
    # Edits of refusal change the answer to a request, whatever its harm.
    refused = np.zeros(count, np.int64) if are_questions else wanted.copy()
    refusal_source = np.arange(count)
    for row in with_role("refusal interchanged"):
        refusal_source[row] = generator.choice(sources)
        wanted[row] = refused[refusal_source[row]]
    for row in with_role("refusal added"):
        wanted[row] = add(row, plants.refusal, "all" if generator.random() < 0.5 else "tail")
    for row in with_role("refusal ablated"):
        edits.ablated[row] = plants.refusal.directions[0].numpy()
        wanted[row] = wanted[row] if are_questions else 0
    # Distractions change nothing.
    for row in with_role("distracted"):
        _distract(edits, row, plants, memory, generator)
    return _Roles(
        edits=edits,
        harm_source=harm_source,
        refusal_source=refusal_source,
        refused=refused,
        wanted=wanted,
        plain=torch.from_numpy(roles == ROLES.index("plain")),
    )


def draw_batch(
    examples: Sequence[EncodedExample],
    plants: Plants,
    memory: Floats,
    recipe: Recipe,
    noise: Noise,
    generator: np.random.Generator,
    *,
    noise_most: float,
    are_questions: bool,
) -> Batch:
    """Return the rows of `examples` (all requests, or all questions), each with a role of its own.

    memory: [M, d] residual-stream vectors of the last step, from which distracting directions are drawn.
    """
    rows = [*examples, *examples]
    labels = np.repeat([0, 1], len(examples))
    drawn = _draw_roles(rows, labels, plants, memory, recipe, generator, are_questions)
    prompts = training.noisy_prompts(rows, labels, noise, noise_most, recipe, generator)
    answers = [row.answers[answer] for row, answer in zip(rows, drawn.wanted, strict=True)]
    laid_out = training.lay_out(prompts, answers, recipe)
    sites = torch.tensor([[row.sites[label]] for row, label in zip(rows, labels, strict=True)])
    return Batch(
        rows=laid_out,
        labels=torch.from_numpy(labels),
        refused=torch.from_numpy(drawn.refused),
        sites=sites,
        plain=drawn.plain,
        edits=drawn.edits.edits(
            laid_out,
            sites,
            [
                _interchange(plants.harmfulness, drawn.harm_source, sites),
                _interchange(plants.refusal, drawn.refusal_source, laid_out.tail),
            ],
        ),
    )


def _interchange(plant: Plant, source: Integers, positions: Tensor) -> Interchange:
    own = plant.directions.expand(len(source), -1)
    return Interchange(own=own, layer=plant.layer, source=torch.from_numpy(source), positions=positions)


def _distract(
    edits: RowEdits, row: int, plants: Plants, memory: Floats, generator: np.random.Generator
) -> None:
    """Add to a row what is read nowhere: refusal to the instruction alone, or another direction."""
    refusal = plants.refusal
    sign = generator.choice([-1.0, 1.0])
    if generator.random() < 0.5:
        vector = sign * refusal.strength * refusal.directions[0].numpy()
        edits.add(row, vector, refusal.layer, "instruction")
        return
    plant = plants.harmfulness if generator.random() < 0.5 else refusal
    vector = plant.strength * _other(plants, memory, generator)
    edits.add(row, vector, plant.layer, "all" if generator.random() < 0.5 else "instruction")


def _other(plants: Plants, memory: Floats, generator: np.random.Generator) -> Floats:
    """Return a unit vector [d] orthogonal to both plants: any, or a random difference in means."""
    vector: Floats
    if len(memory) and generator.random() < 0.5:
        vector = training.difference_in_random_means(memory, generator)
    else:
        vector = generator.standard_normal(memory.shape[1])
    basis = torch.cat([plants.harmfulness.directions, plants.refusal.directions]).numpy()
    return training.orthogonal_unit(vector, basis)
