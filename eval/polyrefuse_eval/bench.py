"""The one loop over a model: model x direction language x intervention x language, then the judges.

Everything is written as it goes, and a killed run goes on where it was. The model is let go before a
judge is loaded.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from polyrefuse_data.schema import Row
from polyrefuse_eval.baselines import BaselineAnswer, BaselineCache, prompt_hash
from polyrefuse_eval.cells import CellTask, compute_cell, edits_of
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.data import DataFolder
from polyrefuse_eval.direction import Direction
from polyrefuse_eval.finder import DirectionFinder
from polyrefuse_eval.judges.base import Judge
from polyrefuse_eval.judging import judge_completions
from polyrefuse_eval.parallel import rank, world_size
from polyrefuse_eval.records import Completion, Result
from polyrefuse_eval.results import RunFolder, write_json
from polyrefuse_eval.run_request import ANSWERED_FILE, answered, finished
from polyrefuse_eval.settings import BASELINE_CONDITION, BenchSettings, Cell, grid
from polyrefuse_eval.tables import write_tables
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
    _rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

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
        signature = run_signature(chat, data, settings, judges)
        return cls(chat, data, settings, RunFolder.open(out, signature, request), **more)

    @cached_property
    def finder(self) -> DirectionFinder:
        """What finds, or has found, the directions of this run."""
        return DirectionFinder(
            self.chat, self.data, self.settings, self.folder.path, progress=self.progress, say=self.say
        )

    @property
    def shares_baselines(self) -> bool:
        """Whether baselines of other runs are used: not where processes must do the same, whatever another
        run adds meanwhile."""
        return world_size() == 1

    @cached_property
    def cache(self) -> BaselineCache:
        """Answers of the unedited model that earlier runs have made."""
        return BaselineCache(self.chat.signature(), self.settings.max_new_tokens)

    def answer(self) -> None:
        """Answer what is missing of the whole grid."""
        directions = self.finder.all_directions()
        counts = {lang: self.answer_in(lang, directions) for lang in self.settings.langs}
        write_json(self.folder.path / ANSWERED_FILE, {"answers": counts, "directions": list(directions)})

    def tasks(self, lang: str, directions: Mapping[str, Direction]) -> list[CellTask]:
        """Return the cells in `lang` with all that it takes to compute them."""
        return [
            CellTask(
                cell,
                self._prompts(cell),
                edits_of(cell.condition, directions),
                self.settings.max_new_tokens,
                self.settings.batch_size,
            )
            for cell in grid(lang, list(directions), self.settings)
        ]

    def answer_in(self, lang: str, directions: Mapping[str, Direction]) -> int:
        """Answer what is missing in `lang`, cell by cell; return how many answers there are."""
        tasks = self.tasks(lang, directions)
        have = {completion.key for completion in self.folder.completions(lang)}
        for number, task in enumerate(tasks, 1):
            if not set(task.keys) <= have:
                left = self._without_known(task, have)
                told = f"{lang} {number}/{len(tasks)} {task.cell.condition.name}" if self.progress else None
                for batch in compute_cell(self.chat, left, have, told):
                    self.folder.append(lang, batch)
                    have |= {completion.key for completion in batch}
            self.folder.cell_done(lang, task.cell.label, task.cell.condition.name)
        self._remember(lang, tasks)
        return len(have)

    def _prompts(self, cell: Cell) -> tuple[Row, ...]:
        key = (cell.lang, cell.label)
        if key not in self._rows:
            self._rows[key] = self.data.prompts(cell.lang, "test", cell.label)
        return tuple(self._rows[key][: cell.limit])

    def _without_known(self, task: CellTask, have: set[str]) -> CellTask:
        """Take over what other runs have answered of a baseline; return the task without those prompts."""
        if task.cell.condition != BASELINE_CONDITION or not self.shares_baselines:
            return task
        known = self.cache.load(task.cell.lang)
        taken: list[Completion] = []
        left: list[Row] = []
        for row in task.rows:
            answer = known.get(prompt_hash(row.text))
            if answer is None:
                left.append(row)
            elif task.key(row) not in have:
                taken.append(task.completion(row, answer.response, answer.n_tokens, answer.ended))
        self.folder.append(task.cell.lang, taken)
        have |= {completion.key for completion in taken}
        return replace(task, rows=tuple(left))

    def _remember(self, lang: str, tasks: Sequence[CellTask]) -> None:
        if not self.shares_baselines:
            return
        # Only when the language is complete: a run that goes on must find the cache as it left it.
        texts = {
            task.key(row): row.text
            for task in tasks
            if task.cell.condition == BASELINE_CONDITION
            for row in task.rows
        }
        self.cache.add(
            lang,
            [
                BaselineAnswer(
                    prompt_hash(texts[done.key]), done.response, done.n_tokens or 0, bool(done.ended)
                )
                for done in self.folder.completions(lang)
                if done.key in texts
            ],
        )


def run(
    load: Callable[[], ChatModel],
    data: DataFolder,
    settings: BenchSettings,
    judges: Sequence[Judge],
    out: Path,
    *,
    request: Mapping[str, Any] | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> list[Result]:
    """Go the whole way into `out`: directions, answers, verdicts, tables; return the rates.

    Of several processes that share a model only the first judges; the others return nothing.

    `load` makes the model; it is not called where `request` says that the answers are there. Raises
    `RunFolderError` where `out` is another run's, or where another process is writing to it.
    """
    if finished(out, request):
        return RunFolder(out).results()
    if not answered(out, request):
        names = [judge.name for judge in judges]
        _answer(load, data, settings, names, out, request, progress, say)
    if rank() > 0:
        return []
    folder = RunFolder(out)
    with folder.locked():
        folder.mend()
        judge_completions(
            folder, judges, settings.langs, lambda lang: prompts_by_id(data, lang), progress=progress
        )
        return write_tables(folder, settings.langs)


def prompts_by_id(data: DataFolder, lang: str) -> dict[str, str]:
    """Return the test prompts in `lang` by the id of their row."""
    return {row.id: row.text for row in data.rows(lang, "test")}


def run_signature(
    chat: ChatModel, data: DataFolder, settings: BenchSettings, judges: Sequence[str] = ()
) -> dict[str, Any]:
    """Return everything that the numbers of a run depend on."""
    return {
        "model": chat.signature(),
        "data": {"digest": data.digest, "recipe": data.recipe},
        "settings": settings.signature(),
        "judges": list(judges),
        "versions": versions(),
    }


def _answer(
    load: Callable[[], ChatModel],
    data: DataFolder,
    settings: BenchSettings,
    judges: Sequence[str],
    out: Path,
    request: Mapping[str, Any] | None,
    progress: bool,
    say: Callable[[str], None],
) -> None:
    """Make the answers; when this returns, nothing holds the model any more."""
    bench = Bench.open(
        load(), data, settings, out, judges=judges, request=request, progress=progress, say=say
    )
    with bench.folder.locked():
        bench.folder.mend()
        bench.folder.reopen()
        bench.answer()
    del bench
    _release_memory()


def _release_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
