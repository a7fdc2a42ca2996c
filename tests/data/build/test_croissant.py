"""The Croissant metadata as `mlcroissant` reads it; run in an environment of its own, for it is heavy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from polyrefuse_data.build.package import read_rows
from polyrefuse_data.core.schema import column_names, row_values

mlcroissant = pytest.importorskip("mlcroissant")


def test_it_is_valid(small_build: Path) -> None:
    dataset = mlcroissant.Dataset(small_build / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    # No date of publication: the same build has the same bytes on any day.
    assert [one for one in issues.warnings if "datePublished" not in one] == []


def test_an_error_would_be_seen(small_build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(small_build, folder)
    value = json.loads((folder / "croissant.json").read_text())
    del value["recordSet"][0]["field"][0]["source"]
    value["distribution"][0].pop("encodingFormat")
    (folder / "croissant.json").write_text(json.dumps(value))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(folder / "croissant.json")


def test_its_records_are_the_rows(small_build: Path) -> None:
    records = list(mlcroissant.Dataset(small_build / "croissant.json").records("validation"))
    expected = [
        row_values(row) for lang in ("en", "ja", "yo") for row in read_rows(small_build, lang, "validation")
    ]

    def plain(value: object) -> object:
        return value.decode() if isinstance(value, bytes) else value

    found = [
        {name: plain(record[f"validation/{name}"]) for name in ("id", "lang", "text")} for record in records
    ]
    wanted = [{name: row[name] for name in ("id", "lang", "text")} for row in expected]
    assert sorted(found, key=str) == sorted(wanted, key=str)
    assert set(records[0]) == {f"validation/{name}" for name in column_names()}
