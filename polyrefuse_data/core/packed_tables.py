"""Read tables as data sets are published: Parquet and gzip beside the plain text of `reading`."""

from __future__ import annotations

import io
import zlib

from polyrefuse_data.core.reading import FileFormatError, Record, Table, decode, parse_table
from polyrefuse_data.core.surrogates import without_surrogates

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
LARGEST = 2**30
"""Bytes to which a file may unpack: a few bytes can hold gigabytes."""


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
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        sizes = (file.metadata.row_group(index).total_byte_size for index in range(file.num_row_groups))
        _check_size(sum(sizes), source)
        rows = file.read().to_pylist()
    except (ArrowException, OSError) as error:
        problem = str(error).partition("\n")[0]
        raise FileFormatError(f"'{source}' cannot be read as Parquet ({problem}); is it cut?") from None
    if not rows:
        raise FileFormatError(f"'{source}' holds no records; expected prompts")
    records = [Record(number=number, values=without_surrogates(row)) for number, row in enumerate(rows, 1)]
    return Table(source=source, format="Parquet", records=records)


def _unpacked(content: bytes, source: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = unpacker.decompress(content, LARGEST)
    except zlib.error as error:
        raise FileFormatError(f"'{source}' cannot be read as gzip ({error}); is it cut?") from None
    _check_size(len(text) + len(unpacker.unconsumed_tail), source)
    if not unpacker.eof:
        raise FileFormatError(f"'{source}' ends in the middle of its gzip data; is it cut?")
    return text


def _check_size(size: int, source: str) -> None:
    if size > LARGEST:
        raise FileFormatError(f"'{source}' unpacks to more than {LARGEST} bytes; expected prompts")
