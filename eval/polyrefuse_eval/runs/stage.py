"""A stage of a run, from what is missing to tasks and from outcomes to files; and the loop over stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from polyrefuse_data.cluster.tasks import Outcome, Task
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.errors import TakenError
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.timings import Failure, Timing, add_timing, write_failures
from polyrefuse_eval.runs.executors import Executor
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress

Failures = dict[str, list[Failure]]
"""Name of a run to what failed in it; a run without failures is not in it."""


class Stage:
    """One stage of the run `plan`; `start` gives its first tasks, `take` those that an outcome leads to."""

    def __init__(self, plan: RunPlan, progress: GridProgress) -> None:
        self.plan = plan
        self.progress = progress
        self.folder = RunFolder(plan.out)
        self.failures: list[Failure] = []
        self._locks = ExitStack()

    def start(self) -> Iterable[Task]:
        """Return the first tasks."""
        raise NotImplementedError

    def take(self, outcome: Outcome) -> Iterable[Task]:
        """Write what a task made, and return the tasks that it makes possible.

        An error of this process is raised, since trying again would not help; one of workers is recorded.
        """
        if outcome.exception is not None:
            raise outcome.exception
        if outcome.error is not None:
            self.failed(outcome)
            return []
        return self.succeeded(outcome)

    def succeeded(self, outcome: Outcome) -> Iterable[Task]:
        """Write what a task made, and return the tasks that it makes possible."""
        raise NotImplementedError

    def failed(self, outcome: Outcome) -> None:
        """Record what failed as often as it may."""
        what = outcome.task.name.removeprefix(f"{self.plan.name}: ")
        self.failures.append(Failure(what=what, error=str(outcome.error), tries=outcome.tries))

    def lock(self) -> None:
        """Lock the folder until the stage is closed, and repair what a kill left."""
        self._locks.enter_context(self.folder.locked())
        self._locks.callback(lambda: write_failures(self.plan.out, self.failures))
        self.folder.mend()

    def close(self) -> None:
        """Write what failed, and release the folder."""
        self._locks.close()

    def time(self, timing: Timing) -> None:
        """Record how long something took."""
        add_timing(self.plan.out, timing)

    def task_name(self, name: str) -> str:
        """Return the name of a task in messages."""
        return f"{self.plan.name}: {name}"


def run_stages(stages: Sequence[Stage], executor: Executor, *, single: bool) -> Failures:
    """Run the tasks of all `stages` until none is left; return what failed.

    The error that stops the stage of a `single` run is raised; of several runs the others go on.
    """
    if not stages:
        return {}
    progress = stages[0].progress
    tasks: deque[Task] = deque()
    owner: dict[Task, Stage] = {}
    stopped: set[Stage] = set()

    def add(stage: Stage, step: Callable[[], Iterable[Task]]) -> None:
        try:
            new = list(step())
        except TakenError:
            raise  # the folder is another process's: nothing more may be written
        except PolyRefuseError as error:
            if single:
                raise
            stage.failures.append(Failure(what="run", error=str(error), tries=1))
            stopped.add(stage)
            remaining = [task for task in tasks if owner[task] is not stage]
            tasks.clear()
            tasks.extend(remaining)
        else:
            tasks.extend(new)
            owner.update(dict.fromkeys(new, stage))

    try:
        for stage in stages:
            add(stage, stage.start)
        for outcome in executor.run(tasks, progress):
            progress.took(outcome)
            stage = owner.pop(outcome.task) if outcome.ended else owner[outcome.task]
            if stage not in stopped:
                add(stage, lambda stage=stage, outcome=outcome: stage.take(outcome))  # type: ignore[misc]
    finally:
        progress.close()
        for stage in stages:
            stage.close()
    return {stage.plan.name: stage.failures for stage in stages if stage.failures}
