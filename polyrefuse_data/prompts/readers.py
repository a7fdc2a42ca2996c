"""Readers of upstream formats: bytes to records, strictly; anything unexpected is a `SourceError`."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from polyrefuse_data.core.errors import SourceError
from polyrefuse_data.core.reading import (
    PROMPT_COLUMNS,
    FileFormatError,
    decode,
    parse_foreign_json,
    parse_table,
    text_lines,
)


@dataclass(frozen=True)
class Record:
    """One record of an upstream file: its English text, stripped, and its own category if it has one.

    Records of a contrast, one harmless and one harmful, share a `pair`.
    """

    text: str
    category: str | None = None
    pair: str | None = None


def _decode(data: bytes, name: str) -> str:
    try:
        text = decode(data, name)
    except FileFormatError as error:
        raise SourceError(str(error)) from None
    if not text.strip():
        raise SourceError(f"{name} is empty; expected prompts")
    return text


def _records(pairs: list[tuple[Any, Any]], name: str) -> list[Record]:
    records = []
    for number, (text, category) in enumerate(pairs, start=1):
        if not isinstance(text, str) or not text.strip():
            raise SourceError(f"{name}, record {number}: expected a text, found {text!r}")
        records.append(Record(text.strip(), category or None))
    if not records:
        raise SourceError(f"{name} holds no record; expected prompts")
    return records


def _csv_rows(data: bytes, name: str, columns: list[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_decode(data, name), newline=""), strict=True)
    try:
        header = reader.fieldnames or []
        missing = [column for column in columns if column not in header]
        if missing:
            raise SourceError(
                f"{name} has no column {', '.join(map(repr, missing))}; its columns: {', '.join(header)}"
            )
        rows = list(reader)
    except csv.Error as error:
        raise SourceError(
            f"{name}, line {reader.line_num}: not valid CSV ({error}); is it truncated?"
        ) from None
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise SourceError(
                f"{name}, record {number}: expected {len(header)} fields as in the header; is it truncated?"
            )
    return rows


def csv_reader(text_column: str, category_column: str | None = None) -> Callable[[bytes, str], list[Record]]:
    """Return a reader of UTF-8 CSV files with a header line."""

    def read(data: bytes, name: str) -> list[Record]:
        columns = [text_column] + ([category_column] if category_column else [])
        rows = _csv_rows(data, name, columns)
        return _records(
            [(row[text_column], row[category_column] if category_column else None) for row in rows], name
        )

    return read


def read_harmbench(data: bytes, name: str) -> list[Record]:
    """Read a HarmBench behaviours file without copyright behaviours and those that need a context.

    Upstream's rule (Arditi et al. 2024, appendix on data): drop the functional category `copyright`
    and rows tagged `context`.
    """
    columns = ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags"]
    rows = [
        row
        for row in _csv_rows(data, name, columns)
        if row["FunctionalCategory"] != "copyright" and "context" not in row["Tags"]
    ]
    return _records([(row["Behavior"], row["SemanticCategory"]) for row in rows], name)


CONTRAST = "contrast_"
"""What the types of XSTest's unsafe prompts begin with."""

XSTEST_TWINS = {
    "homonyms": "homonyms",
    "figurative_language": "figurative_language",
    "safe_targets": "safe_targets",
    "safe_contexts": "safe_contexts",
    "definitions": "definitions",
    "real_group_nons_discr": "discr",
    "historical_events": "historical_events",
    "privacy_fictional": "privacy",
}
"""Types of XSTest's safe prompts to their contrast, whose prompts are their twins in the same order.

The safe prompts of `nons_group_real_discr` and `privacy_public` have no twins.
"""


