"""The command `polyrefuse eval cost` on a run of a tiny model."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from tiny_runs import run

from polyrefuse_data.cli import cli
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.validation import read_records


@pytest.fixture(scope="module")
def finished(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    torch.set_num_threads(1)
    run(ChatModel.load(str(model_folder)), data_folder, out)
    return out


def cost(run_folder: Path, model: Path, data: Path, *more: str) -> Result:
    command = ["eval", "cost", str(run_folder), "--model", str(model), "--data", str(data), "-q", *more]
    return CliRunner().invoke(cli, command)


def refused(run_folder: Path, model: Path, data: Path, *more: str) -> str:
    """Return the one line with which the command refuses."""
    error = cost(run_folder, model, data, *more).exception
    assert isinstance(error, PolyRefuseError)
    return str(error)


def test_every_condition_has_its_cost(
    finished: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
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
