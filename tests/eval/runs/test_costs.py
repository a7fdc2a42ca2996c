"""The command `polyrefuse eval cost` on a run of a tiny model."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny_runs import run

from polyrefuse_data.cli import cli
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.leaderboard.boards import leaderboard
from polyrefuse_eval.leaderboard.page import page
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.leaderboard.tables import comma_separated, markdown
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.report.publication import published_run
from polyrefuse_eval.results.cost_files import read_costs
from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.validation import read_records


@pytest.fixture(scope="module")
def finished(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    torch.set_num_threads(1)
    run(ChatModel.load(str(model_folder)), data_folder, out)
    return out


@pytest.fixture(scope="module")
def costed(
    finished: Path, model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run with what its conditions cost on three answers of four tokens."""
    out = Path(shutil.copytree(finished, tmp_path_factory.mktemp("costed") / "run"))
    result = cost(out, model_folder, data_folder, "--limit", "3", "--tokens", "4")
    assert result.exit_code == 0, result.output
    return out


def changed(
    run_folder: Path, to: Path, file: str, change: Callable[[list[dict[str, Any]]], Any]
) -> RunFolder:
    """Return a copy of a run in which `change` was made to the records of `file`."""
    shutil.copytree(run_folder, to)
    records = [json.loads(line) for line in (to / file).read_text("utf-8").splitlines()]
    change(records)
    (to / file).write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return RunFolder(to)


def test_costs_are_checked_published_and_on_the_leaderboard(costed: Path, tmp_path: Path) -> None:
    assert check_run(RunFolder(costed)).problems == ()
    published = tmp_path / "published"
    for name, content in published_run(costed).files.items():
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_bytes(content)
    for name in ("costs.jsonl", "costs/en.jsonl", "costs/de.jsonl"):
        assert (published / name).read_bytes() == (costed / name).read_bytes()
    assert check_run(RunFolder(published)).problems == ()
    compared = leaderboard(read_runs([published])[0])
    stated = {(cost.lang, cost.condition): cost for cost in read_costs(RunFolder(costed))}
    rows = csv.DictReader(comma_separated(compared).splitlines())
    row = next(row for row in rows if row["lang"] == "de")
    kl = stated[row["lang"], f"ablation:{row['source']}"]
    assert [float(row[f"kl_ablated{end}"]) for end in ("", "_low", "_high")] == [
        kl.kl_per_token,
        kl.low,
        kl.high,
    ]
    assert "KL a token, ablated | KL a token, added" in markdown(compared)
    html = page(compared)
    assert "What an edit costs" in html
    assert f"{kl.kl_per_token:.2f}" in html


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        (
            "costs.jsonl",
            lambda records: records[0].update(kl_per_token=records[0]["low"]),
            "kl_per_token is",
        ),
        ("costs.jsonl", lambda records: records.pop(), "is nothing; costs/ gives a record"),
        ("costs/de.jsonl", lambda records: records[0].update(kl=records[0]["kl"] * 2), "costs/ gives"),
        ("costs/de.jsonl", lambda records: records.append(records[0]), "is there twice"),
        ("costs/de.jsonl", lambda records: records.pop(), "measured on the same answers"),
        (
            "costs/de.jsonl",
            lambda records: [record.update(id="elsewhere-1") for record in records[:1]],
            "is of no harmless prompt that was answered",
        ),
        (
            "costs/de.jsonl",
            lambda records: records[-1].update(unedited_cross_entropy=0.0),
            "unedited_cross_entropy is 0.0; its record under",
        ),
        (
            "costs/de.jsonl",
            lambda records: records[0].update(condition="ablation:yo"),
            "is of a language or condition without results",
        ),
    ],
)
def test_a_lie_about_costs_is_found(
    costed: Path, tmp_path: Path, file: str, change: Callable[[list[dict[str, Any]]], Any], problem: str
) -> None:
    run_folder = changed(costed, tmp_path / "run", file, change)
    assert any(problem in line for line in check_run(run_folder).problems)


def cost(run_folder: Path, model: Path, data: Path, *more: str) -> Result:
    command = ["eval", "cost", str(run_folder), "--model", str(model), "--data", str(data), "-q", *more]
    return CliRunner().invoke(cli, command)


def refused(run_folder: Path, model: Path, data: Path, *more: str) -> str:
    """Return the one line with which the command refuses."""
    error = cost(run_folder, model, data, *more).exception
    assert isinstance(error, PolyRefuseError)
    return str(error)


