"""Refusal tokens and directions are found once for a model and its prompts, whoever asks for them."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import chat_model
from tiny_runs import SETTINGS

import polyrefuse_eval.directions.finder as finder_module
import polyrefuse_eval.directions.kept as kept_module
from polyrefuse_data.core.errors import FileError
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.content_cache import cache_folder, cache_sizes
from polyrefuse_eval.results.data import open_data

STEPS = {
    "fit_training_directions": finder_module,
    "choose_direction": finder_module,
    "find_refusal_tokens": kept_module,
}
"""What runs the model, by the module that calls it."""


@pytest.fixture(scope="module")
def chat(model_folder: Path) -> ChatModel:
    return ChatModel.load(str(model_folder), device="cpu")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps that ran the model."""
    calls: list[str] = []
    for name, module in STEPS.items():
        honest = getattr(module, name)

        def counted(*arguments: Any, name: str = name, honest: Any = honest, **keywords: Any) -> Any:
            calls.append(name)
            return honest(*arguments, **keywords)

        monkeypatch.setattr(module, name, counted)
    return calls


def finder(chat: ChatModel, data: Path, out: Path, **more: Any) -> DirectionFinder:
    said = more.pop("say", lambda _line: None)
    return DirectionFinder(chat, open_data(data), replace(SETTINGS, **more), out, say=said)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_another_folder_gets_the_same_bytes_without_a_forward_pass(
    chat: ChatModel, data_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    first = finder(chat, data_folder, tmp_path / "a")
    first.control(first.direction("en"))
    assert calls == ["fit_training_directions", "choose_direction"]
    calls.clear()
    said: list[str] = []
    second = finder(chat, data_folder, tmp_path / "b", say=said.append, langs=("en",), max_new_tokens=99)
    second.control(second.direction("en"))
    assert calls == []
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert "found before" in said[0]
    # Another rule scores again, on the same directions; another language is its own.
    finder(chat, data_folder, tmp_path / "c", rule="wang2025").direction("en")
    assert calls == ["choose_direction"]
    finder(chat, data_folder, tmp_path / "d").direction("de")
    assert calls[1:] == ["fit_training_directions", "choose_direction"]


def test_a_file_that_cannot_be_written_says_nothing_of_a_direction(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    """A `DirectionError` would be kept, and the language never be tried again."""
    finder(chat, data_folder, tmp_path / "a").direction("en")
    (tmp_path / "b" / "scores" / "en.json").mkdir(parents=True)
    with pytest.raises(FileError, match=r"cannot write '.*en\.json'"):
        finder(chat, data_folder, tmp_path / "b").direction("en")


@pytest.mark.parametrize(
    "changes", [{"n_train": 7}, {"n_validation": 3}, {"all_candidates": True}, {"refusal_tokens": "42,43"}]
)
def test_what_a_direction_depends_on_makes_it_another(
    changes: dict[str, Any], chat: ChatModel, data_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    finder(chat, data_folder, tmp_path / "a").direction("en")
    calls.clear()
    finder(chat, data_folder, tmp_path / "b", **changes).direction("en")
    assert "choose_direction" in calls


def test_a_build_with_the_same_prompts_has_the_direction_under_its_own_digest(
    chat: ChatModel, data_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    finder(chat, data_folder, tmp_path / "a").direction("en")
    calls.clear()
    other = tmp_path / "other"
    shutil.copytree(data_folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "digest": "e" * 64}))
    direction = finder(chat, other, tmp_path / "b").direction("en")
    assert calls == []
    assert direction.metadata["data"] == "e" * 64
    stored = Direction.load(tmp_path / "b" / "directions" / "en.safetensors").metadata
    assert stored["data"] == "e" * 64


def test_refusal_tokens_are_found_once(
    chat: ChatModel, data_folder: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = RefusalTokens("en", (40, 41), ("a", "b"), 0.75, 6, 8)

    def found(*_arguments: Any, **_keywords: Any) -> RefusalTokens:
        calls.append("found")
        return tokens

    monkeypatch.setattr(kept_module, "find_refusal_tokens", found)
    for name in ("a", "b"):
        assert finder(chat, data_folder, tmp_path / name, refusal_tokens=None).tokens("en") == tokens
    assert calls == ["found"]


def test_a_model_in_memory_is_never_taken_for_another(
    data_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    """Nothing tells the weights of two models that were made here apart."""
    for name in ("a", "b"):
        finder(chat_model(), data_folder, tmp_path / name).direction("en")
    assert calls.count("fit_training_directions") == 2
    assert sum(row.files for row in cache_sizes()) == 0


def test_a_broken_entry_is_made_again(
    chat: ChatModel, data_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    finder(chat, data_folder, tmp_path / "a").direction("en")
    calls.clear()
    for file in (cache_folder() / "directions").rglob("*.zip"):
        file.write_bytes(b"PK")
    finder(chat, data_folder, tmp_path / "b").direction("en")
    assert calls == ["choose_direction"]
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_tokens_of_another_vocabulary_or_scores_that_are_none_are_no_entry(
    chat: ChatModel, data_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    kept = kept_module.KeptDirections(chat)
    inputs = {"lang": "en"}
    kept.keep_tokens(inputs, RefusalTokens("en", (2**40,)))
    assert kept.tokens(inputs) is None
    finder(chat, data_folder, tmp_path / "a").direction("en")
    calls.clear()
    for file in (cache_folder() / "directions").rglob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, b"[" * 100_000 if name == kept_module.SCORES_FILE else data)
    finder(chat, data_folder, tmp_path / "b").direction("en")
    assert calls == ["choose_direction"]
    assert files(tmp_path / "a") == files(tmp_path / "b")
