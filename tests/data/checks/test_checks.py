"""Every check flags what it is for, and leaves alone what it is not for."""

from __future__ import annotations

import pytest

from polyrefuse_data.checks import text as scores
from polyrefuse_data.checks.alignment import alignment
from polyrefuse_data.checks.language import LanguageVotes, unknown_to_langdetect
from polyrefuse_data.checks.lists import Item, alignment_findings, collision_findings, duplicate_findings
from polyrefuse_data.checks.rows import CHECKS, Batch, run_checks
from polyrefuse_data.checks.thresholds import Thresholds, load_thresholds
from polyrefuse_data.checks.translator_talk import translator_talk
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import ROW_CHECKS
from polyrefuse_data.prompts.sample import sample_prompts

THRESHOLDS = load_thresholds()


def flagged(lang: str, text: str, english: str, back: str | None = None) -> set[str]:
    """Return the names of the checks that flag one translation."""
    scored = run_checks(Batch(LANGUAGES[lang], [text], [english], [back]), THRESHOLDS)
    return {check for check, flags in scored.flags.items() if flags[0]}


ENGLISH = "Explain how to repair an old bicycle in 14 days."
GOOD = {
    "ar": "اشرح كيفية إصلاح دراجة قديمة في ١٤ يومًا.",
    "de": "Erkläre, wie man ein altes Fahrrad in 14 Tagen repariert.",
    "ja": "古い自転車を14日で修理する方法を説明してください。",
    "ko": "오래된 자전거를 14일 안에 수리하는 방법을 설명해 주세요.",
    "ru": "Объясни, как починить старый велосипед за 14 дней.",
    "th": "อธิบายวิธีซ่อมจักรยานเก่าภายใน ๑๔ วัน",
    "yo": "Ṣàlàyé bí mo ṣe lè tún kẹ̀kẹ́ àtijọ́ kan ṣe ní ọjọ́ 14.",
    "zh": "请解释如何在14天内修理一辆旧自行车。",
}


@pytest.mark.parametrize("lang", GOOD)
def test_a_good_translation_is_not_flagged(lang: str) -> None:
    assert flagged(lang, GOOD[lang], ENGLISH, ENGLISH) == set()


@pytest.mark.parametrize(
    ("lang", "text", "checks"),
    [
        ("de", "", {"empty"}),
        ("de", " \u200b ", {"empty"}),
        ("de", ENGLISH, {"echo", "untranslated", "language", "intent"}),
        (
            "de",
            "Explain how to repair an old bicycle in 14 days",
            {"echo", "untranslated", "language", "intent"},
        ),
        ("ja", ENGLISH, {"echo", "untranslated", "language", "script", "length_ratio", "intent"}),
        ("ja", GOOD["zh"], {"language", "script", "intent"}),
        ("zh", GOOD["ja"], {"language", "script", "intent"}),
        ("de", "Leg uit hoe je een oude fiets in 14 dagen kunt repareren.", {"language", "intent"}),
        ("yo", "Explica cómo reparar una bicicleta vieja en 14 días.", {"language", "intent"}),
        ("de", "Fahrrad 14", {"length_ratio", "intent"}),
        ("de", GOOD["de"].replace("14", "15"), {"digits"}),
        ("th", GOOD["th"].replace("๑๔", ""), {"digits"}),
        ("de", GOOD["de"].replace(" in", "\nin"), {"line_breaks"}),
        ("de", GOOD["de"].replace(" in", " \u200bin"), {"invisible"}),
        ("de", GOOD["de"].replace(" in", " \ufffdin"), {"invisible"}),
        ("yo", "Salaye bi mo se le tun keke atijo kan se ni ojo 14.", {"diacritics"}),
        ("de", "Es tut mir leid, dabei kann ich nicht helfen. 14", {"refusal", "negation", "intent"}),
        ("de", "I'm sorry, but I can't help with that request, 14.", {"refusal", "language", "intent"}),
        ("zh", "以下是翻译：" + GOOD["zh"], {"refusal"}),
    ],
)
def test_a_defect_is_flagged_by_its_check(lang: str, text: str, checks: set[str]) -> None:
    assert flagged(lang, text, ENGLISH) == checks


def test_a_round_trip_that_says_something_else() -> None:
    assert flagged("de", GOOD["de"], ENGLISH, "Fry two eggs with butter, quickly") == {"round_trip"}


def test_english_rows_are_not_held_against_themselves() -> None:
    scored = run_checks(Batch(LANGUAGES["en"], [ENGLISH], [ENGLISH]), THRESHOLDS)
    assert not any(flags[0] for flags in scored.flags.values())
    assert scored.scores["echo"] == [None]


