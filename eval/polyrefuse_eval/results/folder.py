"""What a run writes: signature, completions, verdicts, results; one folder a run, safe to resume.

Completions and verdicts have one file for each label and condition, see `condition_files`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyrefuse_data.checks.languages_file import recorded
from polyrefuse_data.core.files import LOCK_FILE, PARTIAL_ENDING, WORK_PREFIX, make_folder
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.output_folder import write_together
from polyrefuse_data.core.paths import refuse_linked_folders
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.agreement_records import AgreementFile, AgreementRecord
from polyrefuse_eval.results.condition_files import ConditionFiles, by_condition, safe_name
from polyrefuse_eval.results.files import (
    check_writable,
    json_line,
    locked,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from polyrefuse_eval.results.records import (
    RUN_FORMAT,
    Comparison,
    Completion,
    Result,
    RunFile,
    VerdictRecord,
)
from polyrefuse_eval.results.summary_records import Summary
from polyrefuse_eval.results.validation import (
    read_formatted,
    read_record,
    read_records,
    record_text,
)

__all__ = [
    "Comparison",
    "Completion",
    "Result",
    "RunFolder",
    "Signature",
    "Summary",
    "VerdictRecord",
    "differences",
    "json_line",
    "read_json",
    "read_jsonl",
    "safe_name",
    "write_json",
    "write_jsonl",
    "write_text",
]

RUN_FILE = "run.json"
ANSWERED_FILE = "answered.json"
"""Written when all completions are there: from then on the run does not need its model."""

PRIVATE_FOLDERS = frozenset({"completions", "verdicts"})
"""Folders of a run that are their owner's alone."""

SUMMARY_FILE = "summary.json"
RESULTS_FILE = "results.jsonl"
COMPARISONS_FILE = "comparisons.jsonl"
AGREEMENT_FILE = "agreement.json"
NOTICE = (
    "This folder holds a language model's answers to harmful requests, some given with its refusal\n"
    "removed. It is measurement material: keep it here, do not publish it.\n"
)

Signature = Mapping[str, Any]
"""Everything that a number depends on: model@revision, template, data digest, judges, versions, settings."""


