"""One cell of the grid (model, direction, intervention, language) as a task that can be sent anywhere.

A `CellTask` pickles, and holds all that `compute_cell` needs besides the model: where it is computed is
somebody else's affair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from polyrefuse_data.schema import Row
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.direction import Direction
from polyrefuse_eval.generate import Request, generate
from polyrefuse_eval.intervene import BASELINE, Ablation, Addition, Edits
from polyrefuse_eval.records import Completion
from polyrefuse_eval.settings import Cell, Condition


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

    def completion(self, row: Row, response: str, n_tokens: int | None, ended: bool | None) -> Completion:
        """Return the record of an answer to `row`."""
        name = self.cell.condition.name
        return Completion(
            self.key(row), row.id, row.group, row.lang, row.label, name, response, n_tokens, ended
        )


def edits_of(condition: Condition, directions: Mapping[str, Direction]) -> Edits:
    """Return the edits that `condition` makes with the direction of its source."""
    if condition.source is None:
        return BASELINE
    direction = directions[condition.source]
    strength = 1.0 if condition.coefficient is None else condition.coefficient
    if condition.intervention == "ablation":
        return (Ablation(direction.unit, strength),)
    return (Addition(direction.vector, direction.layer, strength),)


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
    ):
        yield [
            task.completion(rows[answer.key], answer.text, len(answer.ids), answer.ended)
            for answer in made
            if answer.key not in done
        ]
