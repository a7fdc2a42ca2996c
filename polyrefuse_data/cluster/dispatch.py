"""The executor that sends tasks to the workers of a Dask cluster.

Few tasks at a time for each worker; those of one model to a worker that has it loaded; elsewhere again where
one fails.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from polyrefuse_data.cluster.connect import GPU, WORKER_SECONDS, Cluster, ClusterOptions, open_cluster
from polyrefuse_data.cluster.tasks import Observer, Outcome, Task, in_one_line
from polyrefuse_data.core.errors import ClusterError

TASKS_PER_WORKER = 2
"""One that a worker computes, and one that is there when the first has ended.

No more: a task carries its prompts, and all that a worker had when it died may have killed it.
"""

POLL_SECONDS = 1.0
"""How often the list of workers is read."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Attempt:
    """A task to be sent, or sent to `worker`; it failed `failures` times before, last on `failed_on`.

    `alone` if a worker died that held it beside another task: the next attempt shows which of them kills.
    """

    task: Task
    failures: int = 0
    failed_on: str | None = None
    alone: bool = False
    worker: str = ""


@dataclass
class DaskExecutor:
    """Run tasks on the cluster of `options`, which is opened with the first task.

    `gpus_here` counts the GPUs of this machine.
    """

    options: ClusterOptions
    gpus_here: Callable[[], int] = lambda: 0
    cluster: Cluster | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _observer: Observer = field(default_factory=Observer)
    _waiting: dict[str, deque[_Attempt]] = field(default_factory=dict)
    """Model to its tasks."""
    _sent: dict[Any, _Attempt] = field(default_factory=dict)
    """Dask's future of a task to it."""
    _ended: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _model_of: dict[str, str] = field(default_factory=dict)
    """Worker to the model of the last task that it was sent."""
    _workers: list[str] = field(default_factory=list)
    _polled: float = float("-inf")
    _orphans: set[Any] = field(default_factory=set)
    """Futures that no worker held at the last poll."""
    _idle_since: float | None = None
    """Since when there is no worker."""
    _processors: set[str] = field(default_factory=set)
    """Names of the processors that results came from."""

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the cluster."""
        self.cluster = None
        self._stack.__exit__(kind, error, trace)

    def run(self, tasks: deque[Task], observer: Observer | None = None) -> Iterator[Outcome]:
        """Yield an outcome for each of `tasks`, which the caller may append to meanwhile.

        Within a model tasks are sent in order, those that are `first` before the others. Raises
        `ClusterError` where the cluster cannot be opened or is gone. Leaving the iteration cancels what was
        sent.
        """
        self._observer = observer or self._observer
        try:
            while tasks or self._sent or any(self._waiting.values()):
                cluster = self._open()
                self._enqueue(tasks)
                self._poll(cluster)
                self._send(cluster)
                try:
                    future = self._ended.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    self._observer.waiting()
                    continue
                outcome = self._outcome(cluster, future)
                if outcome is not None:
                    # The worker gets its next task before the caller handles this outcome.
                    self._send(cluster)
                    yield outcome
        finally:
            if self.cluster is not None:
                with contextlib.suppress(Exception):
                    self.cluster.client.cancel(list(self._sent), force=True)
            self._sent.clear()
            self._waiting.clear()

    def _open(self) -> Cluster:
        if self.cluster is None:
            from polyrefuse_data.cluster.worker import ModelPlugin

            opened = open_cluster(self.options, gpus_here=self.gpus_here, say=self._observer.say)
            self.cluster = self._stack.enter_context(opened)
            self.cluster.client.register_plugin(ModelPlugin())
        return self.cluster

    def _enqueue(self, tasks: deque[Task]) -> None:
        """Move `tasks` to the queues of their models."""
        new = list(tasks)
        tasks.clear()
        for task in reversed([task for task in new if task.first]):
            self._queue(task.model).appendleft(_Attempt(task=task))
        for task in new:
            if not task.first:
                self._queue(task.model).append(_Attempt(task=task))

    def _queue(self, model: str) -> deque[_Attempt]:
        return self._waiting.setdefault(model, deque())

    def _poll(self, cluster: Cluster) -> None:
        """Read which workers there are."""
        now = time.monotonic()
        if now - self._polled < POLL_SECONDS:
            return
        gone = ClusterError(f"the scheduler at {cluster.place} is gone; run the same command again to resume")
        if cluster.client.status != "running":
            raise gone
        try:
            self._workers = cluster.workers()
            self._polled = time.monotonic()
            self._requeue_orphans(cluster)
        except (OSError, TimeoutError):  # the client learns of it later than the caller
            raise gone from None
        if self._workers:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
            cluster.say(f"no worker is left at {cluster.place}; waiting for one")
        elif cluster.worker_seconds is not None and now - self._idle_since > WORKER_SECONDS:
            raise ClusterError(
                f"all workers at {cluster.place} have left; start others and run the same command again to "
                "resume"
            )

    def _requeue_orphans(self, cluster: Cluster) -> None:
        """Queue again what no worker computes.

        Dask does not give a task that was meant for a worker that has left, when there was no other, to
        those that come later.
        """
        orphans = {future for future, attempt in self._sent.items() if attempt.worker not in self._workers}
        if orphans:
            held = {key for keys in cluster.client.processing().values() for key in keys}
            orphans = {future for future in orphans if future.status == "pending" and future.key not in held}
        # Seen at two polls, it is not merely on its way.
        for future in orphans & self._orphans:
            attempt = self._sent.pop(future)
            future.cancel(force=True)
            self._observer.retried(attempt.task, "its worker has left")
            self._queue(attempt.task.model).appendleft(attempt)
        self._orphans = orphans

    def _send(self, cluster: Cluster) -> None:
        """Give every worker as much as it has room for, the emptiest first."""
        load = dict.fromkeys(self._workers, 0)
        for attempt in self._sent.values():
            if attempt.worker in load:
                load[attempt.worker] += TASKS_PER_WORKER if attempt.alone else 1
        while load and any(self._waiting.values()):
            worker = min(load, key=lambda worker: load[worker])
            if load[worker] >= TASKS_PER_WORKER:
                return
            chosen = self._next_for(worker, empty=not load[worker])
            load[worker] += 1 if chosen is not None and not chosen.alone else TASKS_PER_WORKER
            if chosen is not None:
                self._send_to(cluster, worker, chosen)

    def _send_to(self, cluster: Cluster, worker: str, attempt: _Attempt) -> None:
        from polyrefuse_data.cluster.worker import run_on_worker

        task = attempt.task
        self._model_of[worker] = task.model
        options: dict[str, Any] = {"workers": [worker], "allow_other_workers": True}
        if cluster.gpus:
            options["resources"] = {GPU: cluster.gpus}
        if cluster.mixed:
            # Dask would count workers that cannot take the task among the others.
            options |= {"workers": self._workers, "allow_other_workers": False}
        future = cluster.client.submit(run_on_worker, task.compute, pure=False, **options)
        self._sent[future] = replace(attempt, worker=worker)
        self._observer.started(task)
        future.add_done_callback(self._ended.put)

    def _next_for(self, worker: str, empty: bool) -> _Attempt | None:
        """Take the next task for `worker` off its queue, if possible not one that has just failed there.

        The model that the worker has loaded comes first; then the model with the most waiting tasks for
        each worker that computes with it, so that few workers load each model. `empty` says that the worker
        has no task: what is to be `alone` goes nowhere else.
        """
        loaded = self._model_of.get(worker)
        others = [other for other in self._workers if other in self._model_of and other != worker]
        workers_at = Counter(self._model_of[other] for other in others)

        def urgency(model: str) -> tuple[bool, float]:
            return (model == loaded, len(self._waiting[model]) / (workers_at[model] + 1))

        models = [model for model, waiting in self._waiting.items() if waiting]
        fallback: _Attempt | None = None
        for model in sorted(models, key=urgency, reverse=True):
            for attempt in self._waiting[model]:
                if attempt.alone and not empty:
                    continue
                if attempt.failed_on == worker and len(self._workers) > 1:
                    fallback = fallback or attempt
                    continue
                self._waiting[model].remove(attempt)
                return attempt
        if fallback is not None:
            self._waiting[fallback.task.model].remove(fallback)
        return fallback

    def _outcome(self, cluster: Cluster, future: Any) -> Outcome | None:
        """Return the outcome of a task; None where it is tried again."""
        attempt = self._sent.pop(future, None)
        if attempt is None:
            return None
        deaths, error = 0, ""
        if future.status == "finished":
            try:
                computed = future.result()
            except (OSError, TimeoutError) as lost:  # its worker left before the result was fetched
                error = in_one_line(lost)
            else:
                if computed.error is None:
                    future.release()
                    self._note_processor(cluster, computed.processor)
                    return Outcome(
                        task=attempt.task,
                        result=computed.result,
                        seconds=computed.seconds,
                        load_seconds=computed.load_seconds,
                        tries=attempt.failures + 1,
                    )
                error = computed.error
        else:
            fault = future.exception() if future.status == "error" else None
            deaths = _deaths(fault)
            error = "the cluster gave it up" if fault is None else in_one_line(fault)
            if deaths:
                # Nothing is sent there until the next poll shows who is left.
                self._workers = [worker for worker in self._workers if worker != attempt.worker]
                self._polled = float("-inf")
                error = "its worker died: out of memory, or killed"
        future.release()
        return self._retry(cluster, attempt, error, deaths)

    def _retry(self, cluster: Cluster, attempt: _Attempt, error: str, deaths: int) -> Outcome | None:
        """Queue a task that failed again; return its outcome where it failed as often as it may."""
        failures = attempt.failures + max(deaths, 1)
        beside_another = deaths > 0 and not attempt.alone
        if failures > cluster.retries and not (beside_another and cluster.retries):
            return Outcome(task=attempt.task, error=error, tries=failures)
        self._observer.retried(attempt.task, error)
        alone = attempt.alone or beside_another
        again = replace(attempt, failures=failures, failed_on=attempt.worker, alone=alone)
        self._queue(attempt.task.model).appendleft(again)
        return None

    def _note_processor(self, cluster: Cluster, name: str) -> None:
        """Tell the user once if results come from different processors, which round differently."""
        before = len(self._processors)
        self._processors.add(name)
        if before == 1 and len(self._processors) == 2:
            cluster.say(
                f"workers compute on different processors ({'; '.join(sorted(self._processors))}), which "
                "round differently: the same condition may come out slightly different on another"
            )


def _deaths(error: BaseException | None) -> int:
    """Return how many workers died over a task, as Dask says; 0 for another error."""
    if type(error).__name__ != "KilledWorker":
        return 0
    return int(getattr(error, "allowed_failures", 0)) + 1