def test_every_condition_has_its_cost(
    costed: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(costed, tmp_path / "run"))
    first = cost(out, model_folder, data_folder, "--limit", "3", "--tokens", "4")
    assert first.exit_code == 0, first.output
    costs = read_records(ConditionCost, out / "costs.jsonl")
    for lang in ("en", "de"):
        conditions = {completion.condition for completion in RunFolder(out).completions(lang)}
        of_lang = {record.condition: record for record in costs if record.lang == lang}
        assert of_lang.keys() == conditions - {"baseline"}
        records = read_records(AnswerCostRecord, out / "costs" / f"{lang}.jsonl")
        for name, record in of_lang.items():
            own = [answer for answer in records if answer.condition == name]
            assert 0 < record.n == len(own) <= 3
            assert record.kl_per_token == pytest.approx(sum(r.kl for r in own) / sum(r.n_tokens for r in own))
            assert record.kl_per_token is not None
            assert record.low is not None
            assert record.high is not None
            assert 0 < record.low <= record.kl_per_token <= record.high
        # Less of an edit moves the model less
        part, whole = of_lang["ablation:en@0.5"].kl_per_token, of_lang["ablation:en"].kl_per_token
        assert part is not None
        assert whole is not None
        assert part < whole
    assert "| de | ablation:en |" in first.output
    assert "nan" not in first.output
    text = (out / "costs" / "de.jsonl").read_text()
    assert not any(completion.response in text for completion in RunFolder(out).completions("de") if
                   len(completion.response) > 3)  # fmt: skip

    # A second call computes the missing language alone, and gives the same bytes.
    kept = {path.name: path.read_bytes() for path in (out / "costs").iterdir()} | {
        "costs.jsonl": (out / "costs.jsonl").read_bytes()
    }
    (out / "costs" / "de.jsonl").unlink()
    stamp = (out / "costs" / "en.jsonl").stat().st_mtime_ns
    again = cost(out, model_folder, data_folder, "--limit", "3", "--tokens", "4")
    assert again.exit_code == 0, again.output
    assert (out / "costs" / "en.jsonl").stat().st_mtime_ns == stamp
    assert (out / "costs.jsonl").read_bytes() == kept["costs.jsonl"]
    assert (out / "costs" / "de.jsonl").read_bytes() == kept["de.jsonl"]
    # Other tokens are another measurement.
    more = cost(out, model_folder, data_folder, "--limit", "3", "--tokens", "2", "--langs", "en")
    assert more.exit_code == 0, more.output
    assert {r.limit for r in read_records(AnswerCostRecord, out / "costs" / "en.jsonl")} == {2}


def test_what_cannot_be_measured_is_one_line_before_the_model_is_loaded(
    finished: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    absent = Path("no-such-model")  # would be the error if it were loaded first
    assert "holds no run.json" in refused(tmp_path, absent, data_folder)
    unknown = refused(finished, absent, data_folder, "--langs", "fr")
    assert "no unedited answers to harmless prompts in fr" in unknown
    other = Path(shutil.copytree(data_folder, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "digest": "e" * 64}))
    assert "is not the data of" in refused(finished, absent, other)
    unfinished = Path(shutil.copytree(finished, tmp_path / "unfinished"))
    (unfinished / "summary.json").unlink()
    assert "is not finished" in refused(unfinished, absent, data_folder)
    # The run's own model, but with a system prompt: other numbers
    assert "is not that of" in refused(finished, model_folder, data_folder, "--system", "Be brief.")
    assert not (finished / "costs").exists()


def test_a_record_of_impossible_numbers_is_refused() -> None:
    fields = {"id": "a", "group": "a", "lang": "en", "condition": "ablation:en", "limit": 4, "n_tokens": 2}
    sums = {"kl": 1.0, "first_kl": 0.5, "cross_entropy": 1.0, "unedited_cross_entropy": 1.0}
    prompt = {"n_prompt_tokens": 3, "prompt_cross_entropy": 1.0, "unedited_prompt_cross_entropy": 1.0}
    assert math.isclose(AnswerCostRecord(**{**fields, **sums, **prompt}).kl, 1.0)  # type: ignore[arg-type]
    for lie in ({"first_kl": 2.0}, {"n_tokens": 9}):
        with pytest.raises(ValueError, match=r"first token|tokens were read"):
            AnswerCostRecord(**{**fields, **sums, **prompt, **lie})  # type: ignore[arg-type]
