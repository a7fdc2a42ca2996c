"""A lexicon learned from the rows tells rows that belong together from rows that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from meaning_errors import Pair, plant

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
    return [Pair(lang=lang, english=prompt.text, text=prompt.translations[lang]) for prompt in chosen]


def planted(kind: str, pairs: list[Pair]) -> tuple[list[Pair], list[int]]:
    """Return the pairs with errors of one kind in 5 % of them, and where those are."""
    errors = plant(pairs, [kind], 0.05, seed=1)
    changed = [
        replace(pair, text=errors[row][1]) if row in errors else pair for row, pair in enumerate(pairs)
    ]
    return changed, sorted(errors)


def batch(pairs: list[Pair], lang: str) -> Batch:
    return Batch(LANGUAGES[lang], [pair.text for pair in pairs], [pair.english for pair in pairs])


def flagged(check: str, scores: list[float], lang: str) -> list[bool]:
    return [THRESHOLDS.flagged(check, lang, score) for score in scores]


@pytest.mark.parametrize("lang", LANGS)
def test_swapped_rows_fit_worse_than_other_rows(lang: str) -> None:
    pairs = sample_pairs(lang)
    clean = batch(pairs, lang).lexical_fit
    changed, rows = planted("swapped", pairs)
    swapped = batch(changed, lang).lexical_fit
    assert clean is not None
    assert swapped is not None
    assert sum(flagged("fit", clean.better_fitting, lang)) <= 0.01 * len(pairs)
    found = flagged("fit", [swapped.better_fitting[row] for row in rows], lang)
    assert sum(found) >= 0.95 * len(found)


@pytest.mark.parametrize("lang", LANGS)
def test_texts_cut_in_half_are_seen(lang: str) -> None:
    pairs = sample_pairs(lang)
    changed, rows = planted("cut", pairs)
    for texts, low, high in ((pairs, 0.0, 0.01), (changed, 0.9, 1.0)):
        odds = batch(texts, lang).truncation
        assert odds is not None
        found = flagged("cut", [odds[row] for row in rows], lang)
        assert low <= sum(found) / len(found) <= high


@pytest.mark.parametrize("lang", LANGS)
def test_texts_that_lost_their_last_third_are_seen(lang: str) -> None:
    pairs = sample_pairs(lang)
    space = " " if LANGUAGES[lang].spaced else ""
    for row in range(0, len(pairs), 20):
        parts = pairs[row].text.split(" ") if space else list(pairs[row].text)
        pairs[row] = replace(pairs[row], text=space.join(parts[: len(parts) - len(parts) // 3]))
    odds = batch(pairs, lang).truncation
    assert odds is not None
    found = flagged("cut", odds[::20], lang)
    assert sum(found) >= 0.8 * len(found)


def test_the_task_of_another_topic_in_the_same_words_is_seen() -> None:
    prompts = sample_prompts()
    topic = 16  # rows of one topic: two labels in eight framings
    pairs = [
        Pair(lang="de", english=prompt.text, text=prompts[(index + 7 * topic) % 1920].translations["de"])
        if index % 20 == 0
        else Pair(lang="de", english=prompt.text, text=prompt.translations["de"])
        for index, prompt in enumerate(prompts)
    ]
    fit = batch(pairs, "de").lexical_fit
    assert fit is not None
    found = flagged("fit", fit.better_fitting[::20], "de")
    assert sum(found) >= 0.7 * len(found)


def test_few_rows_teach_nothing_and_rows_without_text_or_english_are_left_out() -> None:
    pairs = sample_pairs("de", MINIMUM_ROWS + 2)
    english: list[str | None] = [pair.english for pair in pairs]
    texts = [pair.text for pair in pairs]
    assert lexical_fit(texts[:20], texts[:20], LANGUAGES["de"]) is None
    assert truncation(texts[:20], texts[:20], [0.0] * 20, LANGUAGES["de"]) is None
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
