"""What an executor is, and the one that computes in this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from polyrefuse_data.cluster.tasks import ModelSlot, Observer, Outcome, Task
from polyrefuse_data.core.errors import PolyRefuseError


class Executor(AbstractContextManager["Executor"], Protocol):
    """Run tasks somewhere; release what that took when the `with` block ends."""

    def run(self, tasks: deque[Task], observer: Observer | None = None) -> Iterator[Outcome]:
        """Take all of `tasks`, which the caller may append to meanwhile, and yield their outcomes.

        Tasks that are `first` precede others of their model, and tasks of a model that is loaded precede
        those of other models.
        """
        ...


class LocalExecutor:
    """Compute in this process, one task after another, and pass on each part of a result as it comes.

    Only a `PolyRefuseError` becomes an outcome; any other error is a bug, and propagates.
    """

    def __init__(self, *, progress: bool = False) -> None:
        self._slot = ModelSlot(progress=progress)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_unused: object) -> None:
        """Unload the model."""
        self._slot.clear()

    def run(self, tasks: deque[Task], observer: Observer | None = None) -> Iterator[Outcome]:
        """See `Executor`."""
        while tasks:
            task = min(tasks, key=lambda task: (task.model != self._slot.key, not task.first))
            tasks.remove(task)
            if observer is not None:
                observer.started(task)
            yield from compute_here(task, self._slot)


def compute_here(task: Task, slot: ModelSlot) -> Iterator[Outcome]:
    """Compute `task` in this process; yield an outcome for each part of its result, then the last one."""
    begun, loading = time.perf_counter(), slot.load_seconds
    try:
        result = task.compute(slot)
        if isinstance(result, Iterator):
            for part in result:
                paused = time.perf_counter()
                yield Outcome(task=task, result=[part], ended=False)
                begun += time.perf_counter() - paused  # what the caller does with a part is not counted
            result = []
    except PolyRefuseError as error:
        yield Outcome(task=task, error=str(error), exception=error)
        return
    loading = slot.load_seconds - loading
    yield Outcome(
        task=task,
        result=result,
        seconds=time.perf_counter() - begun - loading,
        load_seconds=loading,
    )
