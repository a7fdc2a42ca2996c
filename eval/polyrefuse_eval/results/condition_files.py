"""Records of a run by cell: `LANG/LABEL.CONDITION.jsonl`, one file a cell, whole or not there.

While a cell is at work its records are in `LANG/LABEL.CONDITION.begun.jsonl`, in the order in which they
came. What is read or finished stands in the order of the row ids, so neither the bytes nor the order depend
on who wrote a cell, when, or in which batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeVar

from polyrefuse_data.core.files import make_folder
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.files import appending, cut_torn_line
from polyrefuse_eval.results.records import Completion, VerdictRecord
from polyrefuse_eval.results.validation import read_records, record_lines, write_records

ENDING = ".jsonl"
BEGUN_ENDING = ".begun.jsonl"

CellRecord = TypeVar("CellRecord", Completion, VerdictRecord)


def safe_name(name: str) -> str:
    """Return the name of a judge or of a condition as a file or an object in a store may be called."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", name).strip(".-") or "judge"


def cell_name(label: str, condition: str) -> str:
    """Return the name of a cell's file without its ending, e.g. `harmful.ablation-en@0.5`."""
    return f"{label}.{safe_name(condition)}"


class CellFiles(Generic[CellRecord]):
    """The files of one kind of record under `path`."""

    def __init__(self, kind: type[CellRecord], path: Path) -> None:
        self.kind: type[CellRecord] = kind
        self.path = path

    def file(self, lang: str, label: str, condition: str) -> Path:
        """Return where the records of a cell are once it is done."""
        return self.path / lang / f"{cell_name(label, condition)}{ENDING}"

    def begun_file(self, lang: str, label: str, condition: str) -> Path:
        """Return where the records of a cell are while it is at work."""
        return self.path / lang / f"{cell_name(label, condition)}{BEGUN_ENDING}"

    def languages(self) -> list[str]:
        """Return the languages with records, sorted."""
        return sorted({file.parent.name for file in self.path.glob(f"*/*{ENDING}")})

    def read(self, lang: str) -> list[CellRecord]:
        """Return the records in `lang` that were written whole: by label, condition, and id of the row."""
        return [record for file in self._files(lang).values() for record in self._records(file)]

    def append(self, lang: str, records: Sequence[CellRecord]) -> None:
        """Add `records` to cells at work, each cell's with one write: a kill leaves at most one torn line.

        A cell that was done is at work again.
        """
        for (label, condition), of_cell in by_cell_name(records).items():
            begun = self.begun_file(lang, label, condition)
            done = self.file(lang, label, condition)
            if done.is_file():
                done.replace(begun)
            text = record_lines(of_cell)
            make_folder(begun.parent, private=True, error=RunFolderError)
            with appending(begun, private=True) as file:
                file.write(text.encode("utf-8"))

    def write(self, lang: str, label: str, condition: str, records: Sequence[CellRecord]) -> None:
        """Write all `records` of a cell, whole or not at all; raises `RunFolderError` for another cell's."""
        foreign = [one for one in records if (one.lang, one.label, one.condition) != (lang, label, condition)]
        if foreign:
            one = foreign[0]
            raise RunFolderError(
                f"a record of {one.lang} {one.label} {one.condition} is none of {lang} {label} {condition}"
            )
        make_folder(self.path / lang, private=True, error=RunFolderError)
        write_records(self.file(lang, label, condition), sorted(records, key=_order), private=True)
        self.begun_file(lang, label, condition).unlink(missing_ok=True)

    def finish(self, lang: str, label: str, condition: str) -> None:
        """Rename the file of a cell that has all its records; do nothing where it has its name already."""
        begun = self.begun_file(lang, label, condition)
        if self.file(lang, label, condition).is_file():
            begun.unlink(missing_ok=True)
        elif begun.is_file():
            self.write(lang, label, condition, self._records(begun))

    def drop(self, lang: str, label: str, condition: str) -> None:
        """Remove the records of a cell."""
        self.file(lang, label, condition).unlink(missing_ok=True)
        self.begun_file(lang, label, condition).unlink(missing_ok=True)

    def mend(self) -> None:
        """Cut off torn last lines that a kill left."""
        for file in self.path.glob(f"*/*{ENDING}"):
            cut_torn_line(file)

    def _files(self, lang: str) -> Mapping[str, Path]:
        """Return the file of each cell by its name, sorted; of a cell that is done not the one before."""
        files: dict[str, Path] = {}
        # In this order `.begun.jsonl` comes before `.jsonl`, which takes its place.
        for file in sorted((self.path / lang).glob(f"*{ENDING}")):
            files[file.name.removesuffix(ENDING).removesuffix(BEGUN_ENDING.removesuffix(ENDING))] = file
        return dict(sorted(files.items()))

    def _records(self, file: Path) -> list[CellRecord]:
        begun = file.name.endswith(BEGUN_ENDING)
        records = read_records(self.kind, file, torn_end=begun)
        place = (file.parent.name, file.name.removesuffix(ENDING).removesuffix(".begun"))
        for number, record in enumerate(records, 1):
            if (record.lang, cell_name(record.label, record.condition)) != place:
                cell = f"{record.lang} {record.label} {record.condition}"
                raise RunFolderError(f"'{file}', record {number} is of another cell: {cell}")
        return sorted(records, key=_order)


def by_cell_name(records: Iterable[CellRecord]) -> dict[tuple[str, str], list[CellRecord]]:
    """Return `records` of one language by label and condition."""

    def cell(record: CellRecord) -> tuple[str, str]:
        return (record.label, record.condition)

    return {key: list(of_cell) for key, of_cell in groupby(sorted(records, key=cell), key=cell)}


def _order(record: Completion | VerdictRecord) -> tuple[str, str]:
    return (record.id, record.key)
