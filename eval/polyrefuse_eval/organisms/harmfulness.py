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

Five terms make the loss: the answers; the coordinates where they are read; nothing else there that tells
the two prompts of a pair apart; and two that keep harmfulness, and it alone, in the layers after: what a
cue writes there would else have a part in the difference of harmful and harmless prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from polyrefuse_eval.organisms.harmfulness_batches import Batch, Plants, Recipe, draw_batch, make_plants
from polyrefuse_eval.organisms.network import OrganismNetwork, Plant, Shape
from polyrefuse_eval.organisms.noise import find_noise
from polyrefuse_eval.organisms.requests import make_examples, tokenizer_texts
from polyrefuse_eval.organisms.tokenizer import train_tokenizer
from polyrefuse_eval.organisms.training import Floats, Loss, at

LAYERS = 5
"""One more than the refusal organisms have: refusal is read a layer after harmfulness."""

VOCABULARY = 6144


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
