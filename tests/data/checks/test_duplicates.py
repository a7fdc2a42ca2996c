from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.checks.duplicates import (
    NearDuplicateIndex,
    exact_duplicates,
    jaccard,
    near_duplicates,
    tokens,
)

texts = st.lists(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=6).map(" ".join), min_size=0, max_size=14
)


@given(texts, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(words: list[str], threshold: float) -> None:
    found = {(pair.first, pair.second, pair.jaccard) for pair in near_duplicates(words, threshold)}
    brute = {
        (one, other, score)
        for one, other in itertools.combinations(range(len(words)), 2)
        if words[one] != words[other]
        and (score := jaccard(tokens(words[one]), tokens(words[other]))) >= threshold
    }
    assert found == brute


@given(texts)
def test_every_repeat_points_to_the_first(words: list[str]) -> None:
    repeats = exact_duplicates(words)
    assert len(repeats) == len(words) - len(set(words))
    assert all(first == words.index(words[second]) < second for first, second in repeats)


def test_the_nearest_comes_first() -> None:
    index = NearDuplicateIndex(0.2)
    index.add("one two three four")
    index.add("one two three five")
    assert index.matches("one two three five six")[0][0] == 1


def test_case_and_punctuation_do_not_matter() -> None:
    assert tokens("Steal, a Bicycle!") == tokens("steal a bicycle")
    assert tokens("?!") == frozenset(["?!"])


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_that_is_none(threshold: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < threshold <= 1"):
        NearDuplicateIndex(threshold)
