"""Positions, templates and structure of any chat model, found and never typed in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import (
    CHATML,
    FAMILIES,
    GEMMA,
    MISTRAL,
    NEEDS_SYSTEM,
    PROMPTS,
    THINKING,
    chat_model,
    tiny_model,
    tokenizer,
)

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.activations import all_positions, capture, offset_from_end
from polyrefuse_eval.models.batching import can_pack, forward, plan_batches, shared_prefix
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Ablation, Addition, applied
from polyrefuse_eval.models.structure_probe import find_structure
from polyrefuse_eval.models.template import Template


@pytest.mark.parametrize("template", [CHATML, GEMMA, MISTRAL, THINKING])
def test_the_last_tokens_of_every_prompt_are_the_post_instruction_tokens(template: str) -> None:
    frame = Template(tokenizer(template))
    for prompt in frame.encode(PROMPTS):
        assert prompt.ids[-prompt.n_post :] == frame.post_instruction


@pytest.mark.parametrize("template", [CHATML, GEMMA, MISTRAL])
@pytest.mark.parametrize("ending", ["", " ", "\n", "  \n\n"])
def test_t_inst_is_the_last_token_of_the_instruction_whatever_follows(template: str, ending: str) -> None:
    tool = tokenizer(template)
    for text, last in (("Why does rain fall?", "?"), ("How?!", "!"), ("Sing", "g"), ("q then", "n")):
        (prompt,) = Template(tool).encode([text + ending])
        assert tool.decode([prompt.ids[prompt.t_inst]]).endswith(last)
        assert prompt.t_inst < len(prompt) - prompt.n_post


def test_t_inst_of_a_character_of_several_tokens_is_its_last_one() -> None:
    (prompt,) = Template(tokenizer()).encode(["雨"])
    assert prompt.t_inst == len(prompt) - prompt.n_post - 1


def test_the_template_alone_decides_on_the_bos_token() -> None:
    tool = tokenizer(GEMMA)
    (prompt,) = Template(tool).encode(["Sing."])
    assert prompt.ids.count(tool.bos_token_id) == 1
    (prompt,) = Template(tokenizer(CHATML)).encode(["Sing."])
    assert tool.bos_token_id not in prompt.ids


def test_thinking_is_off_unless_asked_for() -> None:
    tool = tokenizer(THINKING)
    off, on = Template(tool), Template(tool, thinking=True)
    assert "</think>" in off.render("Sing.")
    assert on.render("Sing.") == off.render("Sing."), "measured where the answer begins"
    (prompt,) = on.encode_open(["Sing."])
    assert "</think>" not in tool.decode(prompt.ids)
    assert off.encode_open(["Sing."]) == off.encode(["Sing."])
    assert off.hash != on.hash


def test_a_system_prompt_stands_before_the_instruction_and_changes_the_hash() -> None:
    tool = tokenizer()
    assert "Be brief." in Template(tool, "Be brief.").render("Sing.")
    assert Template(tool, "Be brief.").hash != Template(tool).hash
    (prompt,) = Template(tool, "Be brief.").encode(["Sing"])
    assert tool.decode([prompt.ids[prompt.t_inst]]) == "g"


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (GEMMA, "Be brief.", "forbids a system prompt"),
        (NEEDS_SYSTEM, None, "needs a system prompt"),
        (None, None, "no chat template"),
        ("{% for m in messages %}{% endfor %}<|im_start|>", None, "leaves out the user's message"),
        ("{{ messages[0].content | no_such_filter }}", None, "cannot be rendered: No filter"),
        ("{% for i in range(10**9) %}{% endfor %}", None, "cannot be rendered: Range too big"),
        ("{{ messages[0]['content'] + 1 }}", None, "cannot be rendered: can only concatenate"),
    ],
)
def test_templates_that_cannot_serve_say_why(template: str | None, system: str | None, message: str) -> None:
    with pytest.raises(ChatModelError, match=message):
        Template(tokenizer(template), system).encode(["Sing."])


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ChatModelError, match="empty prompt"):
        Template(tokenizer()).encode([" \n"])


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    chat = chat_model()
    with pytest.raises(ChatModelError, match="reads 512"):
        chat.encode(["many words " * 200])


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_batches_give_the_logits_of_single_prompts(family: str) -> None:
    chat = chat_model(family)
    prompts = chat.encode(PROMPTS)
    packs = can_pack(chat)
    assert packs
    assert chat.ends_only
    singles = []
    for prompt in prompts:
        ids = torch.tensor([prompt.ids])
        with torch.inference_mode():
            singles.append(chat.model(input_ids=ids).logits[0, -1])
    expected = torch.stack(singles)
    assert (expected[0] - expected[1]).abs().max() > 0.1, "prompts must differ for this to say anything"
    for mode, budget in ((True, 120), (True, 10_000), (False, 120), (False, 10_000)):
        chat.packs = mode
        got = torch.empty_like(expected)
        for batch in plan_batches(chat, prompts, budget):
            assert batch.packed is mode
            with torch.inference_mode():
                got[list(batch.prompts)] = forward(chat, batch)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_every_prompt_is_in_one_batch() -> None:
    chat = chat_model()
    prompts = chat.encode(PROMPTS * 3)
    for budget in (1, 50, 300, 10_000):
        for mode in (True, False):
            chat.packs = mode
            seen = [index for batch in plan_batches(chat, prompts, budget) for index in batch.prompts]
            assert sorted(seen) == list(range(len(prompts)))


def test_prompts_longer_than_a_sliding_window_are_padded_and_right() -> None:
    chat = chat_model("mistral", sliding_window=16)
    prompts = chat.encode(PROMPTS[:3])
    batches = plan_batches(chat, prompts)
    assert not any(batch.packed for batch in batches)


def test_a_model_that_leaks_between_packed_prompts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyrefuse_eval.models.batching as batches

    chat = chat_model()
    honest = batches._packed

    def without_mask(*arguments: object) -> object:
        batch = honest(*arguments)  # type: ignore[arg-type]
        batch.arguments["attention_mask"].zero_()
        return batch

    monkeypatch.setattr(batches, "_packed", without_mask)
    assert not batches.can_pack(chat)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens_per_row", [1, 60, 100])
def test_packed_batches_of_several_rows_give_the_same_logits_and_activations(
    family: str, tokens_per_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polyrefuse_eval.models.batching as batches

    chat = chat_model(family)
    prompts = chat.encode(PROMPTS)
    assert can_pack(chat)
    monkeypatch.setitem(batches.TOKENS_PER_ROW, "cpu", tokens_per_row)
    planned = plan_batches(chat, prompts, 10_000)
    assert sum(batch.arguments["input_ids"].shape[0] for batch in planned) > 1
    got = {}
    for batch in planned:
        lengths = (batch.arguments["position_ids"] > 0).sum(1)
        assert int(lengths.max() - lengths.min()) <= max(map(len, prompts))
        got.update(zip(batch.prompts, forward(chat, batch), strict=True))
    monkeypatch.setattr(chat, "packs", False)
    expected = torch.cat(
        [forward(chat, *plan_batches(chat, [prompt]), ends_only=False) for prompt in prompts]
    )
    together = torch.stack([got[index] for index in range(len(prompts))])
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=1e-4)

    vectors = torch.randn(2, chat.width, generator=torch.Generator().manual_seed(1))
    edits = [(Ablation(vectors[0]),), (Addition(vectors[1], 1),)]
    batch = max(planned, key=lambda batch: batch.arguments["input_ids"].shape[0])
    n_rows = batch.arguments["input_ids"].shape[0]
    assert n_rows > 1
    with applied(chat, [edit for edit in edits for _ in range(n_rows)]):
        both = forward(chat, batch, times=2)
    for edit, logits in zip(edits, both, strict=True):
        with applied(chat, edit):
            torch.testing.assert_close(logits, forward(chat, batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_those_of_single_prompts_though_the_last_mlp_sees_few_tokens(family: str) -> None:
    chat = chat_model(family)
    prompts = chat.encode(PROMPTS)
    assert can_pack(chat)
    positions = all_positions(chat)
    for layers in ([0], [1, 2], list(range(chat.n_layers + 1))):
        for captured in capture(chat, prompts, layers, positions):
            for slot, index in enumerate(captured.prompts):
                ids = torch.tensor([prompts[index].ids])
                with torch.inference_mode():
                    hidden = chat.model(input_ids=ids, output_hidden_states=True).hidden_states
                for place, position in enumerate(positions):
                    column = len(prompts[index]) - 1 + offset_from_end(prompts[index], position)
                    for layer_slot, layer in enumerate(layers):
                        # What transformers calls the last hidden state is normalised already.
                        if layer < chat.n_layers:
                            torch.testing.assert_close(
                                captured.hidden[slot, place, layer_slot],
                                hidden[layer][0, column],
                                atol=1e-4,
                                rtol=1e-4,
                            )


def probe() -> torch.Tensor:
    return torch.tensor([chat_model().encode(["Sing."])[0].ids])


def test_the_layers_can_be_named_and_a_wrong_name_says_so() -> None:
    model = tiny_model("llama")
    assert find_structure(model, probe(), "model.layers") == find_structure(model, probe())
    with pytest.raises(ChatModelError, match=r"no module 'model\.nowhere'"):
        find_structure(model, probe(), "model.nowhere")
    with pytest.raises(ChatModelError, match="unknown structure override 'attention=self_attn'"):
        ChatModel.from_parts(tiny_model("llama"), tokenizer(), structure="attention=self_attn")


def test_names_of_modules_do_not_matter() -> None:
    model = tiny_model("llama")
    for index, layer in enumerate(model.model.layers):
        layer.add_module(f"mixer_{index}", layer.mlp)
        layer._modules["mlp"] = torch.nn.Sequential(layer._modules.pop("mlp"))
    assert find_structure(model, probe()).writes == (
        ("self_attn", "mixer_0"),
        ("self_attn", "mixer_1"),
        ("self_attn", "mixer_2"),
    )


class Multiplied(torch.nn.Module):
    """A layer whose output is a product with its input."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(hidden, *args, **kwargs)
        return output * hidden.tanh()


