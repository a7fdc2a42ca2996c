"""A run grows by what is asked for besides: existing results stay, and nothing of it is computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import chat_model
from tiny_runs import SETTINGS
from word_judge import WordJudge

import polyrefuse_eval.runs.tasks as tasks_module
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.files import LOCK_FILE
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.growth import joined, obstacles
from polyrefuse_eval.results.prompt_draw import limited
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.timings import TIMINGS_FILE
from polyrefuse_eval.results.verification import verify_run
from polyrefuse_eval.runs import grid
from polyrefuse_eval.runs.plan import RunPlan, finished, growth_lines, request_of

SMALL = replace(SETTINGS, langs=("en",), controls=False, strengths=(), crossed=0, n_test=2)


class Work:
    """What the model was asked to do."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.directions: list[str] = []
        self.loads = 0


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    generate, direction = tasks_module.generate, DirectionFinder.direction

    def counted(chat: ChatModel, requests: Any, *, done: Any = frozenset(), **more: Any) -> Iterator[Any]:
        work.answers += [request.prompt for request in requests if request.key not in done]
        return generate(chat, requests, done=done, **more)

    def found(self: DirectionFinder, lang: str) -> Any:
        work.directions.append(lang)
        return direction(self, lang)

    monkeypatch.setattr(tasks_module, "generate", counted)
    monkeypatch.setattr(DirectionFinder, "direction", found)
    return work


def plan_of(
    chat: ChatModel, work: Work | None, data: Path, out: Path, judges: Any = (), **changes: Any
) -> RunPlan:
    def load() -> ChatModel:
        if work is not None:
            work.loads += 1
        return chat

    settings = replace(SMALL, **changes)
    folder, judges = open_data(data), list(judges) or [NativeJudge()]
    request = request_of("tiny", {}, folder, settings, [judge.name for judge in judges])
    return RunPlan(load=load, data=folder, settings=settings, judges=judges, out=out, request=request)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK_FILE, TIMINGS_FILE)
    }


def test_a_language_more_costs_that_language_and_gives_the_files_of_a_run_of_both(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, data_folder, out))
    assert (work.directions, len(work.answers)) == (["en"], 2 * 2 * 2)
    both = plan_of(chat, work, data_folder, out, langs=("en", "de"))
    assert growth_lines(both, both.grown()) == ["'run' grows: langs de; existing results stay"]
    work.answers.clear()
    grid.run(both)
    assert work.directions == ["en"], "no direction is found again"
    assert len(work.answers) == 2 * 2 * 2
    assert all(text.startswith("Wie kann ich") for text in work.answers), "only German is answered"
    verify_run(RunFolder(out), answers=True)
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "another"))
    grid.run(plan_of(chat, None, data_folder, tmp_path / "whole", langs=("en", "de")))
    assert files(out) == files(tmp_path / "whole")
    # The command from before, and one that names the languages in a different order, have nothing to do.
    for langs in (("en",), ("de", "en")):
        plan = plan_of(chat, work, data_folder, out, langs=langs).grown()
        assert plan.settings.langs == ("en", "de")
        assert finished(out, plan.request)


def test_a_run_of_before_a_setting_existed_is_the_same_run(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work
) -> None:
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, data_folder, out))
    run = json.loads((out / "run.json").read_text())
    for part in ("signature", "request"):
        del run[part]["settings"]["directions_from"]
    (out / "run.json").write_text(json.dumps(run))
    before = files(out)
    plan = plan_of(chat, work, data_folder, out)
    assert finished(out, plan.grown().request)
    assert growth_lines(plan, plan.grown()) == []
    grid.run(plan)
    assert files(out) == before


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [0, 3])
def test_growth_that_is_killed_goes_on(
    at: int, chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, data_folder, out))
    before = {file: content for file, content in files(out).items() if "/en/" in file}
    both = plan_of(chat, work, data_folder, out, langs=("en", "de"))
    honest, count = RunFolder.append, 0

    def dying(self: RunFolder, *arguments: Any) -> None:
        nonlocal count
        honest(self, *arguments)
        count += bool(arguments[-1])
        if count > at:
            raise KilledError

    work.answers.clear()
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", dying)
        with pytest.raises(KilledError):
            grid.run(both)
    folder = RunFolder(out)
    assert not folder.complete
    assert not (out / "answered.json").exists()
    assert not finished(out, both.grown().request)
    # Even the command of before now finishes what was begun.
    grid.run(plan_of(chat, work, data_folder, out))
    assert len(work.answers) == 2 * 2 * 2, "an answer that was written is not made again"
    assert finished(out, both.grown().request)
    verify_run(folder, answers=True)
    now = files(out)
    assert {file: now[file] for file in before} == before


def test_prompts_strengths_controls_directions_and_judges_grow(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work
) -> None:
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, data_folder, out))
    first = {completion.key: completion for completion in RunFolder(out).completions("en")}
    work.answers.clear()
    more = {"n_test": 3, "crossed": 1, "strengths": (0.5,), "controls": True, "direction_langs": ("de",)}
    grown = plan_of(chat, work, data_folder, out, **more)
    lines = growth_lines(grown, grown.grown())
    assert lines[0] == (
        "'run' grows: directions de; test 3; controls true; strengths 0.5; crossed 1; existing results stay"
    )
    assert lines[1:] == ["'run' keeps what this command does not name: directions en"]
    grid.run(grown)
    completions = {completion.key: completion for completion in RunFolder(out).completions("en")}
    assert first.items() <= completions.items()
    assert len(work.answers) == len(completions) - len(first)
    assert work.directions == ["en", "de"]
    conditions = {completion.condition for completion in completions.values()}
    assert {"ablation:en@0.5", "ablation:de", "addition:de", "ablation:random"} <= conditions
    assert RunFolder(out).signature["settings"]["direction_langs"] == ["en", "de"]
    # A further judge needs no model; the one from before is not asked again.
    work.loads = 0
    words = WordJudge()
    grid.run(plan_of(chat, work, data_folder, out, [words]))
    assert work.loads == 0
    assert len(words.seen) == len(completions)
    assert RunFolder(out).judges() == [NativeJudge.name, "words-1"]
    assert {result.judge for result in RunFolder(out).results()} == {NativeJudge.name, "words-1"}
    verify_run(RunFolder(out), answers=True)


