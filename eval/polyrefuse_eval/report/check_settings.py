"""Check that a run's answers and verdicts are ones that its own settings, and its service, can have given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polyrefuse_eval.report.check_service import is_served
from polyrefuse_eval.results.folder import ANSWERED_FILE, RunFolder
from polyrefuse_eval.results.interventions import BASELINE_NAME, is_graded
from polyrefuse_eval.results.records import AnsweredFile, Completion, VerdictRecord
from polyrefuse_eval.results.settings import Condition
from polyrefuse_eval.results.sources import CONTROLS, is_span
from polyrefuse_eval.results.validation import read_record


def setting_problems(folder: RunFolder) -> Iterator[str]:
    """Yield what no run of this signature has.

    Interventions or strengths that were not asked for, refusals of a service that there is not or that
    answered, answers that are too long, and other counts of answers than there are.
    """
    signature = folder.signature
    settings = signature.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    served = is_served(signature)
    withheld: set[tuple[str, str, str]] = set()
    answers = 0
    for lang in folder.languages():
        for completion in folder.completions(lang):
            answers += 1
            if completion.service is not None and completion.service.refusal is not None:
                withheld.add((lang, completion.label, completion.key))
            yield from _too_long(completion, settings.get("max_new_tokens"))
    for judge in folder.judges():
        for lang in folder.judged_languages(judge):
            verdicts = folder.verdicts(judge, lang)
            for condition in dict.fromkeys(verdict.condition for verdict in verdicts):
                yield from _unasked(condition, settings, f"verdicts of {judge} on {lang} {condition}")
            for verdict in verdicts:
                if not verdict.service_refused:
                    continue
                if not served:
                    yield f"{_place(verdict, lang)} is of a service, and run.json names none"
                elif answers and (lang, verdict.label, verdict.key) not in withheld:
                    yield f"{_place(verdict, lang)} is of the service, which gave this answer"
    yield from _misstated(folder, settings)


def _too_long(completion: Completion, limit: Any) -> Iterator[str]:
    """Yield an answer of the model itself that is longer than allowed; services count tokens of their own."""
    n_tokens = completion.n_tokens
    if completion.service is None and n_tokens is not None and isinstance(limit, int) and n_tokens > limit:
        yield (
            f"the answer {completion.lang} {completion.label} {completion.key} has {n_tokens} tokens; "
            f"run.json allows {limit}"
        )


def _unasked(name: str, settings: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield a condition whose intervention or further strength the settings do not name."""
    condition = Condition.parse(name)
    interventions = settings.get("interventions")
    if condition.intervention == BASELINE_NAME:
        return
    if isinstance(interventions, list) and condition.intervention not in interventions:
        yield f"{place} are of an intervention that run.json does not name"
    strengths = settings.get("strengths" if is_graded(condition.intervention) else "addition_strengths")
    if condition.further and isinstance(strengths, list) and condition.coefficient not in strengths:
        yield f"{place} are of a strength that run.json does not name"


def _misstated(folder: RunFolder, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield where `answered.json` counts other answers, or names other directions, than the answers have."""
    file = folder.path / ANSWERED_FILE
    if not file.is_file():
        return
    answered = read_record(AnsweredFile, file)
    used: set[str] = set()
    for lang in folder.languages():
        used |= {source for answer in folder.completions(lang) if (source := _source(answer.condition))}
    if (folder.path / "completions").is_dir():
        stated = answered.answers
        for lang in sorted({*stated, *folder.languages()}):
            counted = len({completion.key for completion in folder.completions(lang)})
            if counted != stated.get(lang, 0):
                yield (
                    f"{ANSWERED_FILE} counts {stated.get(lang, 0)} answers in '{lang}'; "
                    f"completions/ hold {counted}"
                )
    else:
        used = {source for result in folder.results() if (source := _source(result.condition))}
    yield from _other_directions(answered.directions, used, settings)


def _other_directions(stated: Sequence[str], used: set[str], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield directions that were not asked for, or that no answer was made with, and those left out.

    Of a span or a control there may be no answer: not every intervention takes one.
    """
    if len(set(stated)) < len(stated):
        yield f"{ANSWERED_FILE} names a direction twice"
    asked = settings.get("direction_langs")
    for source in dict.fromkeys(stated):
        if isinstance(asked, list | tuple) and source not in {*asked, *CONTROLS}:
            yield f"{ANSWERED_FILE} names a direction of '{source}', which run.json does not name"
        elif source not in used and not (is_span(source) or source in CONTROLS):
            yield f"{ANSWERED_FILE} names a direction of '{source}', with which no answer was made"
    for source in sorted(used - set(stated)):
        yield f"{ANSWERED_FILE} lacks the direction of '{source}', with which answers were made"


def _source(condition: str) -> str | None:
    return Condition.parse(condition).source


def _place(verdict: VerdictRecord, lang: str) -> str:
    return f"the refusal of {verdict.judge} on {lang} {verdict.key}"