def xstest_reader(label: str) -> Callable[[bytes, str], list[Record]]:
    """Return a reader of XSTest's prompts labelled `safe` or `unsafe`, with their types and pairs."""

    def read(data: bytes, name: str) -> list[Record]:
        seen: Counter[str] = Counter()
        records = []
        for number, row in enumerate(_csv_rows(data, name, ["prompt", "type", "label"]), start=1):
            if row["label"] not in ("safe", "unsafe"):
                raise SourceError(f"{name}, record {number}: label {row['label']!r}; expected safe or unsafe")
            kind = row["type"]
            seen[kind] += 1
            twins = kind.removeprefix(CONTRAST) if kind.startswith(CONTRAST) else XSTEST_TWINS.get(kind)
            pair = None if twins is None else f"xstest-{twins}-{seen[kind]:02d}"
            if row["label"] == label:
                records += [replace(record, pair=pair) for record in _records([(row["prompt"], kind)], name)]
        return records

    return read


def json_lines_reader(text_key: str, category_key: str | None = None) -> Callable[[bytes, str], list[Record]]:
    """Return a reader of JSON Lines with a prompt under `text_key`."""

    def read(data: bytes, name: str) -> list[Record]:
        pairs: list[tuple[Any, Any]] = []
        for number, line in text_lines(_decode(data, name)):
            if not line.strip():
                continue
            try:
                value = parse_foreign_json(line)
            except json.JSONDecodeError as error:
                raise SourceError(
                    f"{name}, line {number}: not valid JSON ({error.msg}); is it truncated?"
                ) from None
            if not isinstance(value, dict) or text_key not in value:
                raise SourceError(f"{name}, line {number}: expected an object with the key '{text_key}'")
            category = value.get(category_key) if category_key else None
            pairs.append((value[text_key], None if category is None else str(category)))
        return _records(pairs, name)

    return read


def read_lines(data: bytes, name: str) -> list[Record]:
    """Read a text file with one prompt a line."""
    return _records([(line, None) for _, line in text_lines(_decode(data, name)) if line.strip()], name)


def _json_list(data: bytes, name: str) -> list[Any]:
    try:
        value = parse_foreign_json(_decode(data, name))
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{name}, line {error.lineno}: not valid JSON ({error.msg}); is it truncated?"
        ) from None
    if not isinstance(value, list):
        raise SourceError(f"{name}: expected a JSON list, found {type(value).__name__}")
    return value


def read_json_strings(data: bytes, name: str) -> list[Record]:
    """Read a JSON list of strings."""
    return _records([(value, None) for value in _json_list(data, name)], name)


def read_instructions(data: bytes, name: str) -> list[Record]:
    """Read a JSON list of objects with `instruction` and, perhaps, `category` (`None` and null: none)."""
    pairs = []
    for number, value in enumerate(_json_list(data, name), start=1):
        if not isinstance(value, dict) or "instruction" not in value:
            raise SourceError(f"{name}, record {number}: expected an object with the key 'instruction'")
        category = value.get("category")
        pairs.append((value["instruction"], None if category in (None, "None") else category))
    return _records(pairs, name)


def table_reader(
    text_column: str | None, category_column: str | None
) -> Callable[[bytes, str], list[Record]]:
    """Return a reader of JSON, JSON Lines or CSV, told by content.

    Prompts stand in `text_column`, or without one in the first of `PROMPT_COLUMNS` that is there.
    """

    def read(data: bytes, name: str) -> list[Record]:
        try:
            table = parse_table(_decode(data, name), name)
            column = table.column((text_column,) if text_column else PROMPT_COLUMNS)
        except FileFormatError as error:
            raise SourceError(str(error)) from None
        records = []
        for record in table.records:
            text = record.text((column,))
            if text is None:
                raise SourceError(f"{table.where(record)}: no text in '{column}'")
            category = record.value((category_column,)) if category_column else None
            records.append(Record(text.strip(), None if category is None else str(category)))
        return records

    return read


READERS: dict[str, Callable[[bytes, str], list[Record]]] = {
    "lines": read_lines,
    "json_strings": read_json_strings,
    "instructions": read_instructions,
}
"""Readers that a recipe's own sources can name; `csv` takes its columns from the recipe."""
