"""Charts of the leaderboard: transfer grids, curves, axes and points stand where their numbers are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_runs import JUDGE, one_run

from polyrefuse_eval.leaderboard.entries import entry_of
from polyrefuse_eval.leaderboard.grids import strengths, transfer, transfers
from polyrefuse_eval.leaderboard.layers import (
    LEFT,
    SCORES,
    WIDTH,
    layer_chart,
    plain_number,
    scale,
    score_charts,
)
from polyrefuse_eval.leaderboard.rate_chart import AXIS_LEFT, AXIS_WIDTH, rate_chart


def test_the_transfer_grid_has_a_row_for_each_source_and_the_controls_last(tmp_path: Path) -> None:
    entry = entry_of(one_run(tmp_path, sources=("en", "de")), JUDGE)
    grid = transfer(entry, "ablation", "harmful")
    assert grid is not None
    assert grid.columns == ("de", "en", "yo")
    assert [row.name for row in grid.rows] == ["no edit", "de", "en", "random", "shuffled"]
    results = {(one.lang, one.condition): one for one in entry.run.results if one.label == "harmful"}
    for row in grid.rows[1:]:
        for lang, figure in zip(grid.columns, row.cells, strict=True):
            assert figure is not None
            assert figure.value == results[lang, f"ablation:{row.name}"].refusal_rate
    added = transfer(entry, "addition", "harmless")
    assert added is not None
    assert added.rows[0].cells[0] != grid.rows[0].cells[0]
    assert [(len(one.rows), one.title.partition(":")[0]) for one in transfers(entry)] == [
        (5, "Transfer"),
        (5, "Transfer"),
        (3, "Refusal of harmless prompts, direction ablated"),
        (3, "Refusal of harmful prompts, direction added"),
    ]
    by_strength = strengths(entry)
    assert by_strength is not None
    assert [row.name for row in by_strength.rows] == ["no edit", "0.5", "1"]


def test_curves_break_where_nothing_was_computed_and_mark_what_was_chosen(tmp_path: Path) -> None:
    run = one_run(tmp_path, layers=10)
    drawn = score_charts(run)
    assert [one.lang for one in drawn] == ["de", "en", "yo"]
    refusal, steering, _ = drawn[0].panels
    assert refusal.lines[0].count("L") == 9
    assert steering.lines[0].count("L") == 7, "pruned layers have no steering score"
    assert refusal.chosen is not None
    assert len(drawn[0].slices) == 10
    assert "not computed" in drawn[0].slices[9].told
    place = run.chosen["de"]  # type: ignore[index]
    assert drawn[0].chosen == f"position {place[0]}, layer {place[1]}"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (("de", "en", "yo"), "its own direction"),
        (("en",), "the direction of en"),
        (("de", "en"), "its own direction, else that of de"),
        (("ja",), "the direction of ja"),
    ],
)
def test_the_rate_chart_says_whose_direction_is_ablated(
    tmp_path: Path, sources: tuple[str, ...], said: str
) -> None:
    drawn = rate_chart(entry_of(one_run(tmp_path, sources=sources), JUDGE))
    assert drawn is not None
    assert drawn.sources == said


@given(low=st.floats(-1e6, 1e6, allow_subnormal=False), span=st.one_of(st.just(0.0), st.floats(1e-3, 1e6)))
def test_an_axis_holds_its_values_and_has_few_ticks(low: float, span: float) -> None:
    start, end, ticks = scale(low, low + span)
    slack = 1e-9 * max(1.0, abs(low) + span)
    assert start - slack <= low <= low + span <= end + slack
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))


def test_ticks_of_values_that_hardly_differ_fit_beside_the_axis() -> None:
    for low, high in ((-9.4731, -9.4702), (100.001, 100.002), (0.25, 0.25)):
        assert max(len(f"{tick:g}") for tick in scale(low, high)[2]) <= 6, (low, high)


def test_a_point_alone_is_seen() -> None:
    values = {("-1", 0): 1.0, ("-1", 1): None, ("-1", 2): 2.0, ("-1", 3): float("nan"), ("-2", 0): 1.0} | {
        ("-2", 1): 2.0
    }
    chart = layer_chart("en", {"score": values}, "link", str)
    assert chart is not None
    (panel,) = chart.panels
    assert [len(dots) for dots in panel.dots] == [2, 0]
    assert [line.count("L") for line in panel.lines] == [0, 1]
    assert panel.lines[0] == "", "what is no line is no path"
    assert layer_chart("en", {"score": {("-1", 0): None}}, "link", str) is None


def test_a_single_layer_stands_in_the_middle() -> None:
    chart = layer_chart("en", {"score": {("-1", 7): 1.0, ("-2", 7): 2.0}}, "link", str)
    assert chart is not None
    assert chart.layers == ((LEFT + WIDTH / 2, "7"),)
    assert [x for dots in chart.panels[0].dots for x, _ in dots] == [LEFT + WIDTH / 2] * 2


def test_small_ticks_are_read_without_an_exponent_and_kl_begins_at_0() -> None:
    kl, refusal = SCORES["kl_div_score"], SCORES["refusal_score"]
    small = {("-1", layer): value for layer, value in enumerate((6.84e-5, 6.8e-5, 7.9e-5))}
    plain = {("-1", layer): value for layer, value in enumerate((0.0, -0.3, 0.004))}
    chart = layer_chart("en", {kl: small, refusal: plain}, "link", str)
    assert chart is not None
    assert [(panel.factor, panel.ticks[0][1], panel.ticks[-1][1]) for panel in chart.panels] == [
        ("×10⁻⁵", "0", "8"),
        ("", "-0.3", "0.1"),
    ]
    for value, text in ((6.84e-5, "6.84 × 10⁻⁵"), (0.25, "0.25"), (-2e6, "-2 × 10⁶"), (0.0, "0")):
        assert plain_number(value) == text


def test_a_point_stands_at_its_rate_and_its_whisker_spans_its_interval(tmp_path: Path) -> None:
    entry = entry_of(one_run(tmp_path), JUDGE)
    drawn = rate_chart(entry)
    assert drawn is not None
    for row in drawn.rows:
        for point in row.points:
            assert point.figure.value is not None
            assert point.x == pytest.approx(AXIS_LEFT + AXIS_WIDTH * point.figure.value, abs=0.06)
            assert point.low is not None
            assert point.high is not None
            assert point.low - 0.1 <= point.x <= point.high + 0.1
    assert [row.label for row in drawn.rows] == ["German (de)", "English (en)", "Yoruba (yo)"]
