"""A direction or a guard from a stranger that cannot be used is refused in one line when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import chat_model

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.directions.fit import Direction, DirectionSet
from polyrefuse_eval.errors import DirectionError, GuardError
from polyrefuse_eval.harmfulness.latent_guard import LatentGuard
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.positions import Position
from polyrefuse_eval.results.tensor_headers import read_direction_header
from polyrefuse_eval.statistics.thresholds import Threshold


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


def direction_of(chat: ChatModel) -> Direction:
    unit = torch.zeros(chat.width)
    unit[0] = 1.0
    return Direction(unit, 2.0, 1, Position(-1), "en", metadata={"model": chat.signature()})


def guard_of(chat: ChatModel) -> LatentGuard:
    return LatentGuard(
        chat, {"en": torch.ones(2, chat.width)}, (0, 1), {"en": Threshold(0.5)}, {"model": chat.signature()}
    )


def edited(
    file: Path, header: Callable[[dict[str, Any]], Any], tensors: dict[str, Any] | None = None
) -> None:
    """Change the header and the tensors of a file that the product wrote."""
    with safe_open(file, "pt") as opened:
        stated = json.loads(opened.metadata()["polyrefuse"])
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    header(stated)
    save_file({**held, **(tensors or {})}, file, {"polyrefuse": json.dumps(stated)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"layer": 999}, "is of layer 999; tiny-llama has layers 0 to 2"),
        ({"layer": -1}, "layer: Input should be greater than or equal to 0"),
        ({"layer": "abc"}, "layer: Input should be a valid integer"),
        ({"norm": 0.0}, "norm: Input should be greater than 0"),
        ({"norm": float("nan")}, "norm: Input should be a finite number"),
        ({"norm": 1e99}, "norm: Input should be less than"),
        ({"position": "x\x1b]0;y"}, "position"),
        ({"metadata": {}}, "does not say which model it is for"),
        ({"metadata": 7}, "metadata: Input should be an object"),
        ({"metadata": {"model": {"model": "other"}}}, "does not say which model it is for"),
        ({"format": "polyrefuse-guard-1"}, "holds polyrefuse-guard-1; expected polyrefuse-direction-1"),
        ({"surplus": 1}, "surplus"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_header_that_cannot_be(
    change: dict[str, Any], problem: str, chat: ChatModel, tmp_path: Path
) -> None:
    file = tmp_path / "d.safetensors"
    direction_of(chat).save(file)
    assert Direction.load(file, chat).layer == 1
    edited(file, lambda header: header.update(change))
    with pytest.raises(DirectionError, match=problem):
        Direction.load(file, chat)


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (torch.full((32,), float("nan")), "expected finite numbers of shape"),
        (torch.zeros(32), "a direction of length 0; expected a unit vector"),
        (torch.ones(32), "expected a unit vector"),
        (torch.ones(4, 8), r"of shape \[4, 8\]; expected finite numbers of shape \[32\]"),
        (torch.ones(31), r"of shape \[31\]"),
        (torch.ones(32, dtype=torch.int64), "torch.int64 of shape"),
    ],
)
def test_a_vector_that_is_no_direction(
    vector: torch.Tensor, problem: str, chat: ChatModel, tmp_path: Path
) -> None:
    file = tmp_path / "d.safetensors"
    direction_of(chat).save(file)
    edited(file, lambda _header: None, {"direction": vector})
    with pytest.raises(DirectionError, match=problem):
        Direction.load(file, chat)


def test_a_set_whose_vectors_are_not_at_its_places(chat: ChatModel, tmp_path: Path) -> None:
    file = tmp_path / "d.all.safetensors"
    DirectionSet("en", torch.ones(1, 2, 32, dtype=torch.float64), (Position(-1),), (0, 1)).save(file)
    assert DirectionSet.load(file).layers == (0, 1)
    edited(file, lambda header: header.update(layers=[0, 1, 2]))
    with pytest.raises(DirectionError, match=r"of shape \[1, 2, 32\]; expected .* \[1, 3, any\]"):
        DirectionSet.load(file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"layers": [0, 9]}, "reads layer 9; tiny-llama has layers 0 to 3"),
        ({"layers": []}, "it has no layers, or no languages"),
        ({"languages": ["de"]}, "has no tensor de; it holds en"),
        ({"thresholds": {"en": {"alpha": "low"}}}, "thresholds.en"),
        ({"metadata": {}}, "does not say which model it is for"),
    ],
)
def test_a_guard_that_cannot_be(
    change: dict[str, Any], problem: str, chat: ChatModel, tmp_path: Path
) -> None:
    file = tmp_path / "g.safetensors"
    guard = guard_of(chat)
    replace(guard, thresholds={"en": Threshold(float("-inf"))}).save(file)
    assert LatentGuard.load(file, chat).thresholds["en"].alpha == float("-inf")
    edited(file, lambda header: header.update(change))
    with pytest.raises(GuardError, match=problem):
        LatentGuard.load(file, chat)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_bytes_that_are_no_file_of_tensors(content: bytes, chat: ChatModel, tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    file.write_bytes(content)
    for read in (lambda: Direction.load(file, chat), lambda: read_direction_header(file, DirectionError)):
        with pytest.raises(PolyRefuseError, match=r"d\.safetensors"):
            read()
