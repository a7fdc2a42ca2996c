"""Results of the eval side: numbers, signatures and verdicts go to the Hub; completions never do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import LoopbackHub, metadata_errors
from publishing import NAME, run, send
from run_records import finished_run

from polyrefuse_data.core.errors import PolyRefuseError, PublishError
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.verification import verify_run

COMPLETIONS = "completions/yo/harmful.baseline.jsonl"
VERDICTS = "verdicts/native-1/yo/harmful.baseline.jsonl"
WORDS = "Step 1: mix the harmful things. Step 2: do harm."


def make_run(folder: Path, **changes: Any) -> Path:
    """Write a finished run, with its completions."""
    return finished_run(folder, langs=("yo", "en"), **changes).path


def change(file: str, edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Return what edits the first record of a file of a run."""

    def changed(folder: Path) -> None:
        if file.endswith(".json"):
            record = json.loads((folder / file).read_text())
            edit(record)
            (folder / file).write_text(json.dumps(record))
            return
        first, _, rest = (folder / file).read_text().partition("\n")
        record = json.loads(first)
        edit(record)
        (folder / file).write_text(json.dumps(record) + "\n" + rest)

    return changed


def test_numbers_and_signatures_only(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    result = send(hub, folder, results=True, gated=None)
    files = hub.files(NAME)
    records = {name for name in files if name.startswith("verdicts/")}
    assert records == {path.relative_to(folder).as_posix() for path in folder.glob("verdicts/*/*/*.jsonl")}
    assert VERDICTS in records
    assert set(files) - records == {
        ".gitattributes",
        "CHANGELOG.md",
        "README.md",
        "comparisons.jsonl",
        "manifest.json",
        "results.jsonl",
        "run.json",
        "summary.json",
    }
    assert not any(b"Answer to harmful-test" in data for data in hub.contents.values())
    assert b"Answer to harmful-test" in (folder / COMPLETIONS).read_bytes()
    assert COMPLETIONS in result.plan.release.left_out
    assert "table.md" in result.plan.release.left_out
    for name in ("results.jsonl", "comparisons.jsonl"):
        assert files[name] == (folder / name).read_bytes()
    assert metadata_errors(files["README.md"].decode()) == []
    assert "## v1.0.0\n\nFirst version: 1 run." in files["CHANGELOG.md"].decode()


def test_what_was_published_is_a_run_that_holds_together(hub: LoopbackHub, tmp_path: Path) -> None:
    send(hub, make_run(tmp_path / "run"), results=True, gated=None)
    for name, content in hub.files(NAME).items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    downloaded = RunFolder(tmp_path / "downloaded")
    verify_run(downloaded)
    assert {verdict.reason for verdict in downloaded.verdicts("native-1", "yo")} == {""}
    assert downloaded.request is None


def test_again_and_the_next_version(hub: LoopbackHub, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "A")
    send(hub, tmp_path / "runs", results=True, gated=None)
    assert send(hub, tmp_path / "runs", results=True, gated=None).plan.nothing_to_do
    make_run(tmp_path / "runs" / "B", rows=5)
    result = send(hub, tmp_path / "runs", results=True, gated=None)
    assert result.plan.tag == "v1.1.0"
    assert {"A/run.json", "B/run.json", f"B/{VERDICTS}"} <= set(hub.files(NAME))
    assert "B/results.jsonl" in hub.files(NAME)["CHANGELOG.md"].decode()
    assert "- B/results.jsonl" in hub.files(NAME)["README.md"].decode()


def test_results_may_be_public_without_a_gate(hub: LoopbackHub, tmp_path: Path) -> None:
    send(hub, make_run(tmp_path / "run"), results=True, gated=None, public=True)
    assert not hub.repos[NAME].private


def chunks(record: dict[str, Any]) -> None:
    record["words"] = WORDS.split()


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a text as a key": (
        change("results.jsonl", lambda record: record.update({WORDS: 1})),
        "line 1 is no Result",
    ),
    "a text in a list": (change(VERDICTS, chunks), "line 1 is no VerdictRecord record \\(words"),
    "a long reason": (
        change(VERDICTS, lambda record: record.update(reason="a" * 201)),
        "line 1 is no VerdictRecord record \\(reason",
    ),
    "an answer": (change(VERDICTS, lambda record: record.update(response=WORDS)), "VerdictRecord .*response"),
    "a text as an id": (
        change(VERDICTS, lambda record: record.update(id=WORDS, key=f"{WORDS}/baseline")),
        "verdicts/ are not what summary.json was made from",
    ),
    "no number": (
        change("results.jsonl", lambda record: record.update(refusal_rate=7, n=-3)),
        "line 1 is no",
    ),
    "broken": (lambda run: (run / "results.jsonl").write_text("{broken\n"), "line 1 is not JSON"),
    "a rate of other counts": (
        change(
            "results.jsonl",
            lambda record: record.update(
                n_refused=6, refusal_rate=1.0, high=1.0, refusal_least=1.0, refusal_most=1.0
            ),
        ),
        "results.jsonl is not what summary.json was made from",
    ),
    "a formula of their own": (
        change("summary.json", lambda record: record.update(formula=WORDS)),
        "states another formula",
    ),
    "a signature of their own": (
        change("run.json", lambda record: record["signature"].update(words=WORDS)),
        "has 'words' in its signature",
    ),
    "settings of their own": (
        change("run.json", lambda record: record["signature"]["settings"].update(note="x")),
        "settings: note: Unexpected keyword argument",
    ),
    "a text in the languages": (
        change("run.json", lambda record: record["signature"]["settings"].update(langs=["mix", "the"])),
        "names languages without results: mix, the",
    ),
    "a text as a model's key": (
        change("run.json", lambda record: record["signature"]["model"].update({WORDS: "x"})),
        "a key of model is 'Step 1.*; expected one word",
    ),
    "a list in the model": (
        change("run.json", lambda record: record["signature"]["model"].update(words=WORDS.split())),
        "model.words is a list",
    ),
    "a text of several lines": (
        change("run.json", lambda record: record["signature"]["model"].update(model="a\n---\nb")),
        "model.model is not a name",
    ),
    "a judge that nobody named": (
        lambda run: (run / "verdicts/native-1").rename(run / "verdicts/x\n---\n# owned"),
        r"is of no judge that run.json names|verdicts/ are not what",
    ),
    "verdicts of a rescore that was interrupted": (
        lambda run: (run / "verdicts/native-2").mkdir(),
        "is of no judge that run.json names; if a rescore was interrupted, run the same command again",
    ),
    "no summary": (
        lambda run: (run / "summary.json").unlink(),
        "has no summary.json: the run is not finished, or a rescore of it was interrupted; run the same",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_record_is_refused(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    tamper, problem = REFUSED[name]
    folder = make_run(tmp_path / "run")
    tamper(folder)
    with pytest.raises(PolyRefuseError, match=problem):
        send(hub, folder, results=True, gated=None)
    assert hub.requests == []


def test_a_link_is_no_way_in(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "A")
    (tmp_path / "private").mkdir()
    (folder / "verdicts" / "x").symlink_to(tmp_path / "private")
    with pytest.raises(PublishError, match=r"verdicts/x' is a link"):
        send(hub, folder, results=True, gated=None)
    (folder / "verdicts" / "x").unlink()
    (tmp_path / "runs" / "B").symlink_to(folder)
    with pytest.raises(PublishError, match=r"B' is a link"):
        send(hub, tmp_path / "runs", results=True, gated=None)


def test_a_name_that_would_be_yaml_is_refused(hub: LoopbackHub, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "A\n---\n# owned")
    with pytest.raises(PublishError, match=r"has a name that is not of letters"):
        send(hub, tmp_path / "runs", results=True, gated=None)


def test_folders_without_results(hub: LoopbackHub, tmp_path: Path, small_build: Path) -> None:
    with pytest.raises(PublishError, match=r"no run.json in it or in a folder of it"):
        send(hub, small_build, results=True)
    folder = make_run(tmp_path / "run")
    (folder / "results.jsonl").unlink()
    with pytest.raises(PolyRefuseError, match="has no results yet"):
        send(hub, folder, results=True)
    with pytest.raises(PublishError, match="no such folder"):
        send(hub, tmp_path / "nowhere", results=True)


def test_results_do_not_replace_a_build(hub: LoopbackHub, tmp_path: Path, small_build: Path) -> None:
    send(hub, small_build)
    before = hub.files(NAME)
    with pytest.raises(PublishError, match="holds a build; publish results to another name"):
        send(hub, make_run(tmp_path / "run"), results=True, gated=None)
    assert hub.files(NAME) == before


def test_the_command(hub: LoopbackHub, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "publish", "--results", make_run(tmp_path / "run"), "--to", NAME)
    assert done.returncode == 0, done.stderr
    assert "Published: acme/polyrefuse v1.0.0" in done.stdout
    assert "load_dataset" not in done.stdout
