"""An error that can be seen at the start ends a command there: no model is loaded, nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from click import UsageError
from click.testing import CliRunner

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("a model is loaded before the error is seen")

    monkeypatch.setattr("polyrefuse_eval.models.chat.ChatModel.load", load)


@pytest.fixture
def gaps(data_folder: Path, tmp_path: Path) -> Path:
    """A build that has lost the harmless training and the harmful validation prompts of German."""
    folder = tmp_path / "gaps"
    shutil.copytree(data_folder, folder)
    for split, label in (("train", 1), ("validation", 0)):
        file = folder / "de" / f"{split}.parquet"
        table = parquet.read_table(file)
        values = table["label"].to_pylist()
        order = sorted(set(values), key=values.index)  # harmful prompts come first
        parquet.write_table(table.take([i for i, value in enumerate(values) if value != order[label]]), file)
    return folder


def told(*arguments: object) -> str:
    """The one line with which a command ends."""
    result = CliRunner().invoke(eval_group, [str(argument) for argument in arguments])
    if isinstance(result.exception, PolyRefuseError):
        line = str(result.exception)
        assert "\n" not in line
        return line
    assert result.exit_code == UsageError.exit_code, (result.output, result.exception)
    return result.stderr.splitlines()[-1]


OUTPUTS = {
    "run": ("--langs", "en"),
    "extract": (),
    "select": (),
    "harmfulness": ("--langs", "en", "--no-plots"),
    "guard fit": (),
    "guard test": ("--guard", "GUARD"),
    "generate": (),
    "activations": ("--langs", "en"),
    "steered": ("--direction", "GUARD"),
}
ENDINGS = {"activations": ".png", "steered": ".pt"}


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output_that_cannot_be_written(command: str, data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / f"out{ENDINGS.get(command, '')}"
    data = () if command == "steered" else ("--data", data_folder)
    given = [str(tmp_path / "file") if part == "GUARD" else part for part in OUTPUTS[command]]
    line = told(*command.split(), *data, *given, "--out", out)
    assert "is a file; choose another --out" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["run", "extract", "select", "harmfulness"])
def test_a_folder_of_something_else(command: str, data_folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "out" / ("harmfulness" if command == "harmfulness" else "")
    inner.mkdir(parents=True)
    (inner / "thesis.tex").write_text("mine")
    line = told(command, "--data", data_folder, "--langs", "en", "--out", tmp_path / "out")
    assert "is not empty and holds no run.json; choose another --out" in line
    assert [path.name for path in inner.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("extract", "--langs", "en,de"), "no harmless prompts in 'de', split train"),
        (
            ("select", "--langs", "de"),
            "no harmless prompts in 'de', split train; no harmful prompts in 'de', split validation",
        ),
        (("guard", "fit", "--langs", "en,de"), "no harmless prompts in 'de', split train"),
        (
            ("guard", "fit", "--calibrate", "de", "--threshold", "balanced"),
            "no harmful prompts in 'de', split validation",
        ),
        (("harmfulness", "--langs", "en,de"), "no harmless prompts in 'de', split train"),
        (("harmfulness", "--langs", "en", "--directions", "de"), "no harmless prompts in 'de', split train"),
        (("activations",), "no harmless prompts in 'de', split train"),
    ],
)
def test_prompts_that_are_missing(
    command: tuple[str, ...], expected: str, gaps: Path, tmp_path: Path
) -> None:
    assert expected in told(*command, "--data", gaps, "--out", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("guard", "fit", "--threshold", "conformal=0.01"), "needs at least 99 harmful calibration prompts"),
        (("guard", "fit", "--calibrate", "en"), "--calibrate changes nothing with --threshold zero"),
        (("harmfulness", "--directions", "en,de"), "expected own, or one language"),
        (("generate", "--direction", "x"), "--direction changes nothing without --action"),
        (("generate", "--limit", "-1"), "--limit"),
        (("generate", "--temperature", "-1"), "--temperature"),
        (("generate", "--max-new-tokens", "0"), "--max-new-tokens"),
        (("generate", "--action", "ablate", "--direction", "/nowhere"), "no file '/nowhere'"),
        (("activations", "--position", "3"), "--position is '3'; expected t_inst"),
        (("select", "--layers", "4"), "--layers is for --scores"),
    ],
)
def test_options_that_contradict_each_other(
    command: tuple[str, ...], expected: str, data_folder: Path, tmp_path: Path
) -> None:
    assert expected in told(*command, "--data", data_folder, "--out", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("command", ["activations", "steered"])
def test_an_ending_that_means_nothing(command: str, tmp_path: Path) -> None:
    needed = ("--direction", tmp_path / "x") if command == "steered" else ()
    assert "ends in '.doc'; expected" in told(command, *needed, "--out", tmp_path / "out.doc")


@pytest.mark.parametrize("command", [("steered", "--direction"), ("guard", "score", "--guard")])
def test_a_file_that_is_none_of_ours(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("rubbish")
    (tmp_path / "prompts.txt").write_text("a prompt\n")
    more = (tmp_path / "prompts.txt",) if command[0] == "guard" else ("--out", tmp_path / "out.pt")
    assert "is not a safetensors file" in told(*command, tmp_path / "bad", *more)
