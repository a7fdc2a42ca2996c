"""Progress of a long step: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO
from weakref import WeakKeyDictionary

from polyrefuse_data.core.display import visible

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 30.0
"""Seconds between two lines where there is no terminal, at least."""

SHORTEST_WAIT = 0.1


class _Log:
    """The steps that run on a stream, outer ones first, and when one of them last wrote a line there.

    Many short steps in a row write as seldom as one long step; a step within another writes in its line. A
    thread writes the line where no step advances for long: one batch of a large model may take minutes.
    """

    def __init__(self) -> None:
        self.last_line = time.monotonic()
        self.steps: list[Progress] = []
        self._lock = threading.Lock()
        self._watched = False

    def watch(self) -> None:
        """Write lines from now on until no step is left, whether one advances or not."""
        with self._lock:
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._write_lines, name="progress", daemon=True).start()

    def _write_lines(self) -> None:
        while True:
            time.sleep(max(LINE_SECONDS, SHORTEST_WAIT))
            with self._lock:
                steps = list(self.steps)
                self._watched = bool(steps)
            if not steps:
                return
            with suppress(ValueError, OSError):  # the stream was closed meanwhile
                steps[-1].write_state()


_logs: WeakKeyDictionary[TextIO, _Log] = WeakKeyDictionary()


class Progress:
    """Show how far a step is; a context manager, safe to share between threads.

    On a terminal it is a bar of tqdm. Elsewhere (a batch log) it is a line at most every `LINE_SECONDS` for
    all steps on a stream together: what, how far, rate, time left; and one at the end of a step that had
    such lines. `quiet`, and a `description` of None, show nothing. `total` counts `unit`s (a plural, such as
    "prompts"), None where it is unknown; it and `description` may change while the step runs.

        with Progress(len(prompts), "prompts", "generating answers") as progress:
            for batch in batches:
                ...
                progress.advance(len(batch))
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        description: str | None,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Begin the step. `stream` is standard error unless given; `log` gets every line, also if quiet."""
        self.total = total
        self.description = description or ""
        self._unit = unit
        self._quiet = quiet = quiet or description is None
        self._stream = stream or sys.stderr
        self._log = log
        self._lock = threading.RLock()
        self.count = 0
        self._note = ""
        self._start = time.monotonic()
        self._shared = _Log() if quiet else _logs.setdefault(self._stream, _Log())
        self._shared.steps.append(self)
        self._lines = False
        self._bar: tqdm[Any] | None = None
        if not quiet and self._stream.isatty():
            self._bar = _bar_type()(
                total=total, desc=visible(self.description), unit=f" {unit}", file=self._stream, leave=False
            )
        elif not quiet:
            self._shared.watch()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=error is None)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done; show `note` behind the numbers until another replaces it."""
        with self._lock:
            self.count += count
            self._note = note or self._note
            if self._bar is not None:
                self._bar.total = self.total
                self._bar.set_description_str(visible(self.description), refresh=False)
                self._bar.set_postfix_str(visible(self._note), refresh=False)
                self._bar.update(count)
            self.write_state()

    def write_state(self) -> None:
        """Write how far all steps of the stream are, unless a line was written a moment ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._shared.last_line >= LINE_SECONDS:
                self._shared.last_line, self._lines = now, True
                self._put("; ".join(step.state() for step in list(self._shared.steps)))

    def restart(self) -> None:
        """Measure the rate from now on: what came before is not part of the step's pace."""
        self._start = time.monotonic()

    def write(self, line: str, *, log: bool = True) -> None:
        """Show a line of the step's own, above the bar where there is one; unless `log`, for the eye only."""
        with self._lock:
            line = visible(line)  # it may quote what a service or a file says
            if log and self._log is not None:
                self._log(line)
            if self._bar is not None:
                self._bar.write(line, file=self._stream)
            elif not self._quiet:
                print(line, file=self._stream, flush=True)

    def above(self, show: Callable[[], None]) -> None:
        """Call `show`, which prints, with the bar out of its way."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            show()
            if self._bar is not None:
                self._bar.refresh()

    def close(self, complete: bool = True) -> None:
        """End the step: take the bar away, or write how long a `complete` step took if it had lines."""
        with self._lock:
            if self in self._shared.steps:
                self._shared.steps.remove(self)
            if self._bar is not None:
                self._bar.close()
                self._bar = None
            elif self._lines and complete:
                seconds = time.monotonic() - self._start
                self._put(f"{self.description}: {self.count} {self._unit} in {clock(seconds)}")
            self._lines = False

    def _put(self, line: str) -> None:
        """Write a line about the step's state, which a bar shows already."""
        if self._bar is None:
            self.write(line)
        elif self._log is not None:
            self._log(line)

    def state(self) -> str:
        """Return the line that says how far the step is."""
        seconds = time.monotonic() - self._start
        rate = self.count / max(seconds, 1e-9)
        of_total, left = "" if self.total is None else f"/{self.total}", ""
        if self.total is not None and rate:
            left = f", {clock((self.total - self.count) / rate)} left"
        pace = (
            f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each" if rate else f"{clock(seconds)} so far"
        )
        note = f", {self._note}" if self._note else ""
        return f"{self.description}: {self.count}{of_total} {self._unit}, {pace}{left}{note}"


class StepProgress:
    """Show the steps of a longer work, each as a `Progress`, from calls that say (step, count, total).

    A context manager; `quiet` shows nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._step: Progress | None = None
        self._count = 0

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._close()

    def __call__(self, step: str, count: int, total: int) -> None:
        """Show that `count` of `total` parts of `step` are done."""
        if self._step is None or self._step.description != step:
            self._close()
            self._step = Progress(total, "done", step, quiet=self._quiet)
        self._step.total = total
        self._step.advance(count - self._count)
        self._count = count

    def _close(self) -> None:
        if self._step is not None:
            self._step.close()
        self._step, self._count = None, 0


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours where there are any.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@lru_cache(maxsize=1)
def _bar_type() -> type[tqdm[Any]]:
    """Return tqdm with a lock of threads.

    tqdm's own lock is shared with forked processes: one that is killed while it holds it would stop every
    other for ever.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
    return tqdm
