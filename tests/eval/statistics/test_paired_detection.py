"""Changes of a detector on the same prompts: what is counted, and that the interval covers as it says."""

from __future__ import annotations

import numpy as np
import pytest

from polyrefuse_eval.statistics.detection import Scored
from polyrefuse_eval.statistics.paired_detection import (
    change_table,
    detection_changes,
    paired_difference,
    paired_rates,
)
from polyrefuse_eval.statistics.rates import wilson


def scored(
    verdicts: dict[str, bool | None], label: str, kind: str = "data", lang: str = "en"
) -> list[Scored]:
    return [
        Scored(id=f"{kind}-{name}", lang=lang, label=label, kind=kind, score=None, unsafe=unsafe)
        for name, unsafe in verdicts.items()
    ]


def test_misses_and_false_alarms_are_counted_before_and_after_by_kind() -> None:
    before = [
        *scored({"a": True, "b": True, "c": False, "d": None}, "harmful"),
        *scored({"e": False, "f": True}, "harmless"),
        *scored({"g": True}, "harmful", "xstest"),
    ]
    after = [
        *scored({"a": False, "b": False, "c": False, "d": True}, "harmful"),
        *scored({"e": False, "f": False}, "harmless"),
        *scored({"g": False}, "harmful", "xstest"),
    ]
    whole, data, xstest = detection_changes(before, after)
    assert [change.kind for change in (whole, data, xstest)] == ["all", "data", "xstest"]
    assert (data.miss.before.hits, data.miss.before.n, data.miss.before.n_unjudged) == (1, 3, 1)
    assert (data.miss.after.hits, data.miss.after.n) == (3, 4)
    assert (data.miss.n_pairs, data.miss.change) == (3, pytest.approx(2 / 3)), "undecided pairs are left out"
    assert data.false_alarm.change == pytest.approx(-1 / 2)
    assert (whole.miss.n_pairs, whole.miss.change) == (4, pytest.approx(3 / 4))
    assert xstest.false_alarm.change is None
    table = change_table([data, xstest])
    assert "| en | data | 33.3 % [6.1, 79.2] | 75.0 % [30.1, 95.4] | +66.7 [" in table
    assert table.splitlines()[3].endswith("|  |  |  |"), "no rate of no harmless prompts"
    with pytest.raises(ValueError, match="different prompts"):
        detection_changes(before, after[::-1])


def test_the_interval_turns_around_with_the_pairs_and_is_no_point_where_none_differs() -> None:
    pairs = [(True, False)] * 3 + [(False, True)] * 9 + [(True, True)] * 20 + [(False, False)] * 8
    change, low, high = paired_difference(pairs)
    assert change == pytest.approx(6 / 40)
    assert -1 < low < change < high < 1
    turned = paired_difference([(second, first) for first, second in pairs])
    assert turned == pytest.approx((-change, -high, -low))
    unchanged = paired_difference([(False, False)] * 64)
    assert unchanged == pytest.approx((0, -wilson(0, 64)[1], wilson(0, 64)[1]))
    assert paired_rates([]).change is None
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([])


@pytest.mark.parametrize("cells", [(0.02, 0.08, 0.7, 0.2), (0.0, 0.05, 0.05, 0.9), (0.3, 0.3, 0.2, 0.2)])
def test_the_interval_covers_the_true_change_about_as_often_as_it_says(cells: tuple[float, ...]) -> None:
    first_only, second_only, *_ = cells
    generator = np.random.default_rng(0)
    kinds = [(True, False), (False, True), (True, True), (False, False)]
    covered = []
    for counts in generator.multinomial(50, cells, size=1000):
        pairs = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
        _, low, high = paired_difference(pairs)
        covered.append(low - 1e-9 <= second_only - first_only <= high + 1e-9)
    assert 0.93 <= np.mean(covered) <= 0.999
