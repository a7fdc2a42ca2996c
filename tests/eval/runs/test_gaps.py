"""Data with gaps: known before a model is loaded, named at once, and measured on what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from tiny_runs import run

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.runs.options import RunOptions


def without(source: Path, target: Path, *gaps: tuple[str, str, str]) -> Path:
    """Copy a build without the rows of some (language, split, label)."""
    shutil.copytree(source, target)
    for lang, split, label in gaps:
        file = target / lang / f"{split}.parquet"
        table = parquet.read_table(file)
        kept = [index for index, value in enumerate(table["label"].to_pylist()) if str(value) != label]
        parquet.write_table(table.take(kept), file)
    return target


@pytest.fixture
def harmless(data_folder: Path) -> str:
    """The value of the column `label` that stands for harmless prompts."""
    table = parquet.read_table(data_folder / "de" / "test.parquet")
    rows = open_data(data_folder).rows("de", "test")
    return str(table["label"].to_pylist()[[row.label for row in rows].index("harmless")])


def test_all_languages_are_those_of_the_data(data_folder: Path) -> None:
    data = open_data(data_folder)
    assert data.select("all") == ["de", "en"]
    assert data.select("en") == ["en"]
    lines: list[str] = []
    plan = RunOptions(data=data_folder, langs="all", directions="en").plan(Path("x"), lines.append)
    assert plan.settings.langs == ("de", "en")


def test_a_language_without_harmless_prompts_is_measured_on_the_harmful_ones(
    data_folder: Path, tmp_path: Path, model_folder: Path, harmless: str
) -> None:
    folder = without(data_folder, tmp_path / "gaps", ("de", "test", harmless))
    lines: list[str] = []
    RunOptions(data=folder, langs="all", directions="en").plan(Path("x"), lines.append)
    assert lines == ["no harmless test prompts in 'de': its rates on harmless prompts will be missing"]
    chat = ChatModel.load(str(model_folder), device="cpu")
    results = run(chat, folder, tmp_path / "run")
    assert {(result.lang, result.label) for result in results} == {
        ("en", "harmful"),
        ("en", "harmless"),
        ("de", "harmful"),
    }
    assert (tmp_path / "run" / "summary.json").is_file()
    assert run(chat, folder, tmp_path / "run") == results


def test_what_a_direction_lacks_is_said_at_once_before_a_model_is_loaded(
    data_folder: Path, tmp_path: Path, harmless: str
) -> None:
    folder = without(
        data_folder, tmp_path / "gaps", ("de", "train", harmless), ("de", "validation", harmless)
    )
    with pytest.raises(
        DatasetFolderError, match="holds no harmless prompts in 'de', split train; no harmless"
    ):
        RunOptions(data=folder, langs="en", directions="en,de", model="/nowhere").plan(Path("x"))
    RunOptions(data=folder, langs="en,de", directions="en", model="/nowhere").plan(Path("x"))