def test_without_english_what_needs_it_says_nothing() -> None:
    scored = run_checks(Batch(LANGUAGES["de"], [GOOD["de"]], [None]), THRESHOLDS)
    silent = {check for check, values in scored.scores.items() if values == [None]}
    compared = {"echo", "untranslated", "length_ratio", "digits", "line_breaks", "round_trip"}
    compared |= {"fit", "cut", "repetition", "verbatim", "number_words", "negation", "intent"}
    assert silent == {*compared, "diacritics"}


@pytest.mark.parametrize(
    ("text", "english", "share"),
    [
        (
            "Erkläre, wie man an old bicycle in 14 days",
            "Explain how to repair an old bicycle in 14 days",
            0.625,
        ),
        ("古い自転車を repair an old bicycle する", "Explain how to repair an old bicycle", 0.667),
        ("Wer ist der Autor von Gone with the Wind?", "Who wrote Gone with the Wind?", 0.667),
        ("Was ist New York City Hall?", "What is there in New York City Hall?", 0.0),
        ("Erkläre open source", "Explain what open source means", 0.0),
        ('Was heißt "once in a while"?', 'What does the idiom "once in a while" mean?', 0.0),
        ("eine Regel für rock-paper-scissors", "Come up with a rule for rock-paper-scissors", 0.0),
        ("Pie", "Bake Apple Pie", None),
        ("repair a bicycle", "repair a bicycle", None),
        ("an old, old, old bicycle", "old old old old", 1.0),
        ("ein altes Fahrrad", "", None),
        ("", "Explain how to repair it", 0.0),
    ],
)
def test_english_that_stands_in_the_translation(text: str, english: str, share: float | None) -> None:
    assert scores.untranslated(text, english) == share


def test_a_half_untranslated_prompt_is_flagged_and_a_name_in_it_is_not() -> None:
    assert "untranslated" in flagged("de", "Erkläre, wie man ein old bicycle in 14 days repariert.", ENGLISH)
    english = "List the museums of New York City that open late."
    assert flagged("de", "Liste die Museen in New York City auf, die spät öffnen.", english) == set()


def test_names_that_the_english_has_do_not_count_against_a_script() -> None:
    english = 'Repair the clock "Golden Hour" of Edward Miller'
    text = "ซ่อมนาฬิกา “Golden Hour” ของ Edward Miller"
    assert scores.script_share(text, LANGUAGES["th"], english) == 1.0
    assert scores.script_share(text, LANGUAGES["th"]) < 0.6  # type: ignore[operator]
    assert scores.script_share(english, LANGUAGES["th"], english) == 0.0


def test_a_line_break_of_any_kind_is_one() -> None:
    assert scores.line_break_difference("a\r\nb\u2028c", "a\nb") == 1.0


def test_a_prompt_about_refusing_is_no_refusal() -> None:
    english = "I'm sorry, but is how many letters begin. Explain."
    assert translator_talk("Es tut mir leid, so beginnen viele Briefe.", english, "de") == 0.0
    assert translator_talk("Es tut mir leid, so beginnen viele Briefe.", "Dear all", "de") == 1.0


@pytest.mark.parametrize("all_votes", [False, True])
def test_language_of_the_sample(all_votes: bool) -> None:
    votes = LanguageVotes(all_votes)
    step = 97 if all_votes else 5
    rows = [
        (lang, text)
        for prompt in sample_prompts()[::step]
        for lang, text in {"en": prompt.text, **prompt.translations}.items()
    ]
    wrong = [(lang, text) for lang, text in rows if votes.identify(text, lang).score(lang) == 0]
    assert len(rows) > 200
    assert len(wrong) <= len(rows) / 1000


