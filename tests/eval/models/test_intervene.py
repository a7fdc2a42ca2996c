"""Theorems of ablation and addition on tiny models of every family."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, HYBRID, PROMPTS, VISION, chat_model
from torch import Tensor

from polyrefuse_eval.errors import InterventionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Ablation, Addition, Transformation, applied
from polyrefuse_eval.models.kv_cache import cache_argument, cache_of
from polyrefuse_eval.models.row_edits import orthonormal
from polyrefuse_eval.models.structure import first_tensor, layer_input, write_modules


def ids_of(chat: ChatModel, prompt: str = PROMPTS[0]) -> Tensor:
    return torch.tensor([chat.encode([prompt])[0].ids])


@torch.inference_mode()
def logits(chat: ChatModel, ids: Tensor) -> Tensor:
    return chat.model(input_ids=ids).logits


@torch.inference_mode()
def sites(chat: ChatModel, ids: Tensor) -> list[Tensor]:
    """Hidden states at every layer's input, every write, and the last layer's output, as later hooks
    see them."""
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for layer in chat.layers:
            stack.callback(
                layer.register_forward_pre_hook(
                    lambda _m, args, kwargs: seen.append(layer_input(args, kwargs)), with_kwargs=True
                ).remove
            )
        for module in write_modules(chat.layers, chat.structure):
            hook = module.register_forward_hook(lambda _m, _a, output: seen.append(first_tensor(output)))
            stack.callback(hook.remove)
        last = chat.layers[-1].register_forward_hook(lambda _m, _a, output: seen.append(first_tensor(output)))
        stack.callback(last.remove)
        chat.model(input_ids=ids)
    return seen


def vectors(chat: ChatModel, count: int = 1, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, chat.width, generator=generator) * 3


def share(hidden: Tensor, basis: Tensor) -> float:
    """Greatest part of a token's norm that lies in the span of `basis`."""
    return float(((hidden @ basis.T).norm(dim=-1) / hidden.norm(dim=-1).clamp(min=1e-12)).max())


@pytest.mark.parametrize("family", [*FAMILIES, *HYBRID, *VISION])
@pytest.mark.parametrize("count", [1, 3])
def test_ablation_leaves_nothing_of_the_direction_at_any_site(family: str, count: int) -> None:
    chat = chat_model(family)
    ids, directions = ids_of(chat), vectors(chat, count)
    basis = orthonormal(directions)
    assert max(share(hidden, basis) for hidden in sites(chat, ids)) > 0.05
    with applied(chat, Ablation(directions)):
        after = sites(chat, ids)
    stream = float(torch.stack([hidden.norm(dim=-1).mean() for hidden in after]).max())
    assert len(after) == chat.n_layers + len(list(write_modules(chat.layers, chat.structure))) + 1
    for hidden in after:
        assert float((hidden @ basis.T).abs().max()) < 1e-5 * stream


