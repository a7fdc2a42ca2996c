"""`load_dataset` on a build: every way that the README names, and never the rows of an older build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

import polyrefuse_data
from polyrefuse_data.build.loader import FOLDER_VARIABLE, default_folder
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.build.pipeline import BuildResult
from polyrefuse_data.core.errors import BuildError, DatasetFolderError, UnknownNameError

Small = Callable[..., BuildResult]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def texts(folder: Path, lang: str, split: str) -> list[str]:
    return [row.text for row in read_rows(folder, lang, split)]


def test_one_language_and_all(small_build: Path) -> None:
    yoruba = load_dataset(str(small_build), "yo", split="test")
    assert list(yoruba["text"]) == texts(small_build, "yo", "test")
    assert yoruba.features["label"].names == ["harmless", "harmful"]
    everything = load_dataset(str(small_build))
    assert set(everything) == {"train", "validation", "test"}
    wanted = [text for lang in ("en", "ja", "yo") for text in texts(small_build, lang, "test")]
    assert list(everything["test"]["text"]) == wanted


def test_literally_by_the_name_of_the_folder(small_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_build.parent)
    assert load_dataset("small", "ja", split="train").num_rows == 32


def test_the_same_through_the_package(small_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = texts(small_build, "yo", "test")
    assert list(polyrefuse_data.load("yo", split="test", path=small_build)["text"]) == wanted
    monkeypatch.setenv(FOLDER_VARIABLE, str(small_build))
    assert list(polyrefuse_data.load("yo", split="test")["text"]) == wanted
    monkeypatch.delenv(FOLDER_VARIABLE)
    root = small_build.parent / "root"
    shutil.copytree(small_build, root / "builds" / "paper", dirs_exist_ok=True)
    monkeypatch.chdir(root)
    assert list(polyrefuse_data.load("yo", split="test")["text"]) == wanted


def test_a_rebuild_is_never_hidden_by_the_cache(small: Small, tmp_path: Path) -> None:
    folder = small(out=tmp_path / "a" / "same").folder
    first = list(load_dataset(str(folder), "yo", split="test")["text"])
    small(out=folder, seed=5)
    second = list(load_dataset(str(folder), "yo", split="test")["text"])
    assert second == texts(folder, "yo", "test") != first
    other = small(out=tmp_path / "b" / "same", seed=6).folder
    third = list(load_dataset(str(other), "yo", split="test")["text"])
    assert third == texts(other, "yo", "test") != second
    assert list(load_dataset(str(folder), "yo", split="test")["text"]) == second


@pytest.mark.parametrize("digest", [True, False])
def test_without_the_digest_in_the_card_the_cache_would_hide_it(
    small: Small, tmp_path: Path, digest: bool
) -> None:
    """The effect that the digest in every configuration's description prevents."""

    def strip(folder: Path) -> None:
        card = (folder / "README.md").read_text()
        _, head, body = card.split("---\n", 2)
        metadata = yaml.safe_load(head)
        for config in metadata["configs"]:
            if not digest:
                del config["description"]
        del metadata["dataset_info"]  # sizes in bytes tell builds apart, though not always
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n{body}")

    folder = small(out=tmp_path / "same").folder
    strip(folder)
    first = list(load_dataset(str(folder), "yo", split="test")["text"])
    small(out=folder, seed=5)
    strip(folder)
    second = list(load_dataset(str(folder), "yo", split="test")["text"])
    assert first != texts(folder, "yo", "test")
    assert second == (texts(folder, "yo", "test") if digest else first)


def test_what_cannot_be_loaded(
    small: Small, tmp_path: Path, small_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ja'"):
        polyrefuse_data.load("jp", path=small_build)
    with pytest.raises(UnknownNameError, match="language of this build 'zh'"):
        polyrefuse_data.load("zh", path=small_build)
    with pytest.raises(UnknownNameError, match="did you mean 'test'"):
        polyrefuse_data.load("yo", split="tests", path=small_build)
    with pytest.raises(DatasetFolderError, match=r"no manifest\.json"):
        polyrefuse_data.load("yo", path=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetFolderError, match="no build under builds/"):
        polyrefuse_data.load("yo")
    folder = small().folder
    (folder / "yo" / "test.parquet").unlink()
    with pytest.raises(DatasetFolderError, match=r"yo/test\.parquet changed after the build"):
        polyrefuse_data.load("yo", path=folder)
    (folder / "manifest.json").write_text('{"format": "polyrefuse-build-1", "compl')
    with pytest.raises(DatasetFolderError, match="cannot be read"):
        polyrefuse_data.load("yo", path=folder)


def test_the_rows_are_the_folder_s_own_whatever_it_is_called(small: Small, tmp_path: Path) -> None:
    """`load_dataset` reads `exp[1]` as a pattern that stands for `exp1`."""
    folder = small(out=tmp_path / "built").folder
    small(out=tmp_path / "exp1", seed=5)
    odd = folder.rename(tmp_path / "exp[1]")
    assert list(load_dataset(str(odd), "yo", split="test")["text"]) != texts(odd, "yo", "test")
    rows = polyrefuse_data.load("yo", split="test", path=str(odd))
    assert list(rows["text"]) == texts(odd, "yo", "test")
    assert rows.features["label"].names == ["harmless", "harmful"]
    every_split = polyrefuse_data.load(path=odd)
    assert list(every_split) == ["train", "validation", "test"]
    assert every_split["test"].num_rows == 3 * rows.num_rows


@pytest.mark.parametrize("name", ["exp[1]", "a?", "all*", "x::y", "{a}"])
def test_no_build_is_made_where_load_dataset_would_read_a_pattern(
    small: Small, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BuildError, match="as a pattern"):
        small(out=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_build_that_is_loaded_if_none_is_named(
    small_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_build, tmp_path / "builds" / "mine")
    assert default_folder() == Path("builds/mine")
    shutil.copytree(small_build, tmp_path / "builds" / "other")
    with pytest.raises(DatasetFolderError, match=r"several builds: builds/mine, builds/other; name one"):
        default_folder()
    gaps = tmp_path / "builds" / "paper"
    gaps.mkdir()
    manifest = json.loads((small_build / "manifest.json").read_text())
    (gaps / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    shutil.copytree(small_build, tmp_path / "builds" / "sample")
    assert default_folder() == Path("builds/sample"), "a complete build goes before one with gaps"
    monkeypatch.chdir(small_build)
    assert default_folder() == Path()
