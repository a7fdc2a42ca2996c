"""Progress that people can trust: per language, rate, time left, retries, failures; and a log to keep."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.http.faults import Fault
from polyrefuse_data.translate.memory.store import Question
from polyrefuse_data.translate.runner import Work

LINE_SECONDS = 15.0
"""How often a run without a terminal prints where it stands."""


class Progress:
    """Watches a run: a bar a language on a terminal, lines elsewhere, nothing if quiet.

    The log, if there is one, gets a line for every backend's beginning and end, for every failure, and
    for where each language stands; no text of a prompt and no key stands in it.
    """

    def __init__(self, quiet: bool = False, log: Path | None = None, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.RLock()
        self._log: IO[str] | None = None
        if log is not None:
            try:
                log.parent.mkdir(parents=True, exist_ok=True)
                self._log = log.open("a", encoding="utf-8")
            except OSError as error:
                raise PolyRefuseError(f"cannot write the log {log}: {error.strerror}") from None
        self.retries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._reset("")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # whoever calls tells it to the user
            self._to_log(f"stopped: {error if isinstance(error, PolyRefuseError) else type(error).__name__}")
        self._close_bar()
        if self._log is not None:
            self._log.close()

    def _reset(self, backend: str) -> None:
        self._backend = backend
        self._total: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._began = self._said = time.monotonic()
        self._bar: object | None = None

    def begin(self, backend: str, works: Sequence[Work]) -> None:
        self._reset(backend)
        self._total.update(_place(work) for work in works)
        self._write(f"{backend}: {len(works)} texts to translate ({_list(self._total)})")
        if not self._quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=len(works), desc=backend, file=self._stream, unit="row", leave=False)

    def retry(self, question: Question, fault: Fault) -> None:
        with self._lock:
            self.retries[fault.reason] += 1
            self._retried[fault.reason] += 1
        self._beat(f"{question.source}->{question.target}")

    def pause(self, fault: Fault, seconds: float) -> None:
        self._write(
            f"{self._backend}: no good answer any more ({fault}); nothing is asked for {seconds:.0f} s"
        )

    def done(self, work: Work) -> None:
        self._done[_place(work)] += 1
        self._moved(work)

    def failed(self, work: Work, reason: str) -> None:
        self._failed[_place(work)] += 1
        self.failures[reason] += 1
        self._to_log(f"{self._backend}: no translation of {_identity(work)}: {reason}")
        self._moved(work)

    def end(self, problem: str | None) -> None:
        self._close_bar()
        for place in self._total:
            self._write(f"{self._backend}: {self._state(place)}")
        seconds = time.monotonic() - self._began
        done = sum(self._done.values())
        rate = done / seconds if seconds > 0 else 0.0
        retried = f", retries: {_list(self._retried)}" if self._retried else ""
        self._write(f"{self._backend}: {done} translated in {seconds:.0f} s ({rate:.1f}/s){retried}")
        if problem:
            self._write(f"{self._backend}: {problem}")

    def _moved(self, work: Work) -> None:
        if self._bar is not None:
            self._bar.set_description(f"{self._backend} {_place(work)}", refresh=False)  # type: ignore[attr-defined]
            with self._lock:
                retried = sum(self._retried.values())
            failed = sum(self._failed.values())
            self._bar.set_postfix({"retries": retried, "failed": failed}, refresh=False)  # type: ignore[attr-defined]
            self._bar.update(1)  # type: ignore[attr-defined]
        self._beat(_place(work))

    def _beat(self, place: str) -> None:
        """Say where the run stands if that was long ago, also while nothing but retries happen."""
        with self._lock:
            now = time.monotonic()
            if now - self._said < LINE_SECONDS:
                return
            self._said = now
            line = f"{self._backend}: {self._state(place)}; all: {self._overall(now)}"
            self._to_log(line)
            if self._bar is None and not self._quiet:
                print(line, file=self._stream, flush=True)

    def _state(self, place: str) -> str:
        failed = f", {self._failed[place]} failed" if self._failed[place] else ""
        return f"{place} {self._done[place]}/{self._total[place]}{failed}"

    def _overall(self, now: float) -> str:
        done = sum(self._done.values()) + sum(self._failed.values())
        total = sum(self._total.values())
        rate = done / max(now - self._began, 1e-9)
        left = (total - done) / rate if rate else float("inf")
        with self._lock:
            retried = sum(self._retried.values())
        return f"{done}/{total}, {rate:.1f}/s, {_clock(left)} left, {retried} retries"

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()  # type: ignore[attr-defined]
            self._bar = None

    def _write(self, line: str) -> None:
        self._to_log(line)
        if self._bar is not None:
            self._bar.write(line, file=self._stream)  # type: ignore[attr-defined]
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def _to_log(self, line: str) -> None:
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            try:
                with self._lock:
                    self._log.write(f"{stamp} {line}\n")
                    self._log.flush()
            except OSError as error:
                raise PolyRefuseError(f"cannot write the log {self._log.name}: {error.strerror}") from None


def _place(work: Work) -> str:
    return f"{work.source}->{work.target}"


def _identity(work: Work) -> str:
    from polyrefuse_data.core.schema import text_hash

    return f"{_place(work)} {text_hash(work.english)[:16]}"


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Silent:
    """A watcher that only counts."""

    def __init__(self) -> None:
        self.retries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.translated = 0
        self._lock = threading.Lock()

    def begin(self, backend: str, works: Sequence[Work]) -> None:
        """Nothing to show."""

    def retry(self, question: Question, fault: Fault) -> None:
        with self._lock:
            self.retries[fault.reason] += 1

    def pause(self, fault: Fault, seconds: float) -> None:
        """Nothing to show."""

    def done(self, work: Work) -> None:
        self.translated += 1

    def failed(self, work: Work, reason: str) -> None:
        self.failures[reason] += 1

    def end(self, problem: str | None) -> None:
        """Nothing to show."""
