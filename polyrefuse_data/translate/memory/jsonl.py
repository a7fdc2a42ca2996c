"""A translation memory as JSON Lines: export, and import into another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polyrefuse_data.core.errors import MemoryFileError, PolyRefuseError
from polyrefuse_data.core.files import replacing
from polyrefuse_data.core.languages import language
from polyrefuse_data.core.reading import read_table
from polyrefuse_data.translate.memory.store import BACK, FORWARD, Added, Entry, TranslationMemory, Translator

_KEYS = {
    "english": str,
    "lang": str,
    "direction": str,
    "given": str,
    "text": str,
    "occurrence": int,
    "backend": str,
    "version": str,
    "parameters": str,
    "note": str,
}
MOST_OCCURRENCES = 2**31 - 1
"""More often no text stands in a list, and a larger number does not fit into the memory's table."""

_REQUIRED = ("english", "lang", "text", "backend", "version")


def export_jsonl(memory: TranslationMemory, path: Path) -> int:
    """Write all entries of `memory` to `path` as JSON Lines, sorted; return their number.

    An export that is interrupted leaves the old file.
    """
    count = 0
    with replacing(path, error=MemoryFileError) as file:
        for entry in memory.entries():
            line = json.dumps(_record(entry), ensure_ascii=False, sort_keys=True)
            file.write(f"{line}\n".encode())
            count += 1
    return count


def export_choices(memory: TranslationMemory, path: Path) -> int:
    """Write the candidates of all recorded choices to `path` as JSON Lines; return their number.

    Each line has `english`, `lang`, `occurrence`, `place` (1 was taken), `backend`, `version`, `parameters`,
    `text` and `reason`.
    """
    count = 0
    with replacing(path, error=MemoryFileError) as file:
        for ranked in memory.choices():
            record = {**vars(ranked), **vars(ranked.translator)}
            del record["translator"]
            file.write(f"{json.dumps(record, ensure_ascii=False, sort_keys=True)}\n".encode())
            count += 1
    return count


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "english": entry.english,
        "lang": entry.lang,
        "direction": entry.direction,
        "given": entry.given or entry.english,
        "text": entry.text,
        "occurrence": entry.occurrence,
        "backend": entry.translator.backend,
        "version": entry.translator.version,
        "parameters": entry.translator.parameters,
        **({"note": entry.note} if entry.note else {}),
    }


def read_jsonl(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file; raise `PolyRefuseError` naming the line that is wrong."""
    table = read_table(path)
    for record in table.records:
        try:
            yield _entry(record.values)
        except PolyRefuseError as error:
            raise MemoryFileError(f"{table.where(record)}: {error}") from None


def _entry(record: Mapping[str, Any]) -> Entry:
    for key, value in record.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise MemoryFileError(f"unknown key '{key}'; expected {', '.join(_KEYS)}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise MemoryFileError(f"'{key}' is {value!r:.40}, expected {kind.__name__}")
    missing = [key for key in _REQUIRED if not record.get(key)]
    if missing:
        raise MemoryFileError(f"no {', '.join(missing)}; expected at least {', '.join(_REQUIRED)}")
    direction = record.get("direction", FORWARD)
    if direction not in (FORWARD, BACK):
        raise MemoryFileError(f"direction '{direction}'; expected forward or back")
    if direction == BACK and not record.get("given"):
        raise MemoryFileError("a back-translation without 'given', the text that was translated back")
    if not 0 <= record.get("occurrence", 0) <= MOST_OCCURRENCES:
        raise MemoryFileError(
            f"occurrence is {record['occurrence']}, expected 0 or more, at most {MOST_OCCURRENCES}"
        )
    return Entry(
        english=record["english"],
        lang=language(record["lang"]).code,
        translator=Translator(record["backend"], record["version"], record.get("parameters", "")),
        text=record["text"],
        direction=direction,
        given=record.get("given"),
        occurrence=record.get("occurrence", 0),
        note=record.get("note", ""),
    )


def import_jsonl(path: Path, memory: TranslationMemory) -> Added:
    """Add the entries of a file to `memory`: all of them, or none if a line is wrong."""
    return memory.add(read_jsonl(path))
