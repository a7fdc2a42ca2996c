"""Records of a run by label and condition: one file each, `LANG/LABEL.CONDITION.jsonl`, whole or absent.

Records of an incomplete condition are in `LANG/LABEL.CONDITION.begun.jsonl` in the order of their arrival.
Reading sorts records by row id, and so does completing a file: neither bytes nor order depend on who wrote
them, when, or in which batches.
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

ConditionRecord = TypeVar("ConditionRecord", Completion, VerdictRecord)


def safe_name(name: str) -> str:
    """Return the name of a judge or condition without characters that a file or an object may not have."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", name).strip(".-") or "judge"


def condition_file_name(label: str, condition: str) -> str:
    """Return the name of a file without its ending, e.g. `harmful.ablation-en@0.5`."""
    return f"{label}.{safe_name(condition)}"


class ConditionFiles(Generic[ConditionRecord]):
    """The files of one kind of record under `path`."""

    def __init__(self, kind: type[ConditionRecord], path: Path) -> None:
        self.kind: type[ConditionRecord] = kind
        self.path = path

    def file(self, lang: str, label: str, condition: str) -> Path:
        """Return the file of a complete condition."""
        return self.path / lang / f"{condition_file_name(label, condition)}{ENDING}"

    def begun_file(self, lang: str, label: str, condition: str) -> Path:
        """Return the file of an incomplete condition."""
        return self.path / lang / f"{condition_file_name(label, condition)}{BEGUN_ENDING}"

    def languages(self) -> list[str]:
        """Return the languages with records, sorted."""
        return sorted({file.parent.name for file in self.path.glob(f"*/*{ENDING}")})

    def read(self, lang: str) -> list[ConditionRecord]:
        """Return the records in `lang` that were written whole, by label, condition, and id of the row."""
        return [record for file in self._files(lang).values() for record in self._records(file)]

    def append(self, lang: str, records: Sequence[ConditionRecord]) -> None:
        """Append `records`, those of each condition with one write: a kill leaves at most one torn line.

        A condition that was complete becomes incomplete.
        """
        for (label, condition), group in by_condition(records).items():
            begun = self.begun_file(lang, label, condition)
            complete = self.file(lang, label, condition)
            if complete.is_file():
                complete.replace(begun)
            text = record_lines(group)
            make_folder(begun.parent, private=True, error=RunFolderError)
            with appending(begun, private=True) as file:
                file.write(text.encode("utf-8"))

    def write(self, lang: str, label: str, condition: str, records: Sequence[ConditionRecord]) -> None:
        """Write all records of a condition, whole or not at all; raises `RunFolderError` for another's."""
        for record in records:
            if (record.lang, record.label, record.condition) != (lang, label, condition):
                raise RunFolderError(
                    f"a record of {record.lang} {record.label} {record.condition} is none of {lang} {label} "
                    f"{condition}"
                )
        make_folder(self.path / lang, private=True, error=RunFolderError)
        write_records(self.file(lang, label, condition), sorted(records, key=_order), private=True)
        self.begun_file(lang, label, condition).unlink(missing_ok=True)

    def finish(self, lang: str, label: str, condition: str) -> None:
        """Sort and rename the file of a condition that has all its records; again, this changes nothing."""
        begun = self.begun_file(lang, label, condition)
        if self.file(lang, label, condition).is_file():
            begun.unlink(missing_ok=True)
        elif begun.is_file():
            self.write(lang, label, condition, self._records(begun))

    def drop(self, lang: str, label: str, condition: str) -> None:
        """Remove the records of a condition."""
        self.file(lang, label, condition).unlink(missing_ok=True)
        self.begun_file(lang, label, condition).unlink(missing_ok=True)

    def mend(self) -> None:
        """Cut off torn last lines that a kill left."""
        for file in self.path.glob(f"*/*{ENDING}"):
            cut_torn_line(file)

    def _files(self, lang: str) -> Mapping[str, Path]:
        """Return the file of each condition by its name, sorted; the complete file where there are two."""
        files: dict[str, Path] = {}
        # In this order `.begun.jsonl` comes before `.jsonl`, which takes its place.
        for file in sorted((self.path / lang).glob(f"*{ENDING}")):
            files[file.name.removesuffix(ENDING).removesuffix(BEGUN_ENDING.removesuffix(ENDING))] = file
        return dict(sorted(files.items()))

    def _records(self, file: Path) -> list[ConditionRecord]:
        begun = file.name.endswith(BEGUN_ENDING)
        records = read_records(self.kind, file, torn_end=begun)
        place = (file.parent.name, file.name.removesuffix(ENDING).removesuffix(".begun"))
        for number, record in enumerate(records, 1):
            if (record.lang, condition_file_name(record.label, record.condition)) != place:
                other = f"{record.lang} {record.label} {record.condition}"
                raise RunFolderError(f"'{file}', record {number} is of another condition: {other}")
        return sorted(records, key=_order)


def by_condition(records: Iterable[ConditionRecord]) -> dict[tuple[str, str], list[ConditionRecord]]:
    """Return `records` of one language by label and condition."""

    def condition(record: ConditionRecord) -> tuple[str, str]:
        return (record.label, record.condition)

    return {key: list(group) for key, group in groupby(sorted(records, key=condition), key=condition)}


def _order(record: Completion | VerdictRecord) -> tuple[str, str]:
    return (record.id, record.key)
