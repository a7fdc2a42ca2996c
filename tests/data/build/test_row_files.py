"""The Parquet of a stranger's build has our types, and unpacks to no more than a build has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import polyrefuse_data
from polyrefuse_data.build.model import rows_table
from polyrefuse_data.build.package import MANIFEST, read_manifest, read_rows
from polyrefuse_data.build.row_files import read_row_table
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.core.schema import ROW_CHECKS, Row


def row(**changes: Any) -> Row:
    texts = dict.fromkeys(("category", "source_category", "duplicate_of"))
    values = {"id": "harmful-test-0000", "group": "a" * 16, "lang": "de", "text": "Hallo", "text_en": "Hello"}
    values |= {"label": "harmful", "split": "test", "source": "s", "source_licence": "MIT", "translator": "t"}
    return Row(**{**values, **texts, "scores": {ROW_CHECKS[0]: 0.5}, **changes})


def written(folder: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    path = folder / "de" / "test.parquet"
    path.parent.mkdir()
    pq.write_table(change(rows_table([row(), row(id="harmful-test-0001")])), path, compression="zstd")
    return path


def put(name: str, values: list[Any], kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array(values, kind))

    return change


def test_what_was_written_is_read(tmp_path: Path) -> None:
    table = rows_table([row(), row(id="harmful-test-0001")])
    path = written(tmp_path, lambda table: table)
    assert read_row_table(path, "x").equals(table)
    assert [record.id for record in read_rows(tmp_path, "de", "test")] == [
        "harmful-test-0000",
        "harmful-test-0001",
    ]


@pytest.mark.parametrize(
    "change",
    [
        put("text", [["a"], ["b"]], pa.list_(pa.string())),
        put("text", [b"\xff\xfe", b"a"], pa.binary()),
        put("text", [None, "a"], pa.string()),
        put("id", [None, "a"], pa.string()),
        put("label", [-1, 1], pa.int64()),
        put("label", ["harmful", "harmful"], pa.string()),
        put("score_empty", ["much", "more"], pa.string()),
        put("flt_empty", ["maybe", "no"], pa.string()),
        put("score_empty", [{"a": 1}, {"a": 2}], pa.struct([("a", pa.int64())])),
        lambda table: table.drop(["text"]),
        lambda table: table.append_column("image", pa.array([{"path": "/etc/passwd"}] * 2)),
    ],
)
def test_columns_of_other_types_are_one_line(tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = written(tmp_path, change)
    with pytest.raises(DatasetFolderError, match=path.name):
        read_rows(tmp_path, "de", "test")


def test_a_text_that_stands_in_every_row_is_counted_in_every_row(tmp_path: Path) -> None:
    times = 20_000
    values = pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), ["x" * 90_000])
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"text": values}), path, compression="zstd")
    assert path.stat().st_size < 100_000, "small, and 1.8 GB when read"
    before = pa.total_allocated_bytes()
    with pytest.raises(DatasetFolderError, match="which no build has"):
        read_row_table(path, "test.parquet")
    assert pa.total_allocated_bytes() - before < 10**8


def test_what_a_file_says_of_its_columns_is_not_believed(tmp_path: Path, small_build: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(small_build, folder)
    path = folder / "ja" / "test.parquet"
    table = pq.ParquetFile(path).read()
    image = b'{"info": {"features": {"text": {"_type": "Image"}}}}'
    for metadata in ({}, {b"huggingface": b"[]"}, {b"huggingface": image}):
        before = read_manifest(folder)["files"]["ja/test.parquet"]["sha256"]
        pq.write_table(table.replace_schema_metadata(metadata), path)
        text = (folder / MANIFEST).read_text().replace(before, file_sha256(path))
        (folder / MANIFEST).write_text(text)
        rows = polyrefuse_data.load("ja", "test", folder)
        assert rows["text"][0] == table["text"][0].as_py()
