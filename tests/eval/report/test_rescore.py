"""Old runs and published completions are judged again, and give the same tables as when they were made."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from published import N, write_cell, write_published
from run_records import COMPLETION, SIGNATURE, finished_run
from word_judge import WordJudge

from polyrefuse_data.core import output_folder
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import JudgeError, RunFolderError
from polyrefuse_eval.judging.base import Advance, JudgeInput, Verdict
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.report.published_release import HEADER, STORED_JUDGES, SUBSTRING, WILDGUARD
from polyrefuse_eval.report.rescore import rescore
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.verification import verify_run

SHARED = Path(__file__).parents[4] / "shared" / "data"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rescore_command(*arguments: Any) -> Any:
    return CliRunner().invoke(eval_group, ["rescore", *map(str, arguments), "-q"])


def test_published_completions_become_runs_and_the_published_tables(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    found = rescore(write_published(tmp_path), out=out)
    assert [run.path.name for run in found.runs] == ["example--model-a", "example--model-b"]
    assert [file.name for file in found.files] == ["baseline.csv", "harm_ablation.csv"]
    baseline, ablated = (rows(file) for file in found.files)
    assert list(baseline[0]) == list(HEADER)
    assert {(row["model"], row["lang"]) for row in ablated} == {
        (model, lang) for model in ("example/model-a", "example/model-b") for lang in ("en", "ja")
    }
    # Of 12 answers 9 refuse, one of them unread by WildGuard; index % 3 == 0 is a substring's compliance.
    for row in baseline:
        assert float(row["wildguard_compliance"]) == pytest.approx(3 / 11)
        assert float(row["wildguard_harmful"]) == pytest.approx(2 / 12 + 1 / 12)
        assert float(row["str_compliance"]) == pytest.approx(4 / 12)
        assert (row["experiment"], row["time"]) == ("ja_vector_sweep", "20250101-000000")
    for row in ablated:
        assert float(row["wildguard_compliance"]) == 1.0
        assert float(row["wildguard_harmful"]) == 0.5
    run = found.runs[0]
    assert run.signature["judges"] == list(STORED_JUDGES)
    assert {one.condition for one in run.results()} == {"baseline", "ablation:ja"}
    summary = run.summary()
    assert summary is not None
    of_ja = summary.judges[WILDGUARD].languages["ja"].ablated
    assert of_ja is not None
    assert (of_ja.source, of_ja.rate) == ("ja", 0.0)
    assert {one.reference for one in run.agreement()} == {WILDGUARD}
    assert run.signature["data"] == found.runs[1].signature["data"]
    # Two prompts are there twice: their groups are 10, and the data's digest is of these.
    assert len({one.group for one in run.completions("ja")}) == 10
    assert len(run.completions("ja")) == 2 * N


def test_tables_that_a_full_disk_does_not_take_leave_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "run")
    old = files(run.path)
    with monkeypatch.context() as patch:
        patch.setattr(output_folder, "own_file_opener", full_disk)
        with pytest.raises(RunFolderError, match=r"cannot write to .*No space left"):
            rescore(run.path, [NativeJudge()])
    left = files(run.path)
    assert {name: left[name] for name in old} == old
    assert all(f"verdicts/{NativeJudge.name}/" in name for name in left.keys() - old.keys()), "to go on from"
    verify_run(run, answers=True)
    rescore(run.path, [NativeJudge()])
    assert run.judges() == ["native-1", NativeJudge.name]
    verify_run(run, answers=True)


def full_disk(*, private: bool = False) -> Any:
    """Take the place of an opener's maker while the disk is full."""

    def opener(path: str, flags: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    return opener


class Impatient(WordJudge):
    """A judge that reads answers alone, `patience` of them before it dies."""

    needs_prompt = False

    def __init__(self, name: str, patience: int = 3) -> None:
        super().__init__(name)
        self.patience = patience

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        if len(self.seen) >= self.patience:
            raise KeyboardInterrupt
        return super().judge(items, advance)


def test_verdicts_without_a_hash_stay_until_the_judge_has_read_their_answers(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    for lang in run.languages():
        verdicts = run.verdicts("native-1", lang)
        run.write_verdicts("native-1", lang, [replace(verdict, response_sha256=None) for verdict in verdicts])
    write_tables(run)
    old = files(run.path)
    with pytest.raises(KeyboardInterrupt):
        rescore(run.path, [Impatient("native-1")])
    assert files(run.path) == old
    patient = Impatient("native-1", patience=10**9)
    rescore(run.path, [patient])
    assert all(verdict.response_sha256 for verdict in run.verdicts("native-1", "de"))
    verify_run(run, answers=True)


def test_again_it_writes_the_same_and_a_further_judge_adds_its_column(tmp_path: Path) -> None:
    published, out = write_published(tmp_path), tmp_path / "runs"
    rescore(published, out=out)
    before = files(out)
    rescore(published, out=out)
    assert files(out) == before
    judge = WordJudge()
    rescore(published, [NativeJudge(), judge], out=out)
    assert all(item.prompt is not None and "paint wall" in item.prompt for item in judge.seen)
    for row in rows(out / "baseline.csv"):
        assert float(row[f"{NativeJudge.name}_compliance"]) == pytest.approx(3 / 12)
        assert row["words-1_compliance"] != ""
    read = RunFolder(out / "example--model-a").signature["judges"]
    assert read == [WILDGUARD, SUBSTRING, NativeJudge.name, "words-1"]
    # What they have said stays, and they are not asked again.
    judge.seen.clear()
    after = files(out)
    rescore(published, [judge], out=out)
    assert judge.seen == []
    assert files(out) == after


def test_a_truncated_file_is_named_and_the_others_are_rescored(tmp_path: Path) -> None:
    published = write_published(tmp_path)
    folder = next(published.rglob("model-a/ja/**/completions"))
    for kind in ("evaluations", "completions"):
        file = folder / f"harmful_baseline_{kind}.json"
        file.write_bytes(file.read_bytes()[:-40])
    bad = folder / "harmful_harm_ablation_evaluations.json"
    entries = json.loads(bad.read_text())
    entries["completions"][3]["response"] = 7
    bad.write_text(json.dumps(entries))
    (next(published.rglob("model-b/en/**/completions")) / "harmful_baseline_evaluations.json").unlink()
    result = rescore_command(published, "--out", tmp_path / "runs")
    assert result.exit_code == 3, result.output
    assert "harmful_baseline_evaluations.json': Invalid JSON: EOF" in result.output
    assert "completions.3.response: Input should be a valid string" in result.output
    table = {(row["model"], row["lang"]): row for row in rows(tmp_path / "runs" / "baseline.csv")}
    assert ("example/model-a", "ja") not in table
    assert table["example/model-a", "en"]["wildguard_compliance"] != ""
    # Without evaluations the answers are there, and no stored verdict is made up for them.
    assert table["example/model-b", "en"]["wildguard_compliance"] == ""
    assert len(RunFolder(tmp_path / "runs" / "example--model-b").completions("en")) == 2 * N
    judged = rescore_command(published, "--out", tmp_path / "runs", "--judges", "native")
    assert judged.exit_code == 3
    table = {(row["model"], row["lang"]): row for row in rows(tmp_path / "runs" / "baseline.csv")}
    assert float(table["example/model-b", "en"][f"{NativeJudge.name}_compliance"]) == pytest.approx(0.25)


def test_what_cannot_be_rescored_is_one_line(tmp_path: Path) -> None:
    published = write_published(tmp_path)
    for arguments, told in (
        ([tmp_path / "none", "--out", tmp_path / "o"], "no folder"),
        ([tmp_path / "ja_vector_sweep" / "example" / "model-a" / "en" / "x"], "no folder"),
        ([published], "--out"),
        ([published, "--out", tmp_path / "o", "--judges", "nativ"], "did you mean"),
    ):
        result = rescore_command(*arguments)
        assert isinstance(result.exception, PolyRefuseError)
        assert told in str(result.exception)
        assert not (tmp_path / "o").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    result = rescore_command(empty, "--out", tmp_path / "o")
    assert "holds neither run.json nor" in str(result.exception)
    write_cell(tmp_path / "other", "example/model-c", "de", "baseline")
    (tmp_path / "other" / "ja_vector_sweep").rename(tmp_path / "other" / "my_sweep")
    result = rescore_command(tmp_path / "other" / "my_sweep", "--out", tmp_path / "o")
    assert "give it with --source" in str(result.exception)
    result = rescore_command(tmp_path / "other" / "my_sweep", "--out", tmp_path / "o", "--source", "de")
    assert result.exit_code == 0, result.output


def test_a_run_is_rescored_in_place(data_folder: Path, tmp_path: Path) -> None:
    data = open_data(data_folder)
    prompts = data.prompts("de", "test", "harmful")
    run = RunFolder.open(tmp_path / "run", {**SIGNATURE, "data": {"digest": data.digest}, "judges": []})
    said = ["Es tut mir leid, dabei kann ich nicht helfen.", "Gern: zuerst die Farbe."]
    run.write_completions(
        "de",
        [
            replace(
                COMPLETION,
                key=f"{row.id}/{name}",
                id=row.id,
                group=row.group,
                condition=name,
                response=said[name != "baseline"],
            )
            for row in prompts
            for name in ("baseline", "ablation:en")
        ],
    )
    rescore(run.path, [NativeJudge()])
    rates = {one.condition: one.refusal_rate for one in run.results()}
    assert rates["ablation:en"] == 0.0
    assert rates["baseline"] == 1.0
    with pytest.raises(RunFolderError, match=r"words-1 needs the prompts.*--data"):
        rescore(run.path, [WordJudge()])
    judge = WordJudge()
    rescore(tmp_path, [judge], data=data)
    assert {item.prompt for item in judge.seen} == {row.text for row in prompts}
    assert run.signature["judges"] == [NativeJudge.name, "words-1"]
    assert {one.judge for one in run.results()} == {NativeJudge.name, "words-1"}
    assert [one.lang for one in run.agreement()] == ["de"]
    with pytest.raises(RunFolderError, match="in place"):
        rescore(run.path, out=tmp_path / "out")
    (data_folder_copy := tmp_path / "data").mkdir()
    manifest = json.loads((data_folder / "manifest.json").read_text())
    (data_folder_copy / "manifest.json").write_text(json.dumps({**manifest, "digest": "e" * 64}))
    with pytest.raises(RunFolderError, match="is not the data of"):
        rescore(run.path, [judge], data=open_data(data_folder_copy))


@pytest.mark.real
@pytest.mark.parametrize("condition", ["baseline", "harm_ablation"])
def test_the_columns_are_those_of_the_published_tables(condition: str) -> None:
    file = SHARED / "paper" / f"ja_vector_{condition}.csv"
    if not file.is_file():
        pytest.skip("the published tables are not beside the checkout")
    published = rows(file)
    assert [name for name in published[0] if name] == list(HEADER)
    assert len(published) == 42


def test_a_language_that_the_native_judge_does_not_read_is_told_before_anything_is_written(
    tmp_path: Path,
) -> None:
    run = finished_run(tmp_path / "run", langs=("en", "tlh"))
    before = files(run.path)
    with pytest.raises(JudgeError, match="does not read tlh: give it phrases"):
        rescore(run.path, [WordJudge(), NativeJudge()])
    assert files(run.path) == before
    assert run.complete
