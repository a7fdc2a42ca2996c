"""Read prompts from a stream as they arrive, so that the first is scored before the last is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BufferedIOBase

from polyrefuse_data.core.reading import decode, parse_json_lines
from polyrefuse_eval.results.user_prompts import (
    STANDARD_INPUT,
    UserPrompt,
    read_prompts,
    table_prompts,
    text_prompts,
)

READ_BYTES = 2**16
"""Bytes that are read at a time: what a pipe holds on Linux."""

BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def stream_prompts(stream: BufferedIOBase) -> Iterator[list[UserPrompt]]:
    """Yield the prompts of `stream` in parts: those of the lines that arrived since the last part was taken.

    The stream holds what `read_prompts` reads without a file name. What is not one prompt a line (JSON over
    several lines, UTF-16) is one part, once the stream has ended. Raises `GuardError` or `FileFormatError` as
    `read_prompts` does, with the line, when it comes to the part.
    """
    waiting, first_line, is_json = b"", 1, False
    while chunk := stream.read1(READ_BYTES):
        waiting += chunk
        lines, _, rest = waiting.rpartition(b"\n")
        if not lines.strip() or (first_line == 1 and not _stands_in_lines(lines)):
            continue
        if first_line == 1:
            is_json = lines.lstrip().startswith(b"{")
        yield _prompts(lines, is_json, first_line)
        first_line += lines.count(b"\n") + 1
        waiting = rest
    if first_line == 1:
        yield read_prompts(None, waiting)
    elif waiting:
        yield _prompts(waiting, is_json, first_line)


def _prompts(lines: bytes, is_json: bool, first_line: int) -> list[UserPrompt]:
    """Return the prompts of whole `lines`, the first of which has the number `first_line`."""
    text = decode(lines, STANDARD_INPUT, first_line)
    if is_json:
        return table_prompts(parse_json_lines(text, STANDARD_INPUT, first_line))
    return text_prompts(text, STANDARD_INPUT, first_line)


def _stands_in_lines(start: bytes) -> bool:
    """Return whether a stream that begins with the whole lines `start` has one prompt in each line."""
    if start.startswith(BYTE_ORDER_MARKS) or b"\0" in start:
        return False
    line = start.strip().partition(b"\n")[0]
    if not line.startswith(b"{"):
        return True
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return not any(isinstance(value, list) for value in record.values())
