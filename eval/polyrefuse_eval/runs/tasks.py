"""One cell of the grid (model, direction, intervention, language) as a task that can be sent anywhere.

A `CellTask` pickles, and holds all that `compute_cell` needs besides the model: where it is computed is
somebody else's affair.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.core.paths import inside
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.errors import ChatModelError, DirectionError, JudgeError
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.of_runs import verdict_records
from polyrefuse_eval.judging.registry import JudgeSpec
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import BASELINE, Edits
from polyrefuse_eval.models.interventions import edit_with
from polyrefuse_eval.models.loading import silence_loading
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.results.folder import differences
from polyrefuse_eval.results.interventions import INTERVENTIONS
from polyrefuse_eval.results.records import Completion, VerdictRecord
from polyrefuse_eval.results.settings import BenchSettings, Cell, Condition
from polyrefuse_eval.versions import versions

if TYPE_CHECKING:
    from polyrefuse_data.cluster.worker import Keeper


@dataclass(frozen=True, eq=False)
class CellTask:
    """A cell with its prompts and the edits of its condition; `batch_size` None takes the default."""

    cell: Cell
    rows: tuple[Row, ...]
    edits: Edits
    max_new_tokens: int
    batch_size: int | None = None

    def key(self, row: Row) -> str:
        """Return the key of the completion of `row` in this cell."""
        return f"{row.id}/{self.cell.condition.name}"

    @property
    def keys(self) -> list[str]:
        """Keys of all completions of the cell."""
        return [self.key(row) for row in self.rows]

    def completion(
        self, row: Row, response: str, n_tokens: int | None, ended: bool | None, reasoning: str | None = None
    ) -> Completion:
        """Return the record of an answer to `row`."""
        name = self.cell.condition.name
        return Completion(
            key=self.key(row),
            id=row.id,
            group=row.group,
            lang=row.lang,
            label=row.label,
            condition=name,
            response=response,
            n_tokens=n_tokens,
            ended=ended,
            reasoning=reasoning,
        )


def edits_of(condition: Condition, directions: Mapping[str, Direction]) -> Edits:
    """Return the edits that `condition` makes with the direction of its source."""
    if condition.source is None:
        return BASELINE
    direction = directions[condition.source]
    strength = 1.0 if condition.coefficient is None else condition.coefficient
    return (edit_with(INTERVENTIONS[condition.intervention], direction, strength),)


def compute_cell(
    chat: ChatModel, task: CellTask, done: Collection[str] = (), progress: str | None = None
) -> Iterator[list[Completion]]:
    """Yield the completions of a cell batch by batch, without those whose keys are in `done`.

    The batches, and with them the bytes, follow from the task alone.
    """
    rows = {task.key(row): row for row in task.rows}
    if not set(rows) - set(done):
        return
    requests = [Request(key, row.text, task.edits) for key, row in rows.items()]
    for made in generate(
        chat,
        requests,
        max_new_tokens=task.max_new_tokens,
        batch_size=task.batch_size,
        done=done,
        progress=progress,
        thoughts=True,
    ):
        yield [
            task.completion(rows[answer.key], answer.text, len(answer.ids), answer.ended, answer.reasoning)
            for answer in made
            if answer.key not in done
        ]


@dataclass(frozen=True)
class Identity:
    """What the numbers of a model depend on: its signature, and the versions of libraries."""

    signature: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Computer:
    """How work is to be computed: with which model, which must turn out to be `identity`, and with so many
    threads of torch, on which the bytes of results depend as well."""

    spec: ModelSpec
    threads: int
    identity: Identity | None = None

    def chat(self, keeper: Keeper) -> ChatModel:
        """Return the model, loaded if the worker holds another; raises `ChatModelError` where it is not the
        same as on other workers."""
        import torch

        # OpenMP counts for each thread that calls it, so this is set in the one that computes.
        torch.set_num_threads(self.threads)
        silence_loading()
        chat: ChatModel = keeper.model(self.spec.key, self.spec)
        here = Identity(chat.signature(), versions())
        if self.identity is not None and here != self.identity:
            differing = differences(asdict(self.identity), asdict(here))
            raise ChatModelError(f"the model of this worker is not that of the run ({'; '.join(differing)})")
        return chat


@dataclass(frozen=True)
class Describe:
    """Load a model and say which it is."""

    computer: Computer

    def __call__(self, keeper: Keeper) -> Identity:
        return Identity(self.computer.chat(keeper).signature(), versions())


@dataclass(frozen=True)
class SentRows:
    """Rows of a data set on their way to a worker: what a `DirectionFinder` reads of a `DataFolder`."""

    digest: str
    rows: Mapping[tuple[str, str, str], Sequence[Row]]
    """(language, split, label) to rows."""

    def prompts(self, lang: str, split: str, label: str, limit: int | None = None) -> list[Row]:
        """Return the first `limit` rows with `label`."""
        return list(self.rows[lang, split, label])[:limit]


@dataclass(frozen=True)
class Found:
    """The files (by their place in the run folder, in the order to write them) and lines of a search.

    `error` says why a language gives no direction.
    """

    files: Mapping[str, bytes]
    said: tuple[str, ...]
    error: str | None = None


@dataclass(frozen=True)
class FindDirection:
    """Find the refusal tokens and the direction of a language; or, from these, its control of shuffled
    labels. `files` are those that are in the run folder already."""

    computer: Computer
    lang: str
    data: SentRows
    settings: BenchSettings
    files: Mapping[str, bytes]
    control: bool = False

    def __call__(self, keeper: Keeper) -> Found:
        said: list[str] = []
        with tempfile.TemporaryDirectory(prefix="polyrefuse-") as place:
            folder = Path(place)
            write_files(folder, self.files)
            finder = DirectionFinder(
                self.computer.chat(keeper), self.data, self.settings, folder, say=said.append
            )
            error = None
            try:
                if self.control:
                    file = folder / direction_file(self.lang)
                    finder.control(Direction.load(file, finder.chat))
                else:
                    finder.direction(self.lang)
            except DirectionError as fault:
                error = str(fault)
            # The direction is written last: that it is there says that the others are.
            paths = sorted(
                (path for path in folder.rglob("*") if path.is_file()),
                key=lambda path: (path == folder / direction_file(self.lang), path),
            )
            made = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
        new = {name: content for name, content in made.items() if self.files.get(name) != content}
        return Found(new, tuple(said), error)


@dataclass(frozen=True, eq=False)
class ComputeCell:
    """Answer the prompts of a cell."""

    computer: Computer
    task: CellTask

    def __call__(self, keeper: Keeper) -> list[Completion]:
        batches = compute_cell(self.computer.chat(keeper), self.task)
        return [completion for batch in batches for completion in batch]


@dataclass(frozen=True, eq=False)
class JudgeAnswers:
    """Let a judge that is a model read the answers in a language. `name` is what the judge is called in the
    run, `prompts` are by the id of their row."""

    spec: JudgeSpec
    name: str
    threads: int
    lang: str
    completions: Sequence[Completion]
    prompts: Mapping[str, str]

    def __call__(self, keeper: Keeper) -> list[VerdictRecord]:
        import torch

        torch.set_num_threads(self.threads)
        judge: Judge = keeper.model(f"judge {self.name}", self._loaded, lambda judge: judge.close())
        parts = verdict_records(judge, self.lang, self.completions, self.prompts)
        return [record for part in parts for record in part]

    def _loaded(self) -> Judge:
        judge = self.spec()
        if judge.name != self.name:
            raise JudgeError(f"the judge of this worker is {judge.name}, and that of the run {self.name}")
        judge.load()
        return judge


def direction_file(lang: str) -> str:
    """Return where the direction of `lang` lies in a run folder."""
    return f"directions/{lang}.safetensors"


def control_file(lang: str) -> str:
    """Return where the control of `lang` from shuffled labels lies in a run folder."""
    return f"directions/{lang}.shuffled.safetensors"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into `folder` in their order, each whole or not at all."""
    for name, content in files.items():
        write_bytes(inside(folder, name), content)


def read_files(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return those of the files `names` that are in `folder`."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