def test_what_changes_numbers_makes_another_run_and_the_line_says_what(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work
) -> None:
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, data_folder, out))
    before = files(out)
    for changes, told in (
        ({"max_new_tokens": 7}, "settings.max_new_tokens: 6 there, 7 here"),
        ({"rule": "wang2025", "n_train": 4}, "settings.n_train: 128 there, 4 here; settings.rule"),
    ):
        with pytest.raises(RunFolderError, match="which change its numbers; give the same settings") as error:
            plan_of(chat, work, data_folder, out, **changes).grown()
        assert told in str(error.value)
    assert files(out) == before


def test_a_pooled_direction_does_not_survive_another_language() -> None:
    def signature(*langs: str, directions: tuple[str, ...] = ("pooled",)) -> dict[str, Any]:
        return {"settings": RunSettings(langs, directions).signature(), "judges": []}

    assert (
        "the direction 'pooled' is of all languages of the run"
        in obstacles(signature("en", "de"), signature("en", "ja"))[0]
    )
    assert obstacles(signature("en", "de"), signature("en")) == []
    assert obstacles(signature("en", directions=("en",)), signature("en", "de")) == []
    assert obstacles(signature("en"), {"settings": {"langs": ["en"], "novel": 1}}) != []


def test_what_is_joined_covers_both_and_joining_again_changes_nothing() -> None:
    there = {"settings": RunSettings(("en",), n_test=None, crossed=4).signature(), "judges": ["a"]}
    here = {"settings": RunSettings(("de",), n_test=8, crossed=None).signature(), "judges": ["b"]}
    both = joined(there, here)
    assert both["settings"]["langs"] == ["en", "de"]
    assert (both["settings"]["n_test"], both["settings"]["crossed"]) == (None, None)
    assert both["judges"] == ["a", "b"]
    assert joined(both, here) == both == joined(both, there)


def test_a_build_that_got_more_languages_serves_the_runs_of_before(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work
) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, digest in ((small, "a" * 64), (large, "b" * 64)):
        shutil.copytree(data_folder, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "digest": digest}))
    shutil.rmtree(small / "de")
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, small, out))
    work.answers.clear()
    grid.run(plan_of(chat, work, large, out, langs=("en", "de")))
    assert len(work.answers) == 2 * 2 * 2
    assert RunFolder(out).signature["data"]["digest"] == "b" * 64
    # Not so a build with other prompts, or without a language that was measured.
    other = tmp_path / "other"
    shutil.copytree(large, other)
    shutil.copy(data_folder / "de" / "train.parquet", other / "en" / "train.parquet")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "digest": "c" * 64}))
    for folder in (small, other):
        with pytest.raises(RunFolderError, match=r"data\.digest"):
            plan_of(chat, work, folder, out).grown()


def test_a_draw_is_answered_recorded_and_grows(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work
) -> None:
    out = tmp_path / "run"
    data = open_data(data_folder)
    grid.run(plan_of(chat, work, data_folder, out, test_seed=0))
    answered = {completion.id for completion in RunFolder(out).completions("en")}
    drawn = {
        row.id
        for label in ("harmful", "harmless")
        for row in limited(data.prompts("en", "test", label), 2, 0)
    }
    assert answered == drawn
    first = {row.id for label in ("harmful", "harmless") for row in data.prompts("en", "test", label, 2)}
    assert drawn != first, "the draw of these prompts is another than the first"
    assert RunFolder(out).signature["settings"]["test_seed"] == 0
    grid.run(plan_of(chat, work, data_folder, out, test_seed=0, n_test=3))
    assert drawn < {completion.id for completion in RunFolder(out).completions("en")}
    verify_run(RunFolder(out), answers=True)
    assert not [line for line in check_run(RunFolder(out), data=data).problems if "verdict" in line]
    with pytest.raises(RunFolderError, match="test_seed: 0 there, null here"):
        plan_of(chat, work, data_folder, out, n_test=3).grown()
    # All prompts are the same ones, in whatever order they would be drawn.
    everything = plan_of(chat, work, data_folder, out, n_test=None)
    assert everything.grown().settings.test_seed == 0


def test_a_run_of_the_first_prompts_goes_on_with_them(
    chat: ChatModel, data_folder: Path, tmp_path: Path, work: Work
) -> None:
    """As runs did that were made before there was a draw."""
    out = tmp_path / "run"
    grid.run(plan_of(chat, work, data_folder, out))
    before = files(out)
    assert "test_seed" not in RunFolder(out).signature["settings"]
    assert "final_punctuation" not in RunFolder(out).signature["settings"]
    work.answers.clear()
    asked = plan_of(chat, work, data_folder, out, test_seed=0)
    assert finished(out, asked.grown().request)
    (line,) = growth_lines(asked, asked.grown())
    assert line.startswith("'run' was begun with the first test prompts of each label and continues with")
    grid.run(asked)
    assert (work.answers, files(out)) == ([], before)
    more = plan_of(chat, work, data_folder, out, test_seed=0, n_test=3)
    grid.run(more)
    ids = {completion.id for completion in RunFolder(out).completions("en")}
    assert ids == {f"{label}-test-{index:04d}" for label in ("harmful", "harmless") for index in range(3)}
