"""Review by people: rows as CSV for a spreadsheet, and the corrections back into the memory.

Only the column `correction` is for people; a key in each row ties it to its id, language and English, so
that a row whose English was edited, or that belongs to no export, is refused. Cells that a spreadsheet
would run as a formula are written with an apostrophe before them, which the import takes away again.
"""

from __future__ import annotations

import csv
import datetime
import getpass
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import regex

from polyrefuse_data.build.package import read_manifest, read_rows
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE, language
from polyrefuse_data.core.paths import check_output
from polyrefuse_data.core.schema import LABELS, SPLITS, Row, group_id, text_hash
from polyrefuse_data.translate.memory.store import HUMAN, Entry, TranslationMemory, Translator

COLUMNS = ("id", "lang", "label", "flags", "text_en", "text", "correction", "who", "comment", "group", "key")
"""Columns of a review file; `correction`, `who` and `comment` are for people."""

_FORMULA = regex.compile(r"\A'*[=+\-@\t\r＝＋－＠]")
_ESCAPED = regex.compile(r"\A'+[=+\-@\t\r＝＋－＠]")


_SPREADSHEET_ERRORS = (
    "#NAME?", "#VALUE!", "#REF!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!", "#SPILL!", "#CALC!",
    "Err:501", "Err:502", "Err:504", "Err:508", "Err:509", "Err:510", "Err:511", "Err:512",
)  # fmt: skip
"""What Excel and LibreOffice write in place of a text that they took for a formula."""

_CONTROL = regex.compile(r"[^\P{Cc}\t\r\n]")


class ReviewError(PolyRefuseError):
    """A review file with lines that cannot be taken; each is named by its number."""


@dataclass(frozen=True)
class Imported:
    """What an import did: new corrections, corrections that were there, rows without one."""

    added: int
    same: int
    untouched: int


def escape(text: str) -> str:
    """Return `text` as a cell that no spreadsheet runs: an apostrophe before what looks like a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(cell: str) -> str:
    """Return the text of a cell: the inverse of `escape`."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def row_key(row_id: str, lang: str, label: str, text_en: str) -> str:
    """Return 16 hex digits that tie a row of a review file to what it was exported for."""
    return text_hash("\n".join((row_id, lang, label, text_en)))[:16]


def export_review(folder: Path, out: Path, flagged: bool, langs: Sequence[str] | None = None) -> int:
    """Write rows of the build in `folder` to the CSV file `out`; return how many. English rows stay out.

    `langs` restricts to some languages; each must be in the build.
    """
    check_output(out)
    manifest = read_manifest(folder)
    if not manifest.get("complete"):
        raise PolyRefuseError(f"{folder}: the build is not complete; translate what is missing first")
    built = [lang for lang in manifest["languages"] if lang != SOURCE_LANGUAGE]
    absent = [lang for lang in langs or () if lang not in (*built, SOURCE_LANGUAGE)]
    if absent:
        raise PolyRefuseError(
            f"{folder} holds no {', '.join(absent)}; it holds {', '.join(built) or 'English'}"
        )
    there = built if langs is None else [lang for lang in built if lang in langs]
    for lang in there:
        language(lang)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    count = 0
    for lang in there:
        for split in SPLITS:
            for row in read_rows(folder, lang, split):
                if flagged and not any(row.flags.values()):
                    continue
                writer.writerow(_cells(row))
                count += 1
    write_bytes(out, buffer.getvalue().encode("utf-8-sig"))
    return count


def _cells(row: Row) -> list[str]:
    flags = " ".join(check for check, flag in row.flags.items() if flag)
    values = (row.id, row.lang, row.label, flags, row.text_en, row.text, "", "", "", row.group)
    return [escape(value) for value in values] + [row_key(row.id, row.lang, row.label, row.text_en)]


