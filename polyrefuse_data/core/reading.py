"""Read text and tables that other people wrote: any common encoding, and JSON, JSON Lines or CSV by content.

Every reader of a user's file goes through here, so that an encoding, a stray quotation mark or half an emoji
means the same everywhere: it is read, and `Table.notes` says how, or a `FileFormatError` names the file, the
line and the mend.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyrefuse_data.core.contents import read_file
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.surrogates import without_surrogates

PROMPT_COLUMNS = (
    "prompt", "bad_q", "goal", "behavior", "instruction", "question", "forbidden_prompt", "user_input",
    "query", "request", "turns", "text",
)  # fmt: skip
"""Columns under which data sets of this field publish their prompts, the likeliest first; letter case is
ignored. `turns` holds a list of texts, of which the first is the prompt."""

_LISTABLE = frozenset(PROMPT_COLUMNS) - {"turns"}
"""Columns that hold one text a record, so that a list of them is a whole column."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = ",;\t|"
SNIFFED_BYTES = 4096
_FIELD_LIMIT = 2**31 - 1

RARE = 20
"""One record in so many that spans several lines of a CSV is worth a note: a quotation mark may be open."""


class FileFormatError(PolyRefuseError):
    """A file that cannot be read as text, or not as the table that it should hold."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record of a table: its values by column, and the line (from 1) or record number where it stands."""

    number: int
    values: Mapping[str, Any]

    def value(self, columns: Sequence[str]) -> Any:
        """Return the first value that is there among `columns`, in any letter case; None if none is."""
        folded = {str(name).strip().casefold(): value for name, value in self.values.items()}
        for column in columns:
            value = folded.get(column.casefold())
            if not is_missing(value):
                return value
        return None

    def text(self, columns: Sequence[str]) -> str | None:
        """Return the first text among `columns`; the first item where a column holds a list of texts."""
        for column in columns:
            value = self.value((column,))
            if isinstance(value, list) and value and isinstance(value[0], str):
                value = value[0]
            if isinstance(value, str) and value.strip():
                return value
        return None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The records of a file, the format that it was read as, and what a reader should know of it."""

    source: str
    format: str
    records: list[Record]
    unit: str = "record"
    """What `Record.number` counts: `line` or `record`."""
    notes: list[str] = field(default_factory=list)

    def where(self, record: Record) -> str:
        """Return where `record` stands, as messages name it."""
        return f"'{self.source}', {self.unit} {record.number}"

    def column(self, candidates: Sequence[str] = PROMPT_COLUMNS) -> str:
        """Return the column of the table that comes first in `candidates`; raises `FileFormatError`."""
        present = {str(name).strip().casefold(): str(name) for row in self.records for name in row.values}
        for candidate in candidates:
            if candidate.casefold() in present:
                return present[candidate.casefold()]
        raise FileFormatError(
            f"'{self.source}' has the columns {', '.join(sorted(present.values())) or '(none)'}; expected "
            f"one of {', '.join(candidates)}"
        )


def is_missing(value: Any) -> bool:
    """Return whether a cell holds nothing: null, an empty text, or a NaN as pandas writes it."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip() in ("", "NaN", "nan"))


