"""Where the work of runs is done: here, or on a Dask cluster. The results are the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from polyrefuse_data.cluster import Cluster, ClusterOptions, open_cluster
from polyrefuse_data.errors import PolyRefuseError
from polyrefuse_eval.bench import answer_run, judge_run
from polyrefuse_eval.failures import Failure
from polyrefuse_eval.grid_progress import GridProgress
from polyrefuse_eval.plans import RunPlan
from polyrefuse_eval.run_request import answered, finished

if TYPE_CHECKING:
    from polyrefuse_data.dispatch import Job
    from polyrefuse_eval.driven_run import DrivenRun

Failures = dict[str, list[Failure]]
"""Name of a run to what failed in it; a run without failures is not in it."""


class Executor(Protocol):
    """Makes the answers of runs; open it with `with`."""

    def __enter__(self) -> Executor: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def answer(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """Make all answers of `plans`; return what failed. Raises the error of a single run that could not
        even begin."""
        ...


def run_all(plans: Sequence[RunPlan], executor: Executor, watch: GridProgress) -> Failures:
    """Go the whole way for each of `plans`, or as far as it goes; return what failed.

    A run in which something failed has no tables and no summary: the next go makes what is missing.
    """
    todo = [plan for plan in plans if not finished(plan.out, plan.request)]
    unanswered = [plan for plan in todo if not answered(plan.out, plan.request)]
    failures = executor.answer(unanswered, watch) if unanswered else {}
    watch.close()
    for plan in todo:
        if plan.name not in failures:
            judge_run(plan, watch)
    return failures


@dataclass
class LocalExecutor:
    """Computes in this process, one run after another."""

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_unused: object) -> None:
        """Nothing is held."""

    def answer(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """See `Executor`."""
        failures: Failures = {}
        for plan in plans:
            try:
                answer_run(plan, watch)
            except PolyRefuseError as error:
                if len(plans) == 1:
                    raise
                failures[plan.name] = [Failure("run", str(error), 1)]
        return failures


@dataclass
class DaskExecutor:
    """Computes on the workers of a cluster, which is opened when there is something to do.

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
        """Close what was opened."""
        self._stack.__exit__(kind, error, trace)

    def answer(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """See `Executor`."""
        from polyrefuse_eval.driven_run import DrivenRun

        with ExitStack() as locks:
            runs = [DrivenRun(plan, self._computer(plan), watch, locks) for plan in plans]
            self._drive(runs, watch)
            for run in runs:
                run.close()
        return {run.plan.name: run.failures for run in runs if run.failures}

    def _drive(self, runs: Sequence[DrivenRun], watch: GridProgress) -> None:
        """Let `runs` take what comes, until none of them has a job left."""
        from polyrefuse_data.dispatch import Dispatcher
        from polyrefuse_eval.works import ComputeCell

        def started(job: Job) -> None:
            if isinstance(job.work, ComputeCell):
                watch.begin()

        def failed_once(job: Job, error: str) -> None:
            if isinstance(job.work, ComputeCell):
                watch.again()
            watch.say(f"{job.name} is tried again: {error}")

        dispatcher = Dispatcher(self._opened(watch), started, failed_once)
        of: dict[Job, DrivenRun] = {}

        def send(run: DrivenRun, jobs: Callable[[], list[Job]]) -> None:
            try:
                found = jobs()
            except PolyRefuseError as error:
                if len(runs) == 1:
                    raise
                run.failures.append(Failure("run", str(error), 1))
                return
            of.update((job, run) for job in found)
            dispatcher.add(found)

        for run in runs:
            send(run, run.start)
        for outcome in dispatcher.outcomes():
            run = of.pop(outcome.job)
            send(run, lambda run=run, outcome=outcome: run.take(outcome))  # type: ignore[misc]

    def _computer(self, plan: RunPlan) -> object:
        import torch

        from polyrefuse_eval.model_spec import ModelSpec
        from polyrefuse_eval.works import Computer

        if not isinstance(plan.load, ModelSpec):
            raise TypeError("a run on a cluster needs a ModelSpec: what is loaded cannot be sent")
        return Computer(plan.load.settled(), self.threads or torch.get_num_threads())

    def _opened(self, watch: GridProgress) -> Cluster:
        if self._cluster is None:
            import torch

            self._cluster = self._stack.enter_context(
                open_cluster(self.options, gpus_here=torch.cuda.device_count, say=watch.say)
            )
        return self._cluster
