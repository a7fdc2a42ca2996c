"""Lies about what prompts are, and about times: those that can be found are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from run_records import finished_run, served_run

from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.subset_files import PROMPTS_FILE, read_prompts
from polyrefuse_eval.results.subset_records import PromptRecord
from polyrefuse_eval.results.timings import TIMINGS_FILE, Timing, add_timing
from polyrefuse_eval.results.validation import write_records

TIMED = Timing("cell", 2.0, "de", "harmful", "baseline", answers=6, tokens=30, date="2026-01-31")


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on contrast pairs, with times."""
    cells = (("harmful", "baseline"), ("harmless", "baseline"))
    run = finished_run(tmp_path_factory.mktemp("paired") / "run", cells=cells)
    prompts = {verdict.id: verdict for verdict in run.verdicts(run.judges()[0], "de")}
    write_records(
        run.path / PROMPTS_FILE,
        [
            PromptRecord(
                id=name, group=verdict.group, label=verdict.label, source="s", type="t", pair=name[-4:]
            )
            for name, verdict in prompts.items()
        ],
    )
    write_tables(run)
    for timing in (Timing("load", 1.0), TIMED, TIMED):
        add_timing(run.path, timing)
    return run.path


def of_prompts(change: Callable[[PromptRecord], PromptRecord | None]) -> Callable[[Path], None]:
    """Return what changes all prompts, or leaves some out, and makes the tables again."""

    def apply(run: Path) -> None:
        changed = [change(prompt) for prompt in read_prompts(RunFolder(run)).values()]
        write_records(run / PROMPTS_FILE, [prompt for prompt in changed if prompt is not None])
        write_tables(RunFolder(run))

    return apply


def timed(timing: Timing) -> Callable[[Path], None]:
    return lambda run: add_timing(run, timing)


LIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another label": (
        of_prompts(lambda prompt: replace(prompt, label="harmless")),
        "prompts.jsonl: harmful-test-0000 is of another group or label than in its verdicts",
    ),
    "another group": (
        of_prompts(lambda prompt: replace(prompt, group="own")),
        "prompts.jsonl: harmful-test-0000 is of another group or label than in its verdicts",
    ),
    "pairs that are none": (
        of_prompts(lambda prompt: replace(prompt, pair="one")),
        "prompts.jsonl: pair one has 12 prompts",
    ),
    "times below zero": (timed(replace(TIMED, seconds=-5.0)), "cell took -5 seconds, fewer than none"),
    "a time to come": (timed(replace(TIMED, date="2999-01-01")), "line 4: 2999-01-01 is no date"),
    "a date that is none": (timed(replace(TIMED, date="2026-02-31")), "line 4: 2026-02-31 is no date"),
    "the time of another condition": (
        timed(replace(TIMED, condition="ablation:en")),
        "de harmful ablation:en is a condition without results",
    ),
    "more answers than there are": (
        timed(replace(TIMED, answers=7)),
        "line 4: 7 answers to de harmful baseline; the run has 6",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found(name: str, paired: Path, tmp_path: Path) -> None:
    assert check_run(RunFolder(paired)).problems == ()
    run = tmp_path / "run"
    shutil.copytree(paired, run)
    tell, problem = LIES[name]
    tell(run)
    problems = check_run(RunFolder(run)).problems
    assert any(problem in line for line in problems), problems


def test_a_time_that_can_be_is_accepted_and_that_is_said(paired: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(paired, run)
    (run / TIMINGS_FILE).unlink()
    add_timing(run, replace(TIMED, seconds=0.001))
    checked = check_run(RunFolder(run))
    assert checked.problems == ()
    assert any("seconds in timings.jsonl are accepted unchecked" in line for line in checked.unchecked)


def test_without_answers_the_version_is_one_of_those_stated(tmp_path: Path) -> None:
    run = served_run(tmp_path / "run").path
    shutil.rmtree(run / "completions")
    assert check_run(RunFolder(run)).problems == ()
    file = run / "run.json"
    content = json.loads(file.read_text())
    content["signature"]["model"]["revision"] = "9"
    file.write_text(json.dumps(content))
    assert (
        "run.json names version 9 of the service; the answers are of 1, 2"
        in check_run(RunFolder(run)).problems
    )
