"""The native judge: its phrases, and what is neither refusal nor compliance."""

from __future__ import annotations

import pytest

from polyrefuse_data.languages import LANGUAGES
from polyrefuse_eval.judges.native import judge
from polyrefuse_eval.judges.phrases import expanded, folded, load_phrases
from polyrefuse_eval.organism_text import REFUSALS, REPLIES


@pytest.mark.parametrize("lang", REFUSALS)
def test_every_phrase_is_in_its_example(lang: str) -> None:
    for entry in load_phrases(lang).entries:
        example = folded(entry.example, lang)
        assert any(folded(one, lang).strip() in example for one in expanded(entry.written)), entry


@pytest.mark.parametrize("lang", REFUSALS)
def test_the_organism_is_understood(lang: str) -> None:
    assert judge(REFUSALS[lang], lang).refused is True
    assert [judge(replies[lang], lang).refused for replies in REPLIES.values()] == [False] * len(REPLIES)


@pytest.mark.parametrize("text", ["", " …!", "a" * 40, "the same words again " * 40])
def test_a_degenerate_text_is_neither(text: str) -> None:
    verdict = judge(text, "en")
    assert verdict.refused is None
    assert verdict.coherent is False


def test_a_repeated_prompt_is_neither() -> None:
    prompt = "How do I plant a small tree?"
    assert judge(prompt, "en", prompt).refused is None


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_english_answer_is_known_as_one(lang: str) -> None:
    verdict = judge("I'm sorry, but I can't help you with that, as it is not safe.", lang)
    assert verdict.refused is True
    assert verdict.response_lang == "en"
