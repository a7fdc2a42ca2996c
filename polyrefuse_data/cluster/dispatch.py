"""Jobs for the workers of a cluster: few at a time, those of one model to whom has it loaded, and again
elsewhere where one fails."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from polyrefuse_data.cluster.connect import GPU, WORKER_SECONDS, Cluster
from polyrefuse_data.cluster.worker import Done, KeeperPlugin, Work, in_one_line, run_work
from polyrefuse_data.core.errors import ClusterError

AHEAD = 2
"""Jobs that a worker has at a time: one that it computes, and one that is there when it has ended.

No more: a job carries its prompts, and all that a worker had when it died may have killed it.
"""

LOOK_SECONDS = 1.0
"""How often it is seen which workers have come or gone."""


@dataclass(frozen=True, eq=False)
class Job:
    """Work for a worker. `model` is what it needs loaded; `name` says to people what it is."""

    name: str
    model: str
    work: Work
    first: bool = False
    """Whether it goes before other jobs of its model: others wait for what it brings."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with what it brought, or with the error of its last try."""

    job: Job
    done: Done | None
    error: str | None = None
    tries: int = 1


@dataclass(frozen=True, eq=False)
class _Try:
    """A job to be sent, or sent to `worker`. It failed `failures` times before, the last time on `failed_on`;
    `alone` if a worker died that had it beside another: now it is seen which of them kills."""

    job: Job
    failures: int = 0
    failed_on: str | None = None
    alone: bool = False
    worker: str = ""


