"""What of a finished run may be published: its records, written again field by field, and nothing else.

No bytes of a run's files are passed on. What is read as a record is written as one, without its free texts:
the reasons of verdicts may quote answers, and a request may hold a system prompt.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError, with_config

from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.parsing import first_problem
from polyrefuse_data.core.paths import refuse_linked_folders
from polyrefuse_eval.report.robustness import FORMULA
from polyrefuse_eval.results.agreement_records import AgreementFile
from polyrefuse_eval.results.condition_files import safe_name
from polyrefuse_eval.results.cost_files import (
    ANSWER_COSTS,
    COSTS_FILE,
    answer_costs_file,
    read_answer_costs,
    read_costs,
)
from polyrefuse_eval.results.fields import UNPRINTABLE, Name
from polyrefuse_eval.results.folder import RESULTS_FILE, RUN_FILE, SUMMARY_FILE, RunFolder
from polyrefuse_eval.results.records import RUN_FORMAT, RunFile, VerdictRecord
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.sources import languages_of
from polyrefuse_eval.results.subset_files import SUBSETS_FILE, read_subsets
from polyrefuse_eval.results.summary_records import Summary
from polyrefuse_eval.results.validation import STRICT, record_lines
from polyrefuse_eval.results.verification import unverified_notes, verdicts_digest, verify_run

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,99}")
"""An id, a group, or the name of a key of a signature: one word."""

NAMES = re.compile(f"[^{UNPRINTABLE}]{{1,200}}")

SIGNATURE_KEYS = frozenset({"format", "model", "data", "settings", "judges", "judge", "versions"})


@with_config(STRICT)
@dataclass(frozen=True)
class _PublishedSettings(RunSettings):
    """The settings of a run; none is free text."""

    langs: tuple[str, ...] = ()
    experiment: Name | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """The files of a run to publish, by name, and lines about what cannot be verified."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...]


def published_run(path: Path) -> PublishedRun:
    """Return what of the run at `path` may be published.

    Raises `PolyRefuseError`, naming the file and what is wrong, where the run is not finished, its files do
    not hold together, or hold anything that is no record.
    """
    refuse_linked_folders(path, error=PublishError)
    folder = RunFolder.existing(path)
    summary = _summary(folder)
    verify_run(folder, answers=(path / "completions").is_dir())
    langs = {result.lang for result in folder.results()}
    signature = published_signature(folder.signature, langs, path / RUN_FILE)
    files = {RESULTS_FILE: record_lines(folder.results())}
    if comparisons := folder.comparisons():
        files["comparisons.jsonl"] = record_lines(comparisons)
    if subsets := read_subsets(folder):
        files[SUBSETS_FILE] = record_lines(subsets)
    if costs := read_costs(folder):
        files[COSTS_FILE] = record_lines(costs)
        files |= {f"{ANSWER_COSTS}/{lang}.jsonl": text for lang, text in _answer_costs(folder, langs)}
    if agreement := folder.agreement():
        files["agreement.json"] = _json(AgreementFile(agreement=agreement))
    verdicts = dict(_verdict_files(folder))
    files |= verdicts
    if summary.made_from is not None:
        made_from = replace(
            summary.made_from,
            results=hashlib.sha256(files[RESULTS_FILE].encode()).hexdigest(),
            verdicts=verdicts_digest(
                {name.removeprefix("verdicts/"): text.encode() for name, text in verdicts.items()}
            ),
        )
        summary = replace(summary, made_from=made_from)
    files[SUMMARY_FILE] = _json(summary)
    files[RUN_FILE] = _json(RunFile(format=RUN_FORMAT, signature=signature))
    return PublishedRun(
        files={name: text.encode("utf-8") for name, text in sorted(files.items())},
        notes=tuple(unverified_notes(folder)),
    )


