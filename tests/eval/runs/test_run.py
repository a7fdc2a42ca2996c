"""A run from data to rates: resumable at any byte, never mixed with another."""

from __future__ import annotations

import json
import random
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import chat_model
from tiny_runs import SETTINGS, run
from word_judge import WordJudge

import polyrefuse_eval.directions.finder as finder_module
import polyrefuse_eval.runs.tasks as tasks_module
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.errors import DirectionError, RunFolderError
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.report.markdown import markdown_table
from polyrefuse_eval.report.rescore import rescore
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.files import LOCK_FILE
from polyrefuse_eval.results.folder import Result, RunFolder, read_jsonl
from polyrefuse_eval.results.timings import TIMINGS_FILE
from polyrefuse_eval.runs import grid
from polyrefuse_eval.runs.plan import RunPlan, answered, finished, request_of


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


def finder_of(chat: ChatModel, data: Path, out: Path, **more: Any) -> DirectionFinder:
    return DirectionFinder(chat, open_data(data), SETTINGS, out, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK_FILE, TIMINGS_FILE)
    }


def conditions(results: Sequence[Result], lang: str) -> set[tuple[str, str]]:
    return {(result.label, result.condition) for result in results if result.lang == lang}


def test_a_run_measures_every_language_and_condition(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    results = run(chat, data_folder, out)
    expected = {
        ("harmful", "baseline"), ("harmless", "baseline"),
        ("harmful", "ablation:en"), ("harmless", "ablation:en"), ("harmful", "ablation:en@0.5"),
        ("harmful", "addition:en"), ("harmless", "addition:en"),
        ("harmful", "ablation:random"), ("harmless", "addition:random"),
        ("harmful", "ablation:shuffled"), ("harmless", "addition:shuffled"),
    }  # fmt: skip
    assert conditions(results, "en") == conditions(results, "de") == expected
    crossed = [("harmless", "ablation:en"), ("harmful", "addition:en")]
    for result in results:
        full = 2 if (result.label, result.condition) in crossed else 5
        assert result.n + result.n_unjudged == full
    folder = RunFolder.existing(out)
    assert folder.results() == results
    completions = folder.completions("de")
    assert len(completions) == 9 * 5 + 2 * 2 == len({completion.key for completion in completions})
    said = {
        name: tuple(one.response for one in completions if (one.label, one.condition) == ("harmful", name))
        for name in ("baseline", "ablation:en", "ablation:en@0.5")
    }
    assert len(set(said.values())) == 3
    signature = folder.signature
    assert signature["data"]["digest"] == "d" * 64
    assert signature["model"]["template_hash"] == chat.template.hash
    assert signature["judges"] == [NativeJudge.name]
    assert "do not publish" in (out / "completions" / "NOTICE.txt").read_text()
    assert "harmful, baseline" in markdown_table(results)
    comparisons = folder.comparisons()
    assert {(one.label, one.condition) for one in comparisons} == {
        pair for pair in expected if pair[1] != "baseline"
    }
    assert all(one.p_holm is None or one.p is None or one.p <= one.p_holm for one in comparisons)
    summary = folder.summary()
    assert summary is not None
    assert set(summary.judges[NativeJudge.name].languages) == {"en", "de"}


def test_several_directions_make_a_transfer_matrix(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    results = run(chat, data_folder, tmp_path / "run", direction_langs=("en", "de"))
    for lang, other in (("en", "de"), ("de", "en")):
        found = conditions(results, lang)
        for label in ("harmful", "harmless"):
            for intervention in ("ablation", "addition"):
                assert {(label, f"{intervention}:{source}") for source in ("en", "de")} <= found
        assert ("harmful", f"ablation:{lang}@0.5") in found
        assert ("harmful", f"ablation:{other}@0.5") not in found
    table = markdown_table(results)
    assert "harmful prompts, ablation of the direction of (row) in (column)" in table
    assert "harmful, ablation:own@0.5" in table


def test_options_leave_cells_out(chat: ChatModel, data_folder: Path, tmp_path: Path) -> None:
    results = run(chat, data_folder, tmp_path / "run", crossed=0, strengths=(), controls=False, n_test=3)
    assert conditions(results, "de") == {
        ("harmful", "baseline"), ("harmless", "baseline"),
        ("harmful", "ablation:en"), ("harmless", "addition:en"),
    }  # fmt: skip
    assert {result.n + result.n_unjudged for result in results} == {3}


def test_without_any_direction_a_run_ends(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_finder: DirectionFinder, lang: str, **_more: Any) -> Any:
        raise DirectionError(f"too few prompts of {lang} are left")

    monkeypatch.setattr(DirectionFinder, "extract", failing)
    with pytest.raises(DirectionError, match="too few prompts of de are left"):
        run(chat, data_folder, tmp_path / "run", direction_langs=("en", "de"))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_second_run_does_nothing_and_other_settings_are_refused(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    run(chat, data_folder, out)
    before = files(out)

    monkeypatch.setattr(tasks_module, "generate", never)
    run(chat, data_folder, out, batch_size=7)
    assert files(out) == before
    with pytest.raises(RunFolderError, match=r"settings\.max_new_tokens: 6 there, 7 here"):
        run(chat, data_folder, out, max_new_tokens=7)
    with pytest.raises(RunFolderError, match=r"model\.n_layers"):
        run(chat_model(layers=4), data_folder, out)
    assert files(out) == before


def test_the_model_is_loaded_only_for_answers_and_a_judge_only_for_verdicts(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    data, out, judge = open_data(data_folder), tmp_path / "run", WordJudge()
    request = request_of("tiny", {}, data, SETTINGS, [judge.name])
    loads: list[int] = []

    def load() -> ChatModel:
        loads.append(1)
        return chat

    def go() -> list[Result]:
        return grid.run(
            RunPlan(load=load, data=data, settings=SETTINGS, judges=[judge], out=out, request=request)
        )

    results = go()
    assert (len(loads), judge.loads, judge.open) == (1, 1, False)
    assert all(item.prompt for item in judge.seen)
    assert go() == results
    assert (len(loads), judge.loads) == (1, 1)
    # Killed among the verdicts, it is the judge alone that is needed, for what it has not read.
    before = files(out)
    (out / "summary.json").unlink()
    verdicts = RunFolder(out).verdicts_file(judge.name, "de", "harmless", "addition:shuffled")
    verdicts.write_bytes(verdicts.read_bytes()[:-700])
    judge.seen.clear()
    assert go() == results
    assert (len(loads), judge.loads) == (1, 2)
    assert 0 < len(judge.seen) < 10
    assert files(out) == before


def test_a_second_run_at_the_same_time_is_turned_away(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    data = open_data(data_folder)
    request = request_of("tiny", {}, data, SETTINGS, [NativeJudge.name])
    plan = RunPlan(load=lambda: chat, data=data, settings=SETTINGS, judges=[NativeJudge()], out=out)
    run(chat, data_folder, out)
    shutil.rmtree(out / "completions")
    (out / "summary.json").unlink()
    with RunFolder(out).locked():
        with pytest.raises(RunFolderError, match=r"process \d+ on .* is writing to"):
            run(chat, data_folder, out)
        with pytest.raises(RunFolderError, match="is writing to"):
            replace(plan, request=request).grown()
    assert not (out / "completions").exists()


def test_the_model_is_gone_before_a_judge_is_loaded(data_folder: Path, tmp_path: Path) -> None:
    models: list[weakref.ref[Any]] = []

    def load() -> ChatModel:
        chat = chat_model()
        models.append(weakref.ref(chat.model))
        return chat

    class Watching(WordJudge):
        def load(self) -> None:
            super().load()
            alive.append(models[0]() is not None)

    alive: list[bool] = []
    settings = replace(SETTINGS, langs=("de",), direction_langs=("de",), controls=False)
    data = open_data(data_folder)
    grid.run(RunPlan(load=load, data=data, settings=settings, judges=[Watching()], out=tmp_path / "run"))
    assert alive == [False]


def test_a_run_that_was_rescored_halfway_goes_on(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data, native, words = tmp_path / "run", open_data(data_folder), NativeJudge(), WordJudge()
    request = request_of("tiny", {}, data, SETTINGS, [native.name])

    plan = RunPlan(load=lambda: chat, data=data, settings=SETTINGS, judges=[native], out=out, request=request)

    def go() -> list[Result]:
        return grid.run(plan)

    honest = RunFolder.append_verdicts
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_verdicts", never)
        with pytest.raises(AssertionError):
            go()
    assert answered(out, request)
    (out / "answered.json").unlink()
    lines = RunFolder(out).completions("de")
    completions = RunFolder(out).completions_file("de", "harmful", "ablation:en")
    completions.write_text("".join(completions.read_text().splitlines(keepends=True)[:3]))
    for condition in ("addition:en", "addition:random"):
        RunFolder(out).completions_file("de", "harmless", condition).unlink()
    rescore(out, [native, words], data=data)
    assert not finished(out, request)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_verdicts", never)
        with pytest.raises(AssertionError):
            go()
    # All answers are there, and the tables are those of the time before: the run is not done.
    assert not finished(out, request)
    assert RunFolder.append_verdicts is honest
    results = go()
    assert finished(out, request)
    assert len(RunFolder(out).verdicts(native.name, "de")) == len(lines)
    assert {result.judge for result in results} == {native.name, "words-1"}


def never(*_arguments: object, **_keywords: object) -> Iterator[Any]:
    raise AssertionError("not to be called")


def test_every_judge_has_its_own_verdicts_and_results(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    results = run(chat, data_folder, out, [NativeJudge(), WordJudge()])
    folder = RunFolder(out)
    assert {result.judge for result in results} == {NativeJudge.name, "words-1"}
    for judge in folder.signature["judges"]:
        keys = [verdict.key for verdict in folder.verdicts(judge, "en")]
        assert keys == [completion.key for completion in folder.completions("en")]
    assert any(result.n_unjudged for result in results if result.judge == "words-1")
    # What fewer judges would give is there already.
    assert run(chat, data_folder, out) == results


class KilledError(Exception):
    pass


def kill_and_resume(
    seed: int, chat: ChatModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    """Kill a run at a random write, tear that write at a random byte, and go on until it is done."""
    draw = random.Random(seed)
    out = tmp_path / f"killed-{seed}"
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / f"cache-{seed}"))
    at, count = draw.randrange(n_writes), 0
    honest = {name: getattr(RunFolder, name) for name in ("append", "append_verdicts")}

    def dying(name: str) -> Any:
        def write(self: RunFolder, *arguments: Any) -> None:
            nonlocal count
            honest[name](self, *arguments)
            count += 1
            if count > at:
                *place, records = arguments
                # A write is one to each cell's file; the last of them is torn.
                cell = max((one.label, one.condition) for one in records)
                kind = "completions_file" if name == "append" else "verdicts_file"
                file = getattr(self, kind)(*place, *cell)
                file = file.with_name(file.name.replace(".jsonl", ".begun.jsonl"))
                written = file.read_bytes()
                n = sum((one.label, one.condition) == cell for one in records)
                last = len("".join(written.decode().splitlines(keepends=True)[-n:]).encode())
                file.write_bytes(written[: len(written) - draw.randrange(last + 1)])
                raise KilledError

        return write

    with monkeypatch.context() as patch:
        for name in honest:
            patch.setattr(RunFolder, name, dying(name))
        with pytest.raises(KilledError):
            run(chat, data, out, [NativeJudge(), WordJudge()])
    assert not (out / "results.jsonl").exists()
    run(chat, data, out, [NativeJudge(), WordJudge()])


def whole_run(
    chat: ChatModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, int]:
    """Return an undisturbed run, and how often it wrote."""
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "cache-whole"))
    out, writes = tmp_path / "whole", 0
    with monkeypatch.context() as patch:
        for name in ("append", "append_verdicts"):
            honest = getattr(RunFolder, name)

            def counting(self: RunFolder, *arguments: Any, honest: Any = honest) -> None:
                nonlocal writes
                writes += bool(arguments[-1])
                honest(self, *arguments)

            patch.setattr(RunFolder, name, counting)
        run(chat, data, out, [NativeJudge(), WordJudge()])
    return out, writes


def test_a_run_that_dies_in_a_write_resumes_to_the_same_bytes(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, writes = whole_run(chat, data_folder, tmp_path, monkeypatch)
    for seed in range(2):
        kill_and_resume(seed, chat, data_folder, tmp_path, monkeypatch, writes)
        assert files(tmp_path / f"killed-{seed}") == files(whole)


def test_baselines_are_generated_once_for_a_model(
    chat: ChatModel, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    honest = tasks_module.generate

    def counting(chat: ChatModel, requests: Any, **more: Any) -> Any:
        seen.extend(request.key for request in requests)
        return honest(chat, requests, **more)

    monkeypatch.setattr(tasks_module, "generate", counting)
    first = run(chat, data_folder, tmp_path / "one")
    assert sum(key.endswith("/baseline") for key in seen) == 20
    seen.clear()
    second = run(chat, data_folder, tmp_path / "two", seed=1)
    assert seen
    assert not any(key.endswith("/baseline") for key in seen)
    baselines = [[r for r in results if r.condition == "baseline"] for results in (first, second)]
    assert baselines[0] == baselines[1]
    seen.clear()
    run(chat, data_folder, tmp_path / "three", max_new_tokens=5)
    assert sum(key.endswith("/baseline") for key in seen) == 20


def test_a_torn_or_broken_file_is_named(chat: ChatModel, data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(chat, data_folder, out)
    file = out / "completions" / "en" / "harmful.ablation-en.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:3], "{broken}\n", *lines[3:]]))
    with pytest.raises(RunFolderError, match=r"en/harmful\.ablation-en\.jsonl', line 4 is not JSON"):
        run(chat, data_folder, out)
    verdicts = (out / "verdicts" / NativeJudge.name / "en").glob("*.jsonl")
    assert sum(len(read_jsonl(verdict)) for verdict in verdicts) == 49
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
    with pytest.raises(DatasetFolderError, match=r"test\.parquet cannot be read"):
        open_data(copy).rows("en", "test")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
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

    finder = finder_of(chat, data_folder, tmp_path / "extract")
    found = finder.extract("pooled")
    single = [finder.extract(lang) for lang in ("en", "de")]
    assert found.metadata["counts"]["n_harmful"] == 16
    assert found.metadata["languages"] == ["en", "de"]
    expected = (single[0].vectors + single[1].vectors) / 2
    torch.testing.assert_close(found.vectors, expected, atol=1e-5, rtol=1e-5)
    results = run(chat, data_folder, tmp_path / "p", direction_langs=("pooled",))
    assert {"ablation:pooled", "ablation:shuffled"} <= {result.condition for result in results}


@pytest.mark.parametrize(("sign", "told"), [(1.0, True), (-1.0, False)])
def test_a_direction_that_leaves_the_model_refusing_is_told(
    sign: float,
    told: bool,
    chat: ChatModel,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = finder_module.choose_direction

    def choose(*arguments: Any) -> Any:
        direction, chosen = honest(*arguments)
        changed = replace(chosen, score=replace(chosen.score, refusal_score=2.5 * sign))
        return replace(direction, metadata={**direction.metadata, "selection": changed.to_json()}), changed

    monkeypatch.setattr(finder_module, "choose_direction", choose)
    said: list[str] = []
    finder_of(chat, data_folder, tmp_path / "run", say=said.append).direction("en")
    assert any("leaves the model refusing (refusal score 2.5" in line for line in said) == told
