"""Which prompts a model refuses: its answers are made once, whoever asks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import PROMPTS, chat_model

from polyrefuse_eval.harmfulness import behaviour
from polyrefuse_eval.harmfulness.behaviour import EditedPrompt, by_answers
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import generate
from polyrefuse_eval.models.intervene import Ablation
from polyrefuse_eval.results.baseline_cache import BaselineAnswer, BaselineCache, prompt_hash

TOKENS = 4


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChatModel:
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path))
    return replace(chat_model(), revision="1")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that were answered, in the order of the requests."""
    prompts: list[str] = []

    def counted(chat, requests, **options):  # type: ignore[no-untyped-def]
        prompts.extend(request.prompt for request in requests)
        return generate(chat, requests, **options)

    monkeypatch.setattr(behaviour, "generate", counted)
    return prompts


def test_answers_of_the_unedited_model_are_made_once_and_judged_alike(
    chat: ChatModel, made: list[str]
) -> None:
    prompts = [EditedPrompt(text, "en") for text in PROMPTS[:4]]
    first = by_answers(chat, max_new_tokens=TOKENS)(prompts[:3])
    assert made == [prompt.text for prompt in prompts[:3]]
    made.clear()
    assert by_answers(chat, max_new_tokens=TOKENS)(prompts)[:3] == first
    assert made == [prompts[3].text]
    made.clear()
    by_answers(chat, max_new_tokens=TOKENS + 1)(prompts[:1])
    by_answers(replace(chat, revision="2"), max_new_tokens=TOKENS)(prompts[:1])
    by_answers(chat, max_new_tokens=TOKENS)([replace(prompts[0], lang="de")])
    assert len(made) == 3, "another limit, other weights, another language"


def test_answers_that_a_run_made_are_judged_and_those_under_edits_are_made_each_time(
    chat: ChatModel, made: list[str]
) -> None:
    refusal = "I'm sorry, but I can't help with that."
    BaselineCache(chat.signature(), TOKENS).add(
        "en",
        [BaselineAnswer(prompt_hash=prompt_hash(PROMPTS[0]), response=refusal, n_tokens=TOKENS, ended=False)],
    )
    plain = EditedPrompt(PROMPTS[0], "en")
    edited = replace(plain, edits=(Ablation(torch.ones(chat.width)),))
    for _ in range(2):
        verdicts = by_answers(chat, max_new_tokens=TOKENS)([plain, edited])
        assert verdicts[0] is True
    assert made == [PROMPTS[0]] * 2


def test_nothing_is_kept_of_weights_without_a_name(chat: ChatModel, made: list[str], tmp_path: Path) -> None:
    prompts = [EditedPrompt(PROMPTS[0], "en")]
    for _ in range(2):
        by_answers(replace(chat, revision="unsaved"), max_new_tokens=TOKENS)(prompts)
    assert len(made) == 2
    assert not list(tmp_path.rglob("*.jsonl"))
