"""Student's t against published quantiles."""

from __future__ import annotations

import pytest

from polyrefuse_eval.statistics.student import t_cdf, t_quantile

TABLE = [
    (1, 0.025, 12.7062), (2, 0.025, 4.3027), (3, 0.005, 5.8409), (7, 0.0005, 5.4079),
    (10, 0.05, 1.8125), (15, 0.001, 3.7328), (30, 0.025, 2.0423), (120, 0.01, 2.3578),
]  # fmt: skip


@pytest.mark.parametrize(("freedom", "tail", "expected"), TABLE)
def test_quantiles_are_those_of_the_tables(freedom: int, tail: float, expected: float) -> None:
    assert t_quantile(tail, freedom) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 8, 31])
def test_the_distribution_is_symmetric_and_grows(freedom: int) -> None:
    assert t_cdf(0.0, freedom) == pytest.approx(0.5)
    assert t_cdf(1.3, freedom) + t_cdf(-1.3, freedom) == pytest.approx(1.0)
    assert t_cdf(-2.0, freedom) < t_cdf(-1.0, freedom) < t_cdf(2.0, freedom)
    assert t_cdf(t_quantile(1e-5, freedom), freedom) == pytest.approx(1 - 1e-5, abs=1e-9)