def published_signature(signature: Mapping[str, Any], langs: Iterable[str], file: Path) -> dict[str, Any]:
    """Return `signature` for the Hub: names, numbers and hashes; raises `PublishError` for anything else."""
    unknown = sorted(set(signature) - SIGNATURE_KEYS)
    if unknown:
        raise PublishError(f"'{file}' has {unknown[0]!r} in its signature, which runs do not write")
    try:
        known = TypeAdapter(_PublishedSettings).validate_json(json.dumps(signature.get("settings", {})))
    except (ValidationError, ValueError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise PublishError(f"'{file}', settings: {problem}; expected the settings of a run") from None
    of_sources = {lang for source in known.fitted_sources for lang in languages_of(source, known.langs)}
    foreign = sorted({*known.langs, *of_sources} - {*LANGUAGES, *langs})
    if foreign:
        raise PublishError(f"'{file}' names languages without results: {', '.join(foreign[:3])}")
    lists = ("langs", "direction_langs", "strengths", "addition_strengths", "interventions")
    settings = {key: value for key, value in signature.get("settings", {}).items() if key not in lists}
    for place, value in {**signature, "settings": settings}.items():
        for item in value if place == "judges" else (value,):
            _check_plain(item, place, file)
    return dict(signature)


def _summary(folder: RunFolder) -> Summary:
    summary = folder.summary()
    if summary is None:
        raise PublishError(
            f"'{folder.path}' has no {SUMMARY_FILE}: the run is not finished, or a rescore of it was "
            "interrupted; run the same command again"
        )
    if summary.formula != FORMULA:
        raise PublishError(
            f"'{folder.path / SUMMARY_FILE}' states another formula than this version; recompute it with: "
            f"polyrefuse eval rescore {folder.path}"
        )
    return summary


def _verdict_files(folder: RunFolder) -> Iterator[tuple[str, str]]:
    """Yield name and content of the verdict files of the judges in the signature, without reasons."""
    judges = {safe_name(judge): judge for judge in folder.judges()}
    place = folder.path / "verdicts"
    for entry in sorted(place.iterdir()) if place.is_dir() else ():
        if entry.name not in judges:
            raise PublishError(
                f"'{entry}' is of no judge that {RUN_FILE} names; if a rescore was interrupted, run the same "
                "command again, else move it out"
            )
    for name, judge in judges.items():
        for lang in folder.judged_languages(judge):
            cells: dict[str, list[VerdictRecord]] = {}
            for verdict in folder.verdicts(judge, lang):
                _check_ids(place / name / lang, verdict.id, verdict.group)
                file = folder.verdicts_file(judge, lang, verdict.label, verdict.condition)
                cells.setdefault(file.name, []).append(replace(verdict, reason=""))
            for cell, verdicts in cells.items():
                yield f"verdicts/{name}/{lang}/{cell}", record_lines(verdicts)


def _answer_costs(folder: RunFolder, langs: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield language and content of what conditions cost on single answers; no record holds a text."""
    for lang, records in read_answer_costs(folder).items():
        file = answer_costs_file(folder, lang)
        for record in records:
            if record.lang != lang or lang not in langs:
                raise PublishError(f"'{file}' holds a record in '{record.lang}', which has no results")
            _check_ids(file, record.id, record.group)
        yield lang, record_lines(records)


def _check_ids(place: Path, *texts: str) -> None:
    for text in texts:
        if not PLAIN_NAME.fullmatch(text):
            raise PublishError(f"'{place}': '{text}' is not an id of a row or a group")


def _check_plain(value: Any, place: str, file: Path) -> None:
    """Raise `PublishError` unless `value` is a name, a number, or an object of these with plain keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not PLAIN_NAME.fullmatch(str(key)):
                raise PublishError(f"'{file}': a key of {place} is {key!r}; expected one word")
            _check_plain(inner, f"{place}.{key}", file)
    elif isinstance(value, str):
        if value and not NAMES.fullmatch(value):
            raise PublishError(f"'{file}': {place} is not a name of at most 200 characters on one line")
    elif isinstance(value, float) and not math.isfinite(value):
        raise PublishError(f"'{file}': {place} is {value}")
    elif value is not None and not isinstance(value, bool | int | float):
        raise PublishError(f"'{file}': {place} is a list; expected a name or a number")


def _json(record: Any) -> str:
    return json.dumps(asdict(record), ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False) + "\n"
