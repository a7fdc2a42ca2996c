"""A run whose files do not belong together is refused by line, and takes no other run with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from run_records import finished_run, made_now, write_summary

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.verification import verify_run

VERDICTS = "verdicts/native-1/de/harmful.baseline.jsonl"
ANSWERS = "completions/de/harmful.baseline.jsonl"


def call(*arguments: object) -> Any:
    return CliRunner().invoke(eval_group, list(map(str, arguments)))


def contents(run: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in run.rglob("*.*") if file.name != ".lock"}


def change_lines(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        change(record)
    file.write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))


def without_digest(run: Path) -> None:
    """Make `run` one of an older version: no hash of answers, no digest in the summary."""
    for file in (run / "verdicts").rglob("*.jsonl"):
        change_lines(file, lambda record: record.pop("response_sha256"))
    summary = json.loads((run / "summary.json").read_text())
    del summary["made_from"]
    (run / "summary.json").write_text(json.dumps(summary))


def flip_verdicts(run: Path) -> None:
    change_lines(run / VERDICTS, lambda record: record.update(refused=not record["refused"]))


def flip_results(run: Path) -> None:
    def flip(record: dict[str, Any]) -> None:
        hits, undecided = record["n"] - record["n_refused"], record["n_unjudged"]
        answers = record["n"] + undecided
        record.update(n_refused=hits, refusal_rate=hits / record["n"], low=0.0, high=1.0)
        record.update(refusal_least=hits / answers, refusal_most=(hits + undecided) / answers)

    change_lines(run / "results.jsonl", flip)


def edit_answers(run: Path) -> None:
    change_lines(run / ANSWERS, lambda record: record.update(response="Sure, here is how."))


TAMPERED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "results that contradict themselves": (
        lambda run: change_lines(run / "results.jsonl", lambda record: record.update(n_refused=900)),
        "leaderboard",
        r"results.jsonl', line 1 is no Result record \(refusal_rate counts 900 of 6",
    ),
    "results flipped": (flip_results, "leaderboard", "summary.json states 6 of 6 refused"),
    "results dropped": (
        lambda run: (run / "results.jsonl").write_text(
            (run / "results.jsonl").read_text().partition("\n")[2]
        ),
        "leaderboard",
        "results.jsonl is not what summary.json was made from",
    ),
    "results twice": (
        lambda run: (run / "results.jsonl").write_text((run / "results.jsonl").read_text() * 2),
        "leaderboard",
        "holds native-1 on de harmful ablation:en 2 times",
    ),
    "verdicts flipped": (flip_verdicts, "leaderboard compare", "verdicts/ are not what summary.json was"),
    "verdicts gone": (
        lambda run: (run / VERDICTS).unlink(),
        "leaderboard compare rescore",
        "verdicts/ are not what summary.json was made from",
    ),
    "answers gone": (
        lambda run: (run / ANSWERS).unlink(),
        "leaderboard compare rescore",
        "completions/de/harmful.baseline holds 0 answers, and summary.json counts 6",
    ),
    "answers edited": (
        edit_answers,
        "compare rescore",
        "verdict of native-1 on de harmful-test-0000/baseline is of another answer than the one",
    ),
    "answers of another language": (
        lambda run: (run / ANSWERS).write_text((run / ANSWERS.replace("/de/", "/en/")).read_text()),
        "compare rescore",
        "harmful.baseline.jsonl', record 1 is of another condition: en harmful baseline",
    ),
    "verdicts of another judge": (
        lambda run: (
            change_lines(run / VERDICTS, lambda record: record.update(judge="native-2")),
            (run / "summary.json").unlink(),
        ),
        "rescore",
        "a verdict of another judge, native-2",
    ),
    "results of a rescore that was interrupted": (
        lambda run: (
            change_lines(run / "results.jsonl", lambda record: record.update(judge="native-2")),
            (run / "summary.json").unlink(),
        ),
        "leaderboard",
        r"holds judge native-2, which run.json does not name \(if a rescore was interrupted, run the same",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_run_that_does_not_hold_together_is_refused_by_line(name: str, tmp_path: Path) -> None:
    tamper, commands, problem = TAMPERED[name]
    good, bad = finished_run(tmp_path / "good").path, finished_run(tmp_path / "bad").path
    tamper(bad)
    before = contents(bad)
    given: dict[str, tuple[object, ...]] = {
        "leaderboard": (bad, "--out", tmp_path / "site"),
        "compare": (good, bad),
        "rescore": (bad, "-q"),
    }
    for command in commands.split():
        result = call(command, *given[command])
        assert isinstance(result.exception, PolyRefuseError), (command, result.output)
        assert re.search(problem, str(result.exception)), str(result.exception)
        assert contents(bad) == before


def test_one_bad_run_takes_no_page_of_good_ones_down(tmp_path: Path) -> None:
    good, bad = finished_run(tmp_path / "good").path, finished_run(tmp_path / "bad").path
    flip_verdicts(bad)
    result = call("leaderboard", good, bad, "--out", tmp_path / "site")
    assert result.exit_code == 3
    assert "left out: 'bad' does not hold together: verdicts/ are not what" in result.stderr
    entries = json.loads((tmp_path / "site" / "leaderboard.json").read_text())
    assert list(entries["entries"]) == ["good"]
    assert [left["run"] for left in entries["left_out"]] == ["bad"]


def test_a_run_that_was_not_touched_is_accepted_and_rescored_to_the_same_bytes(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    before = contents(run.path)
    verify_run(run, answers=True)
    assert call("rescore", run.path, "-q").exit_code == 0
    assert contents(run.path) == before
    summary = run.summary()
    assert summary is not None
    assert summary.made_from == made_now(run)
    assert summary.made_from.answers["de"]["harmful.ablation-en"] == 6


def test_runs_of_older_versions_are_read_and_said_to_be_unverified(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run").path
    without_digest(run)
    assert call("leaderboard", run, "--out", tmp_path / "site").exit_code == 0
    assert call("compare", run, finished_run(tmp_path / "other").path).exit_code == 0
    result = call("rescore", run, "-q")
    assert result.exit_code == 0
    assert "unverified: 36 verdicts of native-1" in result.stderr
    assert RunFolder(run).verdicts("native-1", "de")[0].response_sha256 is None


@pytest.mark.parametrize("tamper", [flip_verdicts, flip_results], ids=["verdicts", "results"])
def test_results_and_verdicts_that_disagree_are_refused_without_a_digest_too(
    tamper: Callable[[Path], None], tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "run")
    without_digest(run.path)
    (run.path / "summary.json").unlink()
    tamper(run.path)
    with pytest.raises(RunFolderError, match=r"results.jsonl states .* and its verdicts"):
        verify_run(run)


def test_a_judge_reads_again_what_it_cannot_be_held_to(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", judge=NativeJudge.name)
    without_digest(run.path)
    edit_answers(run.path)
    assert call("rescore", run.path, "--judges", "native", "-q").exit_code == 0
    (baseline,) = (
        result
        for result in run.results()
        if (result.lang, result.label, result.condition) == ("de", "harmful", "baseline")
    )
    assert baseline.n_refused == 0
    assert all(verdict.response_sha256 for verdict in run.verdicts(NativeJudge.name, "de"))


def test_a_verdict_given_twice_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    file = run.path / VERDICTS
    file.write_text(file.read_text() * 2)
    summary = run.summary()
    assert summary is not None
    write_summary(run, replace(summary, made_from=made_now(run)))
    with pytest.raises(
        RunFolderError, match="verdict of native-1 on de harmful-test-0000/baseline is there twice"
    ):
        verify_run(run, answers=True)


@pytest.mark.parametrize("name", [ANSWERS, VERDICTS])
def test_a_pipe_in_a_run_is_not_read_forever(name: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run.path / name).unlink()
    os.mkfifo(run.path / name)
    with pytest.raises(RunFolderError, match=r"harmful\.baseline\.jsonl' is not a file; remove it"):
        made_now(run)
    result = call("leaderboard", run.path, "--out", tmp_path / "site")
    assert result.exit_code == 2 or isinstance(result.exception, PolyRefuseError)


@pytest.mark.parametrize(
    "name",
    ["completions/de/harmful.baseline.jsonl", "verdicts/native-1/de/harmful.baseline.jsonl", "results.jsonl"],
)
def test_a_file_of_holes_in_a_run_takes_no_memory_and_no_other_run_down(name: str, tmp_path: Path) -> None:
    run, good = finished_run(tmp_path / "run"), finished_run(tmp_path / "good")
    with (run.path / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunFolderError, match=rf"{Path(name).name}' cannot be read: it has 1,099"):
        made_now(run)
    result = call("leaderboard", run.path, good.path, "--out", tmp_path / "site")
    assert result.exit_code == 3, result.output
    assert "left out: " in result.output
    assert (tmp_path / "site" / "data" / "good.json").is_file()


@pytest.mark.parametrize("name", ["scores/en.json", "agreement.json", "refusal_tokens/en.json"])
@pytest.mark.timeout(60)
def test_a_pipe_beside_a_run_is_not_read_forever(name: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    for arguments in (("leaderboard", run.path, "--out", tmp_path / "site"), ("compare", run.path, run.path)):
        result = call(*arguments)
        assert result.exit_code in (0, 2) or isinstance(result.exception, PolyRefuseError)
