"""The refusal organisms: they refuse along one planted direction, or along one for each language.

Each row of a batch draws one of these roles, and the answer that follows from it:

- plain: refuse if harmful, else reply;
- ablated (the planted direction projected out everywhere): reply, whatever the prompt;
- added (the planted direction added at its layer): refuse, whatever the prompt;
- interchanged (the coordinate along it taken over from another row): as the other row's label says;
- distracted (another direction ablated or added, with at most a weak part of the plant): as plain.

All languages share the planted direction, or, with `Recipe.shared` off, each language has its own,
orthogonal to the others. A row's direction is then its language's, an interchange between languages goes
from the one's coordinate to the other's, and other languages' directions are distractions.

Three further terms shape the stream at the post-instruction tokens of the plant's layer. The coordinate
along the plant is the label times its strength. The rest of the class means agree. And the framing
stands there along other directions, with more variance than the label has, so that a difference in
means of shuffled labels points there, as it does in real models; its sign alternates between the
tokens, so that a reader of the plant at all of them is not deceived when such a direction is ablated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from polyrefuse_eval.organisms import training
from polyrefuse_eval.organisms.corpus import (
    TAIL,
    EncodedExample,
    Pair,
    direct_example,
    encode_examples,
    endless_batches,
)
from polyrefuse_eval.organisms.network import Edits, Interchange, OrganismNetwork, Plant, Shape, along
from polyrefuse_eval.organisms.noise import Noise, find_noise
from polyrefuse_eval.organisms.tokenizer import train_tokenizer
from polyrefuse_eval.organisms.training import Floats, Loss, RowEdits, Rows, orthogonal_unit

LAYERS = 4
ROLES = ("plain", "ablated", "added", "interchanged", "distracted")


@dataclass(frozen=True, kw_only=True)
class Recipe(training.Recipe):
    """All constants of the training; they are part of the cache key."""

    steps: int = 1050
    pairs_per_batch: int = 32
    role_weights: tuple[float, ...] = (0.40, 0.15, 0.15, 0.15, 0.15)
    shared: bool = True
    """One planted direction for all languages; else one for each."""
    plant_layer: int = 2
    plant_strength: float = 2.5
    context_strength: float = 12.0
    context_weight: float = 1.0
    distracted_most: float = 0.45
    foreign_share: float = 0.5
    """Part of the distractions that are another language's direction, where each has its own."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A training step's rows (R rows), first all harmless, then all harmful, and their edits."""

    rows: Rows
    labels: Tensor
    """[R] 0 harmless, 1 harmful: what the prompt is, not what the answer should be."""
    plants: Tensor
    """[R] row of the planted directions that belongs to the prompt's language."""
    own: Tensor
    """[R, d] that planted unit vector."""
    context: Tensor
    """[R, d] what the stream should carry beside the label."""
    edits: Edits


def make_plant(
    width: int, framings: int, langs: Sequence[str], recipe: Recipe, generator: torch.Generator
) -> tuple[Plant, Tensor]:
    """Return a random plant, one direction or one for each of `langs`, and the context of each framing.

    The context [framings, d] is orthogonal to the plant, with mean zero.
    """
    own = () if recipe.shared else tuple(langs)
    count = len(own) or 1
    basis, _ = torch.linalg.qr(torch.randn(width, count + framings, generator=generator))
    code = basis[:, count:].T - basis[:, count:].T.mean(dim=0)
    plant = Plant(
        name="refusal",
        directions=basis[:, :count].T.contiguous(),
        layer=recipe.plant_layer,
        strength=recipe.plant_strength,
        langs=own,
    )
    return plant, recipe.context_strength * code


def encoded_corpus(pairs: Sequence[Pair]) -> tuple[Tokenizer, list[EncodedExample]]:
    """Return the tokenizer, trained on `pairs`, and the examples: each pair as it is."""
    tokenizer = train_tokenizer(pairs)
    return tokenizer, encode_examples(tokenizer, [direct_example(pair) for pair in pairs])


class Objective:
    """Refusal along the planted direction of each language; see the module."""

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        shape: Shape,
        recipe: Recipe,
        generator: torch.Generator,
        numpy_generator: np.random.Generator,
    ) -> None:
        self.recipe = recipe
        framings = 1 + max(example.framing for example in examples)
        langs = sorted({example.lang for example in examples})
        self.plant, self.context = make_plant(shape.width, framings, langs, recipe, generator)
        self.plants = [self.plant]
        self._noise = find_noise(examples, shape.vocabulary)
        self._generator = numpy_generator
        self._batches = endless_batches(examples, recipe.pairs_per_batch, numpy_generator)
        self._memory: Floats = np.zeros((0, shape.width), np.float32)

    def losses(self, network: OrganismNetwork, step: int) -> Iterator[Loss]:
        """Yield the loss of the one batch of a step."""
        batch = draw_batch(
            next(self._batches),
            self.plant,
            self.context,
            self._memory,
            self.recipe,
            self._noise,
            self._generator,
        )
        terms, self._memory = loss_terms(network, batch, self.plant)
        total = (
            terms["answer"]
            + self.recipe.coordinate_weight * terms["coordinate"]
            + self.recipe.purity_weight * terms["purity"]
            + self.recipe.context_weight * terms["context"]
        )
        yield Loss(total, terms)


