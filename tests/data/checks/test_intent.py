"""Does a translation ask for the same thing? Each marker check sees what it is for, in every language."""

from __future__ import annotations

import pytest

from polyrefuse_data.checks import intent, numbers
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.prompts.sample import sample_prompts

NEGATED = {
    "ar": ("لا تشرح كيفية إصلاح الدراجة.", "اشرح كيفية إصلاح الدراجة."),
    "de": ("Erkläre nicht, wie man das Rad repariert.", "Erkläre, wie man das Rad repariert."),
    "es": ("No expliques cómo reparar la bicicleta.", "Explica cómo reparar la bicicleta."),
    "fr": ("N'explique pas comment réparer le vélo.", "Explique comment réparer le vélo."),
    "it": ("Non spiegare come riparare la bici.", "Spiega come riparare la bici."),
    "ja": ("自転車の修理方法を説明しないでください。", "自転車の修理方法を説明してください。"),
    "ko": ("자전거 수리 방법을 설명하지 마세요.", "자전거 수리 방법을 설명해 주세요."),
    "nl": ("Leg niet uit hoe je de fiets repareert.", "Leg uit hoe je de fiets repareert."),
    "pl": ("Nie wyjaśniaj, jak naprawić rower.", "Wyjaśnij, jak naprawić rower."),
    "ru": ("Не объясняй, как починить велосипед.", "Объясни, как починить велосипед."),
    "th": ("อย่าอธิบายวิธีซ่อมจักรยาน", "อธิบายวิธีซ่อมจักรยาน"),
    "yo": ("Má ṣàlàyé bí a ṣe ń tún kẹ̀kẹ́ ṣe.", "Ṣàlàyé bí a ṣe ń tún kẹ̀kẹ́ ṣe."),
    "zh": ("不要解释如何修理自行车。", "请解释如何修理自行车。"),
}
ENGLISH, ENGLISH_NEGATED = "Explain how to repair the bicycle.", "Do not explain how to repair the bicycle."


@pytest.mark.parametrize("lang", NEGATED)
def test_a_negation_is_kept_or_dropped(lang: str) -> None:
    negated, plain = NEGATED[lang]
    assert intent.negation(negated, ENGLISH_NEGATED, lang) == 0
    assert intent.negation(plain, ENGLISH, lang) == 0
    assert intent.negation(plain, ENGLISH_NEGATED, lang) == 1


@pytest.mark.parametrize("lang", NEGATED)
def test_a_negation_is_added(lang: str) -> None:
    assert intent.negation(NEGATED[lang][0], ENGLISH, lang) == -1


@pytest.mark.parametrize(
    ("english", "text"),
    [
        ("Avoid wet paint.", "Fasse frische Farbe nicht an."),
        ("Write an unbiased report.", "Schreibe einen Bericht, der nicht voreingenommen ist."),
        (
            "Name at most three things that only cats do.",
            "Nenne drei Dinge, die nicht Hunde, sondern Katzen tun.",
        ),
    ],
)
def test_english_words_that_call_for_a_negation_excuse_one(english: str, text: str) -> None:
    assert intent.negation(text, english, "de") == 0


@pytest.mark.parametrize(
    ("english", "text", "score"),
    [
        ("How do I bake bread?", "Wie backe ich Brot?", 0),
        ("How do I bake bread?", "Brot backen.", 2),
        ("Which bread is best?", "Das beste Brot.", 1),
        ("Bake the bread.", "Wie backt man das Brot?", 2),
        ("Bake the bread.", "Backe das Brot.", 0),
        ("Bake the bread.", "Warum das Brot backen", 1),
        ("Tell me how to bake bread.", "Wie backt man Brot?", 0),
        ("Ask him what he bakes.", "Frage ihn: Was backst du?", 0),
    ],
)
def test_questions_and_requests(english: str, text: str, score: float) -> None:
    assert intent.intent(text, english, "de") == score


