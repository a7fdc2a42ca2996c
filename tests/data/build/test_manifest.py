"""A manifest whose parts are of other types than its readers expect is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyrefuse_data.build.package import read_manifest, read_rows
from polyrefuse_data.core.errors import DatasetFolderError


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda manifest: manifest.update(files=[]), "files: Input should be an object"),
        (lambda manifest: manifest.update(complete=1), "complete: Input should be a valid boolean"),
        (lambda manifest: manifest.pop("digest"), "digest is missing"),
        (lambda manifest: manifest.update(recipe="sample"), "recipe"),
        (lambda manifest: manifest.update(gaps=[{"ids": 3}]), "gaps.0"),
        (lambda manifest: manifest["languages"].update({"\x1b]0;x\x07": {}}), r"languages\..*x1b"),
        (lambda manifest: manifest["languages"].update(en=None), "languages.en"),
        (lambda manifest: manifest["files"]["en/test.parquet"].pop("rows_sha256"), "rows_sha256 of en/test"),
        (lambda manifest: manifest.update(models=[]), "models"),
        (lambda manifest: manifest.update(models={"quality": {"m": [["x"]]}}), "models.quality.m.0"),
        (lambda manifest: manifest["recipe"].update(name="x" * 201), "recipe.name"),
        (lambda manifest: manifest.update(sources=[None]), "sources.0"),
        (lambda manifest: manifest.update(sources={"a": 1}), "sources"),
        (lambda manifest: manifest["files"]["en/test.parquet"].update(rows=-1), "files.en/test.parquet.rows"),
        (lambda manifest: manifest["files"]["en/test.parquet"].update(bytes=10**400), "bytes"),
    ],
)
def test_a_manifest_of_other_types(
    change: Callable[[dict[str, Any]], Any], problem: str, small_build: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_build, tmp_path / "build")
    assert read_manifest(tmp_path / "build")["complete"]
    manifest = json.loads((tmp_path / "build" / "manifest.json").read_text())
    change(manifest)
    (tmp_path / "build" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetFolderError, match=rf"is not the manifest of a build \(.*{problem}"):
        read_manifest(tmp_path / "build")


def test_a_pipe_or_a_device_in_a_build_is_not_read_forever(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    os.mkfifo(tmp_path / "manifest.json")
    (tmp_path / "en" / "test.parquet").symlink_to("/dev/zero")
    with pytest.raises(DatasetFolderError, match=r"manifest\.json cannot be read \(it is not a file\)"):
        read_manifest(tmp_path)
    with pytest.raises(DatasetFolderError, match=r"test\.parquet is not a file"):
        read_rows(tmp_path, "en", "test")