@pytest.mark.parametrize("family", [*FAMILIES, *HYBRID, *VISION])
def test_ablation_is_idempotent_and_the_model_is_itself_again_bit_by_bit(family: str) -> None:
    chat = chat_model(family)
    ids, direction = ids_of(chat), vectors(chat)
    before = logits(chat, ids)
    with applied(chat, Ablation(direction)):
        once = logits(chat, ids)
        with applied(chat, Ablation(direction * -7)):
            twice = logits(chat, ids)
    assert (once - before).abs().max() > 1e-2
    torch.testing.assert_close(twice, once, atol=1e-3, rtol=1e-3)
    assert torch.equal(logits(chat, ids), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_addition_shifts_the_input_of_its_layer_and_no_earlier_one(family: str) -> None:
    chat = chat_model(family)
    ids, vector = ids_of(chat), vectors(chat)[0]
    before = sites(chat, ids)
    with applied(chat, Addition(vector, layer=1, coefficient=-2.0)):
        after = sites(chat, ids)
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    torch.testing.assert_close(after[3] - before[3], (-2 * vector).expand_as(after[3]), atol=1e-4, rtol=1e-4)


def shrunk(hidden: Tensor) -> Tensor:
    """Return `hidden` with every other coordinate at half its size."""
    return hidden * torch.tensor([0.5, 1.0]).repeat(hidden.shape[-1] // 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformation_changes_the_input_of_its_layers_and_no_earlier_one(family: str) -> None:
    chat = chat_model(family)
    ids = ids_of(chat)
    before, plain = sites(chat, ids), logits(chat, ids)
    with applied(chat, Transformation(shrunk, layers=(1,))):
        after = sites(chat, ids)
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    torch.testing.assert_close(after[3], shrunk(before[3]), atol=1e-5, rtol=1e-5)
    with applied(chat, Transformation(shrunk)):
        everywhere = logits(chat, ids)
    assert (everywhere - plain).abs().max() > 1e-2
    assert torch.equal(logits(chat, ids), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_with_edits_of_their_own_equal_one_at_a_time(family: str) -> None:
    chat = chat_model(family)
    ids = ids_of(chat)
    first, second, third = vectors(chat, 3)
    rows: list[Any] = [
        (),
        (Ablation(first),),
        (Addition(second, layer=1),),
        (Ablation(torch.stack([first, second]), coefficient=0.5),),
        (Ablation(third), Addition(first, layer=2, coefficient=2.0), Addition(second, layer=0, tokens=(-1,))),
        (Ablation(first, tokens="prompt"),),
        (Ablation(first, tokens=(-1, -3)),),
        (Transformation(shrunk, layers=(0, 2), tokens=(-2,)), Ablation(second)),
    ]
    with applied(chat, rows):
        together = logits(chat, ids.expand(len(rows), -1))
    alone = []
    for row in rows:
        with applied(chat, row):
            alone.append(logits(chat, ids)[0])
    spread = torch.stack(alone)
    assert float((spread[0] - spread[1:5]).abs().amax((1, 2)).min()) > 1e-2
    torch.testing.assert_close(together, spread, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[5], together[1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def greedy(chat: ChatModel, ids: Tensor, edits: Any, *, cache: bool, steps: int = 5) -> Tensor:
    """Logits of each greedy step, with and without a cache of keys and values."""
    found = []
    past = None
    current = ids
    with applied(chat, edits, prompt_width=ids.shape[1]):
        for _ in range(steps):
            if cache:
                output = chat.model(input_ids=current, **cache_argument(chat.model, past), use_cache=True)
                past = cache_of(output)
            else:
                output = chat.model(input_ids=ids, use_cache=False)
            found.append(output.logits[0, -1])
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            current, ids = token, torch.cat([ids, token], 1)
    return torch.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", ["all", "prompt", "decoding", (-1,)])
def test_edits_hold_in_prefill_and_decoding_with_and_without_cache(family: str, tokens: Any) -> None:
    chat = chat_model(family)
    ids = ids_of(chat)
    vector = vectors(chat)[0]
    edits = (
        Ablation(vector, tokens=tokens),
        Addition(vector.flip(0), layer=1, tokens=tokens),
        Transformation(shrunk, layers=(2,), tokens=tokens),
    )
    plain = greedy(chat, ids, (), cache=True)
    cached, uncached = (greedy(chat, ids, edits, cache=cache) for cache in (True, False))
    torch.testing.assert_close(cached, uncached, atol=2e-4, rtol=2e-4)
    assert (cached - plain).abs().max() > 1e-2
    if tokens == "decoding":
        # The first token comes from the prompt alone.
        torch.testing.assert_close(cached[0], plain[0], atol=1e-5, rtol=1e-5)


def test_several_directions_are_ablated_as_their_span() -> None:
    chat = chat_model()
    ids = ids_of(chat)
    first, second = vectors(chat, 2)
    with applied(chat, Ablation(torch.stack([first, second]))):
        span = logits(chat, ids)
    with applied(chat, Ablation(torch.stack([second, first + second, 2 * first]))):
        same = logits(chat, ids)
    torch.testing.assert_close(span, same, atol=1e-4, rtol=1e-4)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_an_orthonormal_basis_is_orthonormal_and_spans(count: int, seed: int) -> None:
    rows = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    rows[-1] = rows[0]
    basis = orthonormal(rows)
    assert basis.shape[0] == max(1, count - 1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows @ basis.T @ basis, rows, atol=1e-4, rtol=1e-4)


def n_hooks(chat: ChatModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in chat.model.modules())


def test_a_failed_install_leaves_no_hook_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_model()
    ids = ids_of(chat)
    before, hooks = logits(chat, ids), n_hooks(chat)
    broken = chat.layers[2].get_submodule("mlp")

    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise RuntimeError("no hook today")

    monkeypatch.setattr(broken, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hook today"), applied(chat, Ablation(vectors(chat))):
        pass
    assert n_hooks(chat) == hooks
    assert torch.equal(logits(chat, ids), before)


def test_an_exception_inside_leaves_no_hook_behind() -> None:
    chat = chat_model()
    hooks = n_hooks(chat)

    def fail() -> None:
        with applied(chat, Ablation(vectors(chat))):
            assert n_hooks(chat) > hooks
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert n_hooks(chat) == hooks


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Ablation(torch.ones(5)), "width 5 does not fit"),
        (Addition(torch.ones(32), layer=3), "layer 3 is not in"),
        (Ablation(torch.zeros(32)), "norm 0"),
        (Ablation(torch.full((32,), torch.nan)), "not finite"),
        (Ablation(torch.ones(32), tokens="promt"), "unknown tokens 'promt'"),
        (Ablation(torch.ones(32), tokens=(0,)), "negative"),
    ],
)
def test_edits_that_do_not_fit_say_why(edit: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message), applied(chat_model(), edit):
        pass


def test_a_batch_of_another_size_is_refused() -> None:
    chat = chat_model()
    ids = ids_of(chat).expand(3, -1)
    edit = Ablation(vectors(chat))
    with applied(chat, [(edit,), ()]), pytest.raises(InterventionError, match=r"3 rows and edits for 2"):
        logits(chat, ids)


def test_a_compiled_model_is_refused() -> None:
    chat = chat_model()
    chat.model.compile()
    with pytest.raises(InterventionError, match=r"torch\.compile"), applied(chat, Ablation(vectors(chat))):
        pass
