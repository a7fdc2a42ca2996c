"""Jobs for the workers of a cluster: few at a time, those of one model to whom has it loaded, and again
elsewhere where one fails."""

from __future__ import annotations

import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from polyrefuse_data.cluster import GPU, WORKER_SECONDS, Cluster
from polyrefuse_data.cluster_worker import Done, KeeperPlugin, Work, in_one_line, run_work
from polyrefuse_data.errors import ClusterError

AHEAD = 2
"""Jobs that a worker has at a time: one that it computes, and one that is there when it has ended.

No more: a job carries its prompts, and Dask suspects every task that a worker had when it died.
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


@dataclass
class _Out:
    """A job that is out: where it was sent to, as which try."""

    job: Job
    worker: str
    tries: int


@dataclass
class Dispatcher:
    """Sends jobs to the workers of `cluster`: `add` some, then iterate `outcomes`, adding more meanwhile."""

    cluster: Cluster
    started: Callable[[Job], None] = lambda _job: None
    failed_once: Callable[[Job, str], None] = lambda _job, _error: None
    _waiting: dict[str, deque[tuple[Job, int, str | None]]] = field(default_factory=dict)
    """Model to its jobs, with the number of the try and the worker that failed before."""
    _out: dict[Any, _Out] = field(default_factory=dict)
    _ended: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _model_of: dict[str, str] = field(default_factory=dict)
    """Worker to the model of the last job that it was sent."""
    _workers: list[str] = field(default_factory=list)
    _looked: float = float("-inf")
    _without_workers: float | None = None

    def __post_init__(self) -> None:
        self.cluster.client.register_plugin(KeeperPlugin())

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue `jobs`: within a model in this order, those that are `first` before the others."""
        jobs = list(jobs)
        for job in reversed([job for job in jobs if job.first]):
            self._queue(job.model).appendleft((job, 1, None))
        for job in jobs:
            if not job.first:
                self._queue(job.model).append((job, 1, None))

    def outcomes(self) -> Iterator[Outcome]:
        """Yield jobs as they end, until there are none; raises `ClusterError` where the workers are gone.

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
            self.cluster.client.cancel(list(self._out), force=True)
            self._out.clear()

    def _queue(self, model: str) -> deque[tuple[Job, int, str | None]]:
        return self._waiting.setdefault(model, deque())

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        try:
            self._workers = self.cluster.workers()
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"the scheduler at {self.cluster.place} is gone ({error}); run the same command again to "
                "go on"
            ) from None
        self._looked = time.monotonic()
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

    def _send(self) -> None:
        """Give every worker what it has room for, the emptiest first."""
        load = Counter(dict.fromkeys(self._workers, 0))
        load.update(out.worker for out in self._out.values() if out.worker in load)
        while load and any(self._waiting.values()):
            worker = min(load, key=lambda one: load[one])
            if load[worker] >= AHEAD:
                return
            self._send_to(worker)
            load[worker] += 1

    def _send_to(self, worker: str) -> None:
        model = self._model_for(worker)
        job, tries, _ = self._take(model, worker)
        self._model_of[worker] = model
        options: dict[str, Any] = {"workers": [worker], "allow_other_workers": True}
        if self.cluster.gpus:
            options["resources"] = {GPU: self.cluster.gpus}
            if len(self._workers) < len(self.cluster.checked):
                # Workers without GPUs are there, and "others" would be taken to mean these, too.
                options |= {"workers": self._workers, "allow_other_workers": False}
        future = self.cluster.client.submit(run_work, job.work, pure=False, **options)
        self._out[future] = _Out(job, worker, tries)
        self.started(job)
        future.add_done_callback(self._ended.put)

    def _model_for(self, worker: str) -> str:
        """Return the model whose job `worker` gets: the one it has while there are jobs of it; else the one
        with the most jobs for each worker that is at it, so that few workers load each."""
        own = self._model_of.get(worker)
        if own is not None and self._waiting.get(own):
            return own
        at = Counter(self._model_of[one] for one in self._workers if one in self._model_of and one != worker)
        with_jobs = [model for model, jobs in self._waiting.items() if jobs]
        return max(with_jobs, key=lambda model: len(self._waiting[model]) / (at[model] + 1))

    def _take(self, model: str, worker: str) -> tuple[Job, int, str | None]:
        """Return the next job of `model`, if possible one that has not just failed on `worker`."""
        jobs = self._waiting[model]
        if len(self._workers) > 1:
            for index, (_, _, failed_on) in enumerate(jobs):
                if failed_on != worker:
                    found = jobs[index]
                    del jobs[index]
                    return found
        return jobs.popleft()

    def _ending(self, future: Any) -> Outcome | None:
        """Return how a job ended; None where it is to be tried again."""
        out = self._out.pop(future, None)
        if out is None:
            return None
        died = False
        if future.status == "finished":
            try:
                done: Done = future.result()
            except (OSError, TimeoutError) as error:  # its worker left before the result was fetched
                told = in_one_line(error)
            else:
                if done.error is None:
                    future.release()
                    return Outcome(out.job, done, tries=out.tries)
                told = done.error
        else:
            fault = future.exception() if future.status == "error" else None
            told, died = _told(fault), type(fault).__name__ == "KilledWorker"
        future.release()
        # A job whose worker died was tried again by Dask already.
        if died or out.tries > self.cluster.retries:
            return Outcome(out.job, None, told, out.tries)
        self.failed_once(out.job, told)
        self._queue(out.job.model).appendleft((out.job, out.tries + 1, out.worker))
        return None


def _told(error: BaseException | None) -> str:
    """Return one line on why Dask gave a task up."""
    if error is None:
        return "the cluster gave it up"
    if type(error).__name__ == "KilledWorker":
        deaths = getattr(error, "allowed_failures", 0) + 1
        return f"{deaths} workers died while they had it: out of memory, or killed"
    return in_one_line(error)
