"""Check what `service.json` states of a service against the answers, or else against the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from polyrefuse_eval.report.differing import different
from polyrefuse_eval.results.folder import ANSWERED_FILE, RunFolder
from polyrefuse_eval.results.interventions import BASELINE_NAME
from polyrefuse_eval.results.records import Completion, ServiceFile
from polyrefuse_eval.results.service_files import SERVICE_FILE, service_file
from polyrefuse_eval.results.validation import read_record

NOT_STATED = "not stated"


def service_problems(folder: RunFolder) -> Iterator[str]:
    """Yield what of `service.json`, and of the version in run.json, the answers contradict.

    Without the answers, its counts are compared with the verdicts; which versions answered nobody can tell.
    """
    file = folder.path / SERVICE_FILE
    stated = read_record(ServiceFile, file) if file.is_file() else None
    if stated is not None and not is_served(folder.signature):
        yield f"{SERVICE_FILE} is there, and run.json names no service"
        return
    if (folder.path / "completions").is_dir():
        yield from _against_answers(folder, stated)
    elif stated is not None and (folder.path / "verdicts").is_dir():
        yield from _against_verdicts(folder, stated)


def is_served(signature: Mapping[str, Any]) -> bool:
    """Return whether a service made answers of a run: those of its model, or its baselines."""
    model, settings = signature.get("model"), signature.get("settings")
    behind = isinstance(model, Mapping) and model.get("endpoint")
    return bool(behind or (isinstance(settings, Mapping) and settings.get("baseline_server")))


def _against_answers(folder: RunFolder, stated: ServiceFile | None) -> Iterator[str]:
    answers: list[Completion] = []
    for lang in folder.languages():
        answers += folder.completions(lang)
    expected = service_file(answers)
    if not expected.versions:
        if stated is not None and (stated.versions or stated.refusals):
            yield f"{SERVICE_FILE} counts answers of a service; completions/ hold none"
        return
    if stated is not None:
        yield from different(f"{SERVICE_FILE}:", asdict(stated), asdict(expected), basis="the answers give")
    elif (folder.path / ANSWERED_FILE).is_file():
        yield f"{SERVICE_FILE} is missing, and a service gave answers"
    yield from _foreign_version(folder, expected)


def _foreign_version(folder: RunFolder, service: ServiceFile) -> Iterator[str]:
    """Yield the version of the service in run.json where none of the answers that `service` counts has it."""
    model = folder.signature.get("model")
    versions = {version.model or NOT_STATED for version in service.versions}
    if isinstance(model, Mapping) and model.get("endpoint") and model.get("revision") not in versions:
        yield (
            f"run.json names version {model.get('revision')} of the service; the answers are of "
            f"{', '.join(sorted(versions))}"
        )


def _against_verdicts(folder: RunFolder, stated: ServiceFile) -> Iterator[str]:
    """Yield counts that differ from those of the answers that were judged without an edit, and a version in
    run.json that is not among those stated."""
    yield from _foreign_version(folder, stated)
    read: set[tuple[str, str, str]] = set()
    refused: set[tuple[str, str, str]] = set()
    for judge in folder.judges():
        for lang in folder.judged_languages(judge):
            for verdict in folder.verdicts(judge, lang):
                if verdict.condition == BASELINE_NAME:
                    read.add((lang, verdict.label, verdict.key))
                    if verdict.service_refused:
                        refused.add((lang, verdict.label, verdict.key))
    for name, count, there in (
        ("answers", sum(version.answers for version in stated.versions), len(read)),
        ("refusals of the service", sum(stated.refusals.values()), len(refused)),
    ):
        if count != there:
            yield f"{SERVICE_FILE} counts {count} {name}; the verdicts give {there}"
