"""What of their form tells the labels apart is measured, and said once for each split."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from polyrefuse_data.checks import cues_together, surface_cues
from polyrefuse_data.checks.cues_together import area_together
from polyrefuse_data.checks.logistic import fit_logistic, out_of_fold_scores
from polyrefuse_data.checks.surface_cue_report import COLUMNS, surface_cue_cells, surface_cue_findings
from polyrefuse_data.checks.surface_cues import (
    CUES,
    FIRST_WORD,
    LENGTH,
    TOGETHER,
    SurfaceCues,
    first_word,
    measure_surface_cues,
    surface_cues_by_split,
)
from polyrefuse_data.checks.thresholds import Bounds, Thresholds, load_thresholds
from polyrefuse_data.core.statistics import difference_of_rates, wilson

THRESHOLDS = load_thresholds(None)
VERBS = ("list", "write", "draw", "name", "find")
NOUNS = ("ways to mend a chair", "songs about rain", "a plan for the garden", "three birds", "the best soup")


def prompts(count: int, seed: int, ending: str = "") -> list[str]:
    """Return prompts that `seed` draws, all with the same ending."""
    draw = random.Random(seed)
    return [f"{draw.choice(VERBS)} {draw.choice(NOUNS)} {draw.choice(NOUNS)}{ending}" for _ in range(count)]


def measured(
    harmful: Sequence[str], harmless: Sequence[str], lang: str = "en", split: str = "train"
) -> SurfaceCues:
    cues = measure_surface_cues(lang, split, harmful, harmless, THRESHOLDS)
    assert cues is not None
    return cues


@pytest.mark.parametrize(
    ("cue", "lang", "text", "expected"),
    [
        ("final punctuation", "en", "Name a bird. ", True),
        ("final punctuation", "zh", "写一首诗。", True),
        ("final punctuation", "hi", "एक कविता लिखो।", True),
        ("final punctuation", "en", "Name a bird \n", False),
        ("final punctuation", "en", "?!", False),  # nothing else is left: it is the text
        ("question", "en", "Which bird sings?", True),
        ("question", "en", "“Which bird sings?”", True),
        ("question", "en", "how do birds sing", True),
        ("question", "en", "show me how birds sing", False),
        ("question", "ar", "أي طائر يغني؟", True),
        ("question", "ja", "鳥は歌いますか", True),
        ("question", "sw", "Ndege gani anaimba?", True),
        ("digit", "en", "Name 3 birds", True),
        ("digit", "ar", "اذكر ٣ طيور", True),
        ("digit", "en", "Name three birds", False),
        ("lower-case first letter", "en", "“name a bird”", True),
        ("lower-case first letter", "de", "Ödland beschreiben", False),
        ("lower-case first letter", "th", "นก", False),
        ("lower-case first letter", "en", "123", False),
    ],
)
def test_a_cue_is_seen_in_any_script(cue: str, lang: str, text: str, expected: bool) -> None:
    assert CUES[cue](text, lang) is expected


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("en", "  ¿Don't go", "don't"),
        ("de", "ERKLÄRE es", "erkläre"),
        ("zh", "写一首诗", "写一"),
        ("xx", "Andika shairi", "andika"),
        ("en", "!!", ""),
        ("en", "a" * 50, "a" * 20),
    ],
)
def test_the_first_word(lang: str, text: str, expected: str) -> None:
    assert first_word(text, lang) == expected


def test_a_planted_cue_is_found_and_is_the_only_one() -> None:
    cues = measured(prompts(60, 1), prompts(50, 2, "."))
    rates = cues.rates_of("final punctuation")
    assert rates is not None
    assert (rates.hits, rates.n) == ((0, 50), (60, 50))
    assert rates.difference[0] == -1
    assert set(cues.telling) == {"final punctuation", TOGETHER}
    together = cues.areas[TOGETHER]
    assert together is not None
    assert together > 0.99
    (finding,) = surface_cue_findings([cues])
    assert (finding.check, finding.severity, finding.lang, finding.split) == (
        "surface_cue",
        "warning",
        None,
        "train",
    )
    assert "final punctuation (0 % of harmful, 100 % of harmless in en)" in finding.message


def test_prompts_of_one_form_tell_nothing() -> None:
    """All cues together are at chance on prompts of one kind: the model is tested on what it has not seen."""
    areas = []
    for seed in range(8):
        cues = measured(prompts(80, seed), prompts(80, 100 + seed))
        assert cues.telling == ()
        assert not surface_cue_findings([cues])
        areas.append(cues.areas[TOGETHER])
    assert np.mean([area for area in areas if area is not None]) == pytest.approx(0.5, abs=0.08)


def test_a_small_difference_or_a_few_prompts_warn_of_nothing() -> None:
    few = measured(prompts(3, 1), prompts(3, 2, "."))
    assert few.areas[TOGETHER] is None
    rates = few.rates_of("final punctuation")
    assert rates is not None
    assert abs(rates.difference[0]) == 1
    small = [f"{text}{'.' if index % 10 == 0 else ''}" for index, text in enumerate(prompts(500, 3))]
    assert measured(small, prompts(500, 4)).telling == ()


def test_the_bound_is_that_of_the_thresholds() -> None:
    sides = prompts(60, 1), prompts(60, 2, ".")
    none = measure_surface_cues("en", "train", *sides, Thresholds("own", {}))
    lax = Thresholds("own", {"surface_cue": {"default": Bounds(high=0.2), "de": Bounds(high=1.0)}})
    german = measure_surface_cues("de", "train", *sides, lax)
    assert none is not None
    assert german is not None
    assert (none.telling, german.telling) == ((), ())


def test_a_warning_names_english_and_counts_the_languages() -> None:
    english = measured([*prompts(40, 1), *prompts(20, 5, ".")], prompts(60, 2, "."))
    german = measured(prompts(60, 1), prompts(60, 2, "."), "de")
    french = measured(prompts(60, 1), prompts(60, 2), "fr")
    (finding,) = surface_cue_findings([english, german, french])
    assert "(33 % of harmful, 100 % of harmless in en, in 2 of 3 languages)" in finding.message
    (without,) = surface_cue_findings([german, french])
    assert "in de, in 1 of 2 languages" in without.message


def test_length_and_first_words_are_measured() -> None:
    cues = measured([f"Explain {text} at length" for text in prompts(60, 1)], prompts(60, 2))
    word = cues.rates_of(FIRST_WORD)
    assert word is not None
    assert (word.word, word.hits) == ("explain", (60, 0))
    assert cues.areas[LENGTH] is not None
    assert cues.areas[LENGTH] > 0.9
    assert {LENGTH, FIRST_WORD} <= set(cues.telling)
    cells = dict(zip(COLUMNS, surface_cue_cells(cues), strict=True))
    assert cells[FIRST_WORD] == "100/0 “explain”*"
    assert cells["digit"] == "0/0"


def test_what_is_stored_comes_back() -> None:
    cues = measured(prompts(30, 1), prompts(40, 2, "?"))
    assert SurfaceCues.from_dict(cues.to_dict()) == cues


def test_a_split_with_one_label_has_none() -> None:
    texts = prompts(20, 1)
    by_place = {("harmful", "train"): texts, ("harmless", "train"): texts, ("harmful", "test"): texts}
    assert [cues.split for cues in surface_cues_by_split("en", by_place, THRESHOLDS)] == ["train"]
    assert measure_surface_cues("en", "train", texts, [" ", ""], THRESHOLDS) is None


@pytest.mark.parametrize("texts", [["", "\ud800"], ["."] * 30, ["a\u202e" * 5000] * 12])
def test_odd_texts_are_measured(texts: list[str]) -> None:
    cues = measure_surface_cues("en", "test", [*texts, "x"], texts, THRESHOLDS)
    if cues is not None:
        surface_cue_cells(cues)
        cues.to_dict()


def test_equal_texts_are_in_one_fold() -> None:
    """Else a text that stands on both sides of the cut tells its own label."""
    harmful, harmless = prompts(22, 1) * 3, prompts(22, 2) * 3
    is_text = [[[each == text for each in side] for side in (harmful, harmless)] for text in harmful[:22]]
    area = area_together([harmful, harmless], is_text)
    assert area is not None
    assert area < 0.65


def test_the_logistic_model_finds_planted_weights_and_its_gradient_is_zero() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(4000, 3))
    odds = features @ np.array([1.5, 0.0, -1.0]) + 0.5
    positive = generator.random(4000) < 1 / (1 + np.exp(-odds))
    weights = fit_logistic(features, positive)
    assert weights == pytest.approx([1.5, 0.0, -1.0, 0.5], abs=0.15)
    share = 1 / (1 + np.exp(-(features @ weights[:3] + weights[3])))
    gradient = features.T @ (share - positive) + weights[:3]
    assert np.abs(gradient).max() < 1e-2
    assert abs((share - positive).sum()) < 1e-2, "the intercept has no penalty"


def test_classes_that_can_be_separated_have_finite_weights() -> None:
    features = np.array([[-1.0], [-2.0], [1.0], [2.0]] * 10)
    positive = np.array([False, False, True, True] * 10)
    weights = fit_logistic(features, positive)
    assert np.isfinite(weights).all()
    scores = out_of_fold_scores(lambda _training: features, positive, np.arange(40) % 5)
    assert ((scores > 0) == positive).all()


def test_the_score_of_features_that_say_nothing_is_the_log_odds_of_the_label() -> None:
    positive = np.array([True, True, True, False] * 10)
    scores = out_of_fold_scores(lambda _training: np.zeros((40, 1)), positive, np.arange(40) // 8)
    assert scores == pytest.approx(np.log(3), abs=1e-4)


def test_form_together_does_not_depend_on_the_order_of_prompts_and_knows_middle_lengths() -> None:
    harmful = ["x" * (40 + index) for index in range(30)]
    harmless = ["x" * (5 + index if index % 2 else 400 + index) for index in range(30)]
    area = area_together([harmful, harmless], [])
    assert area is not None
    assert area > 0.9
    draw = random.Random(1)
    weak = [prompts(31, 1), prompts(33, 2)]
    for _ in range(3):
        mixed = [draw.sample(side, len(side)) for side in weak]
        assert area_together(mixed, []) == area_together(weak, [])


def test_scores_that_differ_by_rounding_alone_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(size=40) * 1e-9 + np.arange(40) * 1e-9
    monkeypatch.setattr(cues_together, "out_of_fold_scores", lambda *_unused: noise)
    assert area_together([prompts(20, 1), prompts(20, 2)], []) == 0.5


@pytest.mark.parametrize(("area", "tells"), [(0.9, True), (0.1, False)])
def test_a_model_that_is_wrong_more_often_than_right_tells_nothing(
    area: float, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surface_cues, "area_together", lambda *_unused: area)
    assert (TOGETHER in measured(prompts(60, 1), prompts(60, 2)).telling) is tells


def test_a_large_difference_whose_interval_holds_none_tells_nothing() -> None:
    cues = measured(["Name a bird.", "Name a tree"], ["Name a song", "Name a fish"])
    rates = cues.rates_of("final punctuation")
    assert rates is not None
    assert rates.difference[0] == 0.5
    assert "final punctuation" not in cues.telling


def test_of_first_words_that_tell_as_much_the_first_in_the_alphabet_is_named() -> None:
    cues = measured([f"{letter} bird" for letter in "gcfbed"], [f"{letter} tree" for letter in "nmlkji"])
    rates = cues.rates_of(FIRST_WORD)
    assert rates is not None
    assert rates.word == "b"


def test_the_difference_of_rates_is_the_published_one() -> None:
    """Newcombe (1998), table II: 56 of 70 and 48 of 80 give 0.2000, from 0.0524 to 0.3339."""
    assert difference_of_rates((56, 70), (48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert difference_of_rates((9, 10), (3, 10)) == pytest.approx((0.6, 0.1705, 0.8090), abs=1e-4)
    assert difference_of_rates((10, 10), (0, 10))[1] < 1
    assert difference_of_rates((0, 10), (0, 10)) == pytest.approx((0.0, -wilson(0, 10)[1], wilson(0, 10)[1]))
