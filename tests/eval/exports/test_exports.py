"""Exports of results: valid by the others' schemas, with the numbers of results.jsonl."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from leaderboard_runs import write_run
from runs_on_clusters import call, error

from polyrefuse_eval.results.folder import RunFolder

DATASET = "acme/polyrefuse@0123456789abcdef"
HERE = Path(__file__).parent


def validate(value: Any, name: str) -> None:
    """Raise unless `value` is valid by the constraints that others document."""
    schema = json.loads((HERE / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", langs=("en", "de"), with_scores=False)


def expected(run: Path) -> dict[str, float]:
    """Return the rates of results.jsonl by the task that they have elsewhere."""
    rates = {}
    for line in (run / "results.jsonl").read_text().splitlines():
        record = json.loads(line)
        kind, _, source = record["condition"].partition(":")
        task = f"{record['lang']}.{record['label']}"
        if kind == "baseline":
            rates[task] = record["refusal_rate"]
        elif kind == "ablation" and record["label"] == "harmful" and source in ("en", "de"):
            rates[f"{task}.ablation-{source}"] = record["refusal_rate"]
    return rates


def test_the_hub_s_results_are_valid_and_equal_to_the_run_s(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    url = "https://example.org/leaderboard"
    asked = ("export", run, "--format", "eval-results", "--dataset", DATASET, "--out", out)
    result = call(*asked, "--source-url", url)
    assert result.exit_code == 0, result.output
    entries = yaml.safe_load((out / "example/model-a/.eval_results/polyrefuse.yaml").read_text())
    tasks = yaml.safe_load((out / "eval.yaml").read_text())
    validate(entries, "eval_results")
    validate(tasks, "eval")
    rates = expected(run)
    assert len(rates) == 8
    assert {entry["dataset"]["task_id"]: entry["value"] for entry in entries} == rates
    assert {task["id"]: task["config"] for task in tasks["tasks"]} == {task: task[:2] for task in rates}
    assert {entry["dataset"]["revision"] for entry in entries} == {"0123456789abcdef"}
    assert {entry["source"]["url"] for entry in entries} == {url}
    notes = re.compile(r"judge \S+; 95 % interval 0\.\d+ to [01]\.\d+; \d+ answers judged, \d+ undecided; ")
    assert all(notes.match(entry["notes"]) for entry in entries)
    assert call(*asked).exit_code == 0, "a second time, the same files are written again"


def test_records_of_every_eval_ever_are_valid_and_equal_to_the_run_s(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("export", run, "--format", "every-eval-ever", "--organisation", "Example Lab", "--out", out)
    assert call(*asked, "--dataset", DATASET).exit_code == 0
    (file,) = out.rglob("*.json")
    assert file.parent == out / "data/polyrefuse/example/model-a"
    assert uuid.UUID(file.stem).version == 4
    record = json.loads(file.read_text())
    validate(record, "every_eval_ever")
    results = {result["evaluation_result_id"]: result for result in record["evaluation_results"]}
    assert {task: result["score_details"]["score"] for task, result in results.items()} == expected(run)
    stated = {(r.lang, r.label, r.condition): r for r in RunFolder(run).results()}
    interval = results["de.harmful.ablation-en"]["score_details"]["uncertainty"]["confidence_interval"]
    cell = stated["de", "harmful", "ablation:en"]
    assert (interval["lower"], interval["upper"]) == (cell.low, cell.high)
    assert results["de.harmless"]["metric_config"]["lower_is_better"] is True
    assert results["de.harmful"]["metric_config"]["lower_is_better"] is False
    assert record["source_metadata"]["evaluator_relationship"] == "third_party"
    # The same numbers have the same name, whenever they are exported; others do not.
    assert call(*asked, "--dataset", DATASET).exit_code == 0
    assert "holds 1 other file" in error(*asked)
    other = tmp_path / "other"
    assert call(*asked[:-1], other).exit_code == 0
    (without_dataset,) = other.rglob("*.json")
    validate(json.loads(without_dataset.read_text()), "every_eval_ever")
    assert without_dataset.name != file.name


def test_a_service_is_a_platform_and_a_folder_gets_its_name_on_the_hub(tmp_path: Path) -> None:
    hosted = write_run(tmp_path / "hosted", model="tiny-chat", langs=("en",), with_scores=False)
    signature = json.loads((hosted / "run.json").read_text())
    signature["signature"]["model"] |= {"endpoint": "https://api.example.org", "temperature": "0.5"}
    (hosted / "run.json").write_text(json.dumps(signature))
    own = write_run(tmp_path / "own", model="folder", langs=("en",), with_scores=False)
    out = tmp_path / "out"
    asked = ("export", hosted, own, "--format", "every-eval-ever", "--organisation", "Lab", "--out", out)
    assert call(*asked, "--model-name", "own=acme/folder-7b").exit_code == 0
    records = {file.parent.name: json.loads(file.read_text()) for file in out.rglob("*.json")}
    for record in records.values():
        validate(record, "every_eval_ever")
    service, folder = records["tiny-chat"]["model_info"], records["folder-7b"]["model_info"]
    assert service["inference_platform"] == "https://api.example.org"
    assert service["additional_details"]["deployment_type"] == "externally_managed"
    assert (folder["name"], folder["id"]) == ("folder", "acme/folder-7b")
    arguments = records["tiny-chat"]["evaluation_results"][0]["generation_config"]["generation_args"]
    assert arguments["temperature"] == 0.5


def test_what_cannot_be_exported_is_one_line_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("export", run, "--format", "eval-results", "--dataset", DATASET, "--out", out)
    twin = write_run(tmp_path / "twin", langs=("en",), with_scores=False)
    other = write_run(tmp_path / "other", model="example/b", langs=("en",), with_scores=False)
    organism = write_run(tmp_path / "toy", model="organism", langs=("en",), with_scores=False)
    (tmp_path / "empty").mkdir()
    for more, message in (
        ((twin,), "'run' and 'twin' both measured 'example/model-a'; export one of them"),
        ((organism,), "'toy' measured a test organism"),
        ((tmp_path / "empty",), "nothing was exported"),
        (("--judge", "nobody"), "'run' has no refusal rates by the judge 'nobody'; its judges: "),
        (("--model-name", "absent=a/b"), "unknown run in --model-name"),
        (("--model-name", "run=../up"), "cannot be a path; give the model another name"),
        (
            ("--model-name", "run=eval.yaml"),
            "would be in a folder with the same name as the file 'eval.yaml'",
        ),
        ((other, "--model-name", "other=example/MODEL-A"), "are the same file on some disks; give"),
        (("--dataset", "polyrefuse"), "is not NAME/DATASET"),
    ):
        assert message in error(*asked, *more)
        assert not out.exists()
    assert call(*asked[:4], "--out", out).exit_code == 2
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "holds 1 other file (mine.txt)" in error(*asked)
