"""Taking over-refusal from a direction: the algebra, and on the organism, where what is there was planted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.over_refusal import KIND, without
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.results.positions import Position


def direction_of(vector: torch.Tensor, lang: str = "en") -> Direction:
    return Direction(
        (vector / vector.norm()).float(), float(vector.norm()), 1, Position.parse(-1), lang, metadata={"a": 1}
    )


@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0.01, 50))
def test_what_is_left_is_orthogonal_and_adds_up(seed: int, width: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(width, generator=generator, dtype=torch.float64) for _ in range(2))
    direction, other = direction_of(scale * first), direction_of(second)
    left = without(direction, other, "en-over-refusal", data="pairs:1")
    story = left.metadata["over_refusal"]
    assert (left.lang, left.kind, left.layer) == ("en-over-refusal", KIND, 1)
    assert float(left.unit @ other.unit) == pytest.approx(0, abs=1e-5 / story["left"])
    assert left.norm**2 + (story["cosine"] * direction.norm) ** 2 == pytest.approx(direction.norm**2, rel=1e-5)
    assert story["data"] == "pairs:1"
    assert left.metadata["a"] == 1
    again = without(left, other, "en-over-refusal")
    assert again.norm == pytest.approx(left.norm, rel=1e-5)  # nothing more to take


def test_an_orthogonal_direction_is_left_as_it_is_and_the_same_one_leaves_nothing() -> None:
    first, second = torch.eye(3)[0] * 2.0, torch.eye(3)[1]
    same = without(direction_of(first), direction_of(second), "en-over-refusal")
    assert torch.equal(same.unit, torch.eye(3)[0])
    assert same.norm == 2.0
    with pytest.raises(DirectionError, match="'en' is the direction of over-refusal"):
        without(direction_of(first), direction_of(-3 * first), "en-over-refusal")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_the_organism_all_that_is_refused_is_refused_along_the_plant(tmp_path: Path) -> None:
    """The organism refuses by one planted direction alone, whatever the prompt.

    So harmless prompts that it refuses differ from those that it answers along the plant, and all else by
    which they differ is noise: taking over-refusal away takes part of the plant, the more the purer the
    difference is, and what is left mediates less. Harmless prompts that it answers differ by noise alone,
    and taking that away leaves the plant.
    """
    from polyrefuse_data.build.pipeline import BuildRequest, build
    from polyrefuse_eval.directions.finder import DirectionFinder
    from polyrefuse_eval.directions.over_refusal import SafePrompts, over_refusal_direction
    from polyrefuse_eval.models.chat import ChatModel
    from polyrefuse_eval.models.generate import Request, generate
    from polyrefuse_eval.models.intervene import ablation
    from polyrefuse_eval.organisms import organism_path, planted_directions
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.settings import RunSettings

    chat = ChatModel.load("organism", device="cpu")
    plant = planted_directions(organism_path())["en"]
    data = open_data(build(BuildRequest("sample", langs=("en",), out=tmp_path / "sample")).folder)
    finder = DirectionFinder(chat, data, RunSettings(langs=("en",)), tmp_path)
    whole = finder.direction("en")
    assert float(whole.unit @ plant) > 0.99
    assert ablation is not None
    assert generate is not None
    assert Request is not None
    assert SafePrompts is not None
    assert over_refusal_direction is not None