def decode(content: bytes, source: object, first_line: int = 1) -> str:
    """Return the text of `content`: UTF-8, or UTF-16 and UTF-32 where they say so.

    A byte order mark decides; UTF-16 without one is known by its NUL bytes. Raises `FileFormatError`, with
    the line (the first of `content` is `first_line`), for other encodings and for NUL characters, which no
    text holds.
    """
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + first_line
        if encoding != "utf-8":
            problem = f"'{source}', line {line}: not valid {encoding.upper()}; is it truncated, or not text?"
            raise FileFormatError(problem) from None
        raise FileFormatError(
            f"'{source}', line {line}: byte 0x{content[error.start]:02X} is not UTF-8 "
            "(is the file Latin-1 or Windows-1252?); save it as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + first_line
        raise FileFormatError(f"'{source}', line {line}: a NUL character; is this a text file?")
    return text


def read_text(path: Path) -> str:
    """Return the text of the file at `path`; raises `FileFormatError`."""
    return decode(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Return the content of the file or pipe at `path`; raises `FileFormatError`, also for a device."""
    try:
        if path.is_char_device():  # some have no end
            raise FileFormatError(f"'{path}' is a device; expected a file")
        return read_file(path) if path.is_file() else path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"'{path}' cannot be read: {error.strerror}") from None


def text_lines(text: str, first: int = 1) -> Iterator[tuple[int, str]]:
    """Yield the lines of `text` with their numbers (from `first`), cut at line feeds alone.

    `str.splitlines` would cut a prompt at U+2028, U+0085 or a form feed.
    """
    if text:
        for number, line in enumerate(text.removesuffix("\n").split("\n"), first):
            yield number, line.removesuffix("\r")


def parse_foreign_json(text: str | bytes) -> Any:
    """Return the JSON value of `text` with U+FFFD for each half of a surrogate pair; see `parse_json`."""
    return without_surrogates(parse_json(text))


def read_table(path: Path) -> Table:
    """Return the table in the file at `path`, whatever its name ends in; see `parse_table`."""
    return parse_table(read_text(path), str(path))


def parse_table(text: str, source: str) -> Table:
    """Return the table that `text` holds: JSON, JSON Lines or CSV, told by its content.

    JSON: a list of objects or of texts; an object with one such list (as `jailbreaks` of JailbreakBench's
    artifacts); columns of one length, as lists or as pandas writes them; HarmBench's `{id: [prompts]}`.
    CSV: with a header, divided by comma, semicolon, tab or bar. Half a surrogate pair is read as U+FFFD and
    noted. Raises `FileFormatError` for anything else.
    """
    stripped = text.lstrip()
    if not stripped:
        raise FileFormatError(f"'{source}' is empty; expected JSON, JSON Lines or CSV with prompts")
    if stripped[0] not in "[{":
        return _parse_csv(text, source)
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        if _first_line_is_json(stripped):
            return parse_json_lines(text, source)
        raise FileFormatError(
            f"'{source}', line {error.lineno}: not valid JSON ({error.msg}); is it truncated?"
        ) from None
    except ValueError as error:
        raise FileFormatError(f"'{source}': not valid JSON ({error})") from None
    listed = _json_records(value)
    if listed is not None:
        return _table(source, "JSON", enumerate(listed, 1), "record")
    if isinstance(value, dict) and not any(isinstance(value.get(name), list) for name in _LISTABLE):
        return _table(source, "JSON Lines", [(1, value)], "line")
    raise FileFormatError(
        f"'{source}' is JSON but not a table; expected a list of records, an object with one such "
        "list, columns "
        "of one length, or HarmBench's {id: [prompts]}"
    )


def is_json_lines(start: bytes) -> bool:
    """Return whether a file that begins with `start` is to be read line by line, as JSON Lines in UTF-8.

    It is unless it begins as a JSON list of records, as an indented object, as CSV, or in another encoding.
    """
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    first = text.partition(b"\n")[0].strip()
    is_list = first[:1] == b"[" and first[1:].lstrip()[:1] in (b"", b"{", b'"')
    is_indented = first == b"{"
    is_csv = first[:1] not in (b"", b"{", b"[") and b"\n{" not in text
    return _encoding(start).startswith("utf-8") and not is_list and not is_indented and not is_csv


def _encoding(content: bytes) -> str:
    """Return the encoding: the byte order mark's; without one, every other byte of UTF-16 is often NUL."""
    for mark, name in _BOMS:
        if content.startswith(mark):
            return name
    sample = content[:SNIFFED_BYTES]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if odd > max(len(sample) // 8, 4 * even):
        return "utf-16-le"
    if even > max(len(sample) // 8, 4 * odd):
        return "utf-16-be"
    return "utf-8"


def _first_line_is_json(text: str) -> bool:
    try:
        parse_json(text.partition("\n")[0])
    except ValueError:
        return False
    return True


def parse_json_lines(text: str, source: str, first_line: int = 1) -> Table:
    """Return the table of `text`, a JSON object a line; `first_line` is the number of its first line.

    Raises `FileFormatError`, with the line, for anything else; blank lines are left out.
    """
    numbered = []
    for number, line in text_lines(text, first_line):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise FileFormatError(f"'{source}', line {number}: not valid JSON ({problem})") from None
        if not isinstance(value, dict):
            kind = type(value).__name__
            raise FileFormatError(f"'{source}', line {number}: expected a JSON object, found a {kind}")
        numbered.append((number, value))
    return _table(source, "JSON Lines", numbered, "line")


def _json_records(value: Any) -> list[Mapping[str, Any]] | None:
    """Return the records of a JSON value in one of the shapes of `parse_table`; None for any other."""
    if isinstance(value, list):
        if all(isinstance(record, dict) for record in value):
            return value
        if all(isinstance(record, str) for record in value):
            return [{"prompt": text} for text in value]
        return None
    if not isinstance(value, dict) or not value:
        return None
    columns = {name: _column(column) for name, column in value.items()}
    lists = {name: column for name, column in columns.items() if column is not None}
    if len(lists) == 1:
        (only,) = lists.values()
        if only and all(isinstance(record, dict) for record in only):
            return only
    if any(name.casefold() in _LISTABLE for name in lists):
        if len({len(column) for column in lists.values()}) != 1:
            return None
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if len(lists) == len(columns) and all(
        isinstance(text, str) for texts in lists.values() for text in texts
    ):
        # HarmBench's test cases: behaviour id to a list of prompts.
        return [{"behavior_id": name, "prompt": text} for name, texts in lists.items() for text in texts]
    return None


def _column(value: Any) -> list[Any] | None:
    """Return a column given as a list, or as pandas' object of row numbers; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
        return list(value.values())
    return None


def _parse_csv(text: str, source: str) -> Table:
    header_line = text.lstrip("\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbered: list[tuple[int, Mapping[str, Any]]] = []
    spanning: list[int] = []
    start = 1
    try:
        header = [name.strip() for name in next(reader)]
        if len(set(header)) != len(header):
            raise FileFormatError(
                f"'{source}': two columns have the same name in the header {', '.join(header)}"
            )
        start = reader.line_num + 1
        for cells in reader:
            number, start = start, reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise FileFormatError(
                    f"'{source}', line {number}: {len(cells)} cells, expected {len(header)} as in the "
                    "header; is a quotation mark missing?"
                )
            if start - number > 1:
                spanning.append(number)
            numbered.append((number, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise FileFormatError(
            f"'{source}', line {start}: a quotation mark is unclosed or stray ({error}); double it inside "
            "a quoted cell"
        ) from None
    table = _table(source, "CSV", numbered, "line")
    if spanning and len(spanning) * RARE <= max(len(numbered), RARE):
        table.notes.append(
            f"'{source}': {counted(len(spanning), 'record')} over several lines (the first from line "
            f"{spanning[0]}); if that is wrong, a quotation mark is unclosed"
        )
    return table


def _table(source: str, format_name: str, numbered: Any, unit: str) -> Table:
    """Return a table of (number, values) pairs; half surrogate pairs become U+FFFD, and a note."""
    records, mended = [], 0
    for number, values in numbered:
        clean = without_surrogates(values)
        mended += clean is not values
        records.append(Record(number=number, values=clean))
    if not records:
        raise FileFormatError(f"'{source}' holds no records; expected prompts")
    half = f"'{source}': {counted(mended, 'record')} with half a surrogate pair, read as U+FFFD"
    notes = [half] if mended else []
    return Table(source=source, format=format_name, records=records, unit=unit, notes=notes)
