"""The executor that computes on the workers of a Dask cluster; the files are written here.

All runs of a grid share the workers: while one waits for its directions, another's cells are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import torch

from polyrefuse_data.cluster.connect import Cluster, ClusterOptions, open_cluster
from polyrefuse_data.cluster.dispatch import Dispatcher, Job, Outcome
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.errors import ChatModelError, TakenError
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.results.timings import Failure
from polyrefuse_eval.runs.cluster_judging import DrivenJudging
from polyrefuse_eval.runs.cluster_run import DrivenRun
from polyrefuse_eval.runs.executors import Failures
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.tasks import ComputeCell, Computer, JudgeAnswers


class Driven(Protocol):
    """Something that is computed elsewhere: `start` gives its first jobs, `take` what an outcome leads to."""

    plan: RunPlan
    failures: list[Failure]

    def start(self) -> list[Job]: ...
    def take(self, outcome: Outcome) -> list[Job]: ...
    def close(self) -> None: ...


@dataclass
class DaskExecutor:
    """See `executors.Executor`. The cluster is opened when there is something to compute.

    `threads` is how many threads of torch each worker takes; None as many as torch takes here, so that the
    bytes are those of a local run.
    """

    options: ClusterOptions
    threads: int | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _cluster: Cluster | None = None

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the cluster."""
        self._cluster = None
        self._stack.__exit__(kind, error, trace)

    def answer(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """See `Executor`."""
        with ExitStack() as locks:
            return self._drive(
                [DrivenRun(plan, self._computer(plan.load), watch, locks) for plan in plans], watch
            )

    def judge(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """Let judges that are models read on workers; the others read here."""
        with_models = [plan for plan in plans if plan.judge_specs]
        if not with_models:
            return {}
        of_verdicts = GridProgress(watch.quiet, watch.stream, names=("parts", "verdicts"))
        with ExitStack() as locks:
            return self._drive(
                [DrivenJudging(plan, self._threads, of_verdicts, locks) for plan in with_models], of_verdicts
            )

    def _drive(self, driven: Sequence[Driven], watch: GridProgress) -> Failures:
        """Let all of `driven` take what comes until no job is left; return what failed."""
        counted = (ComputeCell, JudgeAnswers)

        def started(job: Job) -> None:
            if isinstance(job.work, counted):
                watch.begin()

        def failed_once(job: Job, error: str) -> None:
            if isinstance(job.work, counted):
                watch.again()
            watch.say(f"{job.name} is tried again: {error}")

        dispatcher: Dispatcher | None = None
        of: dict[Job, Driven] = {}

        def send(one: Driven, jobs: Callable[[], list[Job]]) -> None:
            nonlocal dispatcher
            try:
                found = jobs()
            except TakenError:
                raise
            except PolyRefuseError as error:
                if len(driven) == 1:
                    raise
                one.failures.append(Failure("run", str(error), 1))
                return
            if found and dispatcher is None:
                dispatcher = Dispatcher(self._opened(watch), started, failed_once)
            if dispatcher is not None:
                dispatcher.add(found)
            of.update((job, one) for job in found)

        try:
            for one in driven:
                send(one, one.start)
            for outcome in dispatcher.outcomes() if dispatcher is not None else ():
                one = of.pop(outcome.job)
                send(one, lambda one=one, outcome=outcome: one.take(outcome))  # type: ignore[misc]
        finally:
            watch.close()
            for one in driven:
                one.close()
        return {one.plan.name: one.failures for one in driven if one.failures}

    @property
    def _threads(self) -> int:
        return self.threads or torch.get_num_threads()

    def _computer(self, load: object) -> Computer:
        if not isinstance(load, ModelSpec):
            raise ChatModelError("a model that is loaded cannot be sent to a cluster; give what loads it")
        return Computer(load.settled(), self._threads)

    def _opened(self, watch: GridProgress) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(
                open_cluster(self.options, gpus_here=torch.cuda.device_count, say=watch.say)
            )
        return self._cluster