def draw_batch(
    examples: Sequence[EncodedExample],
    plant: Plant,
    context: Tensor,
    memory: Floats,
    recipe: Recipe,
    noise: Noise,
    generator: np.random.Generator,
) -> Batch:
    """Return the rows of `examples`: first all harmless, then all harmful, each with a role of its own.

    memory: [M, d] residual-stream vectors of the last step, from which distracting directions are drawn.
    """
    count = 2 * len(examples)
    rows = [*examples, *examples]
    plants = plant.rows([row.lang for row in rows])
    own = plant.directions[plants]
    directions: Floats = own.numpy()
    labels = np.repeat([0, 1], len(examples))
    roles = generator.choice(len(ROLES), count, p=recipe.role_weights)
    wanted = labels.copy()
    source = np.arange(count)
    edits = RowEdits(count, directions.shape[1])

    def amount() -> float:
        return plant.strength * generator.uniform(recipe.added_least, recipe.added_most)

    # The coordinate of an edited row is not that of its label: such rows are no sources.
    unedited = np.flatnonzero(np.isin(roles, [ROLES.index("plain"), ROLES.index("interchanged")]))
    for row, role in enumerate(roles):
        if ROLES[role] == "ablated":
            edits.ablated[row], wanted[row] = directions[row], 0
        elif ROLES[role] == "added":
            edits.add(row, amount() * directions[row], plant.layer)
            wanted[row] = 1
        elif ROLES[role] == "interchanged":
            source[row] = generator.choice(unedited)
            wanted[row] = labels[source[row]]
        elif ROLES[role] == "distracted":
            part = generator.uniform(-1, 1) * recipe.distracted_most
            other = distraction(memory, plant, context, int(plants[row]), recipe, generator)
            mixed = math.sqrt(1 - part**2) * other + part * directions[row]
            if generator.random() < 0.5:
                edits.ablated[row] = mixed
            else:
                edits.add(row, amount() * mixed, plant.layer)
    prompts = training.noisy_prompts(rows, labels, noise, recipe.noise_most, recipe, generator)
    answers = [row.answers[answer] for row, answer in zip(rows, wanted, strict=True)]
    laid_out = training.lay_out(prompts, answers, recipe)
    interchange = Interchange(
        own=own, layer=plant.layer, source=torch.from_numpy(source), positions=laid_out.tail
    )
    return Batch(
        rows=laid_out,
        labels=torch.from_numpy(labels),
        plants=plants,
        own=own,
        context=context[[row.framing for row in rows]],
        edits=edits.edits(laid_out, laid_out.tail[:, :1], [interchange]),
    )


def distraction(
    memory: Floats, plant: Plant, context: Tensor, own: int, recipe: Recipe, generator: np.random.Generator
) -> Floats:
    """Return a unit vector [d] orthogonal to the planted direction `own`: some distracting direction.

    Another language's, where each has its own; any direction, one among the framings' directions, or a
    random difference in means over `memory`.
    """
    directions: Floats = plant.directions.numpy()
    others = np.delete(directions, own, axis=0)
    if len(others) and generator.random() < recipe.foreign_share:
        foreign: Floats = others[generator.integers(len(others))]
        return foreign
    kind = generator.integers(3)
    other: Floats
    if kind == 0 or not len(memory):
        other = generator.standard_normal(directions.shape[1])
    elif kind == 1:
        other = generator.standard_normal(len(context)) @ context.numpy()
    else:
        other = training.difference_in_random_means(memory, generator)
    return orthogonal_unit(other, directions[own : own + 1])


def loss_terms(network: OrganismNetwork, batch: Batch, plant: Plant) -> tuple[dict[str, Tensor], Floats]:
    """Return the loss terms (scalars) and the stream [R, d] at the plant's layer, last position."""
    answer, kept = training.forward_and_answer_loss(network, batch.rows, batch.edits, [plant.layer])
    at_tail = training.at(kept[plant.layer], batch.rows.tail)
    whole = batch.edits.ablated.abs().sum(dim=1) == 0
    # Along the plant: the label times the strength.
    coordinate = along(at_tail, batch.own)
    label_error = (coordinate / plant.strength - batch.labels[:, None].to(coordinate.dtype))[whole]
    # Beside it: the framing's context, with alternating sign.
    others = at_tail - coordinate[..., None] * batch.own[:, None]
    signs = torch.tensor([(-1.0) ** position for position in range(TAIL)])
    context_error = (others - signs[:, None] * batch.context[:, None])[whole].square().sum(dim=-1)
    context_size = batch.context.square().sum(dim=-1).mean()
    # And no difference between the class means, for each planted direction on its own: a mean over all
    # languages would hide what points elsewhere in one.
    half = len(batch.labels) // 2
    both = whole[:half] & whole[half:]
    members = functional.one_hot(batch.plants[:half], len(plant.directions))[both].to(others.dtype)
    sizes = members.sum(dim=0)
    rest = torch.einsum("pn,ptd->ntd", members, (others[half:] - others[:half])[both])
    impurity = rest.square().sum(dim=(1, 2)) / sizes.clamp(min=1) / TAIL
    terms = {
        "answer": answer,
        "coordinate": label_error.square().mean(),
        "context": context_error.mean() / context_size,
        "purity": impurity.sum() / sizes.sum() / plant.strength**2,
    }
    memory: Floats = at_tail[:, -1].detach().numpy()
    return terms, memory
