"""Review by people: rows as CSV for a spreadsheet, and the corrections back into the memory.

Only the columns `correction`, `who` and `comment` are for people. A key in each row ties it to its id,
language, label and English, so that a correction in a row that was changed, or that belongs to no export, is
refused. Rows without a correction stop nothing, whatever a spreadsheet made of their other cells. Cells that
a spreadsheet would run as a formula are written with an apostrophe before them, which the import takes away.
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

from polyrefuse_data.audit.argilla import UNTOLD, argilla_cells, is_argilla, write_argilla
from polyrefuse_data.audit.review_cells import (
    COLUMNS,
    REQUIRED,
    ReviewError,
    cells_of,
    escape,
    read_review,
    review_row,
    row_key,
    unescape,
)
from polyrefuse_data.audit.review_page import review_page
from polyrefuse_data.audit.review_shown import shown_rows
from polyrefuse_data.audit.worst_rows import WorstRows
from polyrefuse_data.build.package import read_manifest, read_rows
from polyrefuse_data.checks.language import SCRIPT_MAJORITY, LanguageVotes
from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.checks.text import script_share
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE, language
from polyrefuse_data.core.paths import check_output, real_path
from polyrefuse_data.core.schema import LABELS, SPLITS, Row, text_hash
from polyrefuse_data.core.surrogates import REPLACEMENT
from polyrefuse_data.core.unicode_text import LONGEST_TEXT
from polyrefuse_data.translate.memory.store import HUMAN, Entry, TranslationMemory, Translator

_SPREADSHEET_ERROR = regex.compile(r"#\p{Lu}[\p{Lu}/0]*[!?]?|#(?:N/A|DIV/0!)|Err:\d{3}")
"""What a spreadsheet writes in place of a text that it took for a formula, in any language: `#VALUE!`,
`#WERT!`, `#NOM?`, `#ИМЯ?`, `Err:508`."""

_CONTROL = regex.compile(r"[^\P{Cc}\t\r\n]")

LETTERS_TO_IDENTIFY = 20
"""Letters from which the language of a correction is checked: shorter ones may be right in several."""


@dataclass(frozen=True)
class Imported:
    """What an import did: corrections added, corrections that were there already, rows without one."""

    added: int
    same: int
    untouched: int


def export_review(
    folder: Path,
    out: Path,
    flagged: bool,
    langs: Sequence[str] | None = None,
    memory: Path | None = None,
    worst: WorstRows | None = None,
    kind: str | None = None,
) -> int:
    """Write rows of the build in `folder` to `out`; return how many. English rows stay out.

    `kind` is `csv`, `page` (for the browser) or `argilla` (a folder); by default a page if the name of `out`
    ends in `.html`, else CSV. A page and Argilla show back-translations and candidates of the translation
    memory `memory`. `langs` restricts to some languages; each must be
    in the build. With `worst`, only the worst rows of each language are written, the worst first. Raises
    `PolyRefuseError` for what cannot be read or written.
    """
    check_output(out)
    if real_path(folder) in real_path(out).parents:
        raise PolyRefuseError(
            f"'{out}' is inside the build, which may hold only its own files; choose another --out"
        )
    kind = kind or ("page" if out.suffix.lower() == ".html" else "csv")
    if memory is not None and kind == "csv":
        raise PolyRefuseError(
            f"--memory {memory}: only a page (--out FILE.html) and --format argilla show back-translations"
        )
    if kind != "argilla" and out.is_dir():
        raise PolyRefuseError(f"--out {out} is a folder; expected a file, or --format argilla")
    rows = _rows_to_review(folder, flagged, langs)
    if worst is not None:
        rows = worst.of(folder, rows)
    if kind == "argilla":
        write_argilla(out, folder.name, list(shown_rows(rows, memory)))
        return len(rows)
    if kind == "page":
        page = review_page(folder.name, COLUMNS, list(shown_rows(rows, memory)))
        write_bytes(out, page.encode("utf-8"))
        return len(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([escape(cell) for cell in review_row(row).values()] for row in rows)
    write_bytes(out, buffer.getvalue().encode("utf-8-sig"))
    return len(rows)


def _rows_to_review(folder: Path, flagged: bool, langs: Sequence[str] | None) -> list[Row]:
    manifest = read_manifest(folder)
    register_recorded(manifest, folder)
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
    return [
        row
        for lang in there
        for split in SPLITS
        for row in read_rows(folder, lang, split)
        if not flagged or any(row.flags.values())
    ]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A person's correction of one row, and the line of the review file where it stands."""

    line: int
    english: str
    lang: str
    text: str
    note: str


def import_review(
    path: Path, memory_path: Path, who: str | None = None, reviewer: str | None = None
) -> Imported:
    """Add the corrections of a review file to the memory, with who and when; all of them or none.

    Of records of Argilla, those of the user `reviewer` are taken, or of all users, who must not differ.

    Raises `ReviewError` naming every line that is wrong: English that was edited, an id that was not
    exported, a correction that is none, two corrections of the same English.
    """
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    corrections, untouched = _corrections(path, who or _login(), now, reviewer=reviewer)
    entries = [
        Entry(item.english, item.lang, Translator(HUMAN, now), item.text, note=item.note)
        for item in corrections
    ]
    with TranslationMemory(memory_path, create=True) as memory:
        known = {lang: memory.candidates(lang) for lang in {entry.lang for entry in entries}}
        fresh = [
            entry
            for entry in entries
            if not _is_there(known[entry.lang].get((text_hash(entry.english), 0), ()), entry.text)
        ]
        memory.add(fresh)
    return Imported(len(fresh), len(entries) - len(fresh), untouched)


