"""Laws of the splits: disjoint, complete, the same for the same seed, and honest about what is too much."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrefuse_data.core.errors import PolyRefuseError, RecipeError
from polyrefuse_data.core.schema import SPLITS, Prompt
from polyrefuse_data.prompts.recipe import Part, Recipe, builtin_recipes, load_recipe, read_pin
from polyrefuse_data.prompts.sample import ACTIONS, sample_prompts
from polyrefuse_data.prompts.splits import cut, draw_splits, pool_prompts, topic_order


def prompts(label: str, count: int, prefix: str = "") -> list[Prompt]:
    return [Prompt(f"{prefix}{label} prompt w{n} x{n}", label, "test", "MIT") for n in range(count)]


def recipe(**changes: object) -> Recipe:
    value = {
        "name": "test",
        "title": "t",
        "description": "d",
        "seed": 1,
        "pools": {"bad": {"label": "harmful", "sources": ["advbench"]}},
        "draws": [{"pool": "bad", "split": "train", "size": 3}],
    }
    return Recipe.model_validate({**value, **changes})


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), train=st.integers(0, 20), test=st.integers(0, 10))
def test_a_draw_has_the_size_asked_for_and_repeats_nothing(seed: int, train: int, test: int) -> None:
    pools = {
        "bad": {"label": "harmful", "sources": ["advbench"]},
        "worse": {"label": "harmful", "sources": ["strongreject"]},
    }
    draws = [
        {"pool": "bad", "split": "train", "size": train},
        {"pool": "worse", "split": "test", "size": test, "method": "first"},
    ]
    both = {"bad": prompts("harmful", 20), "worse": prompts("harmful", 10, "other ")}
    placed = draw_splits(recipe(seed=seed, pools=pools, draws=draws), both).placed
    assert [row.split for row in placed] == ["train"] * train + ["test"] * test
    assert len({row.prompt.group for row in placed}) == train + test
    assert len({row.id for row in placed}) == train + test
    assert placed == draw_splits(recipe(seed=seed, pools=pools, draws=draws), both).placed
    assert [row.prompt for row in placed[train:]] == both["worse"][:test]


def test_another_seed_draws_others() -> None:
    pool = {"bad": prompts("harmful", 50)}
    one = draw_splits(recipe(), pool).placed
    other = draw_splits(recipe().changed(2, None), pool).placed
    assert [row.prompt for row in one] != [row.prompt for row in other]


def test_too_much_says_how_many_there_are() -> None:
    with pytest.raises(RecipeError, match="holds 2; ask for at most 2"):
        draw_splits(recipe(), {"bad": prompts("harmful", 2)})


@given(st.integers(0, 60), st.integers(0, 99))
def test_parts_of_a_pool_are_disjoint_and_complete(size: int, seed: int) -> None:
    pool = prompts("harmless", size)
    parts = [cut(pool, Part(seed=seed, fractions=(0.6, 0.2, 0.2), index=index)) for index in range(3)]
    assert sorted(one.text for part in parts for one in part) == sorted(one.text for one in pool)
    assert [len(part) for part in parts[:2]] == [int(0.6 * size), int(0.2 * size)]


def test_a_part_that_is_none() -> None:
    with pytest.raises(RecipeError, match="sum to 1"):
        cut(prompts("harmless", 9), Part(seed=1, fractions=(0.5, 0.2), index=0))


def test_a_repeat_is_marked_and_kept() -> None:
    pool = [*prompts("harmful", 2), *prompts("harmful", 1)]
    draws = [{"pool": "bad", "split": "test", "size": 3, "method": "first"}]
    placed = draw_splits(recipe(draws=draws), {"bad": pool}).placed
    assert [row.duplicate_of for row in placed] == [None, None, "harmful-test-0000"]
    assert [row.occurrence for row in placed] == [0, 0, 1]


def test_dropping_duplicates_keeps_the_test_set_and_fills_up() -> None:
    pool = prompts("harmful", 6)
    near = Prompt(pool[0].text + " indeed", "harmful", "test", "MIT")
    pools = {
        "bad": {"label": "harmful", "sources": ["advbench"]},
        "tests": {"label": "harmful", "sources": ["advbench"]},
        "spare": {"label": "harmful", "sources": ["advbench"]},
    }
    draws = [
        {"pool": "bad", "split": "train", "size": 3, "method": "first"},
        {"pool": "tests", "split": "test", "size": 2, "method": "first"},
    ]
    clean = recipe(
        pools=pools,
        draws=draws,
        duplicates="drop",
        near_duplicate_jaccard=0.7,
        top_up={"seed": 1, "pools": {"harmful": ["spare"]}},
    )
    spare = [Prompt(f"spare a{n} b{n} c{n}", "harmful", "test", "MIT") for n in range(4)]
    got = draw_splits(clean, {"bad": [near, pool[1], pool[2]], "tests": [pool[0], pool[1]], "spare": spare})
    by_split = {
        split: [row.prompt for row in got.placed if row.split == split] for split in ("train", "test")
    }
    assert by_split["test"] == [pool[0], pool[1]]
    assert by_split["train"][0] == pool[2]
    assert all(prompt in spare for prompt in by_split["train"][1:])
    assert len(by_split["train"]) == 3
    reasons = sorted((one.reason, one.split) for one in got.dropped)
    assert reasons == [("duplicate", "train"), ("near_duplicate", "train")]
    assert got.topped_up["harmful", "train"] == 2


def test_splits_of_the_sample_share_no_topic_and_hold_every_action() -> None:
    sample = builtin_recipes()["sample"]
    pools = {
        name: [one for one in sample_prompts() if one.label == pool.label]
        for name, pool in sample.pools.items()
    }
    for seed in (1, 2, 3):
        placed = draw_splits(sample.changed(seed, None), pools).placed
        topics = {split: {row.prompt.topic for row in placed if row.split == split} for split in SPLITS}
        assert not topics["train"] & topics["test"]
        assert not topics["train"] & topics["validation"]
        assert not topics["validation"] & topics["test"]
        actions = {
            row.prompt.source_category
            for row in placed
            if row.split == "train" and row.prompt.label == "harmful"
        }
        assert len(actions) == ACTIONS


def test_topics_are_shuffled_within_and_among_blocks() -> None:
    order = topic_order(sample_prompts(), 1, ACTIONS)
    action = {one.topic: one.source_category for one in sample_prompts() if one.label == "harmful"}
    assert sorted(order) == sorted(action)
    assert order != list(action)
    for start in range(0, len(order), ACTIONS):
        assert len({action[topic] for topic in order[start : start + ACTIONS]}) == ACTIONS


def test_a_pin_selects_and_orders_and_misses_nothing(tmp_path: Path) -> None:
    pool = prompts("harmful", 4)
    one = recipe(pools={"bad": {"label": "harmful", "sources": ["advbench"], "pin": "mine"}})
    chosen = [pool[3], pool[1]]
    got = pool_prompts("bad", one.pools["bad"], {"advbench": pool}, lambda name: [row.hash for row in chosen])
    assert got == chosen
    with pytest.raises(RecipeError, match="1 of 1 pinned prompts are not in its sources"):
        pool_prompts("bad", one.pools["bad"], {"advbench": pool}, lambda name: ["0" * 64])
    with pytest.raises(RecipeError, match="no list of pinned prompts"):
        read_pin("absent", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sede": 1}, "did you mean 'seed'"),
        ({"pools": {"bad": {"label": "harmful", "source": ["advbench"]}}}, "did you mean 'sources'"),
        ({"draws": [{"pool": "bda", "split": "train", "size": 3}]}, "did you mean 'bad'"),
        ({"draws": [{"pool": "bad", "split": "dev", "size": 3}]}, "draws.0.split"),
        ({"draws": [{"pool": "bad", "split": "train", "size": -3}]}, "greater than or equal to 0"),
        ({"pools": {"bad": {"label": "harmful", "sources": ["adbench"]}}}, "did you mean 'advbench'"),
        (
            {"pools": {"bad": {"label": "harmful", "sources": ["catqa_maleware"]}}},
            "unknown source 'catqa_maleware'; did you mean 'catqa_malware_viruses'",
        ),
        (
            {"draws": [{"pool": "bad", "split": "test", "size": 3, "category": "fraud"}]},
            "at draws.0.category: unknown key 'category'",
        ),
        ({"name": "../escape"}, "name"),
        (
            {"pools": {"bad": {"label": "harmful", "sources": ["advbench"], "pin": "../../x"}}},
            "pools.bad.pin",
        ),
    ],
)
def test_a_recipe_that_is_none(tmp_path: Path, change: dict[str, object], message: str) -> None:
    value = {
        "name": "mine",
        "title": "t",
        "description": "d",
        "seed": 1,
        "pools": {"bad": {"label": "harmful", "sources": ["advbench"]}},
        "draws": [{"pool": "bad", "split": "train", "size": 3}],
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**value, **change}), encoding="utf-8")
    with pytest.raises(PolyRefuseError, match=message):
        load_recipe(str(path))
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    assert load_recipe(str(path))[0].name == "mine"


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "", "\x00"])
def test_a_recipe_file_that_holds_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PolyRefuseError):
        load_recipe(str(path))


def test_draws_are_those_of_a_plain_loop_over_one_generator() -> None:
    """The order of the draws is part of a recipe: one generator serves them all."""
    pools = {
        "good": {"label": "harmless", "sources": ["alpaca"]},
        "bad": {"label": "harmful", "sources": ["advbench"]},
    }
    draws = [
        {"pool": "good", "split": "train", "size": 4},
        {"pool": "bad", "split": "train", "size": 4},
    ]
    both = {"good": prompts("harmless", 9), "bad": prompts("harmful", 9)}
    placed = draw_splits(recipe(pools=pools, draws=draws, seed=1), both).placed
    generator = random.Random(1)
    good = generator.sample(both["good"], 4)
    bad = generator.sample(both["bad"], 4)
    assert [row.prompt for row in placed] == bad + good