def test_what_is_no_sum_of_outputs_is_refused_in_one_line() -> None:
    model = tiny_model("llama")
    model.model.layers[1] = Multiplied(model.model.layers[1])
    with pytest.raises(ChatModelError, match=r"what layer 1 of LlamaForCausalLM adds .* is not a sum of its"):
        ChatModel.from_parts(model, tokenizer())
    for layer in model.model.layers:
        layer.forward = lambda hidden, *_args, **_kwargs: hidden * 0.5
    model.model.layers = torch.nn.Sequential(*model.model.layers)
    with pytest.raises(ChatModelError, match="no list of modules in LlamaForCausalLM runs as decoder layers"):
        find_structure(model, probe())


FURTHER: dict[str, dict[str, Any]] = {
    "GPT2Config": {"n_embd": 32, "n_layer": 3, "n_head": 4},
    "BloomConfig": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "MambaConfig": {"hidden_size": 32, "num_hidden_layers": 3},
    "FalconConfig": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
    "Olmo2Config": {},
    "GraniteConfig": {"residual_multiplier": 0.22},
    "GptOssConfig": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
}
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def from_config(name: str, **settings: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    tokens = {"vocab_size": len(tokenizer()), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, name)(**tokens, **settings)
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


@pytest.mark.parametrize("name", FURTHER)
def test_families_that_nobody_prepared_for_are_found_out_too(name: str) -> None:
    whole = ("GPT2Config", "BloomConfig", "MambaConfig", "FalconConfig")
    settings = FURTHER[name] if name in whole else {**SIZES, **FURTHER[name]}
    chat = ChatModel.from_parts(from_config(name, **settings), tokenizer(), name=name)
    assert chat.n_layers == 3
    prompts = chat.encode(PROMPTS[:4])
    packed = can_pack(chat)
    for batch in plan_batches(chat, prompts):
        assert batch.packed is packed
        for slot, index in enumerate(batch.prompts):
            with torch.inference_mode():
                alone = chat.model(input_ids=torch.tensor([prompts[index].ids])).logits[0, -1]
            torch.testing.assert_close(forward(chat, batch)[slot], alone, atol=1e-3, rtol=1e-3)


def test_a_stream_that_is_normalised_itself_is_refused() -> None:
    settings = {**SIZES, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    model = from_config("MiniMaxConfig", **settings)
    for layer in model.model.layers:
        torch.nn.init.uniform_(layer.input_layernorm.weight)
    with pytest.raises(ChatModelError, match="is not a sum of its modules' outputs"):
        ChatModel.from_parts(model, tokenizer())


def test_short_and_long_prompts_share_rows_so_that_little_is_padded() -> None:
    chat = chat_model()
    words = "the rain in the hills of the north"
    prompts = chat.encode([" ".join(words.split()[: 1 + index % 8]) for index in range(64)])
    assert can_pack(chat)
    planned = [batch.arguments["input_ids"] for batch in plan_batches(chat, prompts)]
    prefix = shared_prefix(prompts)
    own = sum(len(prompt) - prefix for prompt in prompts)
    n_rows = sum(ids.shape[0] for ids in planned)
    assert 1 < n_rows < len(prompts) / 2
    assert sum(ids.numel() for ids in planned) <= 1.05 * (own + prefix * n_rows)


def test_a_padding_token_that_was_added_to_the_tokenizer_alone_is_not_fed_to_the_model() -> None:
    chat = chat_model()
    rows = chat.model.get_input_embeddings().weight.shape[0]
    added = replace(chat, tokenizer=SimpleNamespace(pad_token_id=rows))
    assert added.pad_id == 0
    known = replace(chat, tokenizer=SimpleNamespace(pad_token_id=rows - 1))
    assert known.pad_id == rows - 1


def test_a_tokenizer_of_another_model_is_named() -> None:
    chat = chat_model()
    chat.model.resize_token_embeddings(20)
    with pytest.raises(ChatModelError, match="tokenizer and weights are from different models"):
        ChatModel.from_parts(chat.model, chat.tokenizer)
    with pytest.raises(ChatModelError, match="embeddings end at 19"):
        chat.encode(["hello"])
