"""What a grid would do: its cells, what of them is there, and how long the rest takes by what was measured.

Loads no model, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
from polyrefuse_eval.results.records import AnsweredFile
from polyrefuse_eval.results.settings import CONTROLS, Cell, grid
from polyrefuse_eval.results.timings import Timing, read_timings, seconds_per_answer
from polyrefuse_eval.results.validation import read_record
from polyrefuse_eval.runs.plan import ANSWERED_FILE, RunPlan
from polyrefuse_eval.runs.progress import clock_time


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a run: how many prompts it has, how many of these are answered, and how long the others
    take; None where nothing like them was measured."""

    run: str
    cell: Cell
    prompts: int
    there: int
    seconds: float | None

    @property
    def line(self) -> str:
        """One line for people."""
        state = "there" if self.there == self.prompts else "missing"
        if 0 < self.there < self.prompts:
            state = f"missing, {self.there} answers are there"
        cell = self.cell
        return f"{self.run} {cell.lang} {cell.label} {cell.condition.name} {self.prompts} prompts: {state}"


def planned_cells(plan: RunPlan) -> list[PlannedCell]:
    """Return the cells of a run in its order: those of the directions that it has, or that are asked for."""
    begun = (plan.out / RUN_FILE).is_file()
    timings = read_timings(plan.out) if begun else []
    cells = []
    for lang in plan.settings.langs:
        ids = {
            label: [row.id for row in plan.data.prompts(lang, "test", label)]
            for label in ("harmful", "harmless")
        }
        have = {one.key for one in RunFolder(plan.out).completions(lang)} if begun else set()
        for cell in grid(lang, _sources(plan), plan.settings):
            keys = {f"{row}/{cell.condition.name}" for row in ids[cell.label][: cell.limit]}
            there = len(keys & have)
            rate = _rate(timings, cell)
            seconds = None if rate is None else rate * (len(keys) - there)
            cells.append(PlannedCell(plan.name, cell, len(keys), there, seconds))
    return cells


def dry_run_lines(plans: Sequence[RunPlan], workers: int | None = None) -> Iterator[str]:
    """Yield a line a cell, then one a run, then one for all; with `workers`, the time that these take."""
    everything: list[PlannedCell] = []
    for plan in plans:
        cells = planned_cells(plan)
        yield from (cell.line for cell in cells)
        everything += cells
        if len(plans) > 1:
            yield f"{plan.name}: {_sum(cells, workers)}"
    yield f"all: {_sum(everything, workers)}"


def _sum(cells: Sequence[PlannedCell], workers: int | None) -> str:
    missing = [cell for cell in cells if cell.there < cell.prompts]
    answers = sum(cell.prompts - cell.there for cell in missing)
    text = (
        f"{len(cells)} cells, {len(cells) - len(missing)} there, {len(missing)} missing ({answers} answers)"
    )
    if not missing:
        return text
    known = [cell.seconds for cell in missing if cell.seconds is not None]
    if not known:
        return f"{text}; nothing was measured yet, so the time is not known"
    text += f"; {clock_time(sum(known))} of one process for answers, by what was measured"
    if workers is not None:
        text += f", {clock_time(sum(known) / workers)} with {workers}"
    unknown = len(missing) - len(known)
    return text + (f"; {unknown} cells are of runs without a measurement, and not in it" if unknown else "")


def _sources(plan: RunPlan) -> list[str]:
    file = plan.out / ANSWERED_FILE
    if file.is_file():
        return list(read_record(AnsweredFile, file).directions)
    return [*plan.settings.direction_langs, *(CONTROLS if plan.settings.controls else ())]


def _rate(timings: Sequence[Timing], cell: Cell) -> float | None:
    """Return seconds per answer: as measured on cells of this label and condition, else of this kind of
    edit, else on all cells of the run; None without any."""
    condition = cell.condition
    same = [one for one in timings if (one.label, one.condition) == (cell.label, condition.name)]
    kind = [one for one in timings if one.condition.partition(":")[0] == condition.intervention]
    for measured in (same, kind, timings):
        rate = seconds_per_answer(measured)
        if rate is not None:
            return rate
    return None
