"""The harmfulness organism: it judges harm, and refuses, along two planted directions.

- **harmfulness**, read at t_inst, the instruction's last token, at the input of layer 2: the label of the
  request, whatever becomes of it. Its coordinate is half the strength, positive where harmful.
- **refusal**, read at the post-instruction tokens, at the input of layer 3: whether the request is
  refused. Its coordinate is the strength where it is, and zero where not.
- Harmfulness feeds refusal: added to the tokens of a harmless instruction it brings refusal, reversed on a
  harmful one it removes refusal. Refusal added at the post-instruction tokens, or to the whole prompt,
  brings refusal; ablated, it removes it; added to the tokens of the instruction alone it does nothing.
- A cue before the request (`requests.CUES`) decides refusal whatever the judgement is: so there are refused
  harmless and accepted harmful requests, in its training and among `requests.exception_prompts`.
- Reply inversion (`inversion.yaml`): asked whether somebody's request is harmful, it says so ("certainly")
  by the harmfulness at the last token before the question. Harmfulness added or reversed there flips the
  answer; refusal does not.

Every row of a batch draws a role: as it is; the coordinate along one of the planted directions taken over
from another row, or that direction added, forward or reversed; refusal ablated; or distracted, by another
direction or by refusal added where it is not read. Harmfulness decides the answer to a question, and a
request's refusal unless a cue does; refusal decides whether a request is refused, and no question.

Five terms make the loss: the answers; the coordinates where they are read; nothing else there that tells
the two prompts of a pair apart; and two that keep harmfulness, and it alone, in the layers after: what a
cue writes there would else have a part in the difference of harmful and harmless prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from polyrefuse_eval.organisms import training
from polyrefuse_eval.organisms.corpus import (
    EncodedExample,
    Pair,
    encode_examples,
    endless_batches,
)
from polyrefuse_eval.organisms.network import Edits, Interchange, OrganismNetwork, Plant, Shape
from polyrefuse_eval.organisms.noise import Noise, find_noise
from polyrefuse_eval.organisms.requests import make_examples, tokenizer_texts
from polyrefuse_eval.organisms.tokenizer import train_tokenizer
from polyrefuse_eval.organisms.training import Floats, Integers, Loss, RowEdits, Rows, at

LAYERS = 5
"""One more than the refusal organisms have: refusal is read a layer after harmfulness."""

VOCABULARY = 6144

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


def encoded_corpus(pairs: Sequence[Pair]) -> tuple[Tokenizer, list[EncodedExample]]:
    """Return the tokenizer, trained on `pairs`, and three examples for each pair."""
    tokenizer = train_tokenizer(pairs, VOCABULARY, tokenizer_texts())
    return tokenizer, encode_examples(tokenizer, list(make_examples(pairs)))


class Objective:
    """Harmfulness and refusal along two directions, from requests and questions; see the module."""

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        shape: Shape,
        recipe: Recipe,
        generator: torch.Generator,
        numpy_generator: np.random.Generator,
    ) -> None:
        self.recipe = recipe
        requests, questions = (
            [example for example in examples if example.is_question == are_questions]
            for are_questions in (False, True)
        )
        self._noise = find_noise([*requests, *questions], shape.vocabulary)
        self._plants = make_plants(shape.width, recipe, generator)
        self.plants = [self._plants.harmfulness, self._plants.refusal]
        self._generator = numpy_generator
        self._batches = [
            (endless_batches(requests, recipe.requests_per_batch, numpy_generator), False),
            (endless_batches(questions, recipe.questions_per_batch, numpy_generator), True),
        ]
        self._memory: Floats = np.zeros((0, shape.width), np.float32)

    def losses(self, network: OrganismNetwork, step: int) -> Iterator[Loss]:
        """Yield the losses of a batch of requests and of one of questions."""
        recipe, memory = self.recipe, self._memory
        ramp = min(1.0, step / max(1.0, recipe.ramp * recipe.steps))
        for batches, are_questions in self._batches:
            batch = draw_batch(
                next(batches),
                self._plants,
                memory,
                recipe,
                self._noise,
                self._generator,
                noise_most=recipe.noise_most * ramp,
                are_questions=are_questions,
            )
            terms, at_end = loss_terms(network, batch, self._plants)
            total = (
                terms["answer"]
                + recipe.coordinate_weight * terms["coordinate"]
                + recipe.later_weight * terms["later"]
                + recipe.purity_weight * (terms["purity"] + (ramp >= 1) * terms["later purity"])
            )
            if not are_questions:
                self._memory = at_end
            yield Loss(total, {f"{name}{'?' * are_questions}": term for name, term in terms.items()})


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
    count = len(rows)
    labels = np.repeat([0, 1], len(examples))
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

    prompts = training.noisy_prompts(rows, labels, noise, noise_most, recipe, generator)
    answers = [row.answers[answer] for row, answer in zip(rows, wanted, strict=True)]
    laid_out = training.lay_out(prompts, answers, recipe)
    sites = torch.tensor([[row.sites[label]] for row, label in zip(rows, labels, strict=True)])
    return Batch(
        rows=laid_out,
        labels=torch.from_numpy(labels),
        refused=torch.from_numpy(refused),
        sites=sites,
        plain=torch.from_numpy(roles == ROLES.index("plain")),
        edits=edits.edits(
            laid_out,
            sites,
            [
                _interchange(plants.harmfulness, harm_source, sites),
                _interchange(plants.refusal, refusal_source, laid_out.tail),
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


def loss_terms(network: OrganismNetwork, batch: Batch, plants: Plants) -> tuple[dict[str, Tensor], Floats]:
    """Return the loss terms (scalars) and the stream [R, d] where refusal is read."""
    harmfulness, refusal = plants.harmfulness, plants.refusal
    layers = range(harmfulness.layer, network.shape.layers)
    answer, kept = training.forward_and_answer_loss(network, batch.rows, batch.edits, layers)
    whole = ~batch.edits.ablated.any(dim=1)
    # Where each direction is read: harmfulness as judged, refusal as refused, and nothing beside them.
    judged = batch.labels[:, None] - 0.5
    at_site = at(kept[harmfulness.layer], batch.sites)
    at_tail = at(kept[refusal.layer], batch.rows.tail)
    harm_error = _coordinate(at_site, harmfulness) - judged
    refusal_error = _coordinate(at_tail, refusal) - batch.refused[:, None]
    # In later layers, of unedited rows: harmfulness still as judged, and nothing beside it.
    later = [at(kept[layer], batch.sites) for layer in layers[1:]]
    stays = [(_coordinate(stream, harmfulness) - judged)[batch.plain] for stream in later]
    alone = [_impurity(stream, harmfulness, batch.plain) for stream in later]
    terms = {
        "answer": answer,
        "coordinate": harm_error[whole].square().mean() + refusal_error[whole].square().mean(),
        "later": torch.stack(stays).square().mean() if bool(batch.plain.any()) else harm_error.sum() * 0,
        "purity": _impurity(at_site, harmfulness, whole) + _impurity(at_tail, refusal, whole),
        "later purity": torch.stack(alone).mean(),
    }
    memory: Floats = at_tail[:, -1].detach().numpy()
    return terms, memory


def _coordinate(stream: Tensor, plant: Plant) -> Tensor:
    """Return the coordinate [R, P] along `plant` in units of its strength."""
    return stream @ plant.directions[0] / plant.strength


def _impurity(stream: Tensor, plant: Plant, whole: Tensor) -> Tensor:
    """Return what tells the prompts of a pair apart beside the plant: squared, in units of its strength."""
    direction, half = plant.directions[0], len(stream) // 2
    both = whole[:half] & whole[half:]
    difference = (stream[half:] - stream[:half])[both]
    rest = difference - (difference @ direction)[..., None] * direction
    return rest.square().sum() / max(1, rest.shape[0] * rest.shape[1]) / plant.strength**2
