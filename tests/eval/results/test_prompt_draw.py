"""A limit of test prompts is a draw from every source: nested, in proportion, the same in every language."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.schema import Row, group_id, row_id
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.prompt_draw import (
    SEED,
    is_limited,
    limit_signature,
    limited,
    parse_test,
    shown_test,
)
from polyrefuse_eval.results.settings import RunSettings

SIZES = {"jailbreakbench": 100, "harmbench": 159, "strongreject": 313}
"""Of the harmful test prompts of `paper`, in the order in which they stand there."""


def rows(sizes: dict[str, int], categories: int = 1, label: str = "harmful", lang: str = "en") -> list[Row]:
    made: list[Row] = []
    for source, size in sizes.items():
        for index in range(size):
            english = f"{source} {index}"
            made.append(
                Row(
                    id=row_id(label, "test", len(made)),
                    group=group_id(english, label),
                    lang=lang,
                    text=f"{lang} {english}",
                    text_en=english,
                    label=label,
                    split="test",
                    category=None,
                    source_category=f"category {index * categories // size}" if categories > 1 else None,
                    source=source,
                    source_licence="CC0-1.0",
                    translator="original",
                    duplicate_of=None,
                )
            )
    return made


def ids(chosen: Sequence[Row]) -> list[str]:
    return [row.id for row in chosen]


PAPER = rows(SIZES)


def test_the_first_are_of_one_source_and_a_draw_is_of_all() -> None:
    assert Counter(row.source for row in limited(PAPER, 24, None)) == {"jailbreakbench": 24}
    drawn = Counter(row.source for row in limited(PAPER, 24, SEED))
    for source, size in SIZES.items():
        assert abs(drawn[source] - 24 * size / len(PAPER)) < 1.5
    assert sum(drawn.values()) == 24


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(0, 200),
    st.integers(0, 3),
)
def test_every_draw_is_in_proportion_and_holds_the_smaller_ones(
    sizes: list[int], categories: int, limit: int, seed: int
) -> None:
    prompts = rows({f"source {number}": size for number, size in enumerate(sizes)}, categories)
    drawn = limited(prompts, limit, seed)
    assert len(drawn) == min(limit, len(prompts))
    assert ids(drawn) == sorted(ids(drawn)), "in the order of the split"
    counts = Counter(row.source for row in drawn)
    for number, size in enumerate(sizes):
        expected = len(drawn) * size / len(prompts)
        assert abs(counts[f"source {number}"] - expected) < 2
    assert set(ids(drawn)) <= set(ids(limited(prompts, limit + 1, seed)))


def test_categories_of_a_source_are_drawn_in_proportion() -> None:
    prompts = rows({"jailbreakbench": 100}, categories=10)
    drawn = limited(prompts, 20, SEED)
    assert set(Counter(row.source_category for row in drawn).values()) <= {1, 2, 3}
    assert len({row.source_category for row in limited(prompts, 10, SEED)}) >= 8


def test_a_draw_depends_on_prompts_alone() -> None:
    """Neither on the language, nor on the order or place of the rows; on the seed, it does."""
    german = [replace(row, lang="de", text="anders") for row in PAPER]
    random.Random(1).shuffle(german)
    chosen = set(ids(limited(PAPER, 50, SEED)))
    assert set(ids(limited(german, 50, SEED))) == chosen
    assert set(ids(limited(PAPER, 50, 1))) != chosen
    without = [row for row in PAPER if row.id != next(iter(sorted(chosen)))]
    assert len(chosen & set(ids(limited(without, 50, SEED)))) >= 47


def test_both_prompts_of_a_contrast_pair_are_drawn() -> None:
    harmful = rows({"xstest": 200}, categories=8)
    harmless = rows({"xstest": 200, "oktest": 300}, categories=8, label="harmless")
    paired = [[replace(row, pair=f"pair {index}" if index < 200 else None) for index, row in enumerate(side)]
              for side in (harmful, harmless)]  # fmt: skip
    pairs = [{row.pair for row in limited(side, 90, SEED)} - {None} for side in paired]
    assert len(pairs[0] & pairs[1]) > 0.8 * len(pairs[1]), "the twins of most"


def test_repeated_prompts_are_rows_of_their_own() -> None:
    twice = [*PAPER[:5], *(replace(row, id=f"{row.id}-again") for row in PAPER[:5])]
    assert len(set(ids(limited(twice, 7, SEED)))) == 7


def test_no_limit_takes_all_in_order() -> None:
    for limit in (None, len(PAPER), 10_000):
        assert limited(PAPER, limit, SEED) == PAPER
    assert limited(PAPER, 0, SEED) == []
    assert limited([], 3, SEED) == []


@pytest.mark.parametrize(
    ("text", "limit", "seed"),
    [
        (None, None, SEED),
        ("all", None, SEED),
        ("24", 24, SEED),
        (" 24 ", 24, SEED),
        ("first:24", 24, None),
        ("first:all", None, None),
    ],
)
def test_what_the_option_says(text: str | None, limit: int | None, seed: int | None) -> None:
    assert parse_test(text) == (limit, seed)
    assert parse_test(shown_test(limit, seed) or None) == (limit, seed)


@pytest.mark.parametrize(
    "text", ["0", "-3", "", "first", "first:", "first:0", "last:3", "2.5", "²", "9" * 30]
)
def test_what_the_option_cannot_say(text: str) -> None:
    with pytest.raises(RunFolderError, match="expected a number of test prompts such as 24"):
        parse_test(text)


def test_a_draw_is_recorded_only_where_a_limit_takes_some(data_folder: Path) -> None:
    data = DataFolder(data_folder, "d" * 64, "tiny")
    for changes, expected in (
        ({"n_test": 4}, True),
        ({"n_test": 5}, False),
        ({"crossed": 4}, True),
        ({"crossed": 0}, False),
        ({"n_test": 9, "crossed": 128}, False),
        ({"n_test": 9, "crossed": 4}, True),
    ):
        settings = RunSettings(("en", "de"), **{"crossed": None, **changes})
        assert is_limited(data, settings) is expected, changes
    assert limit_signature(None, SEED) == {}
    assert limit_signature(4, SEED) == {"n_test": 4, "test_seed": SEED}
    assert limit_signature(4, None) == {"n_test": 4}
