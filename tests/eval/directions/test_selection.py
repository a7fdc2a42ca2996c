"""Selection rules: the published choices, and a recorded answer where a rule has none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.errors import UnknownNameError
from polyrefuse_eval.directions.selection import (
    RULES,
    STRICT,
    CandidateScore,
    preference,
    read_scores,
    select,
    write_scores,
)
from polyrefuse_eval.errors import DirectionError

PAPER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "paper"
needs_paper = pytest.mark.skipif(
    not PAPER.is_dir(), reason="the published scores are not beside the checkout"
)

GOLDEN = [
    ("arditi_gemma-2b-it", "arditi2024", "arditi", "gemma-2b-it"),
    ("arditi_llama-2-7b-chat-hf", "arditi2024", "arditi", "llama-2-7b-chat-hf"),
    ("arditi_meta-llama-3-8b-instruct", "arditi2024", "arditi", "meta-llama-3-8b-instruct"),
    ("qwen2.5-7b_de", "wang2025", "qwen2.5-7b", "de"),
    ("qwen2.5-7b_ja", "wang2025", "qwen2.5-7b", "ja"),
    ("qwen2.5-7b_ko", "wang2025", "qwen2.5-7b", "ko"),
]


@needs_paper
@pytest.mark.real
@pytest.mark.parametrize(("name", "rule", "model", "key"), GOLDEN)
def test_published_scores_give_the_published_choice(name: str, rule: str, model: str, key: str) -> None:
    expected = json.loads((PAPER / "selected.json").read_text())[model][key]
    chosen = select(read_scores(PAPER / f"{name}_scores.json"), rule)
    assert {"position": chosen.score.position, "layer": chosen.score.layer} == expected
    assert (chosen.step, chosen.relaxed) == (rule, 0)


@needs_paper
@pytest.mark.real
@pytest.mark.parametrize("rule", ["robust", "arditi2024"])
def test_korean_under_the_strict_rule_falls_back_and_says_so(rule: str) -> None:
    chosen = select(read_scores(PAPER / "qwen2.5-7b_ko_scores.json"), rule)
    assert chosen.passed[0] == 0
    assert (chosen.step, chosen.relaxed) == ("wang2025", 2)
    assert (chosen.score.position, chosen.score.layer) == (-1, 15)


def score(
    position: int | str, layer: int, refusal: float, steering: float = 1.0, kl: float = 0.05
) -> CandidateScore:
    return CandidateScore(position, layer, refusal, steering, kl)


def test_the_last_fifth_of_the_layers_is_left_out() -> None:
    scores = [score(-1, layer, -layer) for layer in range(10)]
    assert select(scores).score.layer == 7
    assert select(scores, n_layers=20).score.layer == 9


def test_limits_are_inclusive_and_each_filter_counts() -> None:
    assert select([score(-1, 0, 5, 0.0, 0.1), score(-1, 1, 9)], n_layers=9).score.layer == 0
    assert select([score(-1, 0, 5, -0.001), score(-1, 1, 9)], n_layers=9).score.layer == 1
    assert select([score(-1, 0, 5, kl=0.1001), score(-1, 1, 9)], n_layers=9).score.layer == 1


def test_each_step_of_relaxation_is_reached_and_recorded() -> None:
    cases = {
        "kl 0.2, steering kept": score(-1, 0, 1, kl=0.15),
        "wang2025": score(-1, 0, 1, steering=-1),
        "kl 0.5": score(-1, 0, 1, kl=0.4),
        "no kl limit": score(-1, 0, 1, kl=7),
        "all layers": score(-1, 9, 1),
    }
    for relaxed, (step, only) in enumerate(cases.items(), 1):
        chosen = select([only], n_layers=10)
        assert (chosen.step, chosen.relaxed) == (step, relaxed)
        assert chosen.passed == (*[0] * relaxed, 1)


def test_a_mediating_direction_works_both_ways_whatever_its_side_effects() -> None:
    idle = score(-1, 1, 4, steering=-5, kl=0.08)
    works = score(-1, 2, -7, steering=5, kl=0.9)
    assert select([idle, works], n_layers=10).score == idle
    chosen = select([idle, works], "mediating", n_layers=10)
    assert (chosen.score, chosen.step, chosen.relaxed) == (works, "both ways, no kl limit", 3)
    gentle = score(-2, 2, -3, steering=1, kl=0.1)
    assert select([idle, works, gentle], "mediating", n_layers=10).score == gentle
    # Where nothing works both ways it falls back as the robust rule does, and says so.
    fallback = select([idle], "mediating", n_layers=10)
    assert (fallback.score, fallback.step) == (idle, "wang2025")


def test_ties_go_to_less_kl_then_the_earlier_layer_then_the_later_position() -> None:
    tied = [score(-2, 3, 1), score(-1, 3, 1), score(-1, 4, 1), score(-3, 5, 1, kl=0.01)]
    assert select(tied, n_layers=20).score == tied[3]
    assert select(tied[:3], n_layers=20).score == tied[1]
    assert select([score("t_inst", 3, 1), score(-5, 3, 1)], n_layers=20).score.position == -5


def test_no_usable_score_is_an_error_with_its_reason() -> None:
    with pytest.raises(DirectionError, match="none of 1 candidates has a finite refusal score"):
        select([score(-1, 0, math.nan)])
    with pytest.raises(DirectionError, match="nothing to select"):
        select([])
    with pytest.raises(UnknownNameError, match="did you mean 'wang2025'"):
        select([score(-1, 0, 1)], "wang2024")


candidates = st.builds(
    CandidateScore,
    st.integers(-5, -1),
    st.integers(0, 11),
    st.one_of(st.none(), st.floats(-10, 10), st.just(math.nan)),
    st.one_of(st.none(), st.floats(-10, 10)),
    st.one_of(st.none(), st.floats(0, 2)),
)


@given(st.lists(candidates, min_size=1, max_size=30), st.randoms(), st.sampled_from(sorted(RULES)))
def test_the_choice_does_not_depend_on_order_and_is_the_least_that_passed(scores, shuffler, rule) -> None:
    if not any(one.refusal_score is not None and math.isfinite(one.refusal_score) for one in scores):
        return
    chosen = select(scores, rule, 12)
    shuffled = list(scores)
    shuffler.shuffle(shuffled)
    assert preference(select(shuffled, rule, 12).score) == preference(chosen.score)
    step = RULES[rule][chosen.relaxed]
    assert step.allows(chosen.score, 12)
    for one in scores:
        assert not step.allows(one, 12) or preference(one) >= preference(chosen.score)
        assert not any(earlier.allows(one, 12) for earlier in RULES[rule][: chosen.relaxed])
    assert STRICT in RULES["robust"]


def test_scores_survive_the_disk_and_nonsense_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    scores = [score(-1, 0, 1.5), CandidateScore("t_inst", 2), score(-2, 1, math.nan)]
    write_scores(file, scores)
    again = read_scores(file)
    assert again[:2] == scores[:2]
    assert again[2].refusal_score is None
    for text, message in (("{", "is not JSON"), ("{}", "no list"), ('[{"layer": 1}]', "entry 0")):
        file.write_text(text)
        with pytest.raises(DirectionError, match=message):
            read_scores(file)
    with pytest.raises(DirectionError, match="cannot be read"):
        read_scores(tmp_path / "none.json")
