"""Watchers of a translation run: one that counts, one that shows progress and keeps a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from polyrefuse_data.core.errors import FileError, PolyRefuseError
from polyrefuse_data.core.files import disk_errors, make_folder, own_file_opener
from polyrefuse_data.core.progress import Progress
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.faults import Fault, TranslatorError, excerpt
from polyrefuse_data.translate.memory.store import Question
from polyrefuse_data.translate.tasks import Task


class Tally:
    """Count retries and failures by reason, and translations; show nothing."""

    def __init__(self) -> None:
        self.retries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.translated = 0
        self._lock = threading.RLock()

    def begin(self, backend: str, tasks: Sequence[Task]) -> None:
        """Do nothing."""

    def retry(self, question: Question, fault: Fault) -> None:
        with self._lock:
            self.retries[fault.reason] += 1

    def pause(self, fault: Fault, seconds: float) -> None:
        """Do nothing."""

    def done(self, task: Task) -> None:
        self.translated += 1

    def failed(self, task: Task, reason: str, sample: str = "") -> None:
        self.failures[reason] += 1

    def end(self, problem: str | None) -> None:
        """Do nothing."""


class TranslationProgress(Tally):
    """Show the progress of each backend, and keep a log; a context manager.

    The log has a line for the beginning and end of a backend, for each failure, and for how far each language
    is. It holds no text of a prompt and no key.
    """

    def __init__(self, quiet: bool = False, log: Path | None = None, stream: TextIO | None = None) -> None:
        super().__init__()
        self._log_lock = threading.Lock()  # no other lock is taken inside it: lines come from under any
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._log: TextIO | None = None
        if log is not None:
            make_folder(log.parent)
            with disk_errors(f"write the log '{log}'", log, FileError):
                self._log = open(log, "a", encoding="utf-8", opener=own_file_opener())  # noqa: SIM115
        self._progress: Progress | None = None
        self._begin("", ())

    def __enter__(self) -> TranslationProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        try:
            if error is not None:  # the caller shows it
                reason = error if isinstance(error, PolyRefuseError) else type(error).__name__
                self._to_log(f"stopped: {error.summary if isinstance(error, TranslatorError) else reason}")
        finally:
            if self._log is not None:
                with contextlib.suppress(OSError):  # it was reported when it was written
                    self._log.close()

    def _begin(self, backend: str, tasks: Sequence[Task]) -> None:
        """Forget the backend before; count from nothing."""
        self._backend = backend
        self._total = Counter(task.pair for task in tasks)
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._before = self.retries.copy()
        self._sample = ""
        self._start = time.monotonic()

    def begin(self, backend: str, tasks: Sequence[Task]) -> None:
        self._begin(backend, tasks)
        self._progress = Progress(
            len(tasks), "texts", backend, quiet=self._quiet, stream=self._stream, log=self._to_log
        )
        self._write(f"{len(tasks)} texts to translate ({_counts(self._total)})")

    def retry(self, question: Question, fault: Fault) -> None:
        super().retry(question, fault)
        self._advance(0, f"{question.source}->{question.target}")

    def pause(self, fault: Fault, seconds: float) -> None:
        self._write(f"no usable answer ({fault}); no requests for {seconds:.0f} s")

    def done(self, task: Task) -> None:
        super().done(task)
        self._done[task.pair] += 1
        self._advance(1, task.pair)

    def failed(self, task: Task, reason: str, sample: str = "") -> None:
        super().failed(task, reason)
        if sample:
            self._sample = f"{reason}: '{excerpt(sample)}'"
        self._failed[task.pair] += 1
        identity = f"{task.pair} {text_hash(task.english)[:16]}"
        self._to_log(f"{self._backend}: no translation of {identity}: {reason}")
        self._advance(1, task.pair)

    def end(self, problem: str | None) -> None:
        self._close()
        for direction in self._total:
            self._write(self._state(direction))
        seconds = time.monotonic() - self._start
        done = sum(self._done.values())
        retried = self.retries - self._before
        retries = f", retries: {_counts(retried)}" if retried else ""
        self._write(f"{done} translated in {seconds:.0f} s ({done / max(seconds, 1e-9):.1f}/s){retries}")
        if self._sample and self._progress is not None and not problem:
            self._progress.write(f"{self._backend}: one answer that was refused, {self._sample}", log=False)
        if problem:
            self._write(problem)

    def _advance(self, count: int, direction: str) -> None:
        with self._lock:
            retried = (self.retries - self._before).total()
            if self._progress is not None:
                self._progress.advance(count, f"{self._state(direction)}, retries {retried}")

    def _state(self, direction: str) -> str:
        failed = f", {self._failed[direction]} failed" if self._failed[direction] else ""
        return f"{direction} {self._done[direction]}/{self._total[direction]}{failed}"

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.close(complete=False)

    def _write(self, line: str) -> None:
        """Show and log a line about the backend."""
        if self._progress is not None:
            self._progress.write(f"{self._backend}: {line}")

    def _to_log(self, line: str) -> None:
        if self._log is None:
            return
        time_stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            with self._log_lock:
                self._log.write(f"{time_stamp} {line}\n")
                self._log.flush()
        except OSError as error:
            raise PolyRefuseError(f"cannot write the log '{self._log.name}': {error.strerror}") from None


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
