"""Draw the splits of a recipe: pure, from pools of prompts to placed prompts, with local generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from polyrefuse_data.checks.duplicates import NearDuplicateIndex
from polyrefuse_data.core.errors import RecipeError
from polyrefuse_data.core.schema import LABELS, SPLITS, PlacedPrompt, Prompt
from polyrefuse_data.prompts.recipe import Draw, Part, Pool, Recipe

Place = tuple[str, str]
"""A label and a split."""


@dataclass(frozen=True)
class Dropped:
    """A drawn prompt that was left out: why, and what it repeats; by hash, never by its words."""

    label: str
    split: str
    text_hash: str
    reason: str
    repeats_hash: str
    jaccard: float


@dataclass(frozen=True)
class Selection:
    """What a recipe draws: prompts in published order, what was left out, and how many were topped up."""

    placed: tuple[PlacedPrompt, ...]
    dropped: tuple[Dropped, ...]
    topped_up: Mapping[Place, int]


def cut(prompts: Sequence[Prompt], part: Part) -> list[Prompt]:
    """Return one part of `prompts`, shuffled by the part's seed and cut at its fractions."""
    if not 0 <= part.index < len(part.fractions) or abs(sum(part.fractions) - 1) > 1e-9:
        raise RecipeError(
            f"part {part.index} of fractions {part.fractions}: "
            "expected fractions that sum to 1 and an index among them"
        )
    shuffled = list(prompts)
    random.Random(part.seed).shuffle(shuffled)
    sizes = [int(fraction * len(shuffled)) for fraction in part.fractions]
    sizes[-1] = len(shuffled) - sum(sizes[:-1])
    start = sum(sizes[: part.index])
    return shuffled[start : start + sizes[part.index]]


def pool_prompts(
    name: str,
    pool: Pool,
    prompts_of: Mapping[str, Sequence[Prompt]],
    read_pin: Callable[[str], Sequence[str]],
) -> list[Prompt]:
    """Return the prompts of `pool` in order; raises `RecipeError` if a pinned prompt is not there."""
    prompts = [
        prompt for source in pool.sources for prompt in prompts_of[source] if prompt.label == pool.label
    ]
    if pool.part is not None:
        prompts = cut(prompts, pool.part)
    if pool.pin is None:
        return prompts
    by_hash: dict[str, Prompt] = {}
    for prompt in prompts:
        by_hash.setdefault(prompt.hash, prompt)
    hashes = read_pin(pool.pin)
    missing = [text_hash for text_hash in hashes if text_hash not in by_hash]
    if missing:
        raise RecipeError(
            f"pool {name}: {len(missing)} of {len(hashes)} pinned prompts are not in its sources "
            f"(first: {missing[0]}); expected sources that hold all of pins/{pool.pin}.txt"
        )
    return [by_hash[text_hash] for text_hash in hashes]


def topic_order(prompts: Sequence[Prompt], seed: int, block: int) -> list[str]:
    """Return the topics of `prompts` in a seeded order.

    Topics come in blocks of `block`, each of which holds every kind of topic once: blocks are shuffled,
    and topics within a block, so that every run of `block` topics stays as mixed as the source made it.
    """
    topics = list(dict.fromkeys(prompt.topic for prompt in prompts if prompt.topic is not None))
    generator = random.Random(seed)
    blocks = [topics[start : start + block] for start in range(0, len(topics), block)]
    for one in blocks:
        generator.shuffle(one)
    generator.shuffle(blocks)
    return [topic for one in blocks for topic in one]


def draw_splits(recipe: Recipe, pools: Mapping[str, Sequence[Prompt]]) -> Selection:
    """Return the splits of `recipe` from its `pools`.

    Raises `RecipeError`, saying how many prompts there are, for a size that a pool cannot fill.
    """
    drawn = _draw(recipe, pools)
    dropped: list[Dropped] = []
    topped_up: dict[Place, int] = {}
    if recipe.duplicates == "drop":
        drawn, dropped, topped_up = _without_duplicates(recipe, pools, drawn)
    placed = [
        row
        for label in reversed(LABELS)
        for split in SPLITS
        if (label, split) in drawn
        for row in _place(drawn[label, split], split)
    ]
    return Selection(tuple(placed), tuple(dropped), topped_up)


def _too_few(recipe: Recipe, draw: Draw, available: int) -> RecipeError:
    return RecipeError(
        f"recipe {recipe.name}: {draw.size} prompts asked for {draw.split} from pool {draw.pool}, "
        f"which holds {available}; ask for at most {available}"
    )


