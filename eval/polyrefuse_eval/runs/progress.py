"""How far a grid is: conditions done, running and failed, time left. A bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

import click

from polyrefuse_data.cluster.tasks import Observer, Outcome, Task

LINE_SECONDS = 15.0
"""How often a grid without a terminal prints a line."""


@dataclass
class GridProgress(Observer):
    """Count the tasks that have a size, and the records that they make.

    `stream` gets a line that is redrawn where it is a terminal, else a line now and then without control
    characters; nothing where `quiet`.
    """

    quiet: bool = False
    stream: IO[str] | None = None
    show: Callable[[str], None] = lambda line: click.echo(line, err=True)
    """Print a line for the user."""
    names: tuple[str, str] = ("conditions", "answers")
    """Names of tasks and records."""
    clock: Callable[[], float] = time.monotonic
    total: int = 0
    complete: int = 0
    """Tasks that were not needed."""
    done: int = 0
    running: int = 0
    failed: int = 0
    records: int = 0
    """Records to make."""
    made: int = 0
    _begun: float | None = None
    _printed: float = float("-inf")
    _bar: Any = field(default=None, repr=False)

    def say(self, line: str) -> None:
        """Print a line for the user above the bar, also where `quiet`."""
        if self._bar is not None:
            self._bar.clear()
        self.show(line)
        if self._bar is not None:
            self._bar.refresh()

    def expect(self, tasks: Iterable[Task], complete: int = 0) -> None:
        """Add `tasks` to those to come, and a number to those that were not needed."""
        sizes = [task.size for task in tasks if task.size is not None]
        self.total += len(sizes)
        self.records += sum(sizes)
        self.complete += complete
        self._draw()

    def started(self, task: Task) -> None:
        """Note that a task began."""
        if task.size is not None:
            if self._begun is None:
                self._begun = self._printed = self.clock()
            self.running += 1
            self._draw()

    def retried(self, task: Task, error: str) -> None:
        """Note that a task failed and waits again, and tell the user."""
        if task.size is not None:
            self.running -= 1
            self._draw()
        self.say(f"{task.name} is tried again: {error}")

    def took(self, outcome: Outcome) -> None:
        """Note the records of an outcome, and the end of its task."""
        if outcome.task.size is None:
            return
        self.made += sum(len(part) for part in outcome.result or [])
        if outcome.ended:
            self.running -= 1
            self.failed += outcome.error is not None
            self.done += outcome.error is None
        self._draw(last=outcome.ended and self.done + self.failed == self.total)

    def close(self) -> None:
        """Draw no more."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def line(self) -> str:
        """How far the grid is, in one line."""
        complete = f", {self.complete} were there" if self.complete else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.names[0]} {self.done}/{self.total} done, {self.running} running{failed}{complete}; "
            f"{self.names[1]} {self.made}/{self.records}; {self.time_left} left"
        )

    @property
    def time_left(self) -> str:
        """Time left at the rate so far; `?` before the first record."""
        if not self.made or self._begun is None:
            return "?"
        return clock_time((self.clock() - self._begun) * (self.records - self.made) / self.made)

    def _draw(self, last: bool = False) -> None:
        if self.quiet or not self.total:
            return
        stream = self.stream or sys.stderr
        if stream.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(bar_format="{desc}", file=stream, leave=True)
            self._bar.set_description_str(self.line)
            return
        now = self.clock()
        if last or now - self._printed >= LINE_SECONDS:
            self._printed = now
            print(self.line, file=stream, flush=True)


def clock_time(seconds: float) -> str:
    """Return seconds as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
