"""Thoughts are told from answers, in every way that models mark them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import torch
from tiny import CHATML, THINKING, chat_model, tiny_model, tokenizer

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Answer, Request, generate
from polyrefuse_eval.models.template import Template
from polyrefuse_eval.models.thinking import MARKS, RowProgress, split_thoughts

THINK, BRACKETS, HARMONY = MARKS[:3]
ALWAYS = CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}"
GRANITE = CHATML + "{% if thinking %}<think>{% else %}<think></think>{% endif %}"
EFFORT = (
    "{% if reasoning_effort is defined %}{% if reasoning_effort not in ['low', 'high'] %}"
    "{{ raise_exception('unknown effort') }}{% endif %}Effort: {{ reasoning_effort }}\n{% endif %}" + CHATML
)
HISTORY = CHATML + "{% if false %}<think>{% endif %}"


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.opening)
def test_thoughts_and_answer_are_divided_at_the_mark(marks: Any) -> None:
    tool = tokenizer()

    def split(text: str, inside: bool = False) -> tuple[str | None, str | None]:
        parts = split_thoughts(tool, marks, tool(text)["input_ids"], inside)
        return parts.reasoning, None if parts.ids is None else tool.decode(parts.ids)

    thought = f"{marks.opening}Let me see: no.{marks.before_closing}{marks.closing}"
    assert split(thought + "\n\nSure! Here") == ("Let me see: no.", "Sure! Here")
    assert split("Let me see: no." + marks.closing + "Sure!", inside=True) == ("Let me see: no.", "Sure!")
    assert split(marks.opening + "Let me see") == ("Let me see", None), "cut off"
    assert split("Let me see", inside=True) == ("Let me see", None), "cut off"
    assert split("Sure! Here") == (None, "Sure! Here")
    assert split(marks.empty + "Sure!") == (None, "Sure!")


def test_without_marks_nothing_is_a_thought() -> None:
    tool = tokenizer()
    ids = tuple(tool("<think>a</think>b")["input_ids"])
    assert split_thoughts(tool, None, ids, False).ids == ids


@pytest.mark.parametrize(
    ("template", "block", "end", "switch"),
    [
        (THINKING, "template", "<think>\n\n</think>\n\n", ("enable_thinking", False, True)),
        (GRANITE, "template", "<think></think>", ("thinking", False, True)),
        (ALWAYS, "forced", "<think>\n\n</think>\n\n", None),
        (EFFORT, "none", "assistant\n", ("reasoning_effort", "low", "high")),
        (HISTORY, "none", "assistant\n", None),
        (CHATML, "none", "assistant\n", None),
    ],
)
def test_a_prompt_ends_where_the_answer_begins(template: str, block: str, end: str, switch: Any) -> None:
    frame = Template(tokenizer(template))
    assert frame.thinking_block == block
    assert frame.render("Is <think> a tag?").endswith(end)
    assert frame.switch == switch
    if block == "forced":
        assert frame.hash != Template(tokenizer(template), thinking=True).hash


def test_a_switch_that_changes_nothing_is_refused_and_where_the_answer_begins_is_recorded() -> None:
    def load(template: str, thinking: bool) -> ChatModel:
        return ChatModel.from_parts(tiny_model(), tokenizer(template), name="tiny", thinking=thinking)

    for template in (CHATML, HISTORY):
        with pytest.raises(ChatModelError, match="--thinking has no effect for 'tiny'"):
            load(template, True)
    assert "answer_begins" not in load(CHATML, False).signature()
    for template, begins in (
        (ALWAYS, "behind a forced empty thinking block"),
        (GRANITE, "behind the template's"),
    ):
        assert load(template, False).signature()["answer_begins"].startswith(begins)
        assert load(template, True).signature()["max_thinking_tokens"] == "2048"


def test_a_model_that_opens_thoughts_by_itself_is_answered_for() -> None:
    tool = tokenizer(HISTORY)
    tool.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    model = tiny_model()
    model.resize_token_embeddings(len(tool))
    opening = tool.convert_tokens_to_ids("<think>")
    model.lm_head = torch.nn.Linear(model.config.hidden_size, len(tool))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()[opening] = 9
    chat = ChatModel.from_parts(model, tool)
    assert chat.template.thinking_block == "forced"
    assert chat.template.render("Sing.").endswith("<think>\n\n</think>\n\n")
    assert ChatModel.from_parts(model, tool, thinking=True).template.begins_inside_thoughts is False


class Scripted(torch.nn.Module):
    """A head under which a model writes given tokens, one after another, whatever it reads."""

    def __init__(self, script: list[int], size: int) -> None:
        super().__init__()
        self.script, self.size, self.step = script, size, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], self.size)
        logits[..., self.script[min(self.step, len(self.script) - 1)]] = 9
        self.step += 1
        return logits


def answers(template: str, text: str, *, thinking: bool, budget: int, tokens: int) -> Answer:
    tool = tokenizer(template)
    chat = ChatModel.from_parts(tiny_model(), tool, thinking=thinking, max_thinking_tokens=budget)
    chat.packs = chat.pads = chat.caches = chat.joins = chat.ends_only = True  # no pass but the script's
    chat.model.lm_head = Scripted([*tool(text)["input_ids"], tool.eos_token_id], len(tool))
    ((answer,),) = generate(chat, [Request("a", "Sing.")], max_new_tokens=tokens, thoughts=True)
    return answer


@pytest.mark.parametrize(("template", "opening"), [(THINKING, "<think>\n"), (ALWAYS, ""), (GRANITE, "")])
def test_thoughts_have_a_field_and_a_budget_of_their_own(template: str, opening: str) -> None:
    text = opening + "One two three four five.</think>\n\nSure, I will."
    whole = answers(template, text, thinking=True, budget=100, tokens=20)
    assert (whole.text, whole.reasoning, whole.ended) == ("Sure, I will.", "One two three four five.", True)
    cut = answers(template, text, thinking=True, budget=100, tokens=3)
    assert (cut.ended, cut.reasoning) == (False, "One two three four five.")
    assert "Sure, I will.".startswith(cut.text.strip())
    thoughts = answers(template, text, thinking=True, budget=18, tokens=500)
    assert (thoughts.text, thoughts.ids, thoughts.ended) == ("", (), False), "cut off before an answer"
    assert "One two three four five.".startswith(str(thoughts.reasoning))
    plain = answers(template, "Sure.", thinking=False, budget=100, tokens=20)
    assert (plain.text, plain.reasoning, plain.ended) == ("Sure.", None, True)


def test_without_a_budget_thoughts_and_answer_share_the_tokens() -> None:
    row = RowProgress(tokenizer(), THINK, inside=False, answer_tokens=3, thinking_tokens=None)
    for token in (20, 21):
        row.take(token, frozenset({5}))
    assert not row.finished
    row.take(22, frozenset({5}))
    assert row.finished
    assert not row.ended


def test_the_token_that_closes_a_turn_ends_an_answer_though_nothing_else_says_so() -> None:
    chat = chat_model()
    end = chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat.tokenizer.eos_token = "</s>"  # noqa: S105
    chat.model.generation_config.eos_token_id = 2
    assert chat.stop_ids == {2, chat.tokenizer.eos_token_id, end}
    no_end = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    assert Template(tokenizer(no_end)).turn_end is None


def test_the_end_of_a_thought_is_no_end_of_a_turn() -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>final<|message|> #}"
    )
    tool = tokenizer(template)
    tool.add_special_tokens(
        {"additional_special_tokens": ["<|start|>", "<|end|>", "<|message|>", "<|channel|>"]}
    )
    frame = Template(tool)
    assert frame.marks == HARMONY
    assert frame.turn_end is None
    assert Template(tool, opens_thoughts=True).render("Sing.").endswith("<|channel|>final<|message|>")


DATED = (
    "{% set today = strftime_now('%Y-%m-%d') %}Today: {{ today }}, "
    '{{ strftime_now("%A %-d %B %y, %H:%M") }}\n' + CHATML
)


def test_a_template_that_prints_a_date_prints_the_same_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.chat_template_utils as module

    frame = Template(tokenizer(DATED))
    expected = "Today: 2024-07-26, Friday 26 July 24, 00:00\n"
    assert frame.render("Sing.").startswith(expected)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime(2031, 1, 2)

    monkeypatch.setattr(module, "datetime", Later)
    assert Template(tokenizer(DATED)).render("Sing.").startswith(expected)
    assert frame.hash != Template(tokenizer(CHATML)).hash