def _draw(recipe: Recipe, pools: Mapping[str, Sequence[Prompt]]) -> dict[Place, list[Prompt]]:
    generator = random.Random(recipe.seed)
    drawn: dict[Place, list[Prompt]] = {}
    taken: dict[str, int] = {}
    for draw in recipe.draws:
        pool = pools[draw.pool]
        label = recipe.pools[draw.pool].label
        size = draw.size
        if recipe.top_up and label in recipe.top_up.pools:
            size = min(size, len(pool))
        if draw.method == "topics":
            drawn[label, draw.split] = _take_topics(recipe, draw, pool, taken)
        elif size > len(pool):
            raise _too_few(recipe, draw, len(pool))
        elif draw.method == "sample":
            drawn[label, draw.split] = generator.sample(list(pool), size)
        else:
            drawn[label, draw.split] = list(pool[:size])
    return drawn


def _take_topics(recipe: Recipe, draw: Draw, pool: Sequence[Prompt], taken: dict[str, int]) -> list[Prompt]:
    """Return `draw.size` prompts of the next free topics of `pool`; `taken` counts topics used by pool."""
    by_topic: dict[str | None, list[Prompt]] = {}
    for prompt in pool:
        by_topic.setdefault(prompt.topic, []).append(prompt)
    free = topic_order(pool, recipe.seed, recipe.topic_block)[taken.get(draw.pool, 0) :]
    prompts: list[Prompt] = []
    for topic in free:
        if len(prompts) >= draw.size:
            break
        prompts += by_topic[topic]
        taken[draw.pool] = taken.get(draw.pool, 0) + 1
    if len(prompts) < draw.size:
        raise _too_few(recipe, draw, len(prompts))
    return prompts[: draw.size]


def _without_duplicates(
    recipe: Recipe, pools: Mapping[str, Sequence[Prompt]], drawn: Mapping[Place, list[Prompt]]
) -> tuple[dict[Place, list[Prompt]], list[Dropped], dict[Place, int]]:
    """Drop exact and near duplicates in and across splits, then fill up from what is left.

    Splits keep their rows in the order of `recipe.keep_first`: what repeats an earlier row goes.
    """
    index = NearDuplicateIndex(recipe.near_duplicate_jaccard)
    seen: list[Prompt] = []

    def repeat_of(prompt: Prompt) -> tuple[Prompt, float] | None:
        """Accept `prompt`, or return the accepted prompt that it repeats and their Jaccard."""
        matches = index.matches(prompt.text)
        if matches:
            return seen[matches[0][0]], matches[0][1]
        index.add(prompt.text)
        seen.append(prompt)
        return None

    dropped: list[Dropped] = []
    kept: dict[Place, list[Prompt]] = {}
    order = [(label, split) for split in recipe.keep_first for label in LABELS if (label, split) in drawn]
    for label, split in order:
        kept[label, split] = []
        for prompt in drawn[label, split]:
            repeat = repeat_of(prompt)
            if repeat is None:
                kept[label, split].append(prompt)
            else:
                reason = "duplicate" if repeat[0].text == prompt.text else "near_duplicate"
                dropped.append(
                    Dropped(label, split, prompt.hash, reason, repeat[0].hash, round(repeat[1], 4))
                )
    topped_up: dict[Place, int] = {}
    sizes = recipe.sizes()
    for label, split in order:
        size = sizes[label][split]
        before = len(kept[label, split])
        for prompt in _spare(recipe, pools, label, split):
            if len(kept[label, split]) == size:
                break
            if repeat_of(prompt) is None:
                kept[label, split].append(prompt)
        topped_up[label, split] = len(kept[label, split]) - before
        if len(kept[label, split]) < size:
            raise RecipeError(
                f"recipe {recipe.name}: {size} {label} prompts asked for {split}; "
                f"without duplicates there are {len(kept[label, split])}: ask for at most that"
            )
    return kept, dropped, topped_up


def _spare(recipe: Recipe, pools: Mapping[str, Sequence[Prompt]], label: str, split: str) -> list[Prompt]:
    """Return what a split is filled up from: its own pool in order, then the top-up pools, shuffled.

    Prompts that stand in a split already are among them; they are duplicates and drop out by that.
    """
    own = [
        prompt
        for draw in recipe.draws
        if (recipe.pools[draw.pool].label, draw.split) == (label, split)
        for prompt in pools[draw.pool]
    ]
    if recipe.top_up is None:
        return own
    spare = [
        prompt
        for name, names in recipe.top_up.pools.items()
        if name == label
        for pool in names
        for prompt in pools[pool]
    ]
    random.Random(f"{recipe.top_up.seed}:{label}:{split}").shuffle(spare)
    return own + spare


def _place(prompts: Sequence[Prompt], split: str) -> list[PlacedPrompt]:
    """Give prompts their index; a repeat points to the first row with the same English text."""
    first: dict[str, PlacedPrompt] = {}
    seen: dict[str, int] = {}
    placed = []
    for index, prompt in enumerate(prompts):
        row = PlacedPrompt(prompt, split, index, occurrence=seen.get(prompt.text, 0))
        seen[prompt.text] = row.occurrence + 1
        if row.occurrence:
            row = replace(row, duplicate_of=first[prompt.text].id)
        else:
            first[prompt.text] = row
        placed.append(row)
    return placed
