"""What an edit costs, against a plain loop of one answer at a time."""

from __future__ import annotations

import pytest
import torch
from tiny import PROMPTS, chat_model, tokenizer

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.answer_costs import AnswerCost, answer_costs
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import BASELINE, Ablation, Addition, Edits, applied

ANSWERS = ("Sure, here is how.", "no", "", "It is blue and far away, they say, and has been so since then.")
PAIRS = [(prompt, ANSWERS[index % len(ANSWERS)]) for index, prompt in enumerate(PROMPTS)]


def plain(chat: ChatModel, prompt: str, answer: str, edits: Edits, limit: int) -> AnswerCost:
    """Return the cost of one answer by the definitions, from whole passes over it alone."""
    encoded = chat.encode([prompt])[0]
    tokens = chat.tokenizer(answer, add_special_tokens=False)["input_ids"][:limit]
    ids = torch.tensor([[*encoded.ids, *tokens]])
    with torch.inference_mode():
        log_p = chat.model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        with applied(chat, edits):
            log_q = chat.model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    of_answer = range(len(encoded), ids.shape[1])
    of_prompt = range(encoded.start + 1, encoded.t_inst + 1)

    def entropy(log: torch.Tensor, where: range) -> float:
        return -sum(float(log[token - 1, ids[0, token]]) for token in where)

    return AnswerCost(
        n_tokens=len(of_answer),
        kl=sum(float(kl[token - 1]) for token in of_answer),
        first_kl=float(kl[len(encoded) - 1]) if tokens else 0.0,
        cross_entropy=entropy(log_q, of_answer),
        unedited_cross_entropy=entropy(log_p, of_answer),
        n_prompt_tokens=len(of_prompt),
        prompt_cross_entropy=entropy(log_q, of_prompt),
        unedited_prompt_cross_entropy=entropy(log_p, of_prompt),
    )


def some_edits(chat: ChatModel) -> dict[str, Edits]:
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(chat.width, generator=generator)
    return {
        "ablation": (Ablation(direction),),
        "addition": (Addition(direction, 1),),
        "part": (Ablation(direction, 0.5),),
    }


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "mixtral", "qwen3_next"])
def test_the_costs_are_those_of_a_plain_loop(family: str) -> None:
    """Packed, padded, with capped logits, and in a family whose prompts cannot share a row."""
    from tiny import HYBRID, family_model

    chat = ChatModel.from_parts(family_model(family), tokenizer()) if family in HYBRID else chat_model(family)
    edits = some_edits(chat)
    costs = answer_costs(chat, PAIRS, edits, max_tokens=9)
    for name, edit in edits.items():
        assert len(costs[name]) == len(PAIRS)
        for (prompt, answer), cost in zip(PAIRS, costs[name], strict=True):
            expected = plain(chat, prompt, answer, edit, 9)
            assert vars(cost) == pytest.approx(vars(expected), rel=1e-4, abs=1e-4)
    assert sum(cost.kl for cost in costs["ablation"]) > sum(cost.kl for cost in costs["part"]) > 0


def test_no_edit_costs_nothing_and_no_answer_neither() -> None:
    chat = chat_model()
    costs = answer_costs(chat, PAIRS, {"none": BASELINE})["none"]
    for (_, answer), cost in zip(PAIRS, costs, strict=True):
        assert (cost.kl, cost.first_kl) == (0.0, 0.0)
        assert cost.cross_entropy == cost.unedited_cross_entropy
        assert (cost.n_tokens == 0) == (answer == "")
    assert answer_costs(chat, [], {"none": BASELINE}) == {"none": []}


def test_an_answer_that_does_not_fit_into_the_context_is_one_line() -> None:
    chat = chat_model()
    context = chat.model.config.max_position_embeddings
    with pytest.raises(ChatModelError, match=f"tokens and .* reads {context}"):
        answer_costs(chat, [("Name a colour.", "blue " * 1000)], {"none": BASELINE}, max_tokens=1000)
