"""Where the work of runs is done: here, or on a Dask cluster. The results are the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.errors import TakenError
from polyrefuse_eval.results.timings import Failure
from polyrefuse_eval.runs.local_run import answer_run, judge_run
from polyrefuse_eval.runs.plan import RunPlan, answered, finished
from polyrefuse_eval.runs.progress import GridProgress

Failures = dict[str, list[Failure]]
"""Name of a run to what failed in it; a run without failures is not in it."""


class Executor(Protocol):
    """Computes for runs; what it opens for that is closed with the `with` block that it opens."""

    def __enter__(self) -> Executor: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def answer(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """Make all answers of `plans`; return what failed. Raises the error of a single run that could not
        even begin."""
        ...

    def judge(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """Get the verdicts that are better made elsewhere than in this process; return what failed."""
        ...


def run_all(plans: Sequence[RunPlan], executor: Executor, watch: GridProgress) -> Failures:
    """Go the whole way for each of `plans`, or as far as it goes; return what failed.

    A run in which something failed has no tables and no summary: the next go makes what is missing.
    """
    todo = [plan for plan in plans if not finished(plan.out, plan.request)]
    with executor:
        unanswered = [plan for plan in todo if not answered(plan.out, plan.request)]
        failures = executor.answer(unanswered, watch) if unanswered else {}
        watch.close()
        whole = [plan for plan in todo if plan.name not in failures]
        failures |= executor.judge(whole, watch)
    for plan in whole:
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
            except TakenError:
                raise
            except PolyRefuseError as error:
                if len(plans) == 1:
                    raise
                failures[plan.name] = [Failure("run", str(error), 1)]
        return failures

    def judge(self, plans: Sequence[RunPlan], watch: GridProgress) -> Failures:
        """Nothing: all judges read here."""
        return {}