class RunFolder:
    """A folder of one run: `open` refuses one that was made with other settings."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def open(cls, path: Path, signature: Signature, request: Mapping[str, Any] | None = None) -> RunFolder:
        """Start a run in `path`, or resume it where its signature is the same.

        `request` is kept beside the signature, and tells without a model whether anything is missing. Raises
        `RunFolderError` where the signature differs or another process is writing there; nothing is
        overwritten.
        """
        wanted = plain(signature)
        cls.check_place(path)
        make_folder(path, error=RunFolderError)
        folder = cls(path)
        with folder.locked():
            if (path / RUN_FILE).is_file():
                folder.check(wanted)
            else:
                stored = None if request is None else plain(request)
                folder.write_run_file(RunFile(format=RUN_FORMAT, signature=wanted, request=stored))
        return folder

    @classmethod
    def check_place(cls, path: Path) -> None:
        """Raise `RunFolderError` where no run can be in `path`, or holds something else; make nothing."""
        check_writable(path)
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"'{path}' is a file; choose another --out")
        if not (path / RUN_FILE).is_file() and path.exists() and any(_foreign(path)):
            raise RunFolderError(f"'{path}' is not empty and holds no {RUN_FILE}; choose another --out")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the run in `path`; raises `RunFolderError` where there is none."""
        if not (path / RUN_FILE).is_file():
            raise RunFolderError(
                f"'{path}' holds no {RUN_FILE}; expected a folder that `polyrefuse eval run --out` made"
            )
        return cls(path)

    def check(self, signature: Signature) -> None:
        """Raise `RunFolderError`, saying what differs, unless this run has `signature`.

        Further judges may have read its completions.
        """
        there, here = self.signature, plain(signature)
        unread = [judge for judge in here.pop("judges", []) if judge not in self.judges()]
        differing = differences({key: value for key, value in there.items() if key != "judges"}, here)
        if differing:
            raise RunFolderError(
                f"'{self.path}' was made with other settings ({'; '.join(differing)}); choose another --out"
            )
        if unread:
            raise RunFolderError(
                f"'{self.path}' was judged by other judges ({', '.join(self.judges()) or 'none'}); let "
                f"{', '.join(unread)} read it with: polyrefuse eval rescore {self.path} --judges NAMES"
            )

    def write_run_file(self, run: RunFile, *, ended: Sequence[str] = ()) -> None:
        """Write `run.json` with the rows of all own languages of the run that are known here or there.

        Markers that are `ended` by it go with the old file: at no moment does the folder claim more than it
        holds.
        """
        self._write_together({RUN_FILE: _run_text(run)}, ended)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer for the length of a `with` block; raises `RunFolderError` where another is.

        Also raises it for a folder inside that is a link. Answers and verdicts are made private.
        """
        with locked(self.path):
            refuse_linked_folders(self.path, error=RunFolderError)
            for folder in map(self.path.joinpath, PRIVATE_FOLDERS):
                if folder.is_dir():
                    make_folder(folder, private=True, error=RunFolderError)
            yield

    def run_file(self) -> RunFile:
        """Return the signature and the request; raises `RunFolderError` where they cannot be read."""
        return read_formatted(RunFile, self.path / RUN_FILE, RUN_FORMAT)

    @property
    def signature(self) -> dict[str, Any]:
        return self.run_file().signature

    @property
    def request(self) -> dict[str, Any] | None:
        """The request that the run was made for; None where there was none."""
        return self.run_file().request

    def set_judges(self, judges: Sequence[str]) -> None:
        """Write the names of the judges into the signature; the run is incomplete from here on."""
        self.write_run_file(self._judged_by(judges), ended=[SUMMARY_FILE])

    def write_tables(
        self, tables: Mapping[str, str | bytes], summary: Summary, judges: Sequence[str]
    ) -> None:
        """Write `tables`, name to content, the names of the `judges` and, last, `summary`: all or none.

        The run is complete afterwards; after an error, a full disk included, all is as it was.
        """
        run = {} if judges == self.judges() else {RUN_FILE: _run_text(self._judged_by(judges))}
        self._write_together({**tables, **run, SUMMARY_FILE: record_text(summary)}, [SUMMARY_FILE])

    def _judged_by(self, judges: Sequence[str]) -> RunFile:
        run = self.run_file()
        return replace(run, signature={**run.signature, "judges": list(judges)})

    def _write_together(self, files: Mapping[str, str | bytes], ended: Sequence[str]) -> None:
        contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        write_together(self.path, contents, markers=ended, error=RunFolderError)

    @property
    def complete(self) -> bool:
        """Whether the run is complete; the summary is written last."""
        return (self.path / SUMMARY_FILE).is_file()

    def mark_incomplete(self) -> None:
        """Remove the summary, which says that the run is complete."""
        (self.path / SUMMARY_FILE).unlink(missing_ok=True)

    @property
    def _completions(self) -> ConditionFiles[Completion]:
        return ConditionFiles(Completion, self.path / "completions")

    def _verdicts(self, judge: str) -> ConditionFiles[VerdictRecord]:
        return ConditionFiles(VerdictRecord, self.path / "verdicts" / safe_name(judge))

    def languages(self) -> list[str]:
        """Return the languages that have completions."""
        return self._completions.languages()

    def completions_file(self, lang: str, label: str, condition: str) -> Path:
        """Return the file of a condition's completions once they are complete."""
        return self._completions.file(lang, label, condition)

    def completions(self, lang: str) -> list[Completion]:
        """Return the completions in `lang` that were written whole, by label, condition and row id."""
        return self._completions.read(lang)

    def write_completions(self, lang: str, completions: Sequence[Completion]) -> None:
        """Replace all completions in `lang`, those of each condition whole or not at all."""
        groups = by_condition(completions)
        for label, condition in by_condition(self.completions(lang)).keys() - groups.keys():
            self._completions.drop(lang, label, condition)
        for (label, condition), group in groups.items():
            self.write_condition(lang, label, condition, group)

    def write_condition(
        self, lang: str, label: str, condition: str, completions: Sequence[Completion]
    ) -> None:
        """Write all completions of a condition, whole or not at all, and a notice beside them."""
        self._write_notice()
        self._completions.write(lang, label, condition, completions)

    def append(self, lang: str, completions: Sequence[Completion]) -> None:
        """Append `completions`, those of each condition with one write: a kill leaves one torn line.

        Call `mend` before the first, and `finish_completions` after the last of a condition. A notice is
        written beside them.
        """
        self._write_notice()
        self._completions.append(lang, completions)

    def finish_completions(self, lang: str, label: str, condition: str) -> None:
        """Sort and rename the file of a condition whose completions are all there.

        The bytes are those of `write_condition`. A second call changes nothing.
        """
        self._completions.finish(lang, label, condition)

    def _write_notice(self) -> None:
        notice = self.path / "completions" / "NOTICE.txt"
        if not notice.is_file():
            make_folder(notice.parent, private=True, error=RunFolderError)
            write_text(notice, NOTICE, private=True)

    def verdicts_file(self, judge: str, lang: str, label: str, condition: str) -> Path:
        """Return the file of the verdicts of `judge` on a condition once they are complete."""
        return self._verdicts(judge).file(lang, label, condition)

    def verdicts(self, judge: str, lang: str) -> list[VerdictRecord]:
        """Return the verdicts of `judge` in `lang` that were written whole, in the order of completions."""
        verdicts = self._verdicts(judge).read(lang)
        for verdict in verdicts:
            if verdict.judge != judge:
                place = self._verdicts(judge).path
                raise RunFolderError(
                    f"'{place}', {lang} {verdict.key}: a verdict of another judge, {verdict.judge}"
                )
        return verdicts

    def judges(self) -> list[str]:
        """Return the judges that the signature names."""
        return list(self.signature.get("judges", []))

    def judged_languages(self, judge: str) -> list[str]:
        """Return the languages in which there are verdicts of `judge`."""
        return self._verdicts(judge).languages()

    def append_verdicts(self, judge: str, lang: str, verdicts: Sequence[VerdictRecord]) -> None:
        """Append `verdicts`, those of each condition with one write; see `append`."""
        self._verdicts(judge).append(lang, verdicts)

    def finish_verdicts(self, judge: str, lang: str, label: str, condition: str) -> None:
        """Sort and rename the file of a condition that `judge` has read; see `finish_completions`."""
        self._verdicts(judge).finish(lang, label, condition)

    def write_verdicts(self, judge: str, lang: str, verdicts: Sequence[VerdictRecord]) -> None:
        """Write the verdicts of `judge` in `lang`, those of each condition whole or not at all."""
        for (label, condition), group in by_condition(verdicts).items():
            self._verdicts(judge).write(lang, label, condition, group)

    def drop_verdicts(self, judge: str, lang: str, label: str, condition: str) -> None:
        """Remove the verdicts of `judge` on a condition."""
        self._verdicts(judge).drop(lang, label, condition)

    def mend(self) -> None:
        """Cut off torn last lines that a kill left; for the one writer, see `locked`."""
        self._completions.mend()
        for judge in (self.path / "verdicts").glob("*"):
            ConditionFiles(VerdictRecord, judge).mend()

    def results(self) -> list[Result]:
        """Return all results; raises `RunFolderError` where there are none yet."""
        file = self.path / RESULTS_FILE
        if not file.is_file():
            raise RunFolderError(f"'{self.path}' has no results yet; run the same command again to resume")
        return read_records(Result, file)

    def comparisons(self) -> list[Comparison]:
        """Return all comparisons with the baseline, none where they were not made."""
        return read_records(Comparison, self.path / COMPARISONS_FILE)

    def agreement(self) -> tuple[AgreementRecord, ...]:
        """Return how far the judges agree, nothing where only one has read the answers."""
        file = self.path / AGREEMENT_FILE
        return read_record(AgreementFile, file).agreement if file.is_file() else ()

    def summary(self) -> Summary | None:
        """Return the summary, None where it was not made."""
        file = self.path / SUMMARY_FILE
        return read_record(Summary, file) if file.is_file() else None


