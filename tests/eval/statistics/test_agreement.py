"""Agreement of judges: the laws of Cohen's kappa, and None where there is no number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_eval.statistics.agreement import agreement, cohen_kappa

counts = st.integers(0, 10**6)
verdicts = st.lists(st.tuples(*[st.sampled_from([True, False, None])] * 2), max_size=40)


def test_a_worked_example() -> None:
    # Cohen's own form of it: 45 of 70 alike, 35 expected by chance.
    assert cohen_kappa(25, 10, 15, 20) == pytest.approx((45 - 35) / (70 - 35))


@given(counts, counts, counts, counts)
def test_kappa_is_symmetric_bounded_and_blind_to_names(both: int, one: int, two: int, neither: int) -> None:
    found = cohen_kappa(both, one, two, neither)
    assert found == cohen_kappa(both, two, one, neither)
    assert found == cohen_kappa(neither, one, two, both)
    assert found is None or -1 <= found <= 1
    if found is not None and one == two == 0:
        assert found == 1
    if both * neither == one * two and found is not None:
        assert found == 0, "independent judges agree by chance alone"


def test_no_kappa_where_both_say_one_class() -> None:
    assert cohen_kappa(0, 0, 0, 0) is None
    assert cohen_kappa(9, 0, 0, 0) is None
    assert cohen_kappa(9, 1, 0, 0) == 0


@given(verdicts)
def test_counts_add_up_and_the_undecided_are_in_none(pairs: list[tuple[bool | None, bool | None]]) -> None:
    first, second = [one for one, _ in pairs], [two for _, two in pairs]
    found = agreement(first, second)
    assert found.n == found.both_refused + found.only_reference + found.only_judge + found.neither
    assert found.n + found.n_unjudged == len(pairs)
    assert found.n_unjudged == sum(None in pair for pair in pairs)
    assert (found.sensitivity is None) == (found.both_refused + found.only_reference == 0)
    assert found.judge_compliance.hits == second.count(False)
    turned = agreement(second, first)
    assert (turned.kappa, turned.only_judge) == (found.kappa, found.only_reference)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        agreement([True, False], [True])