def import_review(path: Path, memory_path: Path, who: str | None = None) -> Imported:
    """Take the corrections of a review file into the memory, with who and when; all of them or none.

    Raises `ReviewError` naming every line that is wrong: English that was edited, an id that was not
    exported, a row that stands there twice with different corrections.
    """
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    problems: list[str] = []
    entries: dict[tuple[str, str], tuple[int, Entry]] = {}
    seen: dict[tuple[str, str], int] = {}
    untouched = 0
    for number, raw in _read(path):
        cells = {name: _newlines(unescape(value)) for name, value in raw.items()}
        problem = _problem(cells) or _problem_of_correction(raw["correction"], cells["text_en"])
        here = (cells["id"], cells["lang"])
        if problem is None and here in seen:
            problem = f"{cells['id']} in {cells['lang']} stands in line {seen[here]} already"
        if problem is not None:
            problems.append(f"line {number}: {problem}")
            continue
        seen[here] = number
        text = cells["correction"].strip()
        if not text:
            untouched += 1
            continue
        english, lang = cells["text_en"], cells["lang"]
        note = {"who": cells["who"].strip() or who or _login(), "when": now}
        if cells["comment"].strip():
            note["comment"] = cells["comment"].strip()
        entry = Entry(
            english,
            lang,
            Translator(HUMAN, now),
            text,
            note=json.dumps(note, sort_keys=True, ensure_ascii=False),
        )
        other = entries.setdefault((text_hash(english), lang), (number, entry))
        if other[1].text != text:
            problems.append(f"line {number}: the same English is corrected otherwise in line {other[0]}")
    if problems:
        raise ReviewError(
            f"{path}: nothing was taken; {'; '.join(problems[:8])}"
            + (f"; and {len(problems) - 8} lines more" if len(problems) > 8 else "")
        )
    with TranslationMemory(memory_path, create=True) as memory:
        latest = {lang: memory.candidates(lang) for lang in {lang for _, lang in entries}}
        fresh = [
            entry
            for (english_hash, lang), (_, entry) in entries.items()
            if not _is_there(latest[lang].get((english_hash, 0), ()), entry.text)
        ]
        memory.add(fresh)
    return Imported(len(fresh), len(entries) - len(fresh), untouched)


def _is_there(candidates: Sequence[tuple[Translator, str]], text: str) -> bool:
    return bool(candidates) and candidates[0][0].backend == HUMAN and candidates[0][1] == text


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _problem(cells: dict[str, str]) -> str | None:
    """Return what is wrong with a line; None if nothing is."""
    if cells["lang"] not in LANGUAGES or cells["lang"] == SOURCE_LANGUAGE:
        known = ", ".join(code for code in LANGUAGES if code != SOURCE_LANGUAGE)
        return f"unknown language '{cells['lang'][:20]}'; expected {known}"
    if cells["label"] not in LABELS:
        return f"label '{cells['label'][:20]}'; expected {' or '.join(LABELS)}"
    if group_id(cells["text_en"], cells["label"]) != cells["group"]:
        return "its English is not the one that was exported; only the column 'correction' is for changes"
    if row_key(cells["id"], cells["lang"], cells["label"], cells["text_en"]) != cells["key"]:
        return f"unknown id '{cells['id'][:40]}' in {cells['lang']}; the row was not exported so"
    return None


def _problem_of_correction(cell: str, english: str) -> str | None:
    """Return what keeps a cell from being a translation of `english`; None if nothing does."""
    text = cell.strip()
    if text.startswith(("=", "＝")):
        return "the correction is a formula; write the text itself, with an apostrophe before a leading ="
    if text in _SPREADSHEET_ERRORS:
        return f"the correction is the spreadsheet's error {text}; format the cell as text and write it again"
    if set(_CONTROL.findall(text)):
        return "the correction holds control characters"
    if len(text.split()) >= 3 and text.casefold().split() == english.casefold().split():
        return "the correction is the English text"
    return None


def _read(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, cells) of a review file, whatever divides its columns, as they stand there."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ReviewError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ReviewError(f"{path} is not UTF-8 (byte {error.start}); save it as 'CSV UTF-8'") from None
    first = text.partition("\n")[0]
    divider = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=divider, strict=True)
    try:
        header = next(reader, [])
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ReviewError(
                f"{path}: no column {', '.join(missing)}; expected a file of `polyrefuse review export`"
            )
        start = reader.line_num + 1
        for values in reader:
            number, start = start, reader.line_num + 1
            if not any(values):
                continue
            if len(values) != len(header):
                raise ReviewError(f"{path}, line {number}: {len(values)} cells, expected {len(header)}")
            yield number, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ReviewError(f"{path}, line {reader.line_num}: {error}; is a quotation mark open?") from None


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
