"""A batch log says what a run is about to do, and how far each of its long steps is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_eval.cli.main import eval_group


def run_in_a_log(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    command = [
        "run", "--model", str(model), "--data", str(data), "--langs", "en",
        "--no-controls", "--max-new-tokens", "4", "--batch-size", "4", "--no-filter", "--refusal-tokens",
        "40,41", "--judges", "native", "--out", str(out), *more,
    ]  # fmt: skip
    result = CliRunner().invoke(eval_group, command)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stderr.splitlines()


def test_every_long_step_of_a_run_shows_how_far_it_is(
    model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyrefuse_data.core.progress.LINE_SECONDS", 0.0)
    lines = run_in_a_log(model_folder, data_folder, tmp_path / "run")
    assert lines[0] == (
        "directions to find: 1; 9 conditions, 0 there, 9 missing (45 answers); "
        "nothing was timed yet, so the time left is unknown"
    )
    log = "\n".join(lines)
    for step in (
        r"extract en, harmful: \d+/8 prompts, [^\n]* left",
        r"extract en, harmless: \d+/8 prompts, [^\n]* left",
        r"conditions \d/9 done, 1 running: \d+/45 answers, [^\n]* left; en harmful baseline: \d/5 answers",
        r"token 4 of 4",
        r"readings 0/1 done, 1 running: \d+/45 verdicts",
    ):
        assert re.search(step, log), f"{step} is not in\n{log}"
    assert all(line.isprintable() for line in lines)
    assert "it/s" not in log, "bars of tqdm or transformers"


def test_a_quiet_run_says_nothing_of_its_progress(
    model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyrefuse_data.core.progress.LINE_SECONDS", 0.0)
    lines = run_in_a_log(model_folder, data_folder, tmp_path / "run", "--quiet")
    assert not [line for line in lines if "to find" in line or "answers" in line or "prompts," in line]
