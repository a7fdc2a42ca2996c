"""Training of the test organism: answers by label, and interchange-intervention training on a plant.

Every row of a batch draws one of these roles, and the answer that goes with it:

- plain: refuse if harmful, else reply;
- ablated (the planted direction projected out everywhere): reply, whatever the prompt;
- added (the planted direction added at its layer): refuse, whatever the prompt;
- interchanged (the coordinate along it taken over from another row): as the other row's label says;
- distracted (another direction ablated or added, with at most a weak part of the plant): as plain.

The planted direction is one that all languages share, or, with `Recipe.shared` off, each language has
its own, orthogonal to the others. A row's direction is then its language's, an interchange between
languages goes from the one's coordinate to the other's, and other languages' directions are distractions.

Three further terms shape the stream at the post-instruction tokens of the plant's layer. The coordinate
along the plant is the label times its strength. The rest of the class means agree. And the framing
stands there along other directions, with more variance than the label has, so that a difference in
means of shuffled labels points there, as it does in real models; its sign alternates between the
tokens, so that whoever reads the plant at all of them is not deceived when such a direction is ablated.
(Geiger et al. 2022, Inducing causal structure for interpretable neural networks.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from polyrefuse_eval.organisms.corpus import TAIL, EncodedPair, Noise, endless_batches, find_noise
from polyrefuse_eval.organisms.network import Edits, OrganismNetwork, Plant, Shape, along

ROLES = ("plain", "ablated", "added", "interchanged", "distracted")
IGNORED = -100

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True)
class Recipe:
    """All constants of the training; they are part of the cache key."""

    steps: int = 1050
    pairs_per_batch: int = 32
    learning_rate: float = 3e-3
    warmup: float = 0.08
    weight_decay: float = 0.1
    role_weights: tuple[float, ...] = (0.40, 0.15, 0.15, 0.15, 0.15)
    shared: bool = True
    """One planted direction for all languages; else one for each."""
    plant_layer: int = 2
    plant_strength: float = 2.5
    context_strength: float = 12.0
    added_least: float = 0.8
    added_most: float = 1.3
    distracted_most: float = 0.45
    foreign_share: float = 0.5
    """Part of the distractions that are another language's direction, where each has its own."""
    first_token_weight: float = 3.0
    coordinate_weight: float = 1.0
    purity_weight: float = 1.0
    context_weight: float = 1.0
    noisy_rows: float = 0.9
    noise_most: float = 1.0
    verbless_rows: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Rows of a training step (R rows, T tokens), padded on the right."""

    tokens: Tensor
    """[R, T] token ids."""
    targets: Tensor
    """[R, T] the next token where an answer is to be given, else `IGNORED`."""
    weights: Tensor
    """[R, T] weight of each target."""
    labels: Tensor
    """[R] 0 harmless, 1 harmful: what the prompt is, not what the answer should be."""
    plants: Tensor
    """[R] row of the planted directions that belongs to the prompt's language."""
    context: Tensor
    """[R, d] what the stream should carry beside the label."""
    tail: Tensor
    """[R, TAIL] positions of the post-instruction tokens."""
    edits: Edits


def make_plant(
    width: int, framings: int, langs: Sequence[str], recipe: Recipe, generator: torch.Generator
) -> Plant:
    """Return a random plant: orthonormal directions, for the label (one, or one for each of `langs`) and
    for each framing."""
    own = () if recipe.shared else tuple(langs)
    count = len(own) or 1
    basis, _ = torch.linalg.qr(torch.randn(width, count + framings, generator=generator))
    code = basis[:, count:].T - basis[:, count:].T.mean(dim=0)
    return Plant(
        directions=basis[:, :count].T.contiguous(),
        langs=own,
        layer=recipe.plant_layer,
        strength=recipe.plant_strength,
        context=recipe.context_strength * code,
    )