def differences(there: Signature, here: Signature, prefix: str = "") -> list[str]:
    """Return `key: value there, value here` for each entry in which two signatures differ."""
    differing: list[str] = []
    for key in sorted({*there, *here}):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differing += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            differing.append(f"{prefix}{key}: {json.dumps(old)} there, {json.dumps(new)} here")
    return differing


def _foreign(path: Path) -> Iterator[Path]:
    """Yield what is in `path` besides the lock and what killed processes left."""
    for inner in path.iterdir():
        if not (
            inner.name == LOCK_FILE or inner.suffix == PARTIAL_ENDING or inner.name.startswith(WORK_PREFIX)
        ):
            yield inner


def _run_text(run: RunFile) -> str:
    return record_text(replace(run, own_languages=_own_languages(run)))


def _own_languages(run: RunFile) -> tuple[dict[str, Any], ...]:
    settings = run.signature.get("settings") or {}
    langs = [lang for name in ("langs", "direction_langs") for lang in settings.get(name) or ()]
    rows = {str(row.get("code")): row for row in run.own_languages}
    rows |= {row["code"]: row for row in recorded([lang for lang in langs if lang in LANGUAGES])}
    return tuple(plain(rows[code]) for code in sorted(rows))


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` as JSON gives it back: lists for tuples, dictionaries for mappings."""
    record: dict[str, Any] = json.loads(json.dumps(value))
    return record