def withdraw_review(path: Path, memory_path: Path, reviewer: str | None = None) -> int:
    """Remove the corrections of a review file from the memory; return how many were there.

    A row is withdrawn where the memory holds exactly its correction; what people corrected otherwise since
    then stays, and so do the translations of machines. Raises `ReviewError` as `import_review` does.
    """
    corrections, _ = _corrections(path, "", "", check_text=False, reviewer=reviewer)
    with TranslationMemory(memory_path) as memory:
        return memory.remove(HUMAN, [(item.english, item.lang, item.text) for item in corrections])


def _corrections(
    path: Path, who: str, when: str, check_text: bool = True, reviewer: str | None = None
) -> tuple[list[Correction], int]:
    """Return the corrections of a review file, one for each English text and language, and the rows without
    one."""
    problems: list[str] = []
    corrections: dict[tuple[str, str], Correction] = {}
    lines_by_row: dict[tuple[str, str], int] = {}
    untouched = 0
    for line, raw in review_cells(path, reviewer):
        if raw["correction"].strip() in ("", UNTOLD):
            untouched += 1
            continue
        cells = {name: _newlines(unescape(value)) for name, value in raw.items()}
        row = (cells["id"], cells["lang"])
        problem = _problem(cells)
        if problem is None and check_text:
            problem = _problem_of_correction(raw["correction"], cells)
        if problem is None and row in lines_by_row:
            problem = f"{cells['id']} in {cells['lang']} stands in line {lines_by_row[row]} already"
        if problem is not None:
            problems.append(f"line {line}: {problem}")
            continue
        lines_by_row[row] = line
        note = {"who": cells["who"].strip() or who, "when": when}
        if cells["comment"].strip():
            note["comment"] = cells["comment"].strip()
        correction = Correction(
            line=line,
            english=cells["text_en"],
            lang=cells["lang"],
            text=cells["correction"].strip(),
            note=json.dumps(note, sort_keys=True, ensure_ascii=False),
        )
        earlier = corrections.setdefault((text_hash(correction.english), correction.lang), correction)
        if earlier.text != correction.text:
            problems.append(
                f"line {line}: the same English has a different correction in line {earlier.line}"
            )
    if problems:
        more = f"; and {len(problems) - 8} more lines" if len(problems) > 8 else ""
        raise ReviewError(f"{path}: nothing was imported; {'; '.join(problems[:8])}{more}")
    return list(corrections.values()), untouched


def _is_there(candidates: Sequence[tuple[Translator, str]], text: str) -> bool:
    return bool(candidates) and candidates[0][0].backend == HUMAN and candidates[0][1] == text


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _problem(cells: dict[str, str]) -> str | None:
    """Return what is wrong with a row that holds a correction; None if nothing is.

    A language that is not known here is taken where the key proves that a build was exported with it.
    """
    exported = cells["key"] == row_key(cells["id"], cells["lang"], cells["label"], cells["text_en"])
    if cells["lang"] == SOURCE_LANGUAGE or (cells["lang"] not in LANGUAGES and not exported):
        known = ", ".join(code for code in LANGUAGES if code != SOURCE_LANGUAGE)
        return f"unknown language '{cells['lang'][:20]}'; expected {known}"
    if cells["label"] not in LABELS:
        return f"label '{cells['label'][:20]}'; expected {' or '.join(LABELS)}"
    if not exported:
        return (
            f"'{cells['id'][:40]}' in {cells['lang']} was not exported with this English and key; "
            "change only the column 'correction', or export again"
        )
    return None


def _problem_of_correction(cell: str, cells: dict[str, str]) -> str | None:
    """Return what keeps a cell from being a translation of the row's English; None if nothing does."""
    text, english, lang = cell.strip(), cells["text_en"], LANGUAGES.get(cells["lang"])
    if text.startswith(("=", "＝")):
        return "the correction is a formula; write the text itself, with an apostrophe before a leading ="
    if _SPREADSHEET_ERROR.fullmatch(text):
        return f"the correction is the spreadsheet's error {text}; format the cell as text and write it again"
    if _CONTROL.search(text):
        return "the correction contains control characters"
    if REPLACEMENT in text:
        return "the correction holds U+FFFD, a character that was lost; save the file as 'CSV UTF-8'"
    if len(text) > LONGEST_TEXT:
        return f"the correction has {len(text)} characters; expected at most {LONGEST_TEXT}"
    letters = regex.findall(r"\p{L}", text)
    if not letters:
        return "the correction contains no letter; leave the cell empty if there is nothing to correct"
    if len(text.split()) >= 3 and text.casefold().split() == english.casefold().split():
        return "the correction is the English text"
    if lang is None:
        return None
    share = script_share(text, lang, english)
    if share is not None and share < SCRIPT_MAJORITY:
        return f"the correction is not in the script of {lang.name} ({', '.join(lang.scripts)})"
    if len(letters) >= LETTERS_TO_IDENTIFY:
        verdict = LanguageVotes().identify(text, lang.code)
        if verdict.score(lang.code) == 0:
            named = next(vote for _, vote in verdict.votes if vote not in (None, lang.code))
            return f"the correction is in '{named}', not in {lang.name}"
    return None


def review_cells(path: Path, reviewer: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, cells) of a review file, whatever divides its columns, as they stand there.

    Of records of Argilla: with the answers of the user `reviewer`, or of all users.
    """
    table = read_review(path)
    if is_argilla(table):
        yield from argilla_cells(table, reviewer)
        return
    if reviewer is not None:
        raise ReviewError(f"--reviewer {reviewer}: {path} holds no records of Argilla; leave the option out")
    absent = [name for name in REQUIRED if name not in table.records[0].values]
    if absent:
        raise ReviewError(
            f"{path}: no column {', '.join(absent)}; expected a file of `polyrefuse review export`"
        )
    for record in table.records:
        yield record.number, cells_of(table, record)


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