@dataclass
class Dispatcher:
    """Sends jobs to the workers of `cluster`: `add` some, then iterate `outcomes`, adding more meanwhile."""

    cluster: Cluster
    started: Callable[[Job], None] = lambda _job: None
    failed_once: Callable[[Job, str], None] = lambda _job, _error: None
    _waiting: dict[str, deque[_Try]] = field(default_factory=dict)
    """Model to its jobs."""
    _out: dict[Any, _Try] = field(default_factory=dict)
    """Dask's future of a job to it."""
    _ended: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _model_of: dict[str, str] = field(default_factory=dict)
    """Worker to the model of the last job that it was sent."""
    _workers: list[str] = field(default_factory=list)
    _looked: float = float("-inf")
    _strays: set[Any] = field(default_factory=set)
    """Futures of what nobody computed when that was last looked at."""
    _without_workers: float | None = None
    _processors: set[str] = field(default_factory=set)
    """Names of the processors that results came from."""

    def __post_init__(self) -> None:
        self.cluster.client.register_plugin(KeeperPlugin())

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue `jobs`: within a model in this order, those that are `first` before the others."""
        jobs = list(jobs)
        for job in reversed([job for job in jobs if job.first]):
            self._queue(job.model).appendleft(_Try(job))
        for job in jobs:
            if not job.first:
                self._queue(job.model).append(_Try(job))

    def outcomes(self) -> Iterator[Outcome]:
        """Yield jobs as they end, until there are none; raises `ClusterError` where the cluster is gone.

        What is still out when the iteration is left is taken back.
        """
        try:
            while self._out or any(self._waiting.values()):
                self._look()
                self._send()
                try:
                    future = self._ended.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                outcome = self._ending(future)
                if outcome is not None:
                    # The worker gets its next job before the caller looks at what this one brought.
                    self._send()
                    yield outcome
        finally:
            with contextlib.suppress(Exception):
                self.cluster.client.cancel(list(self._out), force=True)
            self._out.clear()

    def _queue(self, model: str) -> deque[_Try]:
        return self._waiting.setdefault(model, deque())

    def _look(self) -> None:
        """See which workers there are."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        gone = ClusterError(
            f"the scheduler at {self.cluster.place} is gone; run the same command again to go on"
        )
        if self.cluster.client.status != "running":
            raise gone
        try:
            self._workers = self.cluster.workers()
            self._looked = time.monotonic()
            self._take_back_strays()
        except (OSError, TimeoutError):  # the client learns of it later than whoever asks
            raise gone from None
        if self._workers:
            self._without_workers = None
        elif self._without_workers is None:
            self._without_workers = now
            self.cluster.say(f"no worker is left at {self.cluster.place}; waiting for one")
        elif self.cluster.worker_seconds is not None and now - self._without_workers > WORKER_SECONDS:
            raise ClusterError(
                f"all workers at {self.cluster.place} have left; start others and run the same command again "
                "to go on"
            )

    def _take_back_strays(self) -> None:
        """Queue again what nobody computes: a task that was meant for a worker that has left, when there was
        no other, is not given to those that come later."""
        orphans = {future for future, one in self._out.items() if one.worker not in self._workers}
        if orphans:
            processing = self.cluster.client.processing()
            held = {key for keys in processing.values() for key in keys}
            orphans = {one for one in orphans if one.status == "pending" and one.key not in held}
        # Seen twice, it is not merely on its way.
        for future in orphans & self._strays:
            one = self._out.pop(future)
            future.cancel(force=True)
            self.failed_once(one.job, "its worker has left")
            self._queue(one.job.model).appendleft(one)
        self._strays = orphans

    def _send(self) -> None:
        """Give every worker what it has room for, the emptiest first."""
        load = dict.fromkeys(self._workers, 0)
        for out in self._out.values():
            if out.worker in load:
                load[out.worker] += AHEAD if out.alone else 1
        while load and any(self._waiting.values()):
            worker = min(load, key=lambda one: load[one])
            if load[worker] >= AHEAD:
                return
            found = self._next_for(worker, empty=not load[worker])
            load[worker] += 1 if found is not None and not found.alone else AHEAD
            if found is not None:
                self._send_to(worker, found)

    def _send_to(self, worker: str, one: _Try) -> None:
        self._model_of[worker] = one.job.model
        options: dict[str, Any] = {"workers": [worker], "allow_other_workers": True}
        if self.cluster.gpus:
            options["resources"] = {GPU: self.cluster.gpus}
        if self.cluster.mixed:
            # Workers that cannot take it are there, and "others" would be taken to mean these, too.
            options |= {"workers": self._workers, "allow_other_workers": False}
        future = self.cluster.client.submit(run_work, one.job.work, pure=False, **options)
        self._out[future] = _Try(one.job, one.failures, one.failed_on, one.alone, worker)
        self.started(one.job)
        future.add_done_callback(self._ended.put)

    def _next_for(self, worker: str, empty: bool) -> _Try | None:
        """Take the next job for `worker` off its queue: one of the model that it has, if there is one; of a
        model in want of workers else; if possible not one that has just failed there.

        The model that wants workers most has the most jobs for each worker that is at it, so that few
        workers load each. `empty` says that the worker has no job: what is to be alone goes nowhere else.
        """
        own = self._model_of.get(worker)
        at = Counter(self._model_of[one] for one in self._workers if one in self._model_of and one != worker)

        def want(model: str) -> tuple[bool, float]:
            return (model == own, len(self._waiting[model]) / (at[model] + 1))

        models = [model for model, waiting in self._waiting.items() if waiting]
        second: _Try | None = None
        for model in sorted(models, key=want, reverse=True):
            for one in self._waiting[model]:
                if one.alone and not empty:
                    continue
                if one.failed_on == worker and len(self._workers) > 1:
                    second = second or one
                    continue
                self._waiting[model].remove(one)
                return one
        if second is not None:
            self._waiting[second.job.model].remove(second)
        return second

    def _ending(self, future: Any) -> Outcome | None:
        """Return how a job ended; None where it is to be tried again."""
        out = self._out.pop(future, None)
        if out is None:
            return None
        deaths = 0
        if future.status == "finished":
            try:
                done: Done = future.result()
            except (OSError, TimeoutError) as error:  # its worker left before the result was fetched
                told = in_one_line(error)
            else:
                if done.error is None:
                    future.release()
                    self._note_processor(done.processor)
                    return Outcome(out.job, done, tries=out.failures + 1)
                told = done.error
        else:
            fault = future.exception() if future.status == "error" else None
            deaths = _deaths(fault)
            told = "the cluster gave it up" if fault is None else in_one_line(fault)
            if deaths:
                # Nothing is sent there until it is seen who is left.
                self._workers = [worker for worker in self._workers if worker != out.worker]
                self._looked = float("-inf")
                told = "its worker died: out of memory, or killed"
        future.release()
        failures = out.failures + max(deaths, 1)
        beside_another = deaths > 0 and not out.alone
        if failures > self.cluster.retries and not (beside_another and self.cluster.retries):
            return Outcome(out.job, None, told, failures)
        self.failed_once(out.job, told)
        again = _Try(out.job, failures, out.worker, alone=out.alone or beside_another)
        self._queue(out.job.model).appendleft(again)
        return None

    def _note_processor(self, name: str) -> None:
        """Say once if results come from different processors: they round differently."""
        before = len(self._processors)
        self._processors.add(name)
        if before == 1 and len(self._processors) == 2:
            self.cluster.say(
                f"workers compute on different processors ({'; '.join(sorted(self._processors))}), which "
                "round differently: the same cell may come out slightly different on another"
            )


def _deaths(error: BaseException | None) -> int:
    """Return how many workers died over a task, as Dask tells it; 0 for another error."""
    if type(error).__name__ != "KilledWorker":
        return 0
    return int(getattr(error, "allowed_failures", 0)) + 1
