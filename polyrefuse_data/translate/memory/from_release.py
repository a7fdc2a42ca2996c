"""Fill a translation memory: from a published release, or from JSON Lines; and write it out again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonlines

from polyrefuse_data.checks.lists import alignment_findings
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.errors import MemoryFileError, PolyRefuseError
from polyrefuse_data.core.files import replacing
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language
from polyrefuse_data.core.reading import parse_foreign_json
from polyrefuse_data.prompts.published_release import Release, ReleaseList
from polyrefuse_data.translate.memory.store import BACK, FORWARD, Added, Entry, TranslationMemory, Translator

PUBLISHED = "published"
"""The backend name of translations that come from a release: who made them is not recorded there."""

KNOWN_RELEASES = {
    "a68c643d7fcaa149870479b8a64e5ef943e90d055792dfccf90593d68fcd0e63": "Multilingual-Refusal@985169d",
}
"""Digest of a release's translation files -> its version (Wang et al., NeurIPS 2025)."""


@dataclass(frozen=True)
class Refused:
    """A list, or a row of one, that was not taken in, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    version: str
    added: Added
    refused: tuple[Refused, ...]


def import_release(release: Release, memory: TranslationMemory, thresholds: Thresholds) -> Imported:
    """Add what can be trusted of `release` to `memory`, all of it or, on an error, nothing.

    A list without English in its rows is matched by position only if its lengths follow the English; one
    that is not parallel is refused with the reason. Rows without text are refused one by one.
    """
    version = KNOWN_RELEASES.get(release.digest, f"sha256-{release.digest[:12]}")
    translator = Translator(PUBLISHED, version)
    refused: list[Refused] = []
    entries: list[Entry] = []
    for item in release.lists:
        if item.lang == SOURCE_LANGUAGE:
            continue
        reason = _not_parallel(item, thresholds)
        if reason:
            refused.append(Refused(item.file, reason))
            continue
        empty = [row for row, text in zip(item.ids(), item.texts, strict=True) if not text.strip()]
        if empty:
            refused.append(Refused(item.file, f"{len(empty)} rows without text: {', '.join(empty[:5])}"))
        entries += _forward_entries(item, translator)
    given = {(entry.english, entry.lang, entry.text) for entry in entries}
    for (_, _, lang), backs in release.backs.items():
        for back in backs:
            if back.back.strip() and (back.english, lang, back.translation) in given:
                entries.append(Entry(back.english, lang, translator, back.back, BACK, back.translation))
    return Imported(version, memory.add(_unique_backs(entries)), tuple(refused))


def _not_parallel(item: ReleaseList, thresholds: Thresholds) -> str | None:
    known = [
        (english, text) for english, text in zip(item.english, item.texts, strict=True) if english is not None
    ]
    if not known:
        return "the rows carry no English text and no English list was given; give --english DIR"
    alarms = alignment_findings(
        [english for english, _ in known],
        [text for _, text in known],
        item.lang,
        item.label,
        item.split,
        thresholds,
    )
    return alarms[0].message if alarms else None


def _forward_entries(item: ReleaseList, translator: Translator) -> Iterator[Entry]:
    seen: dict[str, int] = {}
    for english, text in zip(item.english, item.texts, strict=True):
        if english is None:
            continue
        occurrence = seen.get(english, 0)
        seen[english] = occurrence + 1
        if text.strip():
            yield Entry(english, item.lang, translator, text, occurrence=occurrence)


def _unique_backs(entries: list[Entry]) -> Iterator[Entry]:
    """Yield entries, each key once: a repeated prompt with one translation has one back-translation."""
    seen = set()
    for entry in entries:
        key = (entry.direction, entry.lang, entry.english, entry.given, entry.occurrence)
        if key not in seen:
            seen.add(key)
            yield entry


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
_REQUIRED = ("english", "lang", "text", "backend", "version")


def export_jsonl(memory: TranslationMemory, path: Path) -> int:
    """Write all entries of `memory` to `path` as JSON Lines, sorted, whole or not at all; return how many."""
    count = 0
    with replacing(path, error=MemoryFileError) as file, jsonlines.Writer(file, sort_keys=True) as writer:
        for entry in memory.entries():
            writer.write(_record(entry))
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
    """Yield the entries of a JSON Lines file; raises `MemoryFileError` naming the line that is wrong."""
    try:
        with jsonlines.open(path, loads=parse_foreign_json) as reader:
            for number, record in enumerate(reader.iter(type=dict), start=1):
                try:
                    yield _entry(record)
                except PolyRefuseError as error:
                    raise MemoryFileError(f"{path}, record {number}: {error}") from None
    except jsonlines.InvalidLineError as error:
        raise MemoryFileError(f"{path}, line {error.lineno}: not a JSON object; is the file cut?") from None
    except UnicodeDecodeError as error:
        raise MemoryFileError(f"{path} is not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise MemoryFileError(f"cannot read {path}: {error.strerror}") from None


def _entry(record: dict[str, Any]) -> Entry:
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
    if record.get("occurrence", 0) < 0:
        raise MemoryFileError(f"occurrence is {record['occurrence']}, expected 0 or more")
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
    """Add the entries of a JSON Lines file to `memory`: all of them, or none if a line is wrong."""
    return memory.add(read_jsonl(path))
