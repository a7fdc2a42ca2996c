"""PolyRefuse in lm-evaluation-harness and inspect-ai, as their users call it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.languages import PUBLISHED_LANGUAGES
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.integrations.lm_eval_tasks.scoring import prompts, score, total
from polyrefuse_eval.integrations.prompts import harness_prompts
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.results.data import open_data

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Of course: prepare everything, then begin slowly."


@pytest.fixture
def tasks_folder() -> Path:
    done = CliRunner().invoke(eval_group, ["lm-eval-path"])
    assert done.exit_code == 0
    return Path(done.stdout.strip())


def fields(file: Path) -> dict[str, Any]:
    """The plain values of a task file: `!function` is lm-eval's own tag."""
    return dict(yaml.safe_load(file.read_text().replace("!function ", "")))


def test_every_language_is_a_task_of_the_group(tasks_folder: Path) -> None:
    group = fields(tasks_folder / "polyrefuse.yaml")
    assert group["group"] == "polyrefuse"
    assert group["task"] == [f"polyrefuse_{lang}" for lang in PUBLISHED_LANGUAGES]
    for lang in PUBLISHED_LANGUAGES:
        task = fields(tasks_folder / f"polyrefuse_{lang}.yaml")
        assert (task["task"], task["dataset_kwargs"]) == (f"polyrefuse_{lang}", {"lang": lang})
        assert (tasks_folder / task["include"]).is_file()


def test_prompts_are_those_of_the_build(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYREFUSE_DATA", str(data_folder))
    expected = [row.text for row in open_data(data_folder).prompts("de", "test", "harmful")]
    assert [prompt.text for prompt in harness_prompts("de")] == expected
    assert prompts("de", version=1)["test"]["text"] == expected
    harmless = harness_prompts("de", "harmless", source=str(data_folder))
    assert {prompt.label for prompt in harmless} == {"harmless"}
    with pytest.raises(DatasetFolderError, match="build it with these languages"):
        harness_prompts("yo")
    monkeypatch.setenv("POLYREFUSE_DATA", str(data_folder / "nowhere"))
    with pytest.raises(DatasetFolderError, match="no folder"):
        harness_prompts("de")
    monkeypatch.setenv("POLYREFUSE_DATA", "nobody/nothing-of-this-name")
    with pytest.raises(DatasetFolderError, match="cannot be loaded from the Hub"):
        harness_prompts("de")


def test_unjudged_answers_are_in_no_rate() -> None:
    doc = {"lang": "en", "text": "Why does rain fall?"}
    rows = [score(doc, [text]) for text in (REFUSAL, ANSWER, ANSWER, "")]
    assert [row.get("refusal_rate") for row in rows] == [1.0, 0.0, 0.0, None]
    assert total([row["n_unjudged"] for row in rows]) == 1.0
    assert [row["unjudged_rate"] for row in rows] == [0.0, 0.0, 0.0, 1.0]


def test_lm_eval_asks_and_scores(
    tasks_folder: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("POLYREFUSE_DATA", str(data_folder))
    asked: list[str] = []

    class Canned(LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            asked.extend(request.args[0] for request in requests)
            assert {request.args[1]["max_gen_toks"] for request in requests} == {256}
            return [(REFUSAL, ANSWER, ANSWER, "")[index % 4] for index in range(len(requests))]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    found = lm_eval.simple_evaluate(
        model=Canned(),
        tasks=["polyrefuse_en", "polyrefuse_de"],
        task_manager=TaskManager(include_path=str(tasks_folder), include_defaults=False),
        limit=4,
        bootstrap_iters=0,
    )
    assert [prompt.text for prompt in harness_prompts("en")][:4] == asked[:4]
    for lang in ("en", "de"):
        result = found["results"][f"polyrefuse_{lang}"]
        assert result["refusal_rate,none"] == pytest.approx(1 / 3)
        assert result["n_unjudged,none"] == 1.0


@pytest.mark.slow
def test_lm_eval_as_a_command(
    tasks_folder: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    folder = shutil.copytree(tasks_folder, tmp_path / "tasks")
    whole = (folder / "polyrefuse.yaml").read_text()
    few = "".join(
        line for line in whole.splitlines(True)
        if not line.startswith("  - polyrefuse_") or line.strip() in ("- polyrefuse_en", "- polyrefuse_de")
    )  # fmt: skip
    (folder / "polyrefuse.yaml").write_text(few.replace("group: polyrefuse", "group: two_of_polyrefuse"))
    done = subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model_folder}",
            "--tasks", "two_of_polyrefuse", "--include_path", str(folder), "--limit", "4",
            "--apply_chat_template", "--gen_kwargs", "max_gen_toks=4", "--output_path", str(tmp_path),
        ],
        env={**os.environ, "POLYREFUSE_DATA": str(data_folder), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refusal_rate" in done.stdout
    assert "n_unjudged" in done.stdout
    (file,) = tmp_path.rglob("results_*.json")
    record = json.loads(file.read_text())
    assert record["n-samples"]["polyrefuse_en"]["effective"] == 4
    each = [record["results"][f"polyrefuse_{lang}"] for lang in ("en", "de")]
    assert all(one["n_unjudged,none"] == 4 * one["unjudged_rate,none"] for one in each)
    group = record["results"]["two_of_polyrefuse"]
    assert "n_unjudged,none" not in group, "a mean of counts is none"
    assert group["unjudged_rate,none"] == sum(one["n_unjudged,none"] for one in each) / 8


INSPECT = """
import json, sys
from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model

def outputs():
    while True:
        for text in json.loads(sys.argv[1]):
            made = ModelOutput.from_content(model="mockllm", content=text)
            made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
            yield made

(log,) = eval(
    "polyrefuse/refusal",
    model=get_model("mockllm/model", custom_outputs=outputs()),
    task_args={"langs": "de,en"},
    display="none",
    log_dir="logs",
    max_connections=1,
    max_samples=1,
)
assert log.status == "success", log.error
parts = log.results.scores
metrics = {name.rpartition("/")[2]: one.value for part in parts for name, one in part.metrics.items()}
samples = [
    {**sample.metadata, "id": sample.id, **score.metadata}
    for sample in log.samples
    for score in sample.scores.values()
]
print(json.dumps({"task": log.eval.task, "metrics": metrics, "samples": samples}))
"""


def test_inspect_finds_the_task_by_its_name(data_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="the inspect extra is not installed")
    # to each prompt the same text in German and in English: two of four judged are refusals, one is nothing
    texts = [text for text in (REFUSAL, ANSWER, REFUSAL, "", ANSWER) for _lang in range(2)]
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, json.dumps(texts)],
        # not in the checkout, where an egg-info would hide what is installed
        cwd=tmp_path,
        env={**os.environ, "POLYREFUSE_DATA": str(data_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["task"] == "polyrefuse/refusal"
    metrics = found["metrics"]
    assert (metrics["refusal_rate"], metrics["n_unjudged"]) == (pytest.approx(0.5), 2)
    assert (metrics["grouped_de"], metrics["grouped_en"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert {sample["judge"] for sample in found["samples"]} == {native.NAME}
    pairs = {sample["group"] for sample in found["samples"]}
    assert (len(found["samples"]), len(pairs)) == (10, 5), "the same prompts in both languages"
