"""The span of several directions: an orthonormal basis, of which an ablation leaves nothing at any site."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from tiny import PROMPTS, chat_model
from torch import Tensor

from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.span import span_of
from polyrefuse_eval.errors import DirectionError, InterventionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import applied
from polyrefuse_eval.models.interventions import edit_with
from polyrefuse_eval.models.structure import first_tensor, layer_input, write_modules
from polyrefuse_eval.results.interventions import ABLATION, ADDITION
from polyrefuse_eval.results.positions import Position


def directions(width: int, count: int, seed: int = 0) -> list[Direction]:
    """Return unit vectors that share half of their length, as the directions of several languages may."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, width, generator=generator) + torch.randn(width, generator=generator)
    return [
        Direction(vector / vector.norm(), 3.0 + index, 1, Position(-1), lang)
        for index, (vector, lang) in enumerate(zip(vectors, ("de", "ja", "yo"), strict=False))
    ]


@torch.inference_mode()
def written(chat: ChatModel) -> list[Tensor]:
    """Return the states at the input of each layer, at each write, and at the last layer's output."""
    states: list[Tensor] = []
    with ExitStack() as stack:
        for layer in chat.layers:
            hook = layer.register_forward_pre_hook(
                lambda _m, args, kwargs: states.append(layer_input(args, kwargs)), with_kwargs=True
            )
            stack.callback(hook.remove)
        for module in [*write_modules(chat.layers, chat.structure), chat.layers[-1]]:
            hook = module.register_forward_hook(lambda _m, _a, output: states.append(first_tensor(output)))
            stack.callback(hook.remove)
        chat.model(input_ids=torch.tensor([chat.encode([PROMPTS[0]])[0].ids]))
    return states


def largest(states: list[Tensor], basis: Tensor) -> float:
    """Return the largest share of a token's norm that lies in the span of `basis`."""
    return max(float(((h @ basis.T).norm(dim=-1) / h.norm(dim=-1).clamp(min=1e-12)).max()) for h in states)


def test_of_the_whole_span_nothing_is_left_at_any_site_and_of_one_direction_something_is() -> None:
    chat = chat_model()
    parts = directions(chat.width, 3)
    span = span_of(parts)
    assert span.unit.shape == (3, chat.width)
    torch.testing.assert_close(span.unit @ span.unit.T, torch.eye(3), atol=1e-5, rtol=0)
    assert largest(written(chat), span.unit) > 0.05
    with applied(chat, edit_with(ABLATION, parts[0])):
        assert largest(written(chat), span.unit) > 0.05
    with applied(chat, edit_with(ABLATION, span)):
        left = written(chat)
    for part in parts:
        assert largest(left, part.unit[None]) < 1e-4


def test_the_leading_directions_hold_most_of_what_the_directions_share() -> None:
    parts = directions(32, 3)
    units = torch.stack([part.unit for part in parts])
    leading = span_of(parts, 1).unit
    assert leading.shape == (1, 32)
    held = (units @ leading.T).square().sum()
    for seed in range(20):
        other = torch.nn.functional.normalize(
            torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))
        )
        assert held > (units @ other.T).square().sum()
    assert all(held >= (units @ part.unit).square().sum() - 1e-5 for part in parts)


def test_a_span_has_no_vector_to_add() -> None:
    span = span_of(directions(32, 2))
    with pytest.raises(InterventionError, match=r"^Span\(de\+ja, rank 2, width 32\) can be ablated"):
        edit_with(ADDITION, span)


def test_directions_of_two_models_or_of_too_few_dimensions_make_no_span() -> None:
    with pytest.raises(DirectionError, match="width 32, 64"):
        span_of([*directions(32, 1), *directions(64, 1)])
    with pytest.raises(DirectionError, match="given no direction"):
        span_of([])
    same = directions(32, 1)[0]
    with pytest.raises(DirectionError, match="2 directions span 1 dimensions; 2 were asked for"):
        span_of([same, same], 2)
