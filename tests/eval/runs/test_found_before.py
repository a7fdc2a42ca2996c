"""What a run keeps of a search in vain, and how it counts what is to come before it is known one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import chat_model
from tiny_runs import SETTINGS

from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.directions.obstacles import read_obstacle
from polyrefuse_eval.directions.places import obstacle_file
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.runs import grid
from polyrefuse_eval.runs.dry_run import planned_measurements
from polyrefuse_eval.runs.executors import LocalExecutor
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


class Said(GridProgress):
    """Progress that keeps its lines, and how many conditions it counted whenever one began."""

    def __init__(self) -> None:
        super().__init__(quiet=True, show=lambda line: self.lines.append(line))
        self.lines: list[str] = []
        self.totals: list[int] = []

    def started(self, task: Any) -> None:
        super().started(task)
        if task.size is not None and self._progress is not None:
            self.totals.append(int(self._progress.description.split()[1].partition("/")[2]))


def plan(chat: ChatModel, data: Path, out: Path) -> RunPlan:
    return RunPlan(
        load=lambda: chat,
        data=open_data(data, ["en", "de"]),
        settings=replace(
            SETTINGS,
            direction_langs=("en", "de"),
            max_new_tokens=2,
            strengths=(),
            crossed=0,
            n_test=1,
            n_train=4,
        ),
        judges=[NativeJudge()],
        out=out,
    )


def run(chat: ChatModel, data: Path, out: Path) -> Said:
    said = Said()
    try:
        grid.run(plan(chat, data, out), LocalExecutor(), said)
    finally:
        said.close()
    return said


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The languages that are searched; German gives no direction."""
    found: list[str] = []
    honest = DirectionFinder.extract

    def extract(finder: DirectionFinder, lang: str, **more: Any) -> Any:
        found.append(f"{lang}{' control' if more else ''}")
        if lang == "de" or more:
            raise DirectionError(f"too few prompts of {lang} are left")
        return honest(finder, lang, **more)

    monkeypatch.setattr(DirectionFinder, "extract", extract)
    return found


def test_a_language_without_a_direction_is_searched_once(
    chat: ChatModel, data_folder: Path, tmp_path: Path, searched: list[str]
) -> None:
    out = tmp_path / "run"
    first = run(chat, data_folder, out)
    assert sorted(searched) == ["de", "en", "en control"]
    assert "no direction from 'de', which is left out: too few prompts of de are left" in first.lines
    assert read_obstacle(out, "de") == "too few prompts of de are left"
    assert read_obstacle(out, "en") is None
    searched.clear()
    for name in ("answered.json", "summary.json"):
        (out / name).unlink()
    (out / "completions" / "en" / "harmful.ablation-en.jsonl").unlink()
    again = run(chat, data_folder, out)
    assert searched == [], "a resumed run does not search again"
    assert (
        "no direction from 'de', which is left out: too few prompts of de are left (found before)"
        in again.lines
    )
    assert "no control from shuffled labels: too few prompts of en are left (found before)" in again.lines
    assert (out / "completions" / "en" / "harmful.ablation-en.jsonl").is_file()
    assert (out / "summary.json").is_file()


def test_a_broken_note_of_a_search_is_no_answer(tmp_path: Path) -> None:
    file = tmp_path / obstacle_file("de")
    file.parent.mkdir()
    for content in ("{", "[]", json.dumps({"format": "else", "reason": "x"})):
        file.write_text(content)
        assert read_obstacle(tmp_path, "de") is None


def test_all_conditions_are_counted_from_the_start(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    planned = planned_measurements(plan(chat, data_folder, tmp_path / "run"))
    said = run(chat, data_folder, tmp_path / "run")
    assert set(said.totals) == {len(planned)}
    assert len(said.totals) == len(planned)
    assert said.done == len(planned)