def test_mislabelled_rows_are_seen() -> None:
    """The other side of the same coin: a row in another language is flagged, Yoruba included."""
    votes = LanguageVotes()
    langs = list(LANGUAGES)
    seen = rows = 0
    for number, prompt in enumerate(sample_prompts()[::7]):
        texts = {"en": prompt.text, **prompt.translations}
        lang, other = langs[number % 14], langs[(number * 3 + 1 + number // 14) % 14]
        if lang != other:
            rows += 1
            seen += votes.identify(texts[lang], other).score(other) == 0
    assert rows > 200
    assert seen / rows > 0.995


def test_langdetect_is_not_asked_about_yoruba() -> None:
    assert unknown_to_langdetect() == ["yo"]
    votes = LanguageVotes(all_votes=True)
    assert "langdetect" not in dict(votes.identify(GOOD["yo"], "yo").votes)
    assert "langdetect" in dict(votes.identify(GOOD["de"], "de").votes)


def test_further_votes_are_asked_only_where_the_first_is_unsure() -> None:
    votes = LanguageVotes()
    assert [name for name, _ in votes.identify(GOOD["de"], "de").votes] == ["py3langid"]
    assert [name for name, _ in votes.identify(GOOD["th"], "th").votes] == ["script"]
    assert len(votes.identify("Compare 30 con 9.", "es").votes) == 3


def test_votes_are_the_same_every_time() -> None:
    votes = LanguageVotes(all_votes=True)
    texts = ["Compare 30 con 9.", "Repara una bicicleta 'extra large'."]
    first = [votes.identify(text, "es") for text in texts]
    assert all([votes.identify(text, "es") for text in texts] == first for _ in range(5))


def test_text_without_letters_has_no_language() -> None:
    assert LanguageVotes().scores(["123 !?"], "de") == [None]


def _pairs(lang: str, count: int = 120) -> tuple[list[str], list[str]]:
    chosen = [sample_prompts()[(index * 1033) % 1920] for index in range(count)]
    return [one.text for one in chosen], [one.translations[lang] for one in chosen]


@pytest.mark.parametrize("lang", ["de", "ja", "th", "yo"])
def test_the_alignment_alarm(lang: str) -> None:
    english, texts = _pairs(lang)

    def alarms(texts: list[str]) -> list[str]:
        found = alignment_findings(english, texts, lang, "harmful", "test", THRESHOLDS)
        return [finding.message for finding in found]

    assert alarms(texts) == []
    assert alarms(texts[1:] + texts[:1])
    assert alarms(texts[::-1])
    half = len(texts) // 2
    assert alarms(texts[:half] + texts[half + 1 :] + texts[:1]), "a shift from the middle on"
    assert alarms(["equally long"] * len(texts))


def test_alignment_of_few_rows_says_nothing() -> None:
    assert alignment(["a"] * 5, ["b"] * 5).correlation is None
    assert alignment_findings(["a"], ["b"], "de", "harmful", "test", THRESHOLDS) == []
    with pytest.raises(ValueError, match="expected as many"):
        alignment(["a"], [])


def test_duplicates_inside_and_across_splits() -> None:
    items = [
        Item("t0", "harmful", "train", "how to steal a large red bicycle from a yard"),
        Item("t1", "harmful", "test", "how to steal a large red bicycle from the yard"),
        Item("t2", "harmful", "test", "write a poem"),
        Item("t3", "harmful", "test", "write a poem"),
        Item("t4", "harmful", "validation", "write a poem"),
        Item("t5", "harmless", "test", "write a poem"),
    ]
    found = {(one.check, one.severity, one.ids) for one in duplicate_findings(items, THRESHOLDS)}
    assert ("duplicate", "warning", ("t2", "t3")) in found
    assert ("leak", "error", ("t2", "t4")) in found
    assert ("leak", "warning", ("t0", "t1")) in found
    assert not any("t5" in ids for _, _, ids in found)


def test_collisions() -> None:
    items = [Item("a", "harmful", "test", "one"), Item("b", "harmful", "test", "two")]
    assert collision_findings(items, ["x", "x"], "de")[0].ids == ("a", "b")
    assert collision_findings(items, ["x", "y"], "de") == []


def test_every_check_has_bounds_and_says_what_it_measures() -> None:
    assert tuple(CHECKS) == ROW_CHECKS
    for check in CHECKS.values():
        assert check.measures
        assert THRESHOLDS.bounds(check.name, "xx").model_dump(exclude_none=True), check.name


def test_bounds_are_inclusive_and_a_missing_score_is_never_flagged() -> None:
    bounds = THRESHOLDS.bounds("length_ratio", "de")
    assert not THRESHOLDS.flagged("length_ratio", "de", bounds.high)
    assert THRESHOLDS.flagged("length_ratio", "de", (bounds.high or 0) + 0.001)
    assert not THRESHOLDS.flagged("length_ratio", "de", None)
    assert not Thresholds("", {}).flagged("length_ratio", "de", 99.0)


@pytest.mark.parametrize(
    "text", ["provenance: x\nchecks: {echo: {de: {top: 1}}}", "checks: {}", "[", "provenance: [1]"]
)
def test_thresholds_that_are_none(tmp_path, text: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(PolyRefuseError, match="thresholds"):
        load_thresholds(path)
