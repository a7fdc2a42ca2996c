"""Hybrid decoders, decoders of several streams and those in vision wrappers: measured as any other."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
import torch
from tiny import HYBRID, PROMPTS, VISION, chat_model
from torch import Tensor

from polyrefuse_eval.models.activations import all_positions, capture, offset_from_end
from polyrefuse_eval.models.batching import can_pack, can_pad, forward, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.decoding import can_cache, can_join
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import Ablation, Addition, applied
from polyrefuse_eval.models.partial_forward import starting_at
from polyrefuse_eval.models.structure import layer_input

FURTHER = (*HYBRID, *VISION)
RECURRENT = ("qwen3_next", "qwen3_5_text", "lfm2", "jamba", "granitemoehybrid", "falcon_h1", "nemotron_h",
             "bamba", "zamba2", "recurrent_gemma", "olmo_hybrid")  # fmt: skip
CHUNKED = ("llama4_text",)
"""Families whose attention ends at every so many tokens of a row, whatever prompt they belong to."""

STEPS = 8
GENERATION = int(metadata.version("transformers").partition(".")[0])


@pytest.fixture(scope="module", params=FURTHER)
def chat(request: pytest.FixtureRequest) -> ChatModel:
    return chat_model(request.param)


def family(chat: ChatModel) -> str:
    return chat.name.removeprefix("tiny-")


def single_inputs(chat: ChatModel, ids: Tensor) -> list[Tensor]:
    """The input of every layer for one prompt, as the active stream [tokens, d]."""
    inputs: list[Tensor] = []

    def keep(_module: Any, args: Any, kwargs: Any) -> None:
        inputs.append(chat.structure.read(layer_input(args, kwargs))[0])

    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in chat.layers]
    with torch.inference_mode():
        chat.model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return inputs


def test_what_a_model_cannot_do_at_speed_is_known(chat: ChatModel) -> None:
    recurrent = family(chat) in RECURRENT
    separate = not recurrent and family(chat) not in CHUNKED
    assert can_pack(chat) is separate, "a prompt in a row must not notice those before it"
    if recurrent and GENERATION < 5:
        return  # more of them see the padding, or return no cache by themselves
    assert can_pad(chat) is (family(chat) != "recurrent_gemma"), "its convolution sees the padding"
    assert can_cache(chat) is (family(chat) != "recurrent_gemma"), "it returns no cache by itself"
    assert can_join(chat) is separate, "rows join keys and values that go by the mask alone"


def test_batches_give_the_logits_and_activations_of_single_prompts(chat: ChatModel) -> None:
    prompts = chat.encode(PROMPTS)
    positions = all_positions(chat)
    expected, inputs = [], []
    for prompt in prompts:
        ids = torch.tensor([prompt.ids])
        inputs.append(single_inputs(chat, ids))
        with torch.inference_mode():
            expected.append(chat.model(input_ids=ids, use_cache=False).logits[0, -1])
    assert (expected[0] - expected[1]).abs().max() > 0.02, "prompts must differ for this to say anything"
    seen = set()
    for batch in plan_batches(chat, prompts, 120):
        for slot, index in enumerate(batch.prompts):
            seen.add(index)
            torch.testing.assert_close(forward(chat, batch)[slot], expected[index], atol=1e-3, rtol=1e-3)
    assert seen == set(range(len(prompts)))
    layers = list(range(chat.n_layers))
    for captured in capture(chat, prompts, layers, positions):
        for slot, index in enumerate(captured.prompts):
            for place, position in enumerate(positions):
                column = len(prompts[index]) - 1 + offset_from_end(prompts[index], position)
                wanted = torch.stack([inputs[index][layer][column] for layer in layers])
                torch.testing.assert_close(captured.hidden[slot, place], wanted, atol=1e-3, rtol=1e-3)


def test_an_addition_shifts_the_stream_that_is_read_at_its_layer_and_no_earlier_one(chat: ChatModel) -> None:
    ids = torch.tensor([chat.encode(PROMPTS[:1])[0].ids])
    vector = torch.randn(chat.width, generator=torch.Generator().manual_seed(3))
    before = single_inputs(chat, ids)
    with applied(chat, Addition(vector, layer=2, coefficient=-2.0)):
        after = single_inputs(chat, ids)
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    torch.testing.assert_close(after[2] - before[2], (-2 * vector).expand_as(after[2]), atol=1e-4, rtol=1e-4)
    assert not torch.equal(after[3], before[3])


def test_a_pass_from_a_layer_gives_the_logits_of_the_whole_one(chat: ChatModel) -> None:
    (batch,) = plan_batches(chat, chat.encode(PROMPTS[:1]))
    states: list[Tensor] = []
    hook = chat.layers[2].register_forward_pre_hook(
        lambda _m, args, kwargs: states.append(layer_input(args, kwargs)), with_kwargs=True
    )
    whole = forward(chat, batch)
    hook.remove()
    with starting_at(chat, 2, states[0]):
        torch.testing.assert_close(forward(chat, batch), whole, atol=1e-4, rtol=1e-4)
    assert torch.equal(forward(chat, batch), whole), "the layers are back"


def test_what_is_tried_of_a_model_is_tried_without_the_edits_of_its_first_batch() -> None:
    """Whether its cache can be trusted is found out on two prompts, and here three rows have edits."""
    fresh = chat_model("lfm2")
    directions = torch.randn(3, fresh.width, generator=torch.Generator().manual_seed(4))
    requests = [Request(str(row), PROMPTS[0], (Ablation(unit),)) for row, unit in enumerate(directions)]
    batches = generate(fresh, requests, max_new_tokens=STEPS)
    first = {answer.key: answer.ids for batch in batches for answer in batch}
    again = generate(fresh, requests, max_new_tokens=STEPS)
    assert first == {answer.key: answer.ids for batch in again for answer in batch}


def test_generation_is_that_of_transformers_and_rows_with_edits_are_those_alone(chat: ChatModel) -> None:
    first, second = torch.randn(2, chat.width, generator=torch.Generator().manual_seed(9))
    edits = [(), (Ablation(first),), (Addition(4 * second, 1, tokens="decoding"),)]
    requests = [
        Request(f"{kind} {index}", prompt, edit, STEPS if kind == 0 else 1 + (3 * index + kind) % STEPS)
        for kind, edit in enumerate(edits)
        for index, prompt in enumerate(PROMPTS[:3])
    ]

    def run(batch_size: int) -> dict[str, tuple[int, ...]]:
        batches = generate(chat, requests, max_new_tokens=STEPS, batch_size=batch_size)
        return {answer.key: answer.ids for batch in batches for answer in batch}

    # Rows of a batch of four end at different tokens, and where the cache lets them, others join.
    together = run(4)
    assert together == run(1)
    assert len({together[f"{kind} 2"][:2] for kind in range(3)}) > 1, "the edits must do something"
    for index, prompt in enumerate(chat.encode(PROMPTS[:3])):
        ids = torch.tensor([prompt.ids])
        whole = chat.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=STEPS,
            do_sample=False,
            use_cache=can_cache(chat),  # with a cache, Zamba2 of transformers 4 answers otherwise
            eos_token_id=sorted(chat.stop_ids),
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert list(together[f"0 {index}"]) == [token for token in whole if token not in chat.stop_ids]
