"""Records on disk: checked against their dataclass when written and when read, the bad line named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from polyrefuse_data.core.parsing import first_problem
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.files import json_line, json_text, numbered_lines, read_json, write_text

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Of a record: every field known, of its very type, and every number a number."""

Record = TypeVar("Record")


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_adapter(kind).json_schema(),
    }


def record_lines(records: Sequence[Any]) -> str:
    """Return dataclass `records` as JSON Lines; raises `RunFolderError` for one that breaks its schema."""
    # `asdict` copies all that it meets: of the hundred thousands of a run, longer work than judging them
    lines = [json_line(vars(record), default=asdict) for record in records]
    for record, line in zip(records, lines, strict=True):
        _validated(type(record), line, "a record to be written")
    return "".join(lines)


def write_records(path: Path, records: Iterable[Any], *, private: bool = False) -> None:
    """Write dataclass `records` as JSON Lines, valid and whole or not at all; see `files.replacing`."""
    write_text(path, record_lines(list(records)), private=private)


def read_records(kind: type[Record], path: Path, *, torn_end: bool = False) -> list[Record]:
    """Return the records of `path`, none where it is missing.

    A line that is no such record raises `RunFolderError` with its number and what is wrong;
    `torn_end` as in `jsonfiles.numbered_lines`.
    """
    return [
        _validated(kind, line, f"'{path}', line {number}")
        for number, line in numbered_lines(path, torn_end=torn_end)
    ]


def write_record(path: Path, record: Any, *, private: bool = False) -> None:
    """Write one dataclass `record` as a JSON file, valid and whole or not at all; see `files.replacing`."""
    write_text(path, record_text(record), private=private)


def record_text(record: Any) -> str:
    """Return one dataclass `record` as a JSON file; raises `RunFolderError` if it breaks its schema."""
    value = asdict(record)
    _validated(type(record), json.dumps(value, allow_nan=False), "a record to be written")
    return json_text(value)


def read_record(kind: type[Record], path: Path) -> Record:
    """Return the record in a JSON file; raises `RunFolderError` with what is wrong."""
    return _validated(kind, json.dumps(read_json(path)), f"'{path}'")


def read_formatted(kind: type[Record], path: Path, expected: str) -> Record:
    """Return the record in a JSON file of format `expected`; raises `RunFolderError` for any other."""
    stated = read_json(path).get("format")
    if stated != expected:
        raise RunFolderError(
            f"'{path}' is of the form {stated}; expected {expected}: make it again with this version"
        )
    return read_record(kind, path)


def json_value(record: Any) -> Any:
    """Return a dataclass `record` as plain JSON, its keys in the order of the file that holds it."""
    return json.loads(json.dumps(asdict(record), sort_keys=True))


def _validated(kind: type[Record], text: str | bytes, where: str) -> Record:
    try:
        record: Record = _adapter(kind).validate_json(text)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise RunFolderError(f"{where} is not JSON; remove the line to continue") from None
        raise RunFolderError(f"{where} is no {kind.__name__} record ({first_problem(error)})") from None
    return record