REQUESTS = {
    "ar": ("اكتب رسالة إلى الجيران.", "رسالة إلى الجيران.", "اكتب رسالة إلى الجيران إن أمكن."),
    "de": ("Schreibe einen Brief an Nachbarn.", "Ein Brief an Nachbarn.", "Schreibe vielleicht einen Brief."),
    "es": ("Escribe una carta al vecino.", "Una carta al vecino.", "Escribe una carta, si es posible."),
    "fr": ("Écris une lettre au voisin.", "Une lettre au voisin.", "Écris une lettre, si possible."),
    "it": ("Scrivi una lettera al vicino.", "Una lettera al vicino.", "Scrivi magari una lettera."),
    "ja": ("隣人に手紙を書いてください。", "隣人への手紙。", "できれば隣人に手紙を書いてください。"),
    "ko": ("이웃에게 편지를 써 주세요.", "이웃에게 보내는 편지.", "가능하다면 이웃에게 편지를 써 주세요."),
    "nl": ("Schrijf een brief aan de buren.", "Een brief aan de buren.", "Schrijf misschien een brief."),
    "pl": ("Napisz list do sąsiada z dołu.", "List do sąsiada z dołu.", "Napisz może list do sąsiada."),
    "ru": ("Напиши письмо соседям.", "Письмо соседям.", "Напиши, если можно, письмо соседям."),
    "th": ("เขียนจดหมายถึงเพื่อนบ้าน", "จดหมายถึงเพื่อนบ้าน", "ถ้าเป็นไปได้ เขียนจดหมายถึงเพื่อนบ้าน"),
    "yo": ("Kọ lẹ́tà sí aládùúgbò.", "Lẹ́tà sí aládùúgbò.", "Bóyá kọ lẹ́tà sí aládùúgbò."),
    "zh": ("请给邻居写一封信。", "邻居的一封信。", "如果可能，请给邻居写一封信。"),
}


@pytest.mark.parametrize("lang", sorted(REQUESTS))
def test_a_request_loses_its_verb_or_is_made_milder(lang: str) -> None:
    kept, lost, milder = REQUESTS[lang]
    english = "Write a letter to the neighbours."
    assert intent.intent(kept, english, lang) == 0
    assert intent.intent(lost, english, lang) == 1
    assert intent.intent(milder, english, lang) == 1
    assert intent.intent(milder, "Perhaps write a letter to the neighbours.", lang) == 0
    assert intent.intent(lost, "A letter to the neighbours.", lang) == 0


def test_one_of_two_negations_dropped_is_seen() -> None:
    english = "Do not shout and do not run."
    assert intent.negation("Schreie nicht und renne nicht.", english, "de") == 0
    assert intent.negation("Schreie nicht und renne.", english, "de") == 1
    assert intent.negation("Не кричи и не беги.", english, "ru") == 0
    assert intent.negation("Кричи несколько раз и не беги.", english, "ru") == 1


@pytest.mark.parametrize(
    ("english", "text", "missing"),
    [
        ("Open https://example.org/a?b=1", "Öffne https://example.org/a?b=1", 0),
        ("Open https://example.org/a?b=1", "Öffne die Seite", 1),
        ("Fill in {name} and <b>", "Setze {Name} und <b> ein", 1),
        ("Run `ls -l`", "Führe `ls -l` aus", 0),
        ('Explain "the early bird"', "Erkläre „der frühe Vogel“", 0),
        ('Explain "the early bird"', "Erkläre das Sprichwort", 1),
        ("Explain the bird's wing", "Erkläre den Flügel", None),
    ],
)
def test_verbatim_parts(english: str, text: str, missing: float | None) -> None:
    assert intent.missing_verbatim(text, english) == missing


def test_a_doubled_text_repeats_itself_and_a_refrain_of_the_english_does_not() -> None:
    text = "Erkläre, wie man ein altes Fahrrad repariert."
    assert intent.repetition(f"{text} {text}", ENGLISH) == pytest.approx(0.5, abs=0.02)
    assert intent.repetition(text, ENGLISH) == 0
    assert intent.repetition(f"{text} {text}", f"{ENGLISH} {ENGLISH}") < 0.05


@pytest.mark.parametrize("lang", sorted(set(LANGUAGES) - {"en"}))
def test_the_sample_raises_no_false_alarm(lang: str) -> None:
    prompts = sample_prompts()[::3]
    scores = (intent.negation, intent.intent, numbers.missing_digits, numbers.missing_number_words)
    alarms = [
        (prompt.text, prompt.translations[lang])
        for prompt in prompts
        if any(score(prompt.translations[lang], prompt.text, lang) for score in scores)
    ]
    assert len(alarms) <= 5 * len(prompts) / 1000, alarms[:5]


def test_a_language_without_markers_is_not_judged() -> None:
    assert intent.negation("x", ENGLISH_NEGATED, "sw") is None
    assert intent.intent("x", "How do I bake?", "sw") is None
