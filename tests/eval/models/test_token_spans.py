"""Where the instruction stands in a prompt, by the tokens printed, and edits of its tokens alone."""

from __future__ import annotations

import pytest
import torch
from tiny import CHATML, FAMILIES, GEMMA, MISTRAL, PROMPTS, THINKING, chat_model, tiny_model, tokenizer
from torch import Tensor

from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.batching import can_pack
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import BASELINE, Addition, Edits, applied
from polyrefuse_eval.models.kv_cache import cache_argument, cache_of
from polyrefuse_eval.models.template import EncodedPrompt, Template
from polyrefuse_eval.models.token_spans import Positions, edited_logits, instruction_span, positions_of
from polyrefuse_eval.results.positions import T_INST

LLAMA_2 = (
    "{{ bos_token }}{% for m in messages if m['role'] == 'user' %}[INST] "
    "{% if messages[0]['role'] == 'system' %}<<SYS>>\n{{ messages[0]['content'] }}\n<</SYS>>\n\n{% endif %}"
    "{{ m['content'].strip() }} [/INST]{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
PHI_3 = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}<|assistant|>\n"
VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }} {% else %}"
    "USER: {{ m['content'] }} {% endif %}{% endfor %}ASSISTANT:"
)
NEOX = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
TEMPLATES = {
    "chatml": CHATML,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "thinking": THINKING,
    "llama-2": LLAMA_2,
    "llama-3": LLAMA_3,
    "phi-3": PHI_3,
    "vicuna": VICUNA,
    "neox": NEOX,
}
FAMILY_TEMPLATES = {
    "llama": ("llama-3", "llama-2", "vicuna"),
    "qwen2": ("chatml",),
    "qwen3": ("thinking",),
    "mistral": ("mistral",),
    "gemma": ("gemma",),
    "gemma2": ("gemma",),
    "gemma3": ("gemma",),
    "phi3": ("phi-3",),
    "gpt_neox": ("neox",),
    "mixtral": ("mistral",),
    "qwen3_moe": ("thinking",),
}
"""The shapes of the templates that these families are published with."""

ENDINGS = ("", " ", "\n", " \n\n")


def printed(template: Template, prompt: EncodedPrompt, span: range) -> str:
    return str(template.tokenizer.decode([prompt.ids[index] for index in span]))


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_span_is_the_instruction_and_t_inst_its_last_token(
    name: str, ending: str, system: str | None
) -> None:
    if name == "gemma" and system:
        pytest.skip("this template forbids a system prompt")
    template = Template(tokenizer(TEMPLATES[name]), system)
    for text in PROMPTS:
        (prompt,) = template.encode([text + ending])
        span = instruction_span(prompt)
        assert printed(template, prompt, span).strip() == text
        last = printed(template, prompt, range(prompt.t_inst, prompt.t_inst + 1))
        assert text.endswith(last.strip()) or "\ufffd" in last
        assert printed(template, prompt, range(span.start)) + printed(
            template, prompt, range(span.start, len(prompt))
        ) == template.render(text + ending)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", [None, "Be brief."])
@torch.inference_mode()
def test_what_is_read_at_t_inst_is_the_state_of_the_instructions_last_token(
    family: str, system: str | None
) -> None:
    for name in FAMILY_TEMPLATES[family]:
        if name == "gemma" and system:
            continue
        chat = ChatModel.from_parts(tiny_model(family), tokenizer(TEMPLATES[name]), system=system)
        texts = [text + ending for text in ("Name the tallest tree.", "Sing", "Why?") for ending in ENDINGS]
        prompts = chat.encode(texts)
        for captured in capture(chat, prompts, [0, 2], [T_INST]):
            for slot, index in enumerate(captured.prompts):
                tokens = [chat.tokenizer.decode([token]) for token in prompts[index].ids]
                after = "".join(tokens).rpartition(texts[index].strip())[2]
                (last,) = [at for at in range(len(tokens)) if "".join(tokens[at + 1 :]) == after]
                assert texts[index].strip().endswith(tokens[last].strip()), tokens
                states = chat.model(
                    input_ids=torch.tensor([prompts[index].ids]), output_hidden_states=True
                ).hidden_states
                for place, layer in enumerate((0, 2)):
                    torch.testing.assert_close(
                        captured.hidden[slot, 0, place], states[layer][0, last], atol=1e-4, rtol=1e-4
                    )


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_tokenizer_without_offsets_finds_the_same_tokens(name: str, ending: str) -> None:
    class Slow(Template):
        @property
        def has_offsets(self) -> bool:
            return False

    for text in PROMPTS:
        fast, slow = (kind(tokenizer(TEMPLATES[name])).encode([text + ending]) for kind in (Template, Slow))
        assert fast == slow
        ours, theirs = (
            kind(tokenizer(TEMPLATES[name])).encode_before([(text + " ", "Is that so?")])
            for kind in (Template, Slow)
        )
        assert ours == theirs


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokens_before_a_question_end_where_it_begins(name: str) -> None:
    template = Template(tokenizer(TEMPLATES[name]))
    for text in PROMPTS:
        for space in (" ", "\n", "\n\n"):
            ((prompt, stop),) = template.encode_before([(f"They ask: {text}{space}", "Is that so?")])
            assert printed(template, prompt, range(prompt.start, stop)).strip() == f"They ask: {text}"
            rest = printed(template, prompt, range(stop, prompt.t_inst + 1))
            assert rest.strip() == "Is that so?"


