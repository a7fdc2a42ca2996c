"""Judge a file of completions: streaming, resumable; what cannot be read is named, not lost."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.files import appending, new_folders, write_text
from polyrefuse_data.core.languages import PUBLISHED_LANGUAGES
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.paths import check_output
from polyrefuse_data.core.progress import Progress
from polyrefuse_data.core.reading import (
    SNIFFED_BYTES,
    FileFormatError,
    decode,
    is_json_lines,
    parse_foreign_json,
    parse_table,
)
from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.answer_formats import flat_records, is_published_form
from polyrefuse_eval.judging.base import Judge, JudgeInput, Measures, Verdict, opened
from polyrefuse_eval.judging.cascade import Cascade, CascadeStatistics, cascade_statistics
from polyrefuse_eval.results.fields import as_note
from polyrefuse_eval.results.folder import json_line, read_json, read_jsonl

REFERENCE = "reference"
"""What the column of the input's own verdicts is called in an agreement table."""

REFERENCE_FIELDS = ("refused", "refusal")
"""Fields of the input that are taken for a reference verdict where none is named."""

EXPECTED = (
    "expected records with lang, response and, optionally, id and prompt, one JSON object a line, or a form "
    "that `polyrefuse eval judge --help` names"
)

_RECORD_FIELDS = {"id", "lang", "line", "judge", *(field.name for field in fields(Verdict))}
"""Fields of a verdict in the output, see `record_of`."""

_CELLS: dict[str, bool | None] = {"true": True, "1": True, "false": False, "0": False, "": None}
"""How a verdict stands in a cell of CSV."""


@dataclass(frozen=True)
class Line:
    """One completion of the file, its line (from 1), and the file's own verdict on it."""

    number: int
    item: JudgeInput
    reference: bool | None = None


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be judged, and why."""

    number: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.problem}"


@dataclass(frozen=True)
class Reading:
    """How the records of a file are read.

    `reference` names the field of a verdict that the file brings, by default `refused` or `refusal`; `lang`
    is the language of records that name none; `langs` are the languages that are known.
    """

    reference: str | None = None
    lang: str | None = None
    langs: Collection[str] = PUBLISHED_LANGUAGES


@dataclass
class Scan:
    """What a file holds: the language of each completion and the file's own verdict on it, in their order,
    how many are without a prompt, bad lines, its digest, and how it was read."""

    reading: Reading = field(default_factory=Reading)
    digest: str = ""
    langs: list[str] = field(default_factory=list)
    references: list[bool | None] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    without_prompt: int = 0

    @property
    def good(self) -> int:
        return len(self.langs)

    @property
    def has_references(self) -> bool:
        return any(value is not None for value in self.references)


@dataclass(frozen=True)
class Column:
    """The verdicts of one judge, or of the reference, in the order of the file."""

    name: str
    measures: Measures
    refused: list[bool | None]
    complied: list[bool | None]


def read_lines(
    path: Path, reading: Reading = Reading(), *, seen: Callable[[bytes], object] | None = None
) -> Iterator[Line | BadLine]:
    """Yield the answers of `path` one by one; blank lines are left out.

    JSON Lines in UTF-8 are read as they come. A list or an object in JSON, CSV, and other encodings are read
    whole; their records take the place of lines. `seen` is told of all bytes as they are read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise JudgeError(f"'{path}' cannot be read: {error.strerror}") from None
    with file:
        if not is_json_lines(file.peek(SNIFFED_BYTES)[:SNIFFED_BYTES]):
            yield from _table_lines(path, file.read(), reading, seen)
            return
        for number, raw in enumerate(file, 1):
            if seen is not None:
                seen(raw)
            if not raw.isspace():
                yield from _lines(number, raw, reading)


def _table_lines(
    path: Path, content: bytes, reading: Reading, seen: Callable[[bytes], object] | None
) -> Iterator[Line | BadLine]:
    """Yield the answers of a file that is not JSON Lines in UTF-8; raises `JudgeError` for no table."""
    if seen is not None:
        seen(content)
    try:
        text = decode(content, path)
        if (whole := _whole_object(text)) is not None:
            for number, flat in enumerate(flat_records(whole), 1):
                yield _line(number, flat, reading)
            return
        table = parse_table(text, str(path))
    except FileFormatError as error:
        raise JudgeError(f"{error}; {EXPECTED}") from None
    for record in table.records:
        values = dict(record.values)
        if table.format == "CSV":
            for name in (reading.reference,) if reading.reference else REFERENCE_FIELDS:
                if name in values:
                    values[name] = _CELLS.get(str(values[name]).strip().lower(), values[name])
        yield from _record_lines(record.number, values, reading)


