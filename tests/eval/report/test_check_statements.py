"""What a run states beside its numbers is checked: its request, and what a service said of itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_records import served_run

from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.service_files import SERVICE_FILE

Change = Callable[[dict[str, Any]], object]


def another_default(run: dict[str, Any]) -> None:
    """Ask for nothing where the signature states what is not the default."""
    del run["request"]["settings"]["coefficient"]
    run["signature"]["settings"]["coefficient"] = 3.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a model behind an endpoint, which refused once by itself and changed its version."""
    return served_run(tmp_path_factory.mktemp("served") / "run").path


def changed(file: str, change: Change) -> Callable[[Path], object]:
    """Return what changes the JSON value of a file."""

    def apply(run: Path) -> None:
        value = json.loads((run / file).read_text())
        change(value)
        (run / file).write_text(json.dumps(value))

    return apply


def of_run(change: Change) -> Callable[[Path], object]:
    return changed("run.json", change)


def of_service(change: Change) -> Callable[[Path], object]:
    return changed(SERVICE_FILE, change)


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another version": (
        of_service(lambda file: file["versions"][0].update(model="3")),
        "service.json:.versions.0.model is 3; the answers give 1",
    ),
    "another fingerprint": (
        of_service(lambda file: file["versions"][0].update(system_fingerprint="other")),
        "system_fingerprint is other; the answers give fp",
    ),
    "a version left out": (
        of_service(lambda file: file["versions"].pop()),
        "service.json:.versions.1 is nothing; the answers give a record",
    ),
    "fewer refusals of the service": (
        of_service(lambda file: file.update(refusals={})),
        "service.json:.refusals.refusal is nothing; the answers give 2",
    ),
    "fewer tokens": (of_service(lambda file: file.update(prompt_tokens=1)), "prompt_tokens is 1"),
    "nothing of the service": (lambda run: (run / SERVICE_FILE).unlink(), "service.json is missing"),
    "a version that gave no answer": (
        of_run(lambda run: run["signature"]["model"].update(revision="9")),
        "run.json names version 9 of the service; the answers are of 1, 2",
    ),
    "a service of no run": (
        of_run(lambda run: run["signature"]["model"].pop("endpoint")),
        "service.json is there, and run.json names no service",
    ),
    "a setting that was not asked for": (
        of_run(lambda run: run["request"]["settings"].update(seed=7)),
        "request.settings.seed is 7; its signature states 0",
    ),
    "a setting that is the default elsewhere": (
        of_run(another_default),
        "request.settings.coefficient is 1.0; its signature states 3.0",
    ),
    "another model": (
        of_run(lambda run: run["request"]["model"].update(name="openai:large")),
        "request.model.name is large; its signature states tiny",
    ),
    "another temperature": (
        of_run(lambda run: run["request"]["model"].update(temperature=1.0)),
        "request.model.temperature is 1; its signature states 0",
    ),
    "other data": (
        of_run(lambda run: run["request"]["data"].update(digest="e" * 64)),
        "request.data.digest is eeee",
    ),
    "another version of polyrefuse": (
        of_run(lambda run: run["request"]["versions"].update(polyrefuse="9")),
        "request.versions.polyrefuse is 9",
    ),
    "a request that is none": (
        of_run(lambda run: run["request"].update(model=[], data=3, settings="all")),
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found(name: str, served: Path, tmp_path: Path) -> None:
    assert check_run(RunFolder(served)).problems == ()
    run = tmp_path / "run"
    shutil.copytree(served, run)
    tell, problem = LIES[name]
    tell(run)
    problems = check_run(RunFolder(run)).problems
    assert any(problem in line for line in problems) or not problem, problems


def test_without_answers_the_counts_are_those_of_the_verdicts(served: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(served, run, ignore=shutil.ignore_patterns("completions"))
    assert check_run(RunFolder(run)).problems == ()
    of_service(lambda file: file["versions"][0].update(answers=13))(run)
    of_service(lambda file: file.update(refusals={"refusal": 1}))(run)
    assert check_run(RunFolder(run)).problems == (
        "service.json counts 25 answers; the verdicts give 24",
        "service.json counts 1 refusals of the service; the verdicts give 2",
    )


def test_prompts_are_those_that_were_asked_for(served: Path, data_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(served, run)
    data = open_data(data_folder)
    for digest, found in ((data.prompts_digest("de"), False), ("0" * 64, True)):
        of_run(lambda file, digest=digest: file["request"]["data"].update(prompts={"de": digest}))(run)  # type: ignore[misc]
        problems = check_run(RunFolder(run), data).problems
        assert any("was asked for other prompts in 'de'" in line for line in problems) is found
