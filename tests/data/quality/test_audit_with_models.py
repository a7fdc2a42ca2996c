"""Scores of models go from an audit to a file, to thresholds, to a build's columns and card, to reviewers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_data.audit import calibrate as calibration
from polyrefuse_data.audit.audit import audit
from polyrefuse_data.audit.report import report_lines
from polyrefuse_data.build.package import read_manifest, read_rows
from polyrefuse_data.build.pipeline import BuildResult
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.schema import SPLITS, Row, column_names
from polyrefuse_data.quality import estimators, measure
from polyrefuse_data.quality.measure import ModelRequest
from polyrefuse_data.quality.scores_file import ScoresFile, ScoresFileError

ONE_SCORE = {"check": "quality", "model": "m", "lang": "de", "english": "a", "text": "b", "score": 1.0}


@dataclass
class WordCount:
    """Stands for a model: a translation is as good as it is long; counts what it was asked."""

    identity: str = "comet:words@1"
    asked: int = 0

    def scores(self, english: Sequence[str], texts: Sequence[str]) -> list[float]:
        self.asked += len(texts)
        return [len(text) / 100 for text in texts]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WordCount:
    model = WordCount()
    monkeypatch.setitem(estimators.KINDS, "comet", lambda spec: model)  # type: ignore[arg-type]
    return model


def rows_of(folder: Path) -> list[Row]:
    """Return the Japanese rows of a build."""
    return [row for split in SPLITS for row in read_rows(folder, "ja", split)]


REQUEST = ModelRequest(quality=["comet:words@1"], langs=frozenset({"ja"}))


def test_what_a_file_has_is_not_scored_again(words: WordCount, small_build: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    report = audit(small_build, models=REQUEST, scores=path)
    assert words.asked == sum(part.rows for part in report.lists if part.lang == "ja") > 0
    assert report.unjudged == {"quality": ["yo"]}
    (scored,) = report.models
    rows = {
        row.id: row.text
        for split in ("train", "validation", "test")
        for row in read_rows(small_build, "ja", split)
    }
    assert (scored.lang, scored.rows, scored.calibrated) == ("ja", len(rows), False)
    shortest = min(rows, key=lambda row: len(rows[row]))
    assert rows[scored.worst[0][0]] == rows[shortest]
    lines = "\n".join(report_lines(report))
    assert "quality: none of the named models knows yo; not judged." in lines
    assert scored.worst[0][0] in lines
    before = path.read_bytes()
    again = audit(small_build, models=REQUEST, scores=path)
    assert words.asked == len(rows)
    assert again.models == report.models
    assert path.read_bytes() == before
    assert audit(small_build, scores=path).models == report.models
    assert "wie" not in path.read_text("utf-8")


def test_scores_become_columns_thresholds_a_card_and_a_review(
    words: WordCount, small: Callable[..., BuildResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MINIMUM_ROWS", 20)
    monkeypatch.setattr(calibration, "LARGEST_RATE", 0.15)
    plain, path, bounds = small(), tmp_path / "scores.jsonl", tmp_path / "own.yaml"
    audit(plain.folder, models=REQUEST, scores=path)
    thresholds = calibration.calibrate(plain.folder, None, None, load_thresholds(), path)
    bounds.write_text(calibration.thresholds_yaml(thresholds), "utf-8")
    assert "quality comet:words@1" in bounds.read_text("utf-8")
    built = small(out=tmp_path / "scored", scores=path, thresholds=bounds)
    rows = read_rows(built.folder, "ja", "test")
    assert all(row.scores["quality"] == pytest.approx(len(row.text) / 100) for row in rows)
    flagged = [
        row
        for split in ("train", "validation", "test")
        for row in read_rows(built.folder, "ja", split)
        if row.flags["quality"]
    ]
    assert 0 < len(flagged) < 30
    assert max(len(row.text) for row in flagged) <= min(
        len(row.text) for row in rows if not row.flags["quality"]
    )
    assert {row.scores["quality"] for row in read_rows(built.folder, "yo", "test")} == {None}
    assert read_manifest(built.folder)["models"] == {"quality": {"comet:words@1": ["ja"]}}
    card = (built.folder / "README.md").read_text("utf-8")
    assert "## Quality of the translations" in card
    assert "`ja`, worst by quality: " in card
    assert small(out=tmp_path / "scored", scores=path, thresholds=bounds).unchanged
    # without scores, a build has the columns and bytes that it had
    import pyarrow.parquet as pq

    assert pq.read_schema(plain.folder / "ja" / "test.parquet").names == column_names()
    assert pq.read_schema(built.folder / "ja" / "test.parquet").names == column_names(measured=["quality"])
    run = CliRunner()
    out = tmp_path / "review.csv"
    arguments = ["review", "export", str(built.folder), "--worst", "10%", "--out", str(out)]
    assert run.invoke(cli, arguments).exit_code == 0
    exported = out.read_text("utf-8-sig").splitlines()[1:]
    assert 0 < len(exported) <= 12
    shortest = min(
        len(row.text)
        for split in ("train", "validation", "test")
        for row in read_rows(built.folder, "ja", split)
    )
    ids = {
        row.id
        for split in ("train", "validation", "test")
        for row in read_rows(built.folder, "ja", split)
        if len(row.text) == shortest
    }
    assert exported[0].split(",")[0] in ids
    by_file = [*arguments[:2], str(plain.folder), *arguments[3:], "--scores", str(path)]
    assert run.invoke(cli, by_file).exit_code == 0
    assert out.read_text("utf-8-sig").splitlines()[1].split(",")[0] in ids
    refused = run.invoke(cli, ["review", "export", str(plain.folder), "--worst", "10%", "--out", str(out)])
    assert "no row of" in str(refused.exception)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "x"}, "line 2: expected check, model"),
        ({"score": float("nan")}, "line 2"),
        ({"score": 10**400}, "line 2: expected .* finite number"),
        ({"score": True}, "line 2: expected check, model"),
        ({"model": {"a": 1}}, "line 2: expected check, model"),
        ({"check": "qualty"}, "line 2: unknown check 'qualty'; did you mean 'quality'"),
    ],
)
def test_a_line_that_is_no_score_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(f"{json.dumps(ONE_SCORE)}\n{json.dumps({**ONE_SCORE, **change})}\n", "utf-8")
    with pytest.raises(ScoresFileError, match=message):
        ScoresFile(path)


def test_the_model_that_was_added_last_counts_and_only_for_the_same_texts() -> None:
    file = ScoresFile()
    file.add("quality", "comet:a@1", "de", ["x", "y"], ["X", "Y"], [0.1, 0.2])
    file.add("quality", "metricx:b@1", "de", ["x"], ["X"], [3.0])
    recorded = file.recorded("de", ["x", "y", None], ["X", "Y", "Z"])["quality"]
    assert (recorded.model, list(recorded.scores)) == ("metricx:b@1", [3.0, None, None])
    assert file.recorded("de", ["y"], ["Y"])["quality"].model == "comet:a@1"
    assert file.recorded("de", ["x"], ["another"]) == {}
    file.add("quality", "metricx:b@1", "de", ["y"], ["Y"], [9.0])
    assert file.recorded("de", ["x", "y"], ["X", "Y"])["quality"].worst("quality") == [1, 0]
    assert measure.ModelRequest().quality == ()
