"""Read and write JSON and JSON Lines: whole or not at all, and an invalid line is named by its number."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from polyrefuse_data.core import files
from polyrefuse_data.core.contents import read_file, read_utf8
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.paths import check_output
from polyrefuse_eval.errors import RunFolderError

LOCK_FILE = files.LOCK_FILE

write_text = partial(files.write_text, error=RunFolderError)
appending = partial(files.appending, error=RunFolderError)
cut_torn_line = partial(files.cut_torn_line, error=RunFolderError)
locked = partial(files.locked, error=RunFolderError)


def check_writable(path: Path, error: files.ErrorType = RunFolderError) -> None:
    """Raise `error` where no file or folder can be made at `path`; make nothing.

    For the start of a command, so that no work is done whose result could not be written.
    """
    check_output(path, error=error)
    nearest = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if nearest != path and not nearest.is_dir():
        raise error(f"'{path}' cannot be made: '{nearest}' is a file; choose another --out")
    if not os.access(nearest, os.W_OK):
        raise error(f"'{path}' cannot be written: '{nearest}' is read-only; choose another --out")


def check_new_file(path: Path, error: files.ErrorType = RunFolderError) -> None:
    """Raise `error` where a command that overwrites nothing could not write its result to `path`."""
    if path.exists():
        raise error(f"'{path}' exists and is not overwritten; choose another --out")
    check_writable(path, error)


def json_line(record: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """Return `record` as one line of JSON Lines; `default` converts values that JSON does not know."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False, default=default) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; raises `RunFolderError`."""
    try:
        value = parse_json(read_utf8(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunFolderError(f"'{path}' cannot be read: {reason}") from None
    if not isinstance(value, dict):
        raise RunFolderError(f"'{path}' holds no JSON object")
    return value


def json_text(value: Any) -> str:
    """Return `value` as a file of JSON holds it: indented, with sorted keys."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write `value` to `path`, whole or not at all; `private` is for its owner alone."""
    write_text(path, json_text(value), private=private)


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]], *, private: bool = False) -> None:
    """Write `records` to `path` as JSON Lines, whole or not at all; `private` is for its owner alone."""
    write_text(path, "".join(json_line(record) for record in records), private=private)


def numbered_lines(path: Path, *, torn_end: bool = False) -> list[tuple[int, bytes]]:
    """Return number and bytes of the lines of `path` that are not empty; none where it is missing.

    A last line without its end raises `RunFolderError`, unless `torn_end`: then it is left out,
    since it is still being written, or was when its writer died.
    """
    if not path.is_file():
        return []
    *whole, last = read_content(path).split(b"\n")
    if last and not torn_end:
        raise RunFolderError(
            f"'{path}', line {len(whole) + 1} is cut off; all before it is whole: remove the line, or "
            "make the file again"
        )
    return [(number, line) for number, line in enumerate(whole, 1) if line.strip()]


def read_content(path: Path) -> bytes:
    """Return the bytes of `path`; raises `RunFolderError`, also where it is not a file or too large."""
    try:
        return read_file(path)
    except OSError as error:
        raise RunFolderError(f"'{path}' cannot be read: {error.strerror}") from None


def read_jsonl(path: Path, *, torn_end: bool = False, mend: bool = False) -> list[dict[str, Any]]:
    """Return the objects in `path`, none where it is missing.

    A line that is no JSON object raises `RunFolderError` with its number; `torn_end` as in
    `numbered_lines`, `mend` cuts off a torn end before.
    """
    if mend:
        cut_torn_line(path)
    records = []
    for number, line in numbered_lines(path, torn_end=torn_end):
        try:
            record = parse_json(line)
        except ValueError:
            raise RunFolderError(
                f"'{path}', line {number} is not JSON; remove the line to continue"
            ) from None
        if not isinstance(record, dict):
            raise RunFolderError(f"'{path}', line {number} is not a JSON object")
        records.append(record)
    return records
