"""A lexicon learned from the rows tells rows that belong together from rows that do not."""

from __future__ import annotations

import pytest
from planted_errors import Pair, plant, sample_errors

from polyrefuse_data.checks.lexicon import MINIMUM_ROWS, lexical_fit, units
from polyrefuse_data.checks.rows import Batch, run_checks
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.checks.truncation import truncation
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.prompts.sample import sample_prompts

THRESHOLDS = load_thresholds()
LANGS = ("de", "zh")


def sample_pairs(lang: str, rows: int = 480) -> list[Pair]:
    chosen = [sample_prompts()[(index * 1033) % 1920] for index in range(rows)]
    return [Pair("test", prompt.text, prompt.translations[lang]) for prompt in chosen]


def batch(pairs: list[Pair], lang: str) -> Batch:
    return Batch(LANGUAGES[lang], [pair.text for pair in pairs], [pair.english for pair in pairs])


def flagged(check: str, scores: list[float], lang: str) -> list[bool]:
    return [THRESHOLDS.flagged(check, lang, score) for score in scores]


@pytest.mark.parametrize("lang", LANGS)
def test_swapped_rows_fit_worse_than_other_rows(lang: str) -> None:
    pairs = sample_pairs(lang)
    clean = batch(pairs, lang).lexical_fit
    planted = plant("swapped", pairs, lang, seed=1)
    swapped = batch(planted.pairs, lang).lexical_fit
    assert clean is not None
    assert swapped is not None
    assert sum(flagged("fit", clean.better_fitting, lang)) <= 0.01 * len(pairs)
    found = flagged("fit", [swapped.better_fitting[row] for row in planted.positions], lang)
    assert sum(found) >= 0.95 * len(found)


@pytest.mark.parametrize("lang", LANGS)
def test_texts_cut_in_half_are_seen(lang: str) -> None:
    pairs = sample_pairs(lang)
    planted = plant("cut", pairs, lang, seed=1)
    for rows, low, high in ((pairs, 0.0, 0.01), (planted.pairs, 0.9, 1.0)):
        measured = batch(rows, lang)
        assert measured.truncation is not None
        assert measured.lexical_fit is not None
        odds = [sum(pair) for pair in zip(measured.truncation, measured.lexical_fit.omission, strict=True)]
        found = flagged("cut", [odds[row] for row in planted.positions], lang)
        assert low <= sum(found) / len(found) <= high


def test_the_task_of_another_topic_in_the_same_words_is_seen() -> None:
    planted = sample_errors("de", seed=1)["object-changed"]
    fit = batch(planted.pairs, "de").lexical_fit
    assert fit is not None
    found = flagged("fit", [fit.better_fitting[row] for row in planted.positions], "de")
    assert sum(found) >= 0.7 * len(found)


def test_few_rows_teach_nothing_and_rows_without_text_or_english_are_left_out() -> None:
    pairs = sample_pairs("de", MINIMUM_ROWS + 2)
    english: list[str | None] = [pair.english for pair in pairs]
    texts = [pair.text for pair in pairs]
    assert lexical_fit(texts[:20], texts[:20], LANGUAGES["de"]) is None
    assert truncation(texts[:20], texts[:20], LANGUAGES["de"]) is None
    english[0], texts[1] = None, " "
    scores = run_checks(Batch(LANGUAGES["de"], texts, english), THRESHOLDS).scores["fit"]
    assert scores[:2] == [None, None]
    assert None not in scores[2:]


def test_the_order_of_rows_does_not_matter() -> None:
    pairs = sample_pairs("de", 240)
    forth, back = batch(pairs, "de").lexical_fit, batch(pairs[::-1], "de").lexical_fit
    assert forth is not None
    assert back is not None
    assert forth.better_fitting == pytest.approx(back.better_fitting[::-1], abs=0.01)


def test_units() -> None:
    assert units("Die Fahrräder, die Fahrrad!", LANGUAGES["de"]) == ["die", "fahrra"]
    assert units("自転車を", LANGUAGES["ja"]) == ["自転", "転車", "車を"]
    assert units("الدراجة", LANGUAGES["ar"]) == units("دراجة", LANGUAGES["ar"])
