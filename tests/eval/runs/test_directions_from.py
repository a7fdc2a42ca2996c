"""Test prompts of one's own, measured with directions from another run, or found on another build."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny import tiny_model, tokenizer

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.leaderboard.reproduction import run_command
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.runs.direction_source import open_direction_source


@pytest.fixture
def test_only(data_folder: Path, tmp_path: Path) -> Path:
    """A build with the test prompts of one language alone."""
    folder = tmp_path / "own"
    shutil.copytree(data_folder, folder)
    shutil.rmtree(folder / "en")
    for split in ("train", "validation"):
        (folder / "de" / f"{split}.parquet").unlink()
    return folder


def run(model: Path, data: Path, out: Path, *more: object) -> Any:
    command = [
        *("run", "--model", model, "--data", data, "--no-filter", "--refusal-tokens", "40,41", "-q"),
        *("--max-new-tokens", 4, "--test", 2, "--strengths", "none", "--crossed", 0, "--out", out, *more),
    ]
    return CliRunner().invoke(eval_group, [str(part) for part in command])


def told(result: Any) -> str:
    assert isinstance(result.exception, PolyRefuseError), (result.output, result.exception)
    return str(result.exception)


def test_prompts_of_ones_own_take_directions_from_a_run_or_a_build(
    model_folder: Path, data_folder: Path, test_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no harmful prompts in 'de', split train" in told(
        run(model_folder, test_only, tmp_path / "x", "--directions", "de")
    )
    whole = run(model_folder, data_folder, tmp_path / "whole", "--langs", "en")
    assert whole.exit_code == 0, whole.output + str(whole.exception)
    own: dict[str, RunFolder] = {}
    for name, source in (("run", tmp_path / "whole"), ("build", data_folder)):
        monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / f"cache-{name}"))
        result = run(model_folder, test_only, tmp_path / name, "--directions-from", source)
        assert result.exit_code == 0, result.output + str(result.exception)
        own[name] = RunFolder(tmp_path / name)
        assert own[name].languages() == ["de"]
        assert own[name].signature["settings"]["directions_from"].startswith(f"{name}:")
    conditions = [{c.condition for c in folder.completions("de")} for folder in own.values()]
    assert conditions[0] == conditions[1] >= {"ablation:en", "addition:shuffled", "ablation:random"}
    vectors = [
        Direction.load(folder.path / "directions" / "en.safetensors").vector for folder in own.values()
    ]
    assert (vectors[0] - vectors[1]).abs().max() < 1e-6
    # The same command again has nothing to do; without the option it is another run.
    again = run(model_folder, test_only, tmp_path / "run", "--directions-from", tmp_path / "whole")
    assert again.exit_code == 0
    line = told(run(model_folder, test_only, tmp_path / "run", "--directions-from", data_folder))
    assert "settings.directions_from" in line


def test_what_cannot_give_directions_is_named_before_a_model_is_loaded(
    model_folder: Path, data_folder: Path, test_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(model_folder, data_folder, tmp_path / "whole", "--langs", "en", "--no-controls")
    assert whole.exit_code == 0, whole.output + str(whole.exception)
    other = tmp_path / "other-model"
    tiny_model("llama", layers=2).save_pretrained(other)
    tokenizer().save_pretrained(other)

    def load(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("the model is not needed")

    monkeypatch.setattr("polyrefuse_eval.models.chat.ChatModel.load", load)

    def line(source: Path, *more: object, model: Path = model_folder) -> str:
        return told(run(model, test_only, tmp_path / "x", "--directions-from", source, *more))

    assert "is not a run (no run.json in it), and as a build: no folder" in line(tmp_path / "none")
    assert "has no direction from de (it has en)" in line(tmp_path / "whole", "--directions", "de")
    assert "no control of the direction of 'en'" in line(tmp_path / "whole")
    assert "of another model (local_revision" in line(tmp_path / "whole", "--no-controls", model=other)
    assert "no harmful prompts in 'de', split train" in line(test_only, "--directions", "de")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({"settings": None}, "data, settings"),
        ({"model": "m"}, "model, data, settings"),
    ],
)
def test_a_run_whose_signature_lacks_a_part_is_one_line(
    change: dict[str, Any], lacking: str, tmp_path: Path
) -> None:
    signature = {name: part for name, part in ({"model": {}} | change).items() if part is not None}
    RunFolder.open(tmp_path / "run", signature)
    with pytest.raises(RunFolderError, match=f"lacks {lacking};"):
        open_direction_source(tmp_path / "run")


def test_without_directions_only_answers_without_edits_are_measured(
    model_folder: Path, data_folder: Path, test_only: Path, tmp_path: Path
) -> None:
    for data in (test_only, data_folder):
        out = tmp_path / f"of-{data.name}"
        measured = run(model_folder, data, out, "--directions", "none")
        assert measured.exit_code == 0, measured.output + str(measured.exception)
        assert {row.condition for row in RunFolder(out).results()} == {"baseline"}
        assert not list(out.rglob("*.safetensors"))
    (listed,), _ = read_runs([tmp_path / f"of-{data_folder.name}"])
    assert "--directions none" in run_command(listed)
    grown = run(
        model_folder, data_folder, tmp_path / f"of-{data_folder.name}", "--directions", "en", "--no-controls"
    )
    assert grown.exit_code == 0, grown.output + str(grown.exception)
    assert "ablation:en" in {
        row.condition for row in RunFolder(tmp_path / f"of-{data_folder.name}").results()
    }
    assert "--directions none" in told(
        run(model_folder, test_only, tmp_path / "x", "--directions", "none", "--directions-from", data_folder)
    )
    assert "none" in told(run(model_folder, data_folder, tmp_path / "x", "--directions", "none,en"))
    assert not (tmp_path / "x").exists()
