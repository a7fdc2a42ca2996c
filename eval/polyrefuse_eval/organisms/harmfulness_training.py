"""Training of the organism with two directions: interchange-intervention training on both plants.

Five terms make the loss. The answers are those of `organism_harmfulness_batch`. Two terms shape the stream
where a direction is read: the coordinate is half the strength with the sign of the judgement
(harmfulness), or the strength where the request is refused and zero where not (refusal); and nothing else
tells the two prompts of a pair apart. Two keep harmfulness, and it alone, in the layers after: what a cue
writes there would else have a part in the difference of harmful and harmless prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from polyrefuse_eval.organisms import refusal_training as organism_train
from polyrefuse_eval.organisms.corpus import endless_batches, find_noise
from polyrefuse_eval.organisms.harmfulness_batches import Batch, Plants, Recipe, draw_batch, make_plants
from polyrefuse_eval.organisms.harmfulness_corpus import Case
from polyrefuse_eval.organisms.harmfulness_network import Planted, TokenEditedNetwork
from polyrefuse_eval.organisms.network import Shape
from polyrefuse_eval.organisms.refusal_training import IGNORED


def loss_terms(network: TokenEditedNetwork, batch: Batch, plants: Plants) -> tuple[dict[str, Tensor], Tensor]:
    """Return the loss terms (scalars) and the stream [R, d] where refusal is read."""
    layers = range(plants.harmfulness.layer, network.shape.layers)
    asked = batch.targets != IGNORED
    stream, kept = network(batch.tokens, batch.edits, keep=layers, read=asked)
    logits = network.logits(stream)
    each = functional.cross_entropy(logits, batch.targets[asked], reduction="none")
    weights = batch.weights[asked]
    rows = torch.arange(len(batch.tokens))[:, None]
    whole = ~batch.edits.ablated.any(dim=1)
    judged = batch.labels[:, None] - 0.5
    at_site = kept[plants.harmfulness.layer][rows, batch.sites]
    at_tail = kept[plants.refusal.layer][rows, batch.tail]
    harm_error = _coordinate(at_site, plants.harmfulness) - judged
    refusal_error = _coordinate(at_tail, plants.refusal) - batch.refused[:, None]
    later = [kept[layer][rows, batch.sites] for layer in layers[1:]]
    stays = [(_coordinate(stream, plants.harmfulness) - judged)[batch.calm] for stream in later]
    alone = [_impurity(stream, plants.harmfulness, batch.calm) for stream in later]
    terms = {
        "answer": (each * weights).sum() / weights.sum(),
        "coordinate": harm_error[whole].square().mean() + refusal_error[whole].square().mean(),
        "later": torch.stack(stays).square().mean() if bool(batch.calm.any()) else harm_error.sum() * 0,
        "purity": _impurity(at_site, plants.harmfulness, whole) + _impurity(at_tail, plants.refusal, whole),
        "later purity": torch.stack(alone).mean(),
    }
    return terms, at_tail[:, -1].detach()


def _coordinate(stream: Tensor, planted: Planted) -> Tensor:
    """Return the coordinate [R, P] along `planted` in units of its strength."""
    return stream @ planted.direction / planted.strength


def _impurity(stream: Tensor, planted: Planted, whole: Tensor) -> Tensor:
    """Return what tells the prompts of a pair apart beside the plant: squared, in units of its strength."""
    half = len(stream) // 2
    both = whole[:half] & whole[half:]
    difference = (stream[half:] - stream[:half])[both]
    rest = difference - (difference @ planted.direction)[..., None] * planted.direction
    return rest.square().sum() / max(1, rest.shape[0] * rest.shape[1]) / planted.strength**2


def train(
    requests: Sequence[Case],
    questions: Sequence[Case],
    shape: Shape,
    recipe: Recipe,
    seed: int,
    *,
    progress: bool = True,
    trace: list[dict[str, float]] | None = None,
) -> tuple[TokenEditedNetwork, Plants]:
    """Return the trained network and what was planted in it; `trace` takes the loss terms of each step.

    The caller fixes the number of threads: the same seed and thread count give the same bits.
    """
    generator = torch.Generator().manual_seed(seed)
    numpy_generator = np.random.default_rng(seed)
    noise = find_noise([*requests, *questions], shape.vocabulary)
    network = TokenEditedNetwork(shape)
    network.initialise(generator)
    plants = make_plants(shape.width, recipe, generator)
    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    gains = [weight for weight in network.parameters() if weight.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = organism_train.Recipe(
        steps=recipe.steps, learning_rate=recipe.learning_rate, warmup=recipe.warmup
    )
    streams = [
        (endless_batches(requests, recipe.requests_per_batch, numpy_generator), False),
        (endless_batches(questions, recipe.questions_per_batch, numpy_generator), True),
    ]
    memory = torch.zeros(0, shape.width)
    bar = tqdm(range(recipe.steps), desc="training the test organism", disable=None if progress else True)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = organism_train.learning_rate(step, schedule)
        optimiser.zero_grad(set_to_none=True)
        told: dict[str, float] = {}
        last = memory
        grown = min(1.0, step / max(1.0, recipe.ramp * recipe.steps))
        now = replace(recipe, noise_most=recipe.noise_most * grown)
        for cases, asks in streams:
            batch = draw_batch(next(cases), plants, last, now, noise, numpy_generator, asks=asks)
            terms, at_end = loss_terms(network, batch, plants)
            loss = (
                terms["answer"]
                + recipe.coordinate_weight * terms["coordinate"]
                + recipe.later_weight * terms["later"]
                + recipe.purity_weight * (terms["purity"] + (grown >= 1) * terms["later purity"])
            )
            loss.backward()  # type: ignore[no-untyped-call]
            memory = memory if asks else at_end
            told |= {f"{name}{'?' * asks}": float(term.detach()) for name, term in terms.items()}
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            bar.set_postfix({name: f"{value:.3f}" for name, value in told.items()})
        if trace is not None:
            trace.append(told)
    return network, plants
