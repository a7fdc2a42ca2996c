"""Read the Parquet files of a build that somebody else may have made: typed, and no larger than they seem."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.packed_tables import unpacked_size
from polyrefuse_data.core.schema import LABELS, arrow_schema

MOST_ROWS = 1_000_000
"""Rows of one file; the largest of ours have some hundreds."""

LARGEST_TABLE = 2**28
"""Bytes of one file's values when unpacked: a text that stands in every row is stored once."""


def read_row_table(path: Path, name: str) -> pa.Table:
    """Return the rows of a file of a build, the published columns with their types, and others as they are.

    Raises `DatasetFolderError`, which calls the file `name`, where it is none, has a column of another type,
    lacks a value, or unpacks to more than `LARGEST_TABLE`.
    """
    try:
        if not path.is_file():  # a pipe or a device may be read forever
            raise DatasetFolderError(f"{name} is not a file; build the data set again")
        _check_size(pq.ParquetFile(path).metadata, name)
        texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type)]
        table = pq.ParquetFile(path, read_dictionary=texts).read()
        if sum(unpacked_size(column) for column in table.columns) > LARGEST_TABLE:
            raise DatasetFolderError(_too_large(name))
        table = _typed(table, name)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DatasetFolderError(f"{name} cannot be read ({error}); build the data set again") from None
    return table


def _check_size(metadata: pq.FileMetaData, name: str) -> None:
    """Raise `DatasetFolderError` where a file says itself that it is too large."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > LARGEST_TABLE:
        raise DatasetFolderError(_too_large(name))


def _too_large(name: str) -> str:
    return f"{name} has more than {MOST_ROWS:,} rows or {LARGEST_TABLE:,} bytes, which no build has"


def _typed(table: pa.Table, name: str) -> pa.Table:
    """Return `table` with the types of the published columns; raises what Arrow does where that fails."""
    published = arrow_schema(pairs=True)
    fields = []
    for field in table.schema:
        if field.name in published.names:
            field = published.field(field.name)
            if not field.nullable and table[field.name].null_count:
                raise DatasetFolderError(f"{name} lacks values of '{field.name}'; build the data set again")
        elif pa.types.is_dictionary(field.type):
            field = pa.field(field.name, pa.string())
        elif pa.types.is_nested(field.type):
            raise DatasetFolderError(
                f"{name} has a column '{field.name}' of lists or records, as no build has"
            )
        fields.append(field)
    table = table.cast(pa.schema(fields, table.schema.metadata))
    if "label" in table.column_names:
        labels = table["label"].unique().to_pylist()
        if not set(labels) <= set(range(len(LABELS))):
            raise DatasetFolderError(f"{name} has labels other than 0 and 1; build the data set again")
    return table
