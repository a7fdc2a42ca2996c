"""Cutting prompts into pieces and judging what comes back: laws, and an example of each fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.http.faults import Fault
from polyrefuse_data.translate.answers import EARLY, Judge, Ratios, tidy
from polyrefuse_data.translate.backends.base import Limits, address_bytes, utf8_bytes
from polyrefuse_data.translate.chunks import cut, join, mask, protected, translatable, unmask

EN, DE, JA, TH, FR = (LANGUAGES[code] for code in ("en", "de", "ja", "th", "fr"))

texts = st.text(
    st.sampled_from("ab. ,!?。、\n\r\t`1-*é漢ไ👩🏽‍💻\u2028\"'") | st.characters(codec="utf-8"), max_size=120
)
limits = st.builds(
    Limits,
    size=st.sampled_from([len, utf8_bytes, address_bytes]),
    maximum=st.integers(min_value=40, max_value=90),
    keeps_lines=st.booleans(),
)


@given(texts, limits)
def test_pieces_make_up_the_text_and_fit(text: str, limits: Limits) -> None:
    pieces = cut(text, limits)
    assert "".join(piece.text for piece in pieces) == text
    for piece in pieces:
        assert piece.text
        if piece.translate:
            assert piece.text == piece.text.strip()
            assert limits.size(piece.text) <= limits.maximum or len(piece.text) == 1
    untouched = [piece.text for piece in pieces if piece.translate]
    assert join(pieces, untouched, DE) == text


def test_long_prompts_are_cut_at_sentence_ends() -> None:
    text = "First sentence here. Second one, with a comma! A third? Yes."
    parts = [piece.text for piece in cut(text, Limits(maximum=30)) if piece.translate]
    assert parts == ["First sentence here.", "Second one, with a comma!", "A third? Yes."]
    assert [piece.text for piece in cut(text, Limits(maximum=100)) if piece.translate] == [text]


def test_the_encoded_length_decides_where_the_address_is_the_limit() -> None:
    thai = "ก" * 100
    assert len(cut(thai, Limits(maximum=300))) == 1
    assert len(cut(thai, Limits(address_bytes, 300))) == 4


def test_lines_lists_and_fenced_code_are_kept_from_a_backend_that_would_lose_them() -> None:
    text = "Do this:\n\n1. Boil water\n2. Add `salt`\n```\nx = 1\n```\nDone."
    pieces = cut(text, Limits(keeps_lines=False))
    assert [piece.text for piece in pieces if piece.translate] == [
        "Do this:",
        "Boil water",
        "Add `salt`",
        "Done.",
    ]
    translated = join(pieces, ["Tu das:", "Koche Wasser", "Gib `salt` dazu", "Fertig."], DE)
    assert translated == "Tu das:\n\n1. Koche Wasser\n2. Gib `salt` dazu\n```\nx = 1\n```\nFertig."
    whole = [piece.text for piece in cut(text, Limits()) if piece.translate]
    assert whole == ["Do this:\n\n1. Boil water\n2. Add `salt`", "Done."]


def test_sentences_join_without_a_blank_where_the_language_has_none() -> None:
    pieces = cut("One sentence. Another sentence.", Limits(maximum=20))
    assert join(pieces, ["一つの文。", "別の文。"], JA) == "一つの文。別の文。"
    assert join(pieces, ["Ein Satz.", "Noch ein Satz."], DE) == "Ein Satz. Noch ein Satz."


@given(
    st.lists(
        st.sampled_from(["see ", "https://a.example/x?y=1", " and ", "`rm -rf`", "me@a.org", "{name}"]),
        max_size=8,
    )
)
def test_masks_come_off_again(parts: list[str]) -> None:
    text = " ".join(parts)
    masked, kept = mask(text)
    assert kept == protected(text)
    assert not protected(masked)
    assert unmask(masked, kept) == text
    if kept:
        assert unmask("", kept) is None


def test_entities_are_resolved_once_and_those_of_the_text_stay() -> None:
    assert tidy("the dog's bone", "l&#39;os &amp; le chien") == "l'os & le chien"
    assert tidy("write &lt; in HTML", "schreibe &lt; in HTML") == "schreibe &lt; in HTML"
    assert tidy("a", "&amp;lt;") == "&lt;"
    assert tidy("go", "\u200b«Geh»\u200b") == "Geh"
    assert tidy('say "go"', "„Geh“") == "„Geh“"


ENGLISH = "Explain in three sentences how a bicycle stays upright."
GERMAN = "Erkläre in drei Sätzen, wie ein Fahrrad aufrecht bleibt."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        (" … ".strip("… "), "empty"),
        (ENGLISH, "echo"),
        (ENGLISH.lower().replace(".", " !"), "echo"),
        ("<html><body>Please solve this CAPTCHA", "page"),
        ("Our systems have detected unusual traffic from your network.", "page"),
        ("I'm sorry, but I can't help with that.", "answer"),
        ("Es tut mir leid, aber dabei kann ich nicht helfen.", "answer"),
        ("Explique en trois phrases comment une bicyclette reste debout, s'il vous plaît.", "language"),
        ("自転車がどうやって立っているのかを三つの文で説明してください。", "language"),
        (" ".join([GERMAN] * 8), "length"),
        ("Ein Fahrrad bleibt stehen.\n1. Schwung\n2. Lenken\n3. Treten\n4. Balance", "answer"),
    ],
)
def test_wrong_answers_are_faults(answer: str, reason: str) -> None:
    assert Judge().judge(ENGLISH, GERMAN, EN, DE) == []
    with pytest.raises(Fault) as caught:
        Judge().judge(ENGLISH, answer, EN, DE)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("english", "answer", "doubt"),
    [
        (ENGLISH, GERMAN[: len(GERMAN) // 2], "length"),
        (ENGLISH, GERMAN.rstrip("."), "end"),
        (
            'Explain what "entropy" means in physics.',
            "Erkläre, was Entropie in der Physik bedeutet.",
            "quotes",
        ),
        (
            "Explain the year 1789 in France to a child.",
            "Erkläre einem Kind das Jahr der Revolution.",
            "digits",
        ),
    ],
)
def test_doubtful_answers_are_not_faults(english: str, answer: str, doubt: str) -> None:
    assert doubt in Judge().judge(english, answer, EN, DE)


CODE = (
    "def say_hello(name):",
    'print("Hello %s!" % name)',
    "for i in range(10):",
    "public static void main(String[] args) {",
    'System.out.println("Hello, dear world");',
    "int a, b; a = 5; b = a+1;",
    "SELECT name FROM users WHERE id = 3",
    "from os import path, sep",
    "return left + right",
    '{"name": "John", "age": 30}',
    "$ pip install numpy pandas",
    "https://a.example/b `rm -rf x` {user} {place.name}",
    "<!DOCTYPE html>",
)
PROSE = (
    "Find Y if 3Y + 4 = 19.",
    "Work out this formula: (9-4)*(6+1), how much is it?",
    "Imagine a function 'my_func(list)' and explain what it does.",
    "Return the book to me, please.",
    "Compare the two ways that are listed here:",
    "Some words <b>in</b> a page",
    "[Insert your name here]",
)


@pytest.mark.parametrize("line", CODE)
def test_code_that_comes_back_unchanged_is_right(line: str) -> None:
    """A line of code alone, as a backend that loses line breaks is asked for it."""
    assert not translatable(line).strip()
    assert Judge().judge(line, line, EN, DE) == []
    assert Judge().judge(line, line, EN, TH) == []


@pytest.mark.parametrize("line", PROSE)
def test_prose_that_comes_back_unchanged_is_an_echo(line: str) -> None:
    assert translatable(line).strip()
    with pytest.raises(Fault, match="echo"):
        Judge().judge(line, line, EN, DE)


def test_a_prompt_with_code_is_judged_by_its_prose() -> None:
    english = "Find the errors in this code and explain them.\n\ndef say_hello(name):\n    print(name)"
    german = english.replace(
        "Find the errors in this code and explain them.", "Finde die Fehler in diesem Code und erkläre sie."
    )
    assert Judge().judge(english, german, EN, DE) == []
    with pytest.raises(Fault, match="echo"):
        Judge().judge(english, english, EN, DE)


def test_a_protected_part_that_is_lost_is_a_fault() -> None:
    with pytest.raises(Fault, match="protected"):
        Judge().judge("Open https://a.example/b now.", "Öffne jetzt die Seite.", EN, DE)


def test_half_an_answer_is_doubted_by_what_was_seen_of_the_language() -> None:
    ratios = Ratios()
    judge = Judge(ratios)
    text, whole = "a" * 80 + ".", "ก" * 70
    for _ in range(30):
        ratios.add("en", "th", text, whole)
    assert judge._length(text, whole, EN, TH) == []
    assert judge._length(text, whole[:35], EN, TH) == ["length"]


def test_a_language_nobody_calibrated_is_doubted_until_enough_was_seen() -> None:
    from dataclasses import replace

    odd = replace(DE, code="xx")
    judge = Judge()
    assert judge._length(ENGLISH, GERMAN, EN, odd) == [EARLY]
    for _ in range(24):
        judge.ratios.add("en", "xx", ENGLISH, GERMAN)
    assert judge._length(ENGLISH, GERMAN, EN, odd) == []


def test_a_prompt_that_itself_talks_so_is_no_refusal() -> None:
    english = "I'm sorry, but I can't help with that: translate this sentence into a poem."
    Judge().judge(
        english,
        "Es tut mir leid, aber dabei kann ich nicht helfen: Mach aus diesem Satz ein Gedicht.",
        EN,
        DE,
    )
