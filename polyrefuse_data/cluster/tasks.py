"""Tasks, the model that they compute with, and their outcomes; all executors share them.

Imports no distributed.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from polyrefuse_data.core.errors import PolyRefuseError


class ModelSlot:
    """Hold one loaded model; unload it before another is loaded.

    `progress` says whether a computation may draw progress on standard error.
    """

    def __init__(self, *, progress: bool = False) -> None:
        self.progress = progress
        self.key: str | None = None
        self.load_seconds = 0.0
        self._model: Any = None
        self._unload: Callable[[Any], None] | None = None

    def get(self, key: str, load: Callable[[], Any], unload: Callable[[Any], None] | None = None) -> Any:
        """Return the model `key`; call `load` unless it is held already.

        `unload` is called with the model before the next is loaded.
        """
        if self.key != key:
            self.clear()
            begun = time.perf_counter()
            self._model = load()
            self.load_seconds += time.perf_counter() - begun
            self.key, self._unload = key, unload
        return self._model

    def clear(self) -> None:
        """Unload the model, and give its memory back to the device."""
        model, unload = self._model, self._unload
        self.key = self._model = self._unload = None
        if model is None:
            return
        if unload is not None:
            unload(model)
        del model
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


class Computation(Protocol):
    """Compute with the model of a slot; picklable, since workers get it.

    A generator yields the parts of its result: an executor passes them on one by one, or all in a list.
    """

    def __call__(self, slot: ModelSlot) -> Any: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """One computation. Only `compute` is sent to a worker."""

    name: str
    """What messages call it."""
    model: str
    """Key of the model that it needs loaded."""
    compute: Computation
    first: bool = False
    """Whether it precedes other tasks of its model, because others wait for its result."""
    size: int | None = None
    """How many records it makes; None for a task that progress does not count."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a task, or a part of it, or the error of its last try."""

    task: Task
    result: Any = None
    """What the computation returned; of a generator, a list of parts."""
    ended: bool = True
    """Whether this is the task's last outcome."""
    seconds: float = 0.0
    """Time of the whole computation without loading the model, with its last outcome."""
    load_seconds: float = 0.0
    tries: int = 1
    error: str | None = None
    exception: PolyRefuseError | None = None
    """The error itself where the task ran in this process: trying again would not help."""


class Observer:
    """Hear what an executor does; this one ignores it."""

    def started(self, task: Task) -> None:
        """Note that `task` was handed to a worker, or begins here."""

    def retried(self, task: Task, error: str) -> None:
        """Note that `task` failed, and waits again."""

    def waiting(self) -> None:
        """Note that tasks are being computed elsewhere; called every few seconds."""

    def say(self, line: str) -> None:
        """Show a line to the user."""


def collect(result: Any) -> Any:
    """Return a computation's result; the parts of a generator in a list."""
    return list(result) if isinstance(result, Iterator) else result


def in_one_line(error: BaseException) -> str:
    """Return the message of an error in one line, with its type unless it is a PolyRefuseError."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, PolyRefuseError) else f"{type(error).__name__}: {text}"
