"""A race chooses what all scores choose: shown on matrices of scores by prompt, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrefuse_eval.directions.racing import (
    KL,
    REFUSAL,
    SCORES,
    STEERING,
    Array,
    Key,
    PromptScores,
    Race,
    half_width,
    round_ends,
)
from polyrefuse_eval.directions.selection import (
    RULES,
    CandidateScore,
    Selection,
    preference,
    rule_steps,
    select,
)
from polyrefuse_eval.results.positions import Position

LAYERS = 10


class Matrices:
    """Scores [candidates, prompts] by name, that are given out as a race asks for them, and counted."""

    def __init__(self, scores: dict[str, Array]) -> None:
        self.scores = scores
        n = len(scores[KL])
        self.keys: list[Key] = [(Position(-1 - index // LAYERS), index % LAYERS) for index in range(n)]
        self.measured: Counter[tuple[str, Key]] = Counter()

    def measure(self, score: str, keys: Sequence[Key], round_index: int) -> Array:
        values = self.scores[score]
        ends = round_ends(values.shape[1])
        part = slice((0, *ends)[round_index], ends[round_index])
        for key in keys:
            self.measured[score, key] += part.stop - part.start
        return values[[self.keys.index(key) for key in keys], part]

    def race(self) -> Race:
        counts = {score: values.shape[1] for score, values in self.scores.items()}
        return Race(PromptScores(self.measure, counts), self.keys, LAYERS)

    def full_choice(self, rule: str) -> Selection:
        means = {score: values.mean(1) for score, values in self.scores.items()}
        scores = [
            CandidateScore(key[0].label, key[1], means[REFUSAL][row], means[STEERING][row], means[KL][row])
            for row, key in enumerate(self.keys)
        ]
        return select(scores, rule, LAYERS)


def noise(generator: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    """Return noise of mean 0 and deviation 1: normal, with heavy tails, or skewed."""
    if kind == "normal":
        return generator.normal(size=shape)
    if kind == "heavy tails":
        return generator.standard_t(3, size=shape) / 3**0.5
    return (generator.lognormal(size=shape) - np.exp(0.5)) / 2.16


def matrices(seed: int, kind: str, n_harmful: int, n_harmless: int) -> Matrices:
    """Draw scores of 40 candidates: good ones steer and ablate better, and prompts differ for all alike."""
    generator = np.random.default_rng(seed)
    n = 4 * LAYERS
    quality = generator.normal(size=(n, 1))
    refusal, steering = (
        1.5 * noise(generator, kind, (1, count)) + 2 * noise(generator, kind, (n, count))
        for count in (n_harmful, n_harmless)
    )
    harm = np.exp(generator.normal(-2, 1.2, size=(n, 1)))
    return Matrices(
        {
            REFUSAL: refusal - 2 - 2 * quality,
            STEERING: steering + generator.choice([-9, -3, 2]) + 4 * quality,
            KL: harm * generator.gamma(1, 1, size=(n, n_harmless)),
        }
    )


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "skewed"])
def test_the_choice_its_scores_and_its_step_are_those_of_all_scores(kind: str) -> None:
    differing, measured, total = 0, 0, 0
    for seed in range(60):
        drawn = matrices(seed, kind, 32, 32)
        rule = sorted(RULES)[seed % len(RULES)]
        race, full = drawn.race(), drawn.full_choice(rule)
        chosen = race.select(rule)
        if (chosen.score, chosen.step, chosen.relaxed) != (full.score, full.step, full.relaxed):
            differing += 1
        measured += drawn.measured.total()
        total += sum(values.size for values in drawn.scores.values())
    assert differing == 0
    assert measured < total / 3, "nothing is gained"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["normal", "heavy tails", "skewed"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(sorted(RULES)),
)
def test_what_holds_of_every_race(seed: int, kind: str, n_harmful: int, n_harmless: int, rule: str) -> None:
    drawn = matrices(seed, kind, n_harmful, n_harmless)
    race = drawn.race()
    chosen = race.select(rule)
    rows = {(key[0].label, key[1]): row for row, key in enumerate(drawn.keys)}
    row = rows[chosen.score.position, chosen.score.layer]
    # The scores of the chosen one are over all prompts, and it passes its step.
    for score in SCORES:
        expected = drawn.scores[score][row].mean()
        assert getattr(chosen.score, f"{score}_score") == pytest.approx(expected, rel=1e-12)
    assert rule_steps(rule)[chosen.relaxed].allows(chosen.score, LAYERS)
    # Nothing is measured twice.
    assert max(drawn.measured.values()) <= max(n_harmful, n_harmless)
    # Whoever exceeds its KL limit so far does so at the end, and what all prompts decide is decided for good.
    for dropped in race.dropped:
        values = drawn.scores[dropped.score][rows[dropped.position, dropped.layer]]
        assert dropped.prompts in round_ends(len(values))
        if dropped.score == KL:
            assert values.mean() > dropped.limit
        elif dropped.prompts == len(values) and dropped.score == STEERING:
            assert values.mean() < dropped.limit
    # Where every prompt belongs to the first round, nothing is left to chance.
    if max(n_harmful, n_harmless) <= 8:
        full = drawn.full_choice(rule)
        assert (chosen.score, chosen.step) == (full.score, full.step)


def test_a_rule_that_nothing_passes_falls_back_to_the_step_of_all_scores() -> None:
    drawn = matrices(3, "normal", 32, 32)
    drawn.scores[STEERING] -= 30
    race = drawn.race()
    chosen, full = race.select("robust"), drawn.full_choice("robust")
    assert (chosen.score, chosen.step, chosen.relaxed) == (full.score, "wang2025", 2)
    by_steering = [dropped for dropped in race.dropped if dropped.score == STEERING]
    assert {dropped.prompts for dropped in by_steering} == {8}, "hopeless after the first round"
    assert all(dropped.bound < dropped.limit == 0 for dropped in by_steering)
    assert {dropped.step for dropped in by_steering} == {"arditi2024", "kl 0.2, steering kept"}
    # Only candidates that lead so far are measured for their KL.
    assert sum(drawn.measured[KL, key] > 0 for key in drawn.keys) < len(drawn.keys) / 2


def test_few_prompts_that_agree_do_not_decide_for_the_others() -> None:
    """The first prompts say that steering fails; the others, that it works."""
    drawn = matrices(3, "normal", 32, 32)
    drawn.scores[STEERING][:] = -1.0
    drawn.scores[STEERING][:, 8:] = 2.0
    race = drawn.race()
    assert race.select("arditi2024").relaxed == drawn.full_choice("arditi2024").relaxed == 0


def test_equal_refusal_scores_are_decided_by_kl() -> None:
    drawn = matrices(5, "normal", 16, 16)
    drawn.scores[REFUSAL][:] = drawn.scores[REFUSAL][:1]
    chosen = drawn.race().select("robust")
    assert preference(chosen.score) == preference(drawn.full_choice("robust").score)


def test_the_bound_holds_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    n, m, tail, misses = 32, 8, 0.05, 0
    for _ in range(2000):
        scores = generator.normal(scale=3.0, size=n)
        misses += scores[:m].mean() + half_width(scores[:m], n, tail) < scores.mean()
    assert 0.03 < misses / 2000 < 0.07
    assert half_width(scores, n, tail) == 0.0
    assert half_width(scores[:1], n, tail) == np.inf
    assert half_width(np.zeros(8), n, tail) > 0.3, "prompts that agree are no proof"


def test_a_step_with_a_limit_of_refusal_drops_what_is_far_above_it() -> None:
    drawn = matrices(3, "normal", 32, 32)
    drawn.scores[REFUSAL] += 30
    race = drawn.race()
    chosen = race.select("mediating")
    assert chosen.step == drawn.full_choice("mediating").step != "both ways, kl 0.1"
    steps = {dropped.step for dropped in race.dropped if dropped.score == REFUSAL and dropped.than is None}
    assert "both ways, kl 0.1" in steps
