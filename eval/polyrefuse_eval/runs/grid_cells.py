"""The cells of one run, without its model: which there are, what is answered, and where answers go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.results.baseline_cache import BaselineAnswer, BaselineCache, prompt_hash
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder, write_json
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import BASELINE_CONDITION, BenchSettings, Cell, grid
from polyrefuse_eval.results.timings import Timing
from polyrefuse_eval.runs.plan import ANSWERED_FILE
from polyrefuse_eval.runs.tasks import CellTask, edits_of


@dataclass
class RunCells:
    """The cells of a run of `settings` on `data` in `folder`; `cache` holds baselines of other runs, None
    where these are not to be used."""

    data: DataFolder
    settings: BenchSettings
    folder: RunFolder
    cache: BaselineCache | None
    _rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    def tasks(self, lang: str, directions: Mapping[str, Direction]) -> list[CellTask]:
        """Return the cells in `lang` with all that it takes to compute them."""
        return [self.task(cell, directions) for cell in grid(lang, list(directions), self.settings)]

    def task(self, cell: Cell, directions: Mapping[str, Direction]) -> CellTask:
        """Return one cell with all that it takes to compute it."""
        return CellTask(
            cell,
            self._prompts(cell),
            edits_of(cell.condition, directions),
            self.settings.max_new_tokens,
            self.settings.batch_size,
        )

    def keys_there(self, lang: str) -> set[str]:
        """Return the keys of the answers in `lang` that are in the folder."""
        return {completion.key for completion in self.folder.completions(lang)}

    def without_known(self, task: CellTask, have: Collection[str] = ()) -> tuple[CellTask, list[Completion]]:
        """Return the task without what other runs answered of a baseline, and of that what `have` lacks."""
        if task.cell.condition != BASELINE_CONDITION or self.cache is None:
            return task, []
        known = self.cache.load(task.cell.lang)
        taken: list[Completion] = []
        left: list[Row] = []
        for row in task.rows:
            answer = known.get(prompt_hash(row.text))
            if answer is None:
                left.append(row)
            elif task.key(row) not in have:
                taken.append(
                    task.completion(row, answer.response, answer.n_tokens, answer.ended, answer.reasoning)
                )
        return replace(task, rows=tuple(left)), taken

    def write(self, cell: Cell, completions: Sequence[Completion]) -> None:
        """Write the answers of a whole cell."""
        self.folder.write_cell(cell.lang, cell.label, cell.condition.name, completions)

    def remember(self, lang: str, tasks: Iterable[CellTask]) -> None:
        """Keep the baselines in `lang` for other runs.

        Only when the language is complete: a run that goes on must find the cache as it left it.
        """
        if self.cache is None:
            return
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
                    prompt_hash(texts[done.key]),
                    done.response,
                    done.n_tokens or 0,
                    bool(done.ended),
                    done.reasoning,
                )
                for done in self.folder.completions(lang)
                if done.key in texts
            ],
        )

    def finish(self, counts: Mapping[str, int], directions: Iterable[str]) -> None:
        """Note that all answers are there: so many in each language, under directions of these sources."""
        write_json(
            self.folder.path / ANSWERED_FILE, {"answers": dict(counts), "directions": list(directions)}
        )

    def _prompts(self, cell: Cell) -> tuple[Row, ...]:
        key = (cell.lang, cell.label)
        if key not in self._rows:
            self._rows[key] = self.data.prompts(cell.lang, "test", cell.label)
        return tuple(self._rows[key][: cell.limit])


def cell_timing(cell: Cell, made: Sequence[Completion], seconds: float) -> Timing:
    """Return how long it took to make the answers `made` of `cell`."""
    tokens = sum(completion.n_tokens or 0 for completion in made)
    return Timing("cell", seconds, cell.lang, cell.label, cell.condition.name, len(made), tokens)
