"""How far a grid is: conditions done, running and failed, time left. A bar on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TextIO

from polyrefuse_data.cluster.tasks import Observer, Outcome, Task
from polyrefuse_data.core import terminal
from polyrefuse_data.core.progress import Progress


@dataclass
class GridProgress(Observer):
    """Count the tasks that have a size, and the records that they make.

    `stream`, standard error by default, gets a bar where it is a terminal, else a line now and then; nothing
    where `quiet`.
    """

    quiet: bool = False
    stream: TextIO | None = None
    show: Callable[[str], None] = lambda line: terminal.show(line, err=True)
    """Print a line for the user."""
    names: tuple[str, str] = ("conditions", "answers")
    """Names of tasks and records."""
    total: int = 0
    complete: int = 0
    """Tasks that were not needed."""
    done: int = 0
    running: int = 0
    failed: int = 0
    records: int = 0
    """Records to make."""
    _foreseen: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """Tasks and records of each run that wait for what other tasks find."""
    _progress: Progress | None = field(default=None, repr=False)
    _begun: bool = False
    """Whether a task that has a size was started: the pace of records is counted from there."""

    def say(self, line: str) -> None:
        """Print a line for the user above the bar, also where `quiet`."""
        if self._progress is not None:
            self._progress.above(lambda: self.show(line))
        else:
            self.show(line)

    def foresee(self, run: str, tasks: int, records: int) -> None:
        """Count so many tasks and records of `run`, not known one by one yet, in place of earlier ones."""
        self._foreseen[run] = (tasks, records)
        self._update()

    def expect(self, tasks: Iterable[Task], complete: int = 0) -> None:
        """Add `tasks` to those to come, and a number to those that were not needed."""
        sizes = [task.size for task in tasks if task.size is not None]
        self.total += len(sizes)
        self.records += sum(sizes)
        self.complete += complete
        self._update()

    def started(self, task: Task) -> None:
        """Note that a task began."""
        if task.size is not None:
            self.running += 1
            self._update()
            if not self._begun and self._progress is not None:
                self._progress.restart()
                self._begun = True

    def retried(self, task: Task, error: str) -> None:
        """Note that a task failed and waits again, and tell the user."""
        if task.size is not None:
            self.running -= 1
            self._update()
        self.say(f"{task.name} is tried again: {error}")

    def took(self, outcome: Outcome) -> None:
        """Note the records of an outcome, and the end of its task."""
        if outcome.task.size is None:
            return
        if outcome.ended:
            self.running -= 1
            self.failed += outcome.error is not None
            self.done += outcome.error is None
        self._update(sum(len(part) for part in outcome.result or []))

    def waiting(self) -> None:
        """Show how far the grid is while nothing comes back."""
        self._update()

    def close(self) -> None:
        """Draw no more."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    @property
    def line(self) -> str:
        """How far the grid is, in one line; empty before there is anything to do."""
        return "" if self._progress is None else self._progress.state()

    def _update(self, made: int = 0) -> None:
        """Count `made` more records."""
        total = self.total + sum(tasks for tasks, _ in self._foreseen.values())
        records = self.records + sum(count for _, count in self._foreseen.values())
        if not total:
            return
        if self._progress is None:
            self._progress = Progress(records, self.names[1], "", quiet=self.quiet, stream=self.stream)
        complete = f", {self.complete} were there" if self.complete else ""
        failed = f", {self.failed} failed" if self.failed else ""
        self._progress.total = records
        self._progress.description = (
            f"{self.names[0]} {self.done}/{total} done, {self.running} running{failed}{complete}"
        )
        self._progress.advance(made)
