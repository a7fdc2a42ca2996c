"""`eval run --directions en,de+en`: spans and strengths of addition from the command to the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs_on_clusters import call, error

from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.report.publication import published_run
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder

SMALL = ("--no-filter", "--refusal-tokens", "40,41", "--max-new-tokens", 4, "--test", 2, "--crossed", 1)
NONE = ("--strengths", "none", "--no-controls", "--device", "cpu", "-q")


def command(model: Path, data: Path, out: Path, *more: object) -> list[object]:
    return ["run", "--model", model, "--data", data, "--langs", "en,de", "--out", out, *SMALL, *NONE, *more]


@pytest.fixture(scope="module")
def measured(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spans") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(out.parent / "cache"))
        more = ("--directions", "en,de+en,span1", "--addition-strengths", "0.5,2")
        result = call(*command(model_folder, data_folder, out, *more))
    assert result.exit_code == 0, (result.output, result.exception)
    return out


def test_spans_are_conditions_beside_their_directions(measured: Path, data_folder: Path) -> None:
    folder = RunFolder(measured)
    names = {(result.label, result.condition) for result in folder.results()}
    assert names == {
        (label, condition)
        for label in ("harmful", "harmless")
        for condition in ("baseline", "ablation:en", "addition:en", "ablation:de+en", "ablation:span1")
    } | {("harmless", "addition:en@0.5"), ("harmless", "addition:en@2")}
    assert {result.coefficient for result in folder.results() if result.condition == "addition:en@2"} == {2.0}
    assert sorted(file.name for file in (measured / "directions").iterdir() if ".all." not in file.name) == [
        "de.safetensors",
        "en.safetensors",
    ]
    assert folder.signature["settings"]["direction_langs"] == ["en", "de+en", "span1"]
    table = (measured / "table.md").read_text(encoding="utf-8")
    assert "| de+en | " in table
    assert "harmless, addition:own@2" in table or "harmless, addition:en@2" in table
    assert check_run(folder, open_data(data_folder)).problems == ()


def test_what_is_published_names_spans_and_a_foreign_language_in_one_is_found(
    measured: Path, tmp_path: Path
) -> None:
    from polyrefuse_data.core.errors import PublishError

    settings = json.loads(published_run(measured).files["run.json"])["signature"]["settings"]
    assert settings["direction_langs"] == ["en", "de+en", "span1"]
    run = json.loads((measured / "run.json").read_text())
    run["signature"]["settings"]["direction_langs"] = ["en", "de+tlh"]
    kept = (measured / "run.json").read_text()
    try:
        (measured / "run.json").write_text(json.dumps(run))
        with pytest.raises(PublishError, match="languages without results: tlh"):
            published_run(measured)
    finally:
        (measured / "run.json").write_text(kept)


def test_a_run_with_a_span_of_all_cannot_get_a_language_more(
    measured: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = ("--directions", "en", "--langs", "en")
    assert call(*command(model_folder, data_folder, out, *more)).exit_code == 0
    run = json.loads((out / "run.json").read_text())
    for part in ("signature", "request"):
        run[part]["settings"]["direction_langs"] = ["en", "span"]
    (out / "run.json").write_text(json.dumps(run))
    line = error(*command(model_folder, data_folder, out, "--directions", "en"))
    assert "the direction 'span' is of all languages of the run, en there, with de here" in line


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ("de+fr", "lacks fr"),
        ("de+de", "names de twice"),
        ("span3", "takes 3 of the directions of 2 languages"),
    ],
)
def test_a_span_that_cannot_be_is_refused_before_a_model_is_loaded(
    directions: str, message: str, data_folder: Path, tmp_path: Path
) -> None:
    line = error(*command(tmp_path / "no-model", data_folder, tmp_path / "run", "--directions", directions))
    assert message in line
    assert not (tmp_path / "run").exists()


def test_a_span_of_a_finished_runs_directions_takes_those_that_are_there(
    measured: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "run", ("--directions-from", measured)
    line = error(*command(model_folder, data_folder, out, *source, "--directions", "de+fr"))
    assert "has no direction from fr (it has en, de)" in line
    result = call(*command(model_folder, data_folder, out, *source, "--directions", "de+en"))
    assert result.exit_code == 0, (result.output, result.exception)
    conditions = {
        result.condition: result for result in RunFolder(out).results() if result.label == "harmful"
    }
    assert list(conditions) == ["ablation:de+en", "baseline"]
    before = {(r.lang, r.label, r.condition): r for r in RunFolder(measured).results()}
    for result in RunFolder(out).results():
        assert result == before[result.lang, result.label, result.condition]