def vector(chat: object, seed: int = 3) -> Tensor:
    return 4 * torch.randn(32, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def alone(chat: object, prompt: EncodedPrompt, span: range, layer: int, added: Tensor) -> Tensor:
    """Logits of one prompt without padding, with `added` at the tokens of `span`, by a plain hook."""

    def add(_module: object, args: tuple, kwargs: dict) -> tuple:
        hidden = (args[0] if args else kwargs["hidden_states"]).clone()
        hidden[:, span.start : span.stop] += added
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    handle = chat.layers[layer].register_forward_pre_hook(add, with_kwargs=True)  # type: ignore[attr-defined]
    try:
        return chat.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1]  # type: ignore[attr-defined]
    finally:
        handle.remove()


SAME_START = [f"Tell me of {thing}." for thing in ("rain", "a bridge over the river", "bees", "tea and milk")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packs", [True, False])
def test_edits_of_a_span_touch_its_tokens_in_padded_and_packed_batches(family: str, packs: bool) -> None:
    chat = chat_model(family)
    assert can_pack(chat)
    chat.packs = packs
    prompts = chat.encode([*SAME_START, *PROMPTS[:3]])
    added = vector(chat)

    def edit(positions: Positions) -> Edits:
        return (Addition(added, 1, tokens=positions),)

    spans = [instruction_span(prompt) for prompt in prompts]
    for budget in (60, 10_000):
        got = edited_logits(chat, prompts, spans, [edit, lambda _: BASELINE], tokens_per_batch=budget)
        expected = torch.stack(
            [alone(chat, prompt, span, 1, added) for prompt, span in zip(prompts, spans, strict=True)]
        )
        plain = torch.stack([alone(chat, prompt, range(0), 1, added) for prompt in prompts])
        assert (expected - plain).abs().max() > 0.1, "the edit must do something"
        torch.testing.assert_close(got[0], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1], plain, atol=1e-4, rtol=1e-4)


def test_rows_of_a_generated_batch_have_spans_of_their_own() -> None:
    chat = chat_model()
    prompts = chat.encode(list(PROMPTS))
    requests, expected = [], []
    for index, prompt in enumerate(prompts):
        layer, added = index % chat.n_layers, vector(chat, index)
        span = instruction_span(prompt)
        edits = (Addition(added, layer, tokens=positions_of(prompt, span)),) if index % 4 else BASELINE
        requests.append(Request(str(index), PROMPTS[index], edits))
        logits = alone(chat, prompt, span if edits else range(0), layer, added)
        expected.append(int(logits.argmax()))
    answers = {a.key: a for batch in generate(chat, requests, max_new_tokens=3) for a in batch}
    one_by_one = {
        a.key: a for batch in generate(chat, requests, max_new_tokens=3, batch_size=1) for a in batch
    }
    assert {key: answer.ids for key, answer in answers.items()} == {
        key: answer.ids for key, answer in one_by_one.items()
    }
    for key, answer in answers.items():
        wanted = expected[int(key)]
        assert answer.ids[:1] == (() if wanted in chat.stop_ids else (wanted,))


@torch.inference_mode()
def test_a_span_holds_behind_a_cached_prefix_and_not_in_decoding() -> None:
    chat = chat_model()
    (prompt,) = chat.encode([PROMPTS[2]])
    span, added = instruction_span(prompt), vector(chat)
    ids = torch.tensor([prompt.ids])
    edit = Addition(added, 1, tokens=positions_of(prompt, span))
    with applied(chat, edit):
        whole = chat.model(input_ids=ids, use_cache=True)
        after = chat.model(input_ids=ids[:, :1], **cache_argument(chat.model, cache_of(whole))).logits[0, -1]
    middle = span.start + len(span) // 2
    with applied(chat, edit, prompt_width=len(prompt)):
        cache = cache_of(chat.model(input_ids=ids[:, :middle], use_cache=True))
        rest = chat.model(input_ids=ids[:, middle:], **cache_argument(chat.model, cache), use_cache=True)
        also = chat.model(input_ids=ids[:, :1], **cache_argument(chat.model, cache_of(rest))).logits[0, -1]
    torch.testing.assert_close(rest.logits[0, -1], whole.logits[0, -1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(also, after, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.logits[0, -1], alone(chat, prompt, span, 1, added), atol=1e-4, rtol=1e-4)


def test_several_scopes_in_one_row_are_added_each_at_its_place() -> None:
    chat = chat_model()
    (prompt,) = chat.encode([PROMPTS[0]])
    first, second = vector(chat, 1), vector(chat, 2)
    edits = (
        Addition(first, 1, tokens=(-3, -2)),
        Addition(second, 1, tokens=(-1,)),
        Addition(first, 1, -0.5, tokens=(-3, -2)),
    )
    with applied(chat, edits), torch.inference_mode():
        got = chat.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1]

    def add(_module: object, args: tuple, kwargs: dict) -> tuple:
        hidden = (args[0] if args else kwargs["hidden_states"]).clone()
        hidden[:, -3:-1] += first / 2
        hidden[:, -1] += second
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    handle = chat.layers[1].register_forward_pre_hook(add, with_kwargs=True)
    with torch.inference_mode():
        expected = chat.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1]
    handle.remove()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
