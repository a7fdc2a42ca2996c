"""The one loop over a model: model x direction language x intervention x language, then the judges.

Everything is written as it goes, and a killed run goes on where it was. The model is let go before a
judge is loaded.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.of_runs import judge_completions
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.loading import silence_loading
from polyrefuse_eval.processes import rank, world_size
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.baseline_cache import BaselineCache
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion, Result
from polyrefuse_eval.results.settings import BenchSettings
from polyrefuse_eval.results.timings import Timing, add_timing
from polyrefuse_eval.runs.grid_cells import RunCells, cell_timing
from polyrefuse_eval.runs.plan import RunPlan, answered, finished, signature_of
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.tasks import CellTask, compute_cell
from polyrefuse_eval.versions import versions


@dataclass
class Bench:
    """The answers of one run of `chat` on `data` into `folder`: `answer`, or its steps one by one."""

    chat: ChatModel
    data: DataFolder
    settings: BenchSettings
    folder: RunFolder
    progress: bool = False
    say: Callable[[str], None] = lambda _line: None
    watch: GridProgress = field(default_factory=lambda: GridProgress(quiet=True))
    on_finished: Callable[[], None] = lambda: None

    @classmethod
    def open(
        cls,
        chat: ChatModel,
        data: DataFolder,
        settings: BenchSettings,
        out: Path,
        *,
        judges: Sequence[str] = (),
        request: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Bench:
        """Start or go on with the run in `out`; raises `RunFolderError` where it is another run's."""
        signature = signature_of(chat.signature(), data, settings, judges, versions())
        return cls(chat, data, settings, RunFolder.open(out, signature, request), **more)

    @cached_property
    def finder(self) -> DirectionFinder:
        """What finds, or has found, the directions of this run."""
        return DirectionFinder(
            self.chat, self.data, self.settings, self.folder.path, progress=self.progress, say=self.say
        )

    @cached_property
    def cells(self) -> RunCells:
        """The cells of this run.

        Baselines of other runs are not used where processes must do the same, whatever another run adds
        meanwhile.
        """
        cache = BaselineCache(self.chat.signature(), self.settings.max_new_tokens)
        return RunCells(self.data, self.settings, self.folder, cache if world_size() == 1 else None)

    def answer(self) -> None:
        """Answer what is missing of the whole grid."""
        directions = self.finder.all_directions(self.on_finished)
        tasks = {lang: self.cells.tasks(lang, directions) for lang in self.settings.langs}
        have = {lang: self.cells.keys_there(lang) for lang in tasks}
        for lang, of_lang in tasks.items():
            missing = [task for task in of_lang if not set(task.keys) <= have[lang]]
            answers = sum(len(set(task.keys) - have[lang]) for task in missing)
            self.watch.expect(len(missing), answers, len(of_lang) - len(missing))
        counts = {lang: self.answer_in(lang, of_lang) for lang, of_lang in tasks.items()}
        self.cells.finish(counts, directions)

    def answer_in(self, lang: str, tasks: Sequence[CellTask]) -> int:
        """Answer what is missing of `tasks`, all cells in `lang`; return how many answers there are."""
        have = self.cells.keys_there(lang)
        for task in tasks:
            if not set(task.keys) <= have:
                self._answer_cell(task, have)
            self.folder.cell_done(lang, task.cell.label, task.cell.condition.name)
            self.on_finished()
        self.cells.remember(lang, tasks)
        return len(have)

    def _answer_cell(self, task: CellTask, have: set[str]) -> None:
        """Answer what is missing of one cell, batch by batch; its keys are added to `have`."""
        lang = task.cell.lang
        self.watch.begin()
        left, taken = self.cells.without_known(task, have)
        made: list[Completion] = []
        self.folder.append(lang, taken)
        have |= {completion.key for completion in taken}
        self.watch.advance(len(taken))
        begun = time.perf_counter()
        for batch in compute_cell(self.chat, left, have):
            self.folder.append(lang, batch)
            have |= {completion.key for completion in batch}
            self.watch.advance(len(batch))
            made += batch
        self.watch.end()
        if made:
            add_timing(self.folder.path, cell_timing(task.cell, made, time.perf_counter() - begun))


def run(
    load: Callable[[], ChatModel],
    data: DataFolder,
    settings: BenchSettings,
    judges: Sequence[Judge],
    out: Path,
    *,
    request: Mapping[str, Any] | None = None,
    watch: GridProgress | None = None,
) -> list[Result]:
    """Go the whole way into `out`: directions, answers, verdicts, tables; return the rates.

    Of several processes that share a model only the first judges; the others return nothing.

    `load` makes the model; it is not called where `request` says that the answers are there. Raises
    `RunFolderError` where `out` is another run's, or where another process is writing to it.
    """
    plan = RunPlan(load, data, settings, judges, out, request)
    watch = watch or GridProgress(quiet=True)
    if finished(out, request):
        return RunFolder(out).results()
    if not answered(out, request):
        answer_run(plan, watch)
    return [] if rank() > 0 else judge_run(plan, watch)


def answer_run(plan: RunPlan, watch: GridProgress) -> None:
    """Make the answers of a run here; when this returns, nothing holds the model any more."""
    if watch.quiet:
        silence_loading()
    begun = time.perf_counter()
    chat = plan.load()
    loading = time.perf_counter() - begun
    bench = Bench.open(
        chat,
        plan.data,
        plan.settings,
        plan.out,
        judges=plan.judge_names,
        request=plan.request,
        progress=not watch.quiet,
        say=watch.say,
        watch=watch,
        on_finished=plan.on_finished,
    )
    del chat
    with bench.folder.locked():
        bench.folder.mend()
        bench.folder.reopen()
        add_timing(plan.out, Timing("load", loading))
        bench.answer()
    del bench
    _release_memory()


def judge_run(plan: RunPlan, watch: GridProgress) -> list[Result]:
    """Let the judges of a run read what they have not read, write its tables, and return the rates."""
    folder = RunFolder(plan.out)
    with folder.locked():
        folder.mend()
        judge_completions(
            folder,
            plan.judges,
            plan.settings.langs,
            lambda lang: prompts_by_id(plan.data, lang),
            progress=not watch.quiet,
            on_finished=plan.on_finished,
        )
        return write_tables(folder, plan.settings.langs)


def prompts_by_id(data: DataFolder, lang: str) -> dict[str, str]:
    """Return the test prompts in `lang` by the id of their row."""
    return {row.id: row.text for row in data.rows(lang, "test")}


def _release_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
