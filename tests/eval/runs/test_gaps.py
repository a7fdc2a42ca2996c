"""Data with gaps: known before a model is loaded, named at once, and measured on what there is."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as parquet
import pytest
from tiny_runs import run

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.errors import ChatModelError, RunFolderError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.runs.dry_run import check_room
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


def test_a_prompt_that_is_too_long_is_named_before_anything_is_computed(
    data_folder: Path, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = without(data_folder, tmp_path / "long")
    for lang, split in (("en", "test"), ("de", "validation")):
        file = folder / lang / f"{split}.parquet"
        table = parquet.read_table(file)
        texts = table["text"].to_pylist()
        texts[3] = f"{lang} " + "word " * 9000
        parquet.write_table(table.set_column(table.schema.get_field_index("text"), "text", [texts]), file)
    chat = ChatModel.load(str(model_folder), device="cpu")
    monkeypatch.setattr(DirectionFinder, "direction", never)
    with pytest.raises(ChatModelError, match=r"en: the prompt 'en word .*tokens.*; de: the prompt 'de word"):
        run(chat, folder, tmp_path / "run", direction_langs=("en", "de"))


def test_a_full_disk_is_named_before_a_model_is_loaded(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = RunOptions(data=data_folder, langs="en").plan(tmp_path / "run")
    check_room([plan])
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=100_000))
    with pytest.raises(RunFolderError, match=r"the answers may take 238\.7 kB, .* has 97\.7 kB free"):
        check_room([plan])


def never(*_arguments: object, **_keywords: object) -> None:
    raise AssertionError("not to be called")
