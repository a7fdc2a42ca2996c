"""What a grid would compute: its conditions, which of them are there, and how long the rest takes.

Loads no model, and imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.core.progress import clock
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.content_cache import shown_size
from polyrefuse_eval.results.folder import ANSWERED_FILE, RUN_FILE, RunFolder
from polyrefuse_eval.results.prompt_draw import limited
from polyrefuse_eval.results.records import AnsweredFile
from polyrefuse_eval.results.settings import LABELS, Measurement, grid
from polyrefuse_eval.results.sources import CONTROLS
from polyrefuse_eval.results.timings import Timing, read_timings, seconds_per_answer
from polyrefuse_eval.results.validation import read_record
from polyrefuse_eval.runs.endpoint_cost import cost_lines
from polyrefuse_eval.runs.plan import RunPlan, answered


@dataclass(frozen=True, kw_only=True)
class PlannedMeasurement:
    """A measurement of a run: its prompts, how many are answered, and the seconds that the others take.

    `seconds` is None where nothing like it was timed.
    """

    run: str
    measurement: Measurement
    prompts: int
    answered: int
    seconds: float | None

    @property
    def line(self) -> str:
        """One line for the user."""
        state = "there" if self.answered == self.prompts else "missing"
        if 0 < self.answered < self.prompts:
            state = f"missing, {self.answered} answers are there"
        return f"{self.run} {self.measurement} {self.prompts} prompts: {state}"


def planned_measurements(plan: RunPlan) -> list[PlannedMeasurement]:
    """Return the measurements of a run in its order, with the directions that it has or asks for."""
    begun = (plan.out / RUN_FILE).is_file()
    timings = read_timings(plan.out) if begun else []
    planned = []
    for lang in plan.settings.langs:
        test = plan.data.rows(lang, "test")
        of_label = {label: [row for row in test if row.label == label] for label in LABELS}
        have = {record.key for record in RunFolder(plan.out).completions(lang)} if begun else set()
        for measurement in grid(lang, _sources(plan), plan.settings):
            rows = limited(of_label[measurement.label], measurement.limit, plan.settings.test_seed)
            if not rows:
                continue  # a gap of the data
            keys = {f"{row.id}/{measurement.condition.name}" for row in rows}
            answered = len(keys & have)
            rate = _seconds_per_answer(timings, measurement)
            planned.append(
                PlannedMeasurement(
                    run=plan.name,
                    measurement=measurement,
                    prompts=len(keys),
                    answered=answered,
                    seconds=None if rate is None else rate * (len(keys) - answered),
                )
            )
    return planned


BYTES_PER_TOKEN = 5
"""UTF-8 bytes that a token of an answer is taken for: an upper estimate, no measurement."""

RECORD_BYTES = 600
"""Bytes of a record of an answer or of a verdict, besides the answer itself."""


def check_room(plans: Sequence[RunPlan]) -> None:
    """Raise `RunFolderError` where the disk has no room for the answers and verdicts that `plans` lack."""
    needed: dict[Path, int] = {}
    for plan in plans:
        place = next(folder for folder in (plan.out, *plan.out.absolute().parents) if folder.is_dir())
        answer = plan.settings.max_new_tokens * BYTES_PER_TOKEN + RECORD_BYTES * (1 + len(plan.judges))
        missing = sum(row.prompts - row.answered for row in planned_measurements(plan))
        needed[place] = needed.get(place, 0) + missing * answer
    for place, size in needed.items():
        free = shutil.disk_usage(place).free
        if free < size:
            raise RunFolderError(
                f"the answers may take {shown_size(size)}, and the disk of '{place}' has {shown_size(free)} "
                "free; free some space, choose another --out, or lower --test or --max-new-tokens"
            )


def dry_run_lines(plans: Sequence[RunPlan], workers: int | None = None) -> Iterator[str]:
    """Yield a line for each condition, for each run and for the grid; time also for `workers`."""
    whole_grid: list[PlannedMeasurement] = []
    for plan in plans:
        planned = planned_measurements(plan)
        yield from (measurement.line for measurement in planned)
        whole_grid += planned
        if isinstance(plan.load, EndpointSpec):
            yield from cost_lines(plan, plan.load)
        if len(plans) > 1:
            yield f"{plan.name}: {summary(planned, workers)}"
    yield f"all: {summary(whole_grid, workers)}"


def summary(planned: Sequence[PlannedMeasurement], workers: int | None = None) -> str:
    """Return how many of the `planned` conditions are there, what is missing, and how long it takes."""
    missing = [measurement for measurement in planned if measurement.answered < measurement.prompts]
    answers = sum(measurement.prompts - measurement.answered for measurement in missing)
    text = (
        f"{len(planned)} conditions, {len(planned) - len(missing)} there, {len(missing)} missing "
        f"({answers} answers)"
    )
    if not missing:
        return text
    seconds = [measurement.seconds for measurement in missing if measurement.seconds is not None]
    if not seconds:
        return f"{text}; nothing was timed yet, so the time left is unknown"
    text += f"; {clock(sum(seconds))} of one process for answers, from the timings so far"
    if workers is not None:
        text += f", {clock(sum(seconds) / workers)} with {workers}"
    unknown = len(missing) - len(seconds)
    return text + (f"; without {unknown} conditions of runs that have no timing" if unknown else "")


def _sources(plan: RunPlan) -> list[str]:
    if answered(plan.out, plan.request):
        return list(read_record(AnsweredFile, plan.out / ANSWERED_FILE).directions)
    return [*plan.settings.direction_langs, *(CONTROLS if plan.settings.controls else ())]


def _seconds_per_answer(timings: Sequence[Timing], measurement: Measurement) -> float | None:
    """Return seconds per answer, timed under this label and condition, else under this intervention, else
    in the whole run; None without any timing."""
    condition = measurement.condition
    same = [
        timing
        for timing in timings
        if (timing.label, timing.condition) == (measurement.label, condition.name)
    ]
    kind = [timing for timing in timings if timing.condition.partition(":")[0] == condition.intervention]
    for timed in (same, kind, timings):
        rate = seconds_per_answer(timed)
        if rate is not None:
            return rate
    return None
