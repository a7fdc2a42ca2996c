"""Where a grid stands: cells done, running, failed, time left. A bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import click

LINE_SECONDS = 15.0
"""How often a grid without a terminal says where it stands."""


@dataclass
class GridProgress:
    """Counts the cells of one or several runs. `stream` gets a line that is drawn over and over where it is a
    terminal, else a line now and then, without control characters; nothing where `quiet`."""

    quiet: bool = False
    stream: IO[str] | None = None
    told: Callable[[str], None] = lambda line: click.echo(line, err=True)
    """Where lines for people go."""
    names: tuple[str, str] = ("cells", "answers")
    """What is counted, and what these consist of."""
    clock: Callable[[], float] = time.monotonic
    cells: int = 0
    """Cells that are to be answered, those that were there at the start left out."""
    there: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0
    answers: int = 0
    """Answers to make, of all cells that are not there."""
    answered: int = 0
    _begun: float | None = None
    _said: float = float("-inf")
    _bar: Any = field(default=None, repr=False)

    def say(self, line: str) -> None:
        """Tell people a line, whatever is drawn; also where `quiet`."""
        if self._bar is not None:
            self._bar.clear()
        self.told(line)
        if self._bar is not None:
            self._bar.refresh()

    def expect(self, cells: int, answers: int, there: int = 0) -> None:
        """So many more cells, with so many answers in all, are to come; so many others are there."""
        self.cells += cells
        self.answers += answers
        self.there += there
        self._show()

    def begin(self) -> None:
        """A cell is being computed."""
        if self._begun is None:
            self._begun = self._said = self.clock()
        self.running += 1
        self._show()

    def advance(self, answers: int) -> None:
        """So many answers of a cell have come."""
        self.answered += answers
        self._show()

    def end(self, failed: bool = False) -> None:
        """A cell has ended."""
        self.running -= 1
        if failed:
            self.failed += 1
        else:
            self.done += 1
        self._show(last=self.done + self.failed == self.cells)

    def again(self) -> None:
        """A cell that was being computed waits again."""
        self.running -= 1
        self._show()

    def close(self) -> None:
        """Draw no more."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def line(self) -> str:
        """Where the grid stands."""
        there = f", {self.there} were there" if self.there else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.names[0]} {self.done}/{self.cells} done, {self.running} running{failed}{there}; "
            f"{self.names[1]} {self.answered}/{self.answers}; {self.time_left} left"
        )

    @property
    def time_left(self) -> str:
        """Time that is left if answers go on coming as they did; `?` before the first."""
        if not self.answered or self._begun is None:
            return "?"
        seconds = (self.clock() - self._begun) * (self.answers - self.answered) / self.answered
        return clock_time(seconds)

    def _show(self, last: bool = False) -> None:
        if self.quiet or not self.cells:
            return
        stream = self.stream or sys.stderr
        if stream.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(bar_format="{desc}", file=stream, leave=True)
            self._bar.set_description_str(self.line)
            return
        now = self.clock()
        if last or now - self._said >= LINE_SECONDS:
            self._said = now
            print(self.line, file=stream, flush=True)


def clock_time(seconds: float) -> str:
    """Return seconds as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
