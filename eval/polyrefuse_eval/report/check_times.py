"""Check what `timings.jsonl` states: can it be, and is it of conditions and answers that the run has?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone

from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.timings import TIMINGS_FILE, read_timings


def time_problems(folder: RunFolder) -> Iterator[str]:
    """Yield times below zero, dates that are none or to come, and answers that the run does not have.

    One condition may have several records, of which each is of some of its answers or of all: a command that
    was stopped computes again what it had not written.
    """
    results = folder.results()
    answers: dict[tuple[str, str, str], int] = {}
    for result in results:
        place = (result.lang, result.label, result.condition)
        answers[place] = max(answers.get(place, 0), result.n + result.n_unjudged)
    tomorrow = datetime.now(timezone.utc).date() + timedelta(days=1)  # clocks differ
    for number, timing in enumerate(read_timings(folder.path), start=1):
        line = f"{TIMINGS_FILE}, line {number}"
        if timing.seconds < 0:
            yield f"{line}: {timing.part} took {timing.seconds:g} seconds, fewer than none"
        if timing.date and not _is_past(timing.date, tomorrow):
            yield f"{line}: {timing.date} is no date, or one to come"
        if timing.part != "cell" or not results:
            continue
        place = (timing.lang, timing.label, timing.condition)
        if place not in answers:
            yield f"{line}: {' '.join(place)} is a condition without results"
        elif timing.answers > answers[place]:
            yield f"{line}: {timing.answers} answers to {' '.join(place)}; the run has {answers[place]}"


def _is_past(text: str, latest: date) -> bool:
    try:
        return date.fromisoformat(text) <= latest
    except ValueError:
        return False
