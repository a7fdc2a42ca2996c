"""Commands that write, killed at every file that they name: each file is the old one or the new one, whole.

The same command again then leaves what an undisturbed one leaves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from children import started
from killed_commands import run_until
from run_records import finished_run

from polyrefuse_data.cli import main
from polyrefuse_data.translate.memory.store import Entry, TranslationMemory, Translator

UNFINISHED = (".begun.jsonl", ".partial")
"""In the names of files from which the same command goes on."""


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of `folder` by name; what a kill left unnamed, and locks, aside."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def killed_everywhere(tmp_path: Path, prepare: Callable[[Path], list[str]], *, most: int = 6) -> None:
    """Kill the command that `prepare` returns for a new folder at `most` moments or all of them."""
    report = tmp_path / "report"
    whole = tmp_path / "whole"
    whole.mkdir()
    arguments = prepare(whole)
    old = contents(whole)
    child = started(run_until, arguments, 0, "never", str(report))
    child.join()
    new = contents(whole)
    n_files = int(report.read_text())
    assert n_files > 0
    moments = [(at, moment) for at in range(1, n_files + 1) for moment in ("before", "after")]
    for at, moment in moments[:: max(1, -(-len(moments) // most))]:
        folder = tmp_path / f"{moment}-{at}"
        folder.mkdir()
        arguments = prepare(folder)
        child = started(run_until, arguments, at, moment, str(report))
        child.join()
        assert child.exitcode == -9
        for name, content in contents(folder).items():
            assert content in (old.get(name), new.get(name)) or any(mark in name for mark in UNFINISHED), (
                at,
                name,
            )
        child = started(run_until, arguments, 0, "never", str(report))
        child.join()
        assert contents(folder) == new, (at, moment)
        left = [*folder.rglob("*.partial"), *folder.rglob(".polyrefuse-work-*")]
        assert not left, (at, moment)


def test_rescore(tmp_path: Path) -> None:
    def prepare(folder: Path) -> list[str]:
        run = finished_run(folder / "run").path
        return ["eval", "rescore", str(run), "--judges", "native", "-q"]

    killed_everywhere(tmp_path, prepare)


@pytest.mark.slow
def test_the_page_of_a_leaderboard(tmp_path: Path) -> None:
    first = finished_run(tmp_path / "first").path
    second = finished_run(tmp_path / "second", langs=("de",)).path
    site = tmp_path / "site"
    with pytest.raises(SystemExit):
        main(["eval", "leaderboard", str(first), "--out", str(site)])

    def prepare(folder: Path) -> list[str]:
        shutil.copytree(site, folder / "site")
        return ["eval", "leaderboard", str(first), str(second), "--out", str(folder / "site")]

    killed_everywhere(tmp_path, prepare)


def test_judging_a_file(tmp_path: Path) -> None:
    lines = [{"id": str(n), "lang": "en", "response": "I cannot help with that."} for n in range(20)]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def prepare(folder: Path) -> list[str]:
        return ["eval", "judge", str(answers), "--out", str(folder / "verdicts.jsonl"), "-q"]

    killed_everywhere(tmp_path, prepare)


def test_what_people_correct_thresholds_and_memories(tmp_path: Path) -> None:
    build = tmp_path / "build"
    with pytest.raises(SystemExit):
        main(["build", "--recipe", "sample", "--langs", "de", "--out", str(build), "-q"])
    memory = tmp_path / "memory.sqlite"
    with TranslationMemory(memory, create=True) as opened:
        opened.add([Entry("a house", "de", Translator("machine", "1", "beam=4"), "ein Haus")])
    for name, arguments in {
        "review": ["review", "export", str(build), "--out", "{}/rows.csv"],
        "calibrate": ["calibrate", str(build), "--out", "{}/thresholds.yaml"],
        "memory": ["memory", "export", "{}/memory.jsonl", "--memory", str(memory)],
    }.items():
        (tmp_path / name).mkdir()

        def prepare(folder: Path, arguments: list[str] = arguments) -> list[str]:
            return [argument.format(folder) for argument in arguments]

        killed_everywhere(tmp_path / name, prepare)
