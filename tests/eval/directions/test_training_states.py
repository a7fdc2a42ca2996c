"""Hidden states of training prompts are read once, whichever command asks first, and are those of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tiny import PROMPTS
from tiny_runs import SETTINGS

from polyrefuse_eval.directions import training_states as states_module
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.directions.fit import DirectionSet, fit_directions, fit_training_directions
from polyrefuse_eval.directions.harm_gate import fit_gate
from polyrefuse_eval.directions.kept_entries import KeptEntries
from polyrefuse_eval.directions.training_states import capture_training, training_states
from polyrefuse_eval.harmfulness.latent_guard import LabelledPrompts, fit_guard
from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.content_cache import STATES, cache_folder, prune_cache
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.positions import T_INST, Position


@pytest.fixture(scope="module")
def chat(model_folder: Path) -> ChatModel:
    return ChatModel.load(str(model_folder), device="cpu")


@contextmanager
def passes_of(chat: ChatModel) -> Iterator[list[int]]:
    """Yield a list that grows by one with each forward pass."""
    passes: list[int] = []
    hook = chat.model.register_forward_pre_hook(lambda _module, _args: passes.append(1))
    try:
        yield passes
    finally:
        hook.remove()


def test_kept_states_are_those_of_single_prompts(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "GROUP", 3)
    states = training_states(chat, PROMPTS)
    for index, text in enumerate(PROMPTS):
        (alone,) = capture(chat, chat.encode([text]), range(chat.n_layers + 1), [T_INST, Position(-1)])
        assert torch.allclose(states[index], alone.hidden[0], atol=1e-4)
    with passes_of(chat) as passes:
        again = training_states(chat, PROMPTS)
        # The first prompts share their groups; the last group is another.
        assert torch.equal(training_states(chat, PROMPTS[:3]), states[:3])
        assert not passes
        training_states(chat, PROMPTS[:4])
        assert passes
    assert torch.equal(again, states)


def test_who_fits_directions_first_leaves_no_pass_to_gate_and_guard(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    data = open_data(data_folder)
    texts = {
        label: [row.text for row in data.prompts("en", "train", label, SETTINGS.n_train)]
        for label in ("harmful", "harmless")
    }
    finder = DirectionFinder(chat, data, SETTINGS, tmp_path)
    finder.direction("en")
    kept = {path: path.read_bytes() for path in (cache_folder() / STATES).rglob("*.zip")}
    assert kept
    with passes_of(chat) as passes:
        fit_gate(chat, texts["harmful"], texts["harmless"], lang="en")
        whole = LabelledPrompts(**texts)
        chosen = LabelledPrompts(harmful=texts["harmful"][::2], harmless=texts["harmless"][1:])
        guard = fit_guard(chat, {"en": chosen}, among={"en": whole}, layers=[1, 2])
        assert not passes
    expected = fit_guard(chat, {"en": chosen}, layers=[1, 2])
    assert torch.allclose(guard.contrasts["en"], expected.contrasts["en"], atol=1e-5)
    # A guard that comes first keeps the same bytes.
    for path in kept:
        path.unlink()
    training_states(chat, texts["harmful"])
    training_states(chat, texts["harmless"])
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_control_from_the_same_pass_is_that_of_its_own(chat: ChatModel) -> None:
    harmful, harmless = PROMPTS, [f"{text} Now!" for text in PROMPTS[:5]]
    found = fit_training_directions(
        chat, harmful, harmless, lang="en", refusal_tokens=None, shuffles=[None, 3], metadata={}
    )
    sets = {seed: given for seed, given in found.items() if isinstance(given, DirectionSet)}
    assert list(sets) == [None, 3]
    for seed, directions in sets.items():
        alone = fit_directions(chat, harmful, harmless, lang="en", shuffle_labels=seed)
        assert torch.allclose(directions.vectors, alone.vectors, atol=1e-5)
        assert directions.metadata == alone.metadata
    assert not torch.allclose(sets[None].vectors, sets[3].vectors, atol=1e-2)


@pytest.mark.parametrize("content", [b"no tensors", b""])
def test_broken_states_are_read_again(chat: ChatModel, content: bytes) -> None:
    expected = training_states(chat, PROMPTS[:2])
    for path in (cache_folder() / STATES).rglob("*.zip"):
        path.write_bytes(content)
    assert torch.equal(training_states(chat, PROMPTS[:2]), expected)


def test_states_that_are_not_finite_are_read_again(chat: ChatModel) -> None:
    texts = PROMPTS[2:4]
    expected = training_states(chat, texts)
    broken = save({"states": torch.full_like(expected, torch.nan)})
    for path in (cache_folder() / STATES).rglob("*.zip"):
        path.unlink()
    KeptEntries(chat).keep(STATES, {"texts": texts}, {states_module.STATES_FILE: broken})
    assert torch.equal(training_states(chat, texts), expected)


def test_states_are_pruned_before_what_takes_longer_to_make(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    DirectionFinder(chat, open_data(data_folder), SETTINGS, tmp_path).direction("en")
    for _ in capture_training(chat, PROMPTS):
        pass
    others = {path for path in cache_folder().rglob("*.zip") if path.parts[-3] != STATES}
    size = sum(path.stat().st_size for path in others)
    prune_cache(int(size / 0.9) + 100)
    left = set(cache_folder().rglob("*.zip"))
    assert others <= left
    assert len(left - others) <= 1
