"""A run whose model is elsewhere: says what is to be computed, and writes what comes back.

It holds the lock of its folder. Refusal tokens and directions come first, and with them the baselines, which
need no direction; then all other cells, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from polyrefuse_data.cluster.dispatch import Job, Outcome
from polyrefuse_eval.directions.fit import Direction, random_direction
from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.results.baseline_cache import BaselineCache
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import BASELINE_CONDITION, LABELS, POOLED, Cell, grid
from polyrefuse_eval.results.timings import Failure, Timing, add_timing, write_failures
from polyrefuse_eval.runs.grid_cells import RunCells, cell_timing
from polyrefuse_eval.runs.plan import RunPlan, same_answers, signature_of
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.tasks import (
    CellTask,
    ComputeCell,
    Computer,
    Describe,
    FindDirection,
    Found,
    Identity,
    SentRows,
    control_file,
    direction_file,
    read_files,
    write_files,
)

Jobs = list[Job]
CONTROL = "shuffled"


@dataclass
class DrivenRun:
    """The run of `plan`: `start` gives the first jobs, `take` what an outcome leads to."""

    plan: RunPlan
    computer: Computer
    progress: GridProgress
    stack: ExitStack
    """Holds the lock of the folder."""
    failures: list[Failure] = field(default_factory=list)
    cells: RunCells = field(init=False)
    _searched: set[str] = field(default_factory=set)
    """Languages whose directions were found, or not; and the control."""
    _without: dict[str, str] = field(default_factory=dict)
    """Languages without a direction, and why."""
    _control_asked: bool = False
    _have: dict[str, set[str]] = field(default_factory=dict)
    _left: dict[str, set[Cell]] = field(default_factory=dict)
    """Language to its cells that are not answered."""
    _tasks: dict[Cell, CellTask] = field(default_factory=dict)
    _taken: dict[Cell, list[Completion]] = field(default_factory=dict)
    _planned: bool = False

    def start(self) -> Jobs:
        """Return the first jobs: of a run that has begun, all that is known to be missing."""
        folder = RunFolder(self.plan.out)
        if (self.plan.out / RUN_FILE).is_file() and same_answers(folder.request, self.plan.request):
            signature = folder.signature
            return self._open(Identity(signature["model"], signature["versions"]))
        return [self._job("model", Describe(self.computer), first=True)]

    def take(self, outcome: Outcome) -> Jobs:
        """Write what a job brought, and return the jobs that it makes possible."""
        work: Any = outcome.job.work
        if isinstance(work, ComputeCell):
            self._take_cell(work.task.cell, outcome)
            return []
        if outcome.done is None:
            if isinstance(work, Describe):
                raise ChatModelError(str(outcome.error))
            self._fail(outcome)
            return []
        if outcome.done.load_seconds:
            self._time(Timing("load", outcome.done.load_seconds))
        if isinstance(work, Describe):
            return self._open(outcome.done.result)
        found: Found = outcome.done.result
        self._time(Timing("direction", outcome.done.seconds, lang=work.lang))
        write_files(self.plan.out, found.files)
        self.plan.on_finished()
        for line in found.said:
            self.progress.say(line)
        return self._after_control(found) if work.control else self._after_direction(work.lang, found)

    def close(self) -> None:
        """End the run: its folder tells what failed."""
        if self.plan.out.is_dir():
            write_failures(self.plan.out, self.failures)

    def _finish_if_whole(self) -> None:
        if self._planned and not any(self._left.values()):
            counts = {lang: len(have) for lang, have in self._have.items()}
            self.cells.finish(counts, self._directions())

    # The model

    def _open(self, identity: Identity) -> Jobs:
        plan = self.plan
        self.computer = replace(self.computer, identity=identity)
        signature = signature_of(
            identity.signature, plan.data, plan.settings, plan.judge_names, identity.versions
        )
        folder = RunFolder.open(plan.out, signature, plan.request)
        self.stack.enter_context(folder.locked())
        folder.mend()
        folder.reopen()
        cache = BaselineCache(identity.signature, plan.settings.max_new_tokens)
        self.cells = RunCells(plan.data, plan.settings, folder, cache)
        self._have = {lang: self.cells.keys_there(lang) for lang in plan.settings.langs}
        jobs = [
            self._find(lang)
            for lang in plan.settings.direction_langs
            if not (plan.out / direction_file(lang)).is_file()
        ]
        self._searched = {
            lang for lang in plan.settings.direction_langs if (plan.out / direction_file(lang)).is_file()
        }
        baselines = [
            Cell(lang, label, BASELINE_CONDITION, plan.settings.n_test)
            for lang in plan.settings.langs
            for label in LABELS
        ]
        jobs += self._missing([self.cells.task(cell, {}) for cell in baselines])
        return jobs + self._when_searched()

    # Directions

    def _find(self, lang: str, control: bool = False) -> Job:
        settings, langs = self.plan.settings, self.plan.settings.langs
        of = langs if lang == POOLED else (lang,)
        limits = {"train": settings.n_train, "validation": settings.n_validation}
        rows = {
            (one, split, label): self.plan.data.prompts(one, split, label, limit)
            for one in of
            for split, limit in limits.items()
            for label in LABELS
        }
        names = [f"refusal_tokens/{one}.json" for one in of]
        work = FindDirection(
            self.computer,
            lang,
            SentRows(self.plan.data.digest, rows),
            settings,
            read_files(self.plan.out, [*names, direction_file(lang)] if control else names),
            control,
        )
        return self._job(f"{'control' if control else 'direction'} {lang}", work, first=True)

    def _after_direction(self, lang: str, found: Found) -> Jobs:
        self._searched.add(lang)
        if found.error is not None:
            self._without[lang] = found.error
            self.progress.say(f"no direction from '{lang}', which is left out: {found.error}")
        return self._when_searched()

    def _when_searched(self) -> Jobs:
        """Return the control of the first direction as soon as it is known which that is, and the cells when
        all directions are there."""
        langs = self.plan.settings.direction_langs
        first = next((lang for lang in langs if lang not in self._without), None)
        if first is None:
            self.failures.append(Failure("directions", list(self._without.values())[-1], 1))
            return []
        jobs: Jobs = []
        wanted = set(langs)
        if self.plan.settings.controls:
            wanted.add(CONTROL)
            if first in self._searched and not self._control_asked:
                self._control_asked = True
                if (self.plan.out / control_file(first)).is_file():
                    self._searched.add(CONTROL)
                else:
                    jobs.append(self._find(first, control=True))
        return jobs + (self._all_cells() if self._searched >= wanted else [])

    def _after_control(self, found: Found) -> Jobs:
        self._searched.add(CONTROL)
        if found.error is not None:
            self._without[CONTROL] = found.error
            self.progress.say(f"no control from shuffled labels: {found.error}")
        return self._when_searched()

    def _directions(self) -> dict[str, Direction]:
        """Return the directions as `DirectionFinder.all_directions` does."""
        out, settings = self.plan.out, self.plan.settings
        found = {
            lang: Direction.load(out / direction_file(lang))
            for lang in settings.direction_langs
            if lang not in self._without
        }
        if settings.controls:
            first = next(iter(found.values()))
            found["random"] = random_direction(first, settings.seed)
            if CONTROL not in self._without:
                found[CONTROL] = Direction.load(out / control_file(first.lang))
        return found

    # Cells

    def _all_cells(self) -> Jobs:
        self._planned = True
        directions = self._directions()
        cells = [
            cell
            for lang in self.plan.settings.langs
            for cell in grid(lang, list(directions), self.plan.settings)
            if cell.condition != BASELINE_CONDITION
        ]
        jobs = self._missing([self.cells.task(cell, directions) for cell in cells])
        self._finish_if_whole()
        return jobs

    def _missing(self, tasks: Sequence[CellTask]) -> Jobs:
        """Return the jobs of those of `tasks` that are not answered."""
        jobs: Jobs = []
        answers = there = 0
        for task in tasks:
            cell, lang = task.cell, task.cell.lang
            left = self._left.setdefault(lang, set())
            self._tasks[cell] = task
            if set(task.keys) <= self._have[lang]:
                self.cells.folder.cell_done(lang, cell.label, cell.condition.name)
                there += 1
                continue
            task, taken = self.cells.without_known(task)
            if not task.rows:
                self._write(cell, taken)
                there += 1
                continue
            left.add(cell)
            self._taken[cell] = taken
            answers += len(task.rows)
            jobs.append(self._job(name_of(cell), ComputeCell(self.computer, task)))
        self.progress.expect(len(jobs), answers, there)
        for lang in {task.cell.lang for task in tasks}:
            self._remember_whole(lang)
        return jobs

    def _take_cell(self, cell: Cell, outcome: Outcome) -> None:
        if outcome.done is None:
            self.progress.end(failed=True)
            self._fail(outcome)
            return
        made: list[Completion] = outcome.done.result
        self._write(cell, [*self._taken.pop(cell), *made])
        self._left[cell.lang].discard(cell)
        self.progress.advance(len(made))
        self.progress.end()
        self._time(cell_timing(cell, made, outcome.done.seconds))
        if outcome.done.load_seconds:
            self._time(Timing("load", outcome.done.load_seconds))
        self._remember_whole(cell.lang)
        self._finish_if_whole()

    def _write(self, cell: Cell, completions: Sequence[Completion]) -> None:
        self.cells.write(cell, completions)
        self._have[cell.lang] |= {completion.key for completion in completions}
        self.plan.on_finished()

    def _remember_whole(self, lang: str) -> None:
        if self._planned and not self._left.get(lang):
            self.cells.remember(lang, [task for cell, task in self._tasks.items() if cell.lang == lang])

    # What all share

    def _job(self, name: str, work: Any, first: bool = False) -> Job:
        return Job(f"{self.plan.name}: {name}", self.computer.spec.key, work, first)

    def _fail(self, outcome: Outcome) -> None:
        what = outcome.job.name.removeprefix(f"{self.plan.name}: ")
        self.failures.append(Failure(what, str(outcome.error), outcome.tries))

    def _time(self, timing: Timing) -> None:
        if self.plan.out.is_dir():
            add_timing(self.plan.out, timing)


def name_of(cell: Cell) -> str:
    """Return what a cell is called in messages."""
    return f"{cell.lang} {cell.label} {cell.condition.name}"