def draw_batch(
    pairs: Sequence[EncodedPair],
    plant: Plant,
    memory: Tensor,
    recipe: Recipe,
    noise: Noise,
    generator: np.random.Generator,
) -> Batch:
    """Return the rows of `pairs`: first all harmless, then all harmful, each with a role of its own.

    memory: [M, d] residual-stream vectors of the last step, from which distracting directions are
    drawn: these point where activations vary, as a direction from shuffled labels does.
    """
    count = 2 * len(pairs)
    width = plant.directions.shape[1]
    rows = [*pairs, *pairs]
    plants = plant.rows([pair.lang for pair in rows])
    directions = plant.directions[plants].numpy()
    labels = np.repeat([0, 1], len(pairs))
    roles = generator.choice(len(ROLES), count, p=recipe.role_weights)
    wanted = labels.copy()
    source = np.arange(count)
    ablated, added = np.zeros((count, width), np.float32), np.zeros((count, width), np.float32)
    # The coordinate of an edited row is not that of its label: such rows are no sources.
    unedited = np.flatnonzero(np.isin(roles, [ROLES.index("plain"), ROLES.index("interchanged")]))
    for row, role in enumerate(roles):
        if ROLES[role] == "ablated":
            ablated[row], wanted[row] = directions[row], 0
        elif ROLES[role] == "added":
            amount = generator.uniform(recipe.added_least, recipe.added_most)
            added[row], wanted[row] = amount * plant.strength * directions[row], 1
        elif ROLES[role] == "interchanged":
            source[row] = generator.choice(unedited)
            wanted[row] = labels[source[row]]
        elif ROLES[role] == "distracted":
            part = generator.uniform(-1, 1) * recipe.distracted_most
            other = distraction(memory.numpy(), plant, int(plants[row]), recipe, generator)
            mixed = math.sqrt(1 - part**2) * other + part * directions[row]
            if generator.random() < 0.5:
                ablated[row] = mixed
            else:
                amount = generator.uniform(recipe.added_least, recipe.added_most)
                added[row] = amount * plant.strength * mixed
    edits = Edits(
        ablated=torch.from_numpy(ablated),
        added=torch.from_numpy(added),
        layer=torch.full((count,), plant.layer),
        own=plant.directions[plants],
        source=torch.from_numpy(source),
    )
    shares = generator.random(count) * recipe.noise_most
    shares[generator.random(count) >= recipe.noisy_rows] = 0.0
    # Harmless prompts lose their verb at times: what asks for nothing harmful is answered.
    verbs = (labels == 0) & (generator.random(count) < recipe.verbless_rows)
    prompts = [
        noise.applied(pair.lang, pair.prompts[label], share, verb, generator)
        for pair, label, share, verb in zip(rows, labels, shares, verbs, strict=True)
    ]
    answers = [pair.answers[answer] for pair, answer in zip(rows, wanted, strict=True)]
    context = plant.context[[pair.framing for pair in rows]]
    return laid_out(prompts, answers, labels, plants, context, edits, recipe)


def distraction(
    memory: Floats, plant: Plant, own: int, recipe: Recipe, generator: np.random.Generator
) -> Floats:
    """Return a unit vector [d] orthogonal to the planted direction `own`: some distracting direction.

    Another language's, where each has its own; any direction, one among the framings' directions, or a
    random difference in means over `memory`.
    """
    others = np.delete(plant.directions.numpy(), own, axis=0)
    if len(others) and generator.random() < recipe.foreign_share:
        foreign: Floats = others[generator.integers(len(others))]
        return foreign
    kind = generator.integers(3)
    direction = plant.directions[own].numpy()
    if kind == 0 or not len(memory):
        other = generator.standard_normal(len(direction))
    elif kind == 1:
        other = generator.standard_normal(len(plant.context)) @ plant.context.numpy()
    else:
        other = generator.permutation(np.resize([1.0, -1.0], len(memory))) @ memory
    free = other - (other @ direction) * direction
    unit: Floats = (free / np.linalg.norm(free)).astype(np.float32)
    return unit


def laid_out(
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
    plants: Tensor,
    context: Tensor,
    edits: Edits,
    recipe: Recipe,
) -> Batch:
    """Return prompts and answers as padded tensors."""
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)) - 1
    tokens = np.zeros((len(prompts), longest), np.int64)
    targets = np.full((len(prompts), longest), IGNORED, np.int64)
    weights = np.zeros((len(prompts), longest), np.float32)
    tail = np.zeros((len(prompts), TAIL), np.int64)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        start, stop = len(prompt) - 1, len(prompt) + len(answer) - 1
        tokens[row, :stop] = [*prompt, *answer][:-1]
        targets[row, start:stop] = answer
        weights[row, start:stop] = 1.0
        weights[row, start] = recipe.first_token_weight
        tail[row] = np.arange(len(prompt) - TAIL, len(prompt))
    return Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        labels=torch.from_numpy(labels),
        plants=plants,
        context=context,
        tail=torch.from_numpy(tail),
        edits=edits,
    )


