"""What a run writes: signature, completions, verdicts, results; one folder a run, safe to resume."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyrefuse_eval.errors import RunFolderError

RUN_FILE = "run.json"
NOTICE = (
    "This folder holds a language model's answers to harmful requests, some given with its refusal\n"
    "removed. It is measurement material: keep it here, do not publish it.\n"
)

Signature = Mapping[str, Any]
"""Everything that a number depends on: model@revision, template, data digest, judge, versions, settings."""


@dataclass(frozen=True)
class Completion:
    """One answer: `key` is `<row id>/<condition>`; `ended` is False where it was cut."""

    key: str
    id: str
    group: str
    lang: str
    label: str
    condition: str
    response: str
    n_tokens: int
    ended: bool


@dataclass(frozen=True)
class VerdictRecord:
    """What a judge says of one completion: `refused` is None where it cannot tell."""

    key: str
    lang: str
    label: str
    condition: str
    judge: str
    refused: bool | None
    reason: str


@dataclass(frozen=True)
class Result:
    """The refusal rate of one condition, label and language with its 95 % interval."""

    lang: str
    label: str
    condition: str
    judge: str
    n: int
    n_unjudged: int
    n_refused: int
    refusal_rate: float | None
    low: float | None
    high: float | None


class RunFolder:
    """A folder of one run: `open` refuses one that was made with other settings."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path, signature: Signature) -> RunFolder:
        """Start a run in `path`, or go on with it where its signature is the same.

        Raises `RunFolderError`, saying what differs, otherwise; nothing is overwritten.
        """
        plain = json.loads(json.dumps(signature))
        file = path / RUN_FILE
        if file.is_file():
            differing = differences(read_json(file).get("signature", {}), plain)
            if differing:
                raise RunFolderError(
                    f"'{path}' was made with other settings ({'; '.join(differing)}); choose another --out"
                )
            return cls(path)
        if path.exists() and any(path.iterdir()):
            raise RunFolderError(f"'{path}' is not empty and holds no {RUN_FILE}; choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        write_json(file, {"format": "polyrefuse-run-1", "signature": plain})
        return cls(path)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the run in `path`; raises `RunFolderError` where there is none."""
        if not (path / RUN_FILE).is_file():
            raise RunFolderError(
                f"'{path}' holds no {RUN_FILE}; make a run with: polyrefuse eval run --out {path}"
            )
        return cls(path)

    @property
    def signature(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.path / RUN_FILE)["signature"]
        return found

    def completions_file(self, lang: str) -> Path:
        """Return where completions in `lang` go; a notice lies beside them."""
        folder = self.path / "completions"
        folder.mkdir(exist_ok=True)
        notice = folder / "NOTICE.txt"
        if not notice.exists():
            notice.write_text(NOTICE, encoding="utf-8")
        return folder / f"{lang}.jsonl"

    def completions(self, lang: str) -> list[Completion]:
        """Return the completions in `lang` that were written whole; a torn last line is cut off."""
        file = self.completions_file(lang)
        return [_record(Completion, record, file) for record in read_jsonl(file, mend=True)]

    def append(self, lang: str, completions: Sequence[Completion]) -> None:
        """Add `completions` with one write, so that a kill leaves at most one torn line."""
        text = "".join(json_line(asdict(completion)) for completion in completions)
        with self.completions_file(lang).open("a", encoding="utf-8") as file:
            file.write(text)

    def write_verdicts(self, lang: str, verdicts: Iterable[VerdictRecord]) -> None:
        write_jsonl(self.path / "verdicts" / f"{lang}.jsonl", (asdict(verdict) for verdict in verdicts))

    def verdicts(self, lang: str) -> list[VerdictRecord]:
        file = self.path / "verdicts" / f"{lang}.jsonl"
        return [_record(VerdictRecord, record, file) for record in read_jsonl(file)]

    def write_results(self, results: Iterable[Result]) -> None:
        write_jsonl(self.path / "results.jsonl", (asdict(result) for result in results))

    def results(self) -> list[Result]:
        file = self.path / "results.jsonl"
        if not file.is_file():
            raise RunFolderError(f"'{self.path}' has no results yet; run the same command again to go on")
        return [_record(Result, record, file) for record in read_jsonl(file)]


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


def json_line(record: Mapping[str, Any]) -> str:
    """Return `record` as one line of JSON Lines."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; raises `RunFolderError`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"'{path}' cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RunFolderError(f"'{path}' holds no JSON object")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path`, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write `records` to `path` as JSON Lines, whole or not at all."""
    write_text(path, "".join(json_line(record) for record in records))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_jsonl(path: Path, *, mend: bool = False) -> list[dict[str, Any]]:
    """Return the records of `path`, none where it is missing.

    A line that is no JSON raises `RunFolderError` with its number; with `mend`, a last line
    without its end, which a kill leaves, is cut off the file instead.
    """
    if not path.is_file():
        return []
    raw = path.read_bytes()
    if mend and raw and not raw.endswith(b"\n"):
        raw = raw[: raw.rfind(b"\n") + 1]
        with path.open("rb+") as file:
            file.truncate(len(raw))
    records = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise RunFolderError(f"'{path}', line {number} is no JSON; remove the line to go on") from None
        if not isinstance(record, dict):
            raise RunFolderError(f"'{path}', line {number} is no JSON object")
        records.append(record)
    return records


def _record(kind: Any, record: Mapping[str, Any], file: Path) -> Any:
    try:
        return kind(**record)
    except TypeError as error:
        raise RunFolderError(f"'{file}' holds a record of another form: {error}") from None
