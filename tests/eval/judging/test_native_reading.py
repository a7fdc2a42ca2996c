"""How the native judge reads quickly, against the plain ways to read the same."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_texts import ANSWERS, OPENERS, POLITE_REFUSALS, SHORT_REFUSALS, opener_rows

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.judging.native import coherence
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.judging.native.coherence import incoherence, language_of
from polyrefuse_eval.judging.native.folding import folded, words_of
from polyrefuse_eval.judging.native.phrases import DENIAL, FIRST, Found, expanded, load_phrases

LETTERS = (
    "aZ éÉẹ́ọ̀ṣàłßñçﬁＡ９Å’‘`´“…—¿_'-\n\t .,1ЖжЩאالأةىَـ가나日本語のひカ゚、。ไม่ก็າລ\U0001f600\U00020000\ud800İ"
)


def _plain_words(text: str, lang: str) -> list[str]:
    """Return the words of `text`, one rule after the other over the whole of it."""
    odd = r"[\ufb00-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f]"
    text = unicodedata.normalize("NFKC" if re.search(odd, text) else "NFC", text)
    text = re.sub("[’‘`´ʼ＇]", "'", text)
    if lang == "yo":
        text = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))
    if lang == "ar":
        text = re.sub(r"[\u0610-\u061a\u064b-\u065f\u0670\u0640]", "", text)
        text = re.sub("[أإآ]", "ا", text).replace("ى", "ي").replace("ة", "ه")
    return re.findall(r"[\w']+", text.lower())


def _plain_find(text: str, lang: str) -> list[Found]:
    """Return where phrases stand in `text`, by trying each at each place."""
    spaced = LANGUAGES[lang].spaced
    kinds: dict[str, str] = {}
    for entry in load_phrases(lang).entries:
        for phrase in expanded(entry.written) if entry.kind != DENIAL else ():
            spelled = folded(phrase, lang).lstrip(" ")
            kinds.setdefault(spelled if phrase.endswith(" ") else spelled.rstrip(" "), entry.kind)
    found: list[Found] = []
    for place in range(len(text)):
        if spaced and text[place - 1 : place] != " ":
            continue
        if not spaced and found and place < found[-1][0] + len(found[-1][2]):
            continue
        here = [
            spelled
            for spelled, kind in kinds.items()
            if text.startswith(spelled, place) and (kind not in FIRST or place == int(spaced))
        ]
        if here:
            said = max(here, key=len)
            found.append((place, kinds[said], said))
    return found


@given(st.text(st.sampled_from(LETTERS), max_size=40), st.sampled_from(sorted(LANGUAGES)))
def test_words_are_those_that_the_rules_give(text: str, lang: str) -> None:
    assert list(words_of(text, lang)) == _plain_words(text, lang)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_phrases_are_found_where_they_stand(lang: str) -> None:
    sentences = [entry.example for entry in load_phrases(lang).entries]
    draw = random.Random(7)
    for _ in range(12):
        text = folded(" ".join(draw.sample(sentences, 4)), lang)
        assert load_phrases(lang).find(text) == _plain_find(text, lang)


@given(
    st.lists(st.sampled_from([*"abé жш가나日本のひカ、。ไกمن 1.-", "ة"]), max_size=60),
    st.sampled_from([1, 3, 9]),
)
def test_a_glance_at_the_script_says_what_its_letters_say(characters: list[str], times: int) -> None:
    """Where a glance decides; the letters are counted where it does not."""
    text = "".join(character * times for character in characters)
    ascii_letters = sum(character.isascii() and character.isalpha() for character in text)
    glance = coherence._by_pages(text, ascii_letters)
    if glance is not None:
        assert glance == coherence._by_letters(text)


def test_each_script_is_told_at_a_glance() -> None:
    scripts = {
        "ru": "Привет, мой друг",
        "ja": "これはペンです",
        "zh": "我不能告诉你",
        "ko": "그건 할 수 없어요",
    }
    scripts |= {"th": "ผมบอกไม่ได้", "ar": "لا أستطيع ذلك"}
    for lang, text in scripts.items():
        assert (coherence._by_pages(text, 0), language_of(text, "en")) == (lang, lang)


@given(st.text(st.sampled_from("ab 。"), max_size=30), st.integers(0, 30), st.sampled_from("x。 あ7"))
def test_a_run_is_one_from_twenty_on(before: str, length: int, character: str) -> None:
    """Of a letter or a digit always, of another character where there is little else."""
    text = f"word {before}{character * length}"
    runs = [run[0] for run in re.finditer(r"(.)\1*", text)]
    long = [run[0] for run in runs if len(run) >= coherence.RUN]
    said = any(one.isalnum() or text.count(one) > len(text) / 2 for one in long)
    assert (incoherence(text) == "repeats a character") == said


@pytest.mark.parametrize("line", ["=" * 40, "-" * 60, "| " + "-" * 30 + " |", "    " * 8 + "x = 1", "_" * 25])
def test_a_line_that_is_drawn_or_indented_is_text(line: str) -> None:
    answer = (
        f"A guide to the garden of a house\n{line}\n\nDig a hole, put the tree into it, and water it well."
    )
    assert incoherence(answer) is None


def test_judged_together_as_one_by_one() -> None:
    """In one call, in any order: no response's verdict depends on those beside it."""
    texts = [(text, lang) for said in (SHORT_REFUSALS, ANSWERS) for lang in said for text in said[lang]]
    texts += [(text, lang) for lang, text in POLITE_REFUSALS.items()]
    asked = [(text, lang, prompt) for text, lang in texts for prompt in (None, text, text[:9])]
    asked += [("", "en", None), ("ab " * 200, "yo", None), ("?", "th", "?")]
    random.Random(3).shuffle(asked)
    assert len(asked) > 2 * native.TOGETHER
    together = native.judge_all(asked)
    assert together == [native.judge(*one) for one in asked]
    assert {one.refused for one in together} == {True, False, None}


def test_half_a_surrogate_pair_is_read() -> None:
    """A cut \\ud83d\\ude00 in a JSON file is no character, and no fault of whoever judges the file."""
    assert native.judge("I'm sorry \ud83d, but I can't help with that.", "en").refused is True
    assert native.judge("\ud83d", "ja").refused is None
    assert native.judge("Sorry, no. \ud83d " * 40, "en").reason == "repeats itself"


@pytest.mark.real
@pytest.mark.skipif(not OPENERS.exists(), reason="the published answers are not beside the checkout")
def test_published_answers_are_read_as_the_rules_say() -> None:
    rows = opener_rows()
    for row in rows:
        assert list(words_of(row["opener"], row["lang"])) == _plain_words(row["opener"], row["lang"])
    asked = [(row["opener"], row["lang"], None) for row in rows]
    assert native.judge_all(asked) == [native.judge(*one) for one in asked]
