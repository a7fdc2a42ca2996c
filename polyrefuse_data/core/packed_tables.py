"""Read tables as data sets are published: Parquet and gzip beside the plain text of `reading`."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

from polyrefuse_data.core.reading import FileFormatError, Record, Table, decode, parse_table
from polyrefuse_data.core.surrogates import without_surrogates

if TYPE_CHECKING:
    import pyarrow as pa

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
LARGEST = 2**30
"""Bytes to which a file may unpack: a few bytes can hold gigabytes."""


MOST_CELLS = 2**24
"""Cells of a Parquet file: equal numbers and truth values take no room in it, and their rows do here."""


def parse_published_table(content: bytes, source: str) -> Table:
    """Return the table that `content` holds: Parquet, or JSON, JSON Lines or CSV, packed with gzip or not.

    The content decides, not the name `source`. Raises `FileFormatError`.
    """
    if content.startswith(PARQUET):
        return _parquet_table(content, source)
    if content.startswith(GZIP):
        content = _unpacked(content, source)
    return parse_table(decode(content, source), source)


def _parquet_table(content: bytes, source: str) -> Table:
    """Return the rows of a Parquet file: columns of texts, lists of texts, numbers and truth values alone."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        metadata = parquet.read_metadata(io.BytesIO(content))
        groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
        _check_size(sum(group.total_byte_size for group in groups), source)
        if metadata.num_rows * metadata.num_columns > MOST_CELLS:
            raise FileFormatError(f"'{source}' has more than {MOST_CELLS:,} cells; expected prompts")
        leaves = (metadata.schema.column(index) for index in range(metadata.num_columns))
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        # a text that stands in every row is stored once, and is kept so until all are counted
        file = parquet.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        named = file.schema_arrow
        table = file.read([field.name for field in named if _is_plain(field.type)])
        _check_size(sum(unpacked_size(column) for column in table.columns), source)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise FileFormatError(f"'{source}' cannot be read as Parquet ({problem}); is it truncated?") from None
    if not rows:
        raise FileFormatError(f"'{source}' holds no records; expected prompts")
    records = [Record(number=number, values=without_surrogates(row)) for number, row in enumerate(rows, 1)]
    return Table(source=source, format="Parquet", records=records)


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type become plain values; some dates have no value in Python."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_dictionary(kind):
        kind = kind.value_type
        kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in tests)


def unpacked_size(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column's values, each counted as often as it stands there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for chunk in column.chunks:
        values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        if isinstance(values, pa.DictionaryArray) and pa.types.is_string(values.type.value_type):
            lengths = pc.cast(pc.binary_length(values.dictionary), pa.int64())
            size += pc.sum(lengths.take(values.indices)).as_py() or 0
        else:
            size += values.nbytes
    return size


def _unpacked(content: bytes, source: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = unpacker.decompress(content, LARGEST)
    except zlib.error as error:
        raise FileFormatError(f"'{source}' cannot be read as gzip ({error}); is it truncated?") from None
    _check_size(len(text) + len(unpacker.unconsumed_tail), source)
    if not unpacker.eof:
        raise FileFormatError(f"'{source}' ends in the middle of its gzip data; is it truncated?")
    return text


def _check_size(size: int, source: str) -> None:
    if size > LARGEST:
        raise FileFormatError(f"'{source}' unpacks to more than {LARGEST} bytes; expected prompts")
