"""Runs of one or several models: completions, then verdicts, then tables.

Imports torch where a model is loaded: not for models behind endpoints that are read by rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_eval.directions.places import direction_file
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.errors import ChatModelError, EndpointError, RunFolderError
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.processes import rank, torch_threads
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Result
from polyrefuse_eval.runs.answers import AnswerStage
from polyrefuse_eval.runs.dry_run import planned_measurements, summary
from polyrefuse_eval.runs.endpoint_answers import EndpointAnswerStage
from polyrefuse_eval.runs.endpoint_executor import EndpointExecutor
from polyrefuse_eval.runs.executors import Executor, LocalExecutor
from polyrefuse_eval.runs.plan import RunPlan, answered, finished
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.stage import Failures, run_stages
from polyrefuse_eval.runs.verdicts import VerdictStage


def run_grid(
    plans: Sequence[RunPlan],
    executor: Executor,
    progress: GridProgress | None = None,
    threads: int | None = None,
) -> Failures:
    """Run each plan to completion or first failure; return the failures.

    A model computes with `threads` of torch, by default as many as torch takes in this process. Models
    behind endpoints are asked from this process, before all others. Judges that are models read where
    `executor` computes, all others in this process. Of several processes that share a model only the first
    judges. A run that is there grows by what its plan asks for besides. A run with a failure has no tables:
    the same call again makes what is missing. Raises the error of a single run that cannot go on.
    """
    for plan in plans:
        sendable = isinstance(plan.load, ModelSpec | EndpointSpec)
        if not isinstance(executor, LocalExecutor) and not sendable:
            raise ChatModelError("a loaded model cannot be sent to workers; give a ModelSpec")
        if not isinstance(executor, LocalExecutor) and plan.baseline_server is not None:
            raise EndpointError(
                "--baseline-url is asked from the process that was started, and a cluster computes "
                "elsewhere; leave out --baseline-url, or the cluster"
            )
    progress = progress or GridProgress(quiet=True)
    single = len(plans) == 1
    plans = [part.grown() for plan in plans for part in plan.with_inner()]
    pending = [plan for plan in plans if not finished(plan.out, plan.request)]
    failures: Failures = {}

    def ask(plans: Sequence[RunPlan], services: EndpointExecutor) -> Failures:
        stages = [
            EndpointAnswerStage(plan, plan.load, progress)
            for plan in plans
            if isinstance(plan.load, EndpointSpec) and not answered(plan.out, plan.request)
        ]
        return run_stages(stages, services, single=single)

    def answer(plans: Sequence[RunPlan]) -> Failures:
        unanswered = [
            plan
            for plan in plans
            if not isinstance(plan.load, EndpointSpec) and not answered(plan.out, plan.request)
        ]
        return run_stages(_model_stages(unanswered, progress, threads), executor, single=single)

    def judge(executor: Executor, models: bool) -> Failures:
        unfailed = [plan for plan in pending if plan.name not in failures]
        return run_stages(_verdict_stages(unfailed, progress, threads, models), executor, single=single)

    # Runs inside another run begin when that is there, and take its directions; one that failed keeps them
    # waiting.
    with EndpointExecutor() as services, executor:
        for inner in (False, True):
            without = {plan.out for plan in pending if plan.name in failures}
            pending = [plan for plan in pending if plan.directions_from not in without]
            plans = [plan for plan in pending if (plan.directions_from is not None) == inner]
            failures |= ask(plans, services)
            failures |= answer(plans)
        if rank() > 0:
            return failures
        failures |= judge(executor, models=True)
    with LocalExecutor() as here:
        failures |= judge(here, models=False)
    for plan in pending:
        if plan.name not in failures:
            folder = RunFolder(plan.out)
            with folder.locked():
                write_tables(folder, plan.settings.langs)
    return failures


def opening_line(plans: Sequence[RunPlan]) -> str:
    """Return what runs will compute: directions, conditions, answers, and how long where it is known."""
    directions = sum(
        not (plan.out / direction_file(lang)).is_file()
        for plan in plans
        if plan.directions_from is None
        for lang in plan.settings.fitted_sources
    )
    planned = [measurement for plan in plans for measurement in planned_measurements(plan)]
    return f"directions to find: {directions}; {summary(planned)}"


def run(
    plan: RunPlan,
    executor: Executor | None = None,
    progress: GridProgress | None = None,
    threads: int | None = None,
) -> list[Result]:
    """Run one plan to completion, by default in this process; return its rates.

    Raises `RunFolderError` where the folder is another run's or another process is writing to it, and
    `PolyRefuseError` where something failed: the same call again makes what is missing.
    """
    by_run = run_grid([plan], executor or LocalExecutor(), progress, threads)
    failures = [failure for of_run in by_run.values() for failure in of_run]
    if failures:
        raise RunFolderError("; ".join(f"failed: {failure}" for failure in failures))
    return RunFolder(plan.out).results()


def _model_stages(
    plans: Sequence[RunPlan], progress: GridProgress, threads: int | None
) -> Sequence[AnswerStage]:
    """Return a stage for each plan of a model that is loaded."""
    if not plans:
        return []
    from polyrefuse_eval.runs.model_answers import ModelAnswerStage  # imports torch
    from polyrefuse_eval.runs.served_baselines import ServedBaselineStage

    threads = threads or torch_threads()
    return [
        ModelAnswerStage(plan, progress, threads)
        if plan.baseline_server is None
        else ServedBaselineStage(plan, plan.baseline_server, progress, threads)
        for plan in plans
    ]


def _verdict_stages(
    plans: Sequence[RunPlan], progress: GridProgress, threads: int | None, models: bool
) -> list[VerdictStage]:
    """Return a stage for each plan with judges that are models, or with others."""
    progress = GridProgress(progress.quiet, progress.stream, progress.show, names=("readings", "verdicts"))
    judges = {
        plan.out: [judge for judge in plan.judges if (judge.name in plan.judge_specs) == models]
        for plan in plans
    }
    plans = [plan for plan in plans if judges[plan.out]]
    threads = (threads or torch_threads()) if models and plans else None
    return [VerdictStage(plan, progress, threads, judges[plan.out]) for plan in plans]