def _whole_object(text: str) -> dict[str, Any] | None:
    """Return the object that `text` is, where it has one of the published forms of answers."""
    if text.lstrip()[:1] != "{":
        return None
    try:
        value = parse_foreign_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and is_published_form(value) else None


def _lines(number: int, raw: bytes, reading: Reading) -> Iterator[Line | BadLine]:
    """Yield the answers of a line of JSON Lines."""
    try:
        record = parse_foreign_json(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        yield BadLine(number, f"byte 0x{byte:02X} is not UTF-8 (Latin-1 or Windows-1252?); save it as UTF-8")
    except json.JSONDecodeError as error:
        cut = "" if raw.endswith(b"\n") else "; the line does not end: is the file truncated?"
        yield BadLine(number, f"no JSON ({error.msg}){cut}")
    else:
        yield from _record_lines(number, record, reading)


def _record_lines(number: int, record: Any, reading: Reading) -> Iterator[Line | BadLine]:
    """Yield the answers of a record, which is one in most files."""
    if not isinstance(record, dict):
        yield BadLine(number, "no JSON object")
        return
    try:
        for flat in flat_records(record):
            yield _line(number, flat, reading)
    except JudgeError as error:
        yield BadLine(number, str(error))


def _line(number: int, record: dict[str, Any], reading: Reading) -> Line | BadLine:
    identifier = number if record.get("id") is None else record["id"]
    if not isinstance(identifier, str | int):
        return BadLine(number, f"'id' is {_said(identifier)}, expected text")
    lang = reading.lang if record.get("lang") is None else record["lang"]
    if lang is None:
        return BadLine(number, "'lang' is missing; name the language of the answers with --lang")
    for name, value in (("lang", lang), ("response", record.get("response"))):
        if not isinstance(value, str):
            return BadLine(number, f"'{name}' is {_said(value)}, expected text")
    prompt = record.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        return BadLine(number, f"'prompt' is {_said(prompt)}, expected text")
    if lang not in reading.langs:
        return BadLine(number, str(unknown_name("language", lang, reading.langs)))
    names = (reading.reference,) if reading.reference else REFERENCE_FIELDS
    known = next((record[name] for name in names if name in record), None)
    if known not in (None, True, False):
        return BadLine(number, f"the reference is {_said(known)}, expected true, false or null")
    item = JudgeInput(str(identifier), lang, record["response"], prompt)
    return Line(number, item, None if known is None else bool(known))


def _said(value: Any) -> str:
    return "missing" if value is None else json.dumps(value, ensure_ascii=False)[:40]


def langs_of(judges: Sequence[Judge]) -> tuple[str, ...]:
    """Return the languages of lines that `judges` may be given: ours, and those of which one has a file."""
    own = {lang for judge in judges for lang in judge.languages or ()} - set(PUBLISHED_LANGUAGES)
    return (*PUBLISHED_LANGUAGES, *sorted(own))


def good_lines(path: Path, reading: Reading = Reading()) -> Iterator[Line]:
    """Yield the answers of `path` that can be judged."""
    return (line for line in read_lines(path, reading) if isinstance(line, Line))


def scan(path: Path, reading: Reading = Reading()) -> Scan:
    """Read all of `path` once; raises `JudgeError` where nothing in it can be judged."""
    found, digest = Scan(reading), hashlib.sha256()
    for line in read_lines(path, reading, seen=digest.update):
        if isinstance(line, BadLine):
            found.bad.append(line)
        else:
            found.langs.append(sys.intern(line.item.lang))
            found.references.append(line.reference)
            found.without_prompt += not (line.item.prompt or "").strip()
    if not found.good:
        why = f": {found.bad[0]}" if found.bad else "; it is empty"
        raise JudgeError(f"nothing in '{path}' can be judged{why}; {EXPECTED}")
    found.digest = digest.hexdigest()
    return found


def judge_file(
    source: Path, judges: Sequence[Judge], out: Path, *, progress: bool = False, found: Scan | None = None
) -> None:
    """Write to `out` one line for each judge and completion of `source`, judge after judge.

    One judge is loaded at a time. Verdicts are kept in `<out>.partial` as they come: the same call after
    a kill goes on there, and `out` appears when it is whole. Raises `JudgeError` where `out` exists, or
    where the partial file is of another input or other judges.
    """
    check_output(out, error=JudgeError)
    partial, recipe_file = out.with_name(out.name + ".partial"), out.with_name(out.name + ".partial.json")
    if out.exists() and not recipe_file.is_file():
        raise JudgeError(f"'{out}' exists and is not overwritten; choose another --out")
    found = found or scan(source, Reading(langs=langs_of(judges)))
    recipe = {"input_sha256": found.digest, "judges": [judge.name for judge in judges]}
    if found.reading.lang is not None:
        recipe["lang"] = found.reading.lang
    if out.exists():
        if partial.is_file() or read_json(recipe_file) != recipe:
            raise JudgeError(f"'{out}' exists and is not overwritten; choose another --out")
        recipe_file.unlink()  # killed when all was done but this
        return
    with new_folders(out.parent, error=JudgeError):
        if not recipe_file.is_file() or read_json(recipe_file) != recipe:
            if partial.is_file() and partial.stat().st_size:
                raise JudgeError(
                    f"'{partial}' holds verdicts of another input or other judges; remove it, or choose "
                    "another --out"
                )
            text = json.dumps(recipe, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
            write_text(recipe_file, text, private=True, error=JudgeError)
        with appending(partial, private=True, alone=True, error=JudgeError) as file:
            try:
                _judge_rest(source, judges, partial, found, file, progress)
            except BaseException:
                if not partial.stat().st_size:  # nothing to go on with
                    partial.unlink()
                    recipe_file.unlink(missing_ok=True)
                raise
    partial.replace(out)
    recipe_file.unlink()


def _judge_rest(
    source: Path, judges: Sequence[Judge], partial: Path, found: Scan, file: BinaryIO, progress: bool
) -> None:
    """Let each judge read the lines of which `partial` holds no verdict of it; write to `file`, its end."""
    n_lines = found.good
    done = _done(partial, judges, n_lines)
    for index, judge in enumerate(judges):
        start = min(max(done - index * n_lines, 0), n_lines)
        if start == n_lines:
            continue
        with (
            opened(judge),
            Progress(n_lines - start, "verdicts", judge.name if progress else None) as shown,
        ):
            lines = islice(good_lines(source, found.reading), start, None)
            while chunk := list(islice(lines, judge.chunk)):
                verdicts = judge.judge([line.item for line in chunk], shown.advance)
                # One write a chunk: a kill leaves at most one torn line, which is cut off again.
                text = "".join(
                    json_line(record_of(line, judge.name, verdict))
                    for line, verdict in zip(chunk, verdicts, strict=True)
                )
                file.write(text.encode("utf-8"))
                file.flush()


def _done(partial: Path, judges: Sequence[Judge], n_lines: int) -> int:
    """Return how many verdicts `partial` holds; raises `JudgeError` where another is expected."""
    records = read_jsonl(partial, mend=True)
    for number, record in enumerate(records):
        judge = judges[number // n_lines].name if number < n_lines * len(judges) else "no judge"
        known = record.get("judge") == judge and record.keys() == _RECORD_FIELDS
        if not known or any(type(record[name]) not in (bool, type(None)) for name in ("refused", "harmful")):
            raise JudgeError(f"'{partial}', line {number + 1} is not a verdict of {judge}; remove the file")
    return len(records)


def record_of(line: Line, judge: str, verdict: Verdict) -> dict[str, Any]:
    """Return the output line: the completion's id, language and line in the input, and the verdict."""
    return {
        "id": line.item.id,
        "lang": line.item.lang,
        "line": line.number,
        "judge": judge,
        **vars(verdict),
        "reason": as_note(verdict.reason),
    }


def columns(found: Scan, out: Path, judges: Sequence[Judge]) -> list[Column]:
    """Return the verdicts of every judge in `out`, in the order of the completions `found`; with the
    input's own verdicts first where it brings any."""
    columns = [Column(judge.name, judge.measures, [], []) for judge in judges]
    by_name = {column.name: column for column in columns}
    with out.open(encoding="utf-8") as file:
        for text in file:
            record = parse_json(text)
            column = by_name[record["judge"]]
            verdict = Verdict(record["refused"], record["reason"], harmful=record["harmful"])
            column.refused.append(verdict.refused)
            column.complied.append(verdict.complied(column.measures))
    if found.has_references:
        complied = [None if value is None else not value for value in found.references]
        columns.insert(0, Column(REFERENCE, "refusal", found.references, complied))
    return columns


def cascades(out: Path, judges: Sequence[Judge]) -> Iterator[tuple[str, CascadeStatistics]]:
    """Yield what each cascade among `judges` saved, from its verdicts in `out`."""
    for judge in judges:
        if isinstance(judge, Cascade):
            with out.open(encoding="utf-8") as file:
                records = [record for text in file if (record := parse_json(text))["judge"] == judge.name]
            verdicts = [
                Verdict(
                    record["refused"],
                    record["reason"],
                    decided_by=record["decided_by"],
                    second_opinion=record["second_opinion"],
                )
                for record in records
            ]
            statistics = cascade_statistics(verdicts, judge.name)
            if statistics is not None:
                yield judge.name, statistics
