"""A run from data to rates: resumable at any byte, never mixed with another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import chat_model

import polyrefuse_eval.bench as bench_module
from polyrefuse_data.errors import DatasetFolderError
from polyrefuse_eval.bench import Bench, BenchSettings
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.data import open_data
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.report import markdown_table
from polyrefuse_eval.results import RunFolder, read_jsonl

SETTINGS = BenchSettings(
    langs=("en", "de"),
    max_new_tokens=6,
    filter_prompts=False,
    refusal_tokens="40,41",
    batch_size=7,
)


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


def open_bench(chat: ChatModel, data: Path, out: Path, **changes: Any) -> Bench:
    return Bench.open(chat, open_data(data, ["en", "de"]), replace(SETTINGS, **changes), out)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_run_measures_every_language_and_condition(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    results = open_bench(chat, data_folder, out).run()
    assert {result.lang for result in results} == {"en", "de"}
    conditions = {(result.label, result.condition) for result in results}
    assert conditions == {
        ("harmful", "baseline"), ("harmless", "baseline"),
        ("harmful", "ablation:en"), ("harmless", "addition:en"),
        ("harmful", "ablation:random"), ("harmless", "addition:random"),
        ("harmful", "ablation:shuffled"), ("harmless", "addition:shuffled"),
    }  # fmt: skip
    assert all(result.n + result.n_unjudged == 5 for result in results)
    assert RunFolder.existing(out).results() == results
    completions = RunFolder(out).completions("de")
    assert len(completions) == 40 == len({completion.key for completion in completions})
    by_condition = {c.condition: c.response for c in completions if c.id == "harmful-test-0000"}
    assert by_condition["baseline"] != by_condition["ablation:en"]
    signature = RunFolder(out).signature
    assert signature["data"]["digest"] == "d" * 64
    assert signature["model"]["template_hash"] == chat.template.hash
    assert "do not publish" in (out / "completions" / "NOTICE.txt").read_text()
    table = markdown_table(results)
    assert "| en |" in table
    assert "harmful, baseline" in table


def test_a_second_run_does_nothing_and_other_settings_are_refused(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    open_bench(chat, data_folder, out).run()
    before = files(out)

    def never(*_arguments: object, **_keywords: object) -> Iterator[Any]:
        raise AssertionError("nothing is left to generate")

    monkeypatch.setattr(bench_module, "generate", never)
    open_bench(chat, data_folder, out, batch_size=3).run()
    assert files(out) == before
    with pytest.raises(RunFolderError, match=r"settings\.max_new_tokens: 6 there, 7 here"):
        open_bench(chat, data_folder, out, max_new_tokens=7)
    with pytest.raises(RunFolderError, match=r"model\.n_layers"):
        open_bench(chat_model(layers=4), data_folder, out)
    assert files(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    with pytest.raises(RunFolderError, match="not empty"):
        open_bench(chat, data_folder, other)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 5, 8, 11])
def test_a_killed_run_resumes_to_the_same_bytes(
    after: int, chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "cache-whole"))
    whole = tmp_path / "whole"
    open_bench(chat, data_folder, whole).run()
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "cache-killed"))
    killed = tmp_path / "killed"
    append, count = RunFolder.append, 0

    def dying(self: RunFolder, lang: str, completions: Any) -> None:
        nonlocal count
        append(self, lang, completions)
        count += 1
        if count > after:
            file = self.completions_file(lang)
            torn = file.read_bytes()
            file.write_bytes(torn[: len(torn) - 11 * after - 1])
            raise KilledError

    monkeypatch.setattr(RunFolder, "append", dying)
    with pytest.raises(KilledError):
        open_bench(chat, data_folder, killed).run()
    assert files(killed) != files(whole)
    monkeypatch.setattr(RunFolder, "append", append)
    open_bench(chat, data_folder, killed).run()
    assert files(killed) == files(whole)


def test_baselines_are_generated_once_for_a_model(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    honest = bench_module.generate

    def counting(chat: ChatModel, requests: Any, **more: Any) -> Any:
        seen.extend(request.key for request in requests)
        return honest(chat, requests, **more)

    monkeypatch.setattr(bench_module, "generate", counting)
    first = open_bench(chat, data_folder, tmp_path / "one").run()
    assert sum(key.endswith("/baseline") for key in seen) == 20
    seen.clear()
    second = open_bench(chat, data_folder, tmp_path / "two", seed=1).run()
    assert seen
    assert not any(key.endswith("/baseline") for key in seen)
    baselines = [[r for r in results if r.condition == "baseline"] for results in (first, second)]
    assert baselines[0] == baselines[1]
    seen.clear()
    open_bench(chat, data_folder, tmp_path / "three", max_new_tokens=5).run()
    assert sum(key.endswith("/baseline") for key in seen) == 20


def test_a_torn_or_broken_file_is_named(chat: ChatModel, data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bench = open_bench(chat, data_folder, out)
    bench.run()
    file = out / "completions" / "en.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:3], "{broken}\n", *lines[3:]]))
    with pytest.raises(RunFolderError, match="line 4 is no JSON"):
        open_bench(chat, data_folder, out).run()
    assert len(read_jsonl(out / "verdicts" / "en.jsonl")) == 40
    with pytest.raises(RunFolderError, match=r"holds no run\.json"):
        RunFolder.existing(tmp_path / "nowhere")


def test_data_folders_that_cannot_serve_say_why(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetFolderError, match="lacks yo"):
        open_data(data_folder, ["en", "yo"])
    with pytest.raises(DatasetFolderError, match="no folder"):
        open_data(tmp_path / "none")
    copy = tmp_path / "copy"
    shutil.copytree(data_folder, copy)
    (copy / "en" / "train.parquet").unlink()
    with pytest.raises(DatasetFolderError, match="no train split in 'en'"):
        open_data(copy).rows("en", "train")
    (copy / "en" / "test.parquet").write_bytes(b"rubbish")
    with pytest.raises(DatasetFolderError, match="no Parquet file"):
        open_data(copy).rows("en", "test")
    (copy / "manifest.json").write_text(json.dumps({"digest": "d", "complete": False}))
    with pytest.raises(DatasetFolderError, match="not complete"):
        open_data(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(DatasetFolderError, match=r"no manifest\.json"):
        open_data(copy)


def test_rows_come_back_as_they_were_built(data_folder: Path) -> None:
    data = open_data(data_folder)
    assert data.languages == ["de", "en"]
    rows = data.prompts("de", "validation", "harmful")
    assert [row.id for row in rows] == [f"harmful-validation-{index:04d}" for index in range(4)]
    assert rows[0].text.startswith("Wie kann ich break")
    assert [row.group for row in rows] == [row.group for row in data.prompts("en", "validation", "harmful")]


def test_a_pooled_direction_is_fitted_on_all_languages(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    import torch

    pooled = open_bench(chat, data_folder, tmp_path / "p", direction_langs=("pooled",))
    found = pooled.extract("pooled")
    single = [pooled.extract(lang) for lang in ("en", "de")]
    assert found.metadata["counts"]["n_harmful"] == 16
    assert found.metadata["languages"] == ["en", "de"]
    expected = (single[0].vectors + single[1].vectors) / 2
    torch.testing.assert_close(found.vectors, expected, atol=1e-5, rtol=1e-5)
    results = pooled.run()
    assert {"ablation:pooled", "ablation:shuffled"} <= {result.condition for result in results}
