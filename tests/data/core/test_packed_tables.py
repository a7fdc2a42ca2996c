"""Parquet that others made: types without a value in Python, texts and rows that unpack to gigabytes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyrefuse_data.core import packed_tables
from polyrefuse_data.core.packed_tables import parse_published_table
from polyrefuse_data.core.reading import FileFormatError, Table


def read(tmp_path: Path, columns: dict[str, Any]) -> Table:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    return parse_published_table((tmp_path / "a.parquet").read_bytes(), "a.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**62, 0], pa.duration("s")),
        pa.array([2**62, 0], pa.date64()),
        pa.array([2**60, 0], pa.timestamp("ms")),
        pa.array([0, 0], pa.timestamp("s", tz="../../etc")),
    ],
)
def test_a_time_that_python_does_not_know_is_no_traceback(tmp_path: Path, column: pa.Array) -> None:
    table = read(tmp_path, {"prompt": ["a", "b"], "turns": [["c"], ["d", "e"]], "label": [1, 0], "x": column})
    assert [dict(record.values) for record in table.records] == [
        {"prompt": "a", "turns": ["c"], "label": 1},
        {"prompt": "b", "turns": ["d", "e"], "label": 0},
    ]


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(struct.pack("<2i", 0, 1)), pa.py_buffer(b"\xff"))
    with pytest.raises(FileFormatError, match=r"'a\.parquet' cannot be read as Parquet"):
        read(tmp_path, {"prompt": texts})


@pytest.mark.parametrize("repeated", [["y" * 1000] * 2000, [["y" * 1000]] * 2000])
def test_a_text_that_stands_in_every_row_is_counted_in_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeated: list[Any]
) -> None:
    assert len(read(tmp_path, {"prompt": repeated}).records) == 2000
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    monkeypatch.setattr(packed_tables, "LARGEST", 1_000_000)
    with pytest.raises(FileFormatError, match="unpacks to more than 1000000 bytes"):
        read(tmp_path, {"prompt": repeated})


def test_cells_that_take_no_room_in_the_file_are_counted(tmp_path: Path) -> None:
    cells = {name: pa.nulls(packed_tables.MOST_CELLS // 2 + 1, pa.bool_()) for name in "ab"}
    with pytest.raises(FileFormatError, match="more than 16,777,216 cells"):
        read(tmp_path, cells)
