"""What a run writes: signature, completions, verdicts, results; one folder a run, safe to resume."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.jsonfiles import (
    json_line,
    mend_jsonl,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from polyrefuse_eval.locks import LOCK_FILE, locked
from polyrefuse_eval.records import (
    AgreementFile,
    AgreementRecord,
    Comparison,
    Completion,
    Result,
    RunFile,
    Summary,
    VerdictRecord,
)
from polyrefuse_eval.validation import read_record, read_records, record_lines, write_record, write_records

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
RUN_FORMAT = "polyrefuse-run-2"
SUMMARY_FILE = "summary.json"
NOTICE = (
    "This folder holds a language model's answers to harmful requests, some given with its refusal\n"
    "removed. It is measurement material: keep it here, do not publish it.\n"
)

Signature = Mapping[str, Any]
"""Everything that a number depends on: model@revision, template, data digest, judges, versions, settings."""


class RunFolder:
    """A folder of one run: `open` refuses one that was made with other settings."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path, signature: Signature, request: Mapping[str, Any] | None = None) -> RunFolder:
        """Start a run in `path`, or go on with it where its signature is the same.

        `request` is kept beside the signature: what a command was asked for, so that it can tell without
        a model that nothing is left to do. Raises `RunFolderError`, saying what differs or who else is
        writing there, otherwise; nothing is overwritten.
        """
        plain = _plain(signature)
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"'{path}' is a file; choose another --out")
        if not (path / RUN_FILE).is_file() and path.exists() and any(_foreign(path)):
            raise RunFolderError(f"'{path}' is not empty and holds no {RUN_FILE}; choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"'{path}' cannot be made: {error.strerror}; choose another --out") from None
        folder = cls(path)
        with folder.locked():
            if (path / RUN_FILE).is_file():
                folder.check(plain)
            else:
                folder._write_run(RunFile(RUN_FORMAT, plain, None if request is None else _plain(request)))
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the run in `path`; raises `RunFolderError` where there is none."""
        if not (path / RUN_FILE).is_file():
            raise RunFolderError(
                f"'{path}' holds no {RUN_FILE}; make a run with: polyrefuse eval run --out {path}"
            )
        return cls(path)

    def check(self, signature: Signature) -> None:
        """Raise `RunFolderError`, saying what differs, unless this run has `signature`.

        Further judges may have read its answers.
        """
        there, here = self.signature, _plain(signature)
        unread = [judge for judge in here.pop("judges", []) if judge not in there["judges"]]
        differing = differences({key: value for key, value in there.items() if key != "judges"}, here)
        if differing:
            raise RunFolderError(
                f"'{self.path}' was made with other settings ({'; '.join(differing)}); choose another --out"
            )
        if unread:
            raise RunFolderError(
                f"'{self.path}' was judged by others ({', '.join(there['judges']) or 'none'}); let "
                f"{', '.join(unread)} read it with: polyrefuse eval rescore {self.path} --judges NAMES"
            )

    def _write_run(self, run: RunFile) -> None:
        write_record(self.path / RUN_FILE, run)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer for the time of a `with` block; raises `RunFolderError` where another is."""
        with locked(self.path):
            yield

    def _run(self) -> RunFile:
        file = self.path / RUN_FILE
        found = read_json(file).get("format")
        if found != RUN_FORMAT:
            raise RunFolderError(
                f"'{file}' is of the form {found}; expected {RUN_FORMAT}: make it anew with this version"
            )
        return read_record(RunFile, file)

    @property
    def signature(self) -> dict[str, Any]:
        return self._run().signature

    @property
    def request(self) -> dict[str, Any] | None:
        """What the command that made the run was asked for; None where none did."""
        return self._run().request

    def set_judges(self, judges: Sequence[str]) -> None:
        """Note in the signature who has read the completions."""
        run = self._run()
        self._write_run(replace(run, signature={**run.signature, "judges": list(judges)}))

    @property
    def complete(self) -> bool:
        """Whether the run has gone the whole way: the summary is written last."""
        return (self.path / SUMMARY_FILE).is_file()

    def reopen(self) -> None:
        """Take back that the run has gone the whole way: answers are about to come."""
        (self.path / SUMMARY_FILE).unlink(missing_ok=True)

    def languages(self) -> list[str]:
        """Return the languages that there are completions in."""
        return sorted(file.stem for file in (self.path / "completions").glob("*.jsonl"))

    def completions_file(self, lang: str) -> Path:
        """Return where completions in `lang` are."""
        return self.path / "completions" / f"{lang}.jsonl"

    def completions(self, lang: str) -> list[Completion]:
        """Return the completions in `lang` that were written whole."""
        return read_records(Completion, self.completions_file(lang), torn_end=True)

    def write_completions(self, lang: str, completions: Sequence[Completion]) -> None:
        """Write all completions in `lang`, whole or not at all; a notice lies beside them."""
        self._write_notice()
        write_records(self.completions_file(lang), completions)

    def append(self, lang: str, completions: Sequence[Completion]) -> None:
        """Add `completions` with one write, so that a kill leaves at most one torn line.

        A notice lies beside them. What a kill left is to be mended first, with `mend`.
        """
        self._write_notice()
        _append(self.completions_file(lang), completions)

    def _write_notice(self) -> None:
        notice = self.path / "completions" / "NOTICE.txt"
        if not notice.is_file():
            write_text(notice, NOTICE)

    def verdicts_file(self, judge: str, lang: str) -> Path:
        """Return where the verdicts of `judge` on completions in `lang` are."""
        return self.path / "verdicts" / safe_name(judge) / f"{lang}.jsonl"

    def verdicts(self, judge: str, lang: str) -> list[VerdictRecord]:
        """Return the verdicts of `judge` on completions in `lang` that were written whole."""
        return read_records(VerdictRecord, self.verdicts_file(judge, lang), torn_end=True)

    def append_verdicts(self, judge: str, lang: str, verdicts: Sequence[VerdictRecord]) -> None:
        """Add `verdicts` with one write; see `append`."""
        _append(self.verdicts_file(judge, lang), verdicts)

    def mend(self) -> None:
        """Cut off torn last lines that a kill left; only for the one writer, see `locked`."""
        for name in ("completions", "verdicts"):
            for file in (self.path / name).rglob("*.jsonl"):
                mend_jsonl(file)

    def write_results(self, results: Iterable[Result]) -> None:
        write_records(self.path / "results.jsonl", results)

    def results(self) -> list[Result]:
        """Return all results; raises `RunFolderError` where there are none yet."""
        file = self.path / "results.jsonl"
        if not file.is_file():
            raise RunFolderError(f"'{self.path}' has no results yet; run the same command again to go on")
        return read_records(Result, file)

    def write_comparisons(self, comparisons: Iterable[Comparison]) -> None:
        write_records(self.path / "comparisons.jsonl", comparisons)

    def comparisons(self) -> list[Comparison]:
        """Return all comparisons with the baseline, none where they were not made."""
        return read_records(Comparison, self.path / "comparisons.jsonl")

    def write_agreement(self, agreement: Sequence[AgreementRecord]) -> None:
        """Write how far the judges agree; no file where there is nothing to say."""
        file = self.path / "agreement.json"
        if agreement:
            write_record(file, AgreementFile(tuple(agreement)))
        else:
            file.unlink(missing_ok=True)

    def agreement(self) -> tuple[AgreementRecord, ...]:
        """Return how far the judges agree, nothing where only one has read the answers."""
        file = self.path / "agreement.json"
        return read_record(AgreementFile, file).agreement if file.is_file() else ()

    def write_summary(self, summary: Summary) -> None:
        write_record(self.path / SUMMARY_FILE, summary)

    def summary(self) -> Summary | None:
        """Return the summary, None where it was not made."""
        file = self.path / SUMMARY_FILE
        return read_record(Summary, file) if file.is_file() else None


def differences(there: Signature, here: Signature, prefix: str = "") -> list[str]:
    """Return `key: value there, value here` for each entry in which two signatures differ."""
    found = []
    for key in sorted({*there, *here}):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {json.dumps(old)} there, {json.dumps(new)} here")
    return found


def safe_name(judge: str) -> str:
    """Return the name of a judge as a folder may be called."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", judge).strip(".-") or "judge"


def _append(file: Path, records: Sequence[Any]) -> None:
    if not records:
        return
    text = record_lines(records)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)


def _foreign(path: Path) -> Iterator[Path]:
    return (inner for inner in path.iterdir() if inner.name != LOCK_FILE)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