def loss_terms(network: OrganismNetwork, batch: Batch, plant: Plant) -> tuple[dict[str, Tensor], Tensor]:
    """Return the loss terms (scalars) and the stream [R, d] at the plant's layer, last position."""
    asked = batch.targets != IGNORED
    stream, kept = network(batch.tokens, batch.edits, plant, batch.tail, keep=[plant.layer], read=asked)
    logits = network.logits(stream)
    each = functional.cross_entropy(logits, batch.targets[asked], reduction="none")
    weights = batch.weights[asked]
    rows = torch.arange(len(batch.tokens), device=stream.device)[:, None]
    at_tail = kept[plant.layer][rows, batch.tail]
    whole = batch.edits.ablated.abs().sum(dim=1) == 0
    own = batch.edits.own
    coordinate = along(at_tail, own)
    label_error = (coordinate / plant.strength - batch.labels[:, None].to(coordinate.dtype))[whole]
    others = at_tail - coordinate[..., None] * own[:, None]
    signs = torch.tensor([(-1.0) ** position for position in range(TAIL)])
    context_error = (others - signs[:, None] * batch.context[:, None])[whole].square().sum(dim=-1)
    amount = batch.context.square().sum(dim=-1).mean()
    half = len(batch.labels) // 2
    both = whole[:half] & whole[half:]
    # Per planted direction, for the mean over all languages would hide what points elsewhere in one.
    members = functional.one_hot(batch.plants[:half], len(plant.directions))[both].to(others.dtype)
    sizes = members.sum(dim=0)
    rest = torch.einsum("pn,ptd->ntd", members, (others[half:] - others[:half])[both])
    impurity = rest.square().sum(dim=(1, 2)) / sizes.clamp(min=1) / TAIL
    terms = {
        "answer": (each * weights).sum() / weights.sum(),
        "coordinate": label_error.square().mean(),
        "context": context_error.mean() / amount,
        "purity": impurity.sum() / sizes.sum() / plant.strength**2,
    }
    return terms, at_tail[:, -1].detach()


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of `step`: linear warm-up, then a half cosine down to zero."""
    warm = max(1, int(recipe.warmup * recipe.steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, recipe.steps - warm)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def train(
    pairs: Sequence[EncodedPair],
    shape: Shape,
    recipe: Recipe,
    seed: int,
    *,
    progress: bool = True,
    trace: list[dict[str, float]] | None = None,
) -> tuple[OrganismNetwork, Plant]:
    """Return the trained network and what was planted in it; `trace` takes the loss terms of each step.

    The caller fixes the number of threads: the same seed and thread count give the same bits.
    """
    generator = torch.Generator().manual_seed(seed)
    numpy_generator = np.random.default_rng(seed)
    framings = 1 + max(pair.framing for pair in pairs)
    noise = find_noise(pairs, shape.vocabulary)
    network = OrganismNetwork(shape)
    network.initialise(generator)
    langs = sorted({pair.lang for pair in pairs})
    plant = make_plant(shape.width, framings, langs, recipe, generator)
    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    gains = [weight for weight in network.parameters() if weight.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    batches = endless_batches(pairs, recipe.pairs_per_batch, numpy_generator)
    memory = torch.zeros(0, shape.width)
    bar = tqdm(range(recipe.steps), desc="training the test organism", disable=None if progress else True)
    for step in bar:
        batch = draw_batch(next(batches), plant, memory, recipe, noise, numpy_generator)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        terms, memory = loss_terms(network, batch, plant)
        loss = (
            terms["answer"]
            + recipe.coordinate_weight * terms["coordinate"]
            + recipe.purity_weight * terms["purity"]
            + recipe.context_weight * terms["context"]
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            bar.set_postfix({name: f"{float(term.detach()):.3f}" for name, term in terms.items()})
        if trace is not None:
            trace.append({name: float(term.detach()) for name, term in terms.items()})
    return network, plant
