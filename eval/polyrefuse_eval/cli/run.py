"""The command `polyrefuse eval run`, and what the commands for its single steps share with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.cli.cluster import EXECUTOR_OPTIONS, take_cluster_options
from polyrefuse_data.cluster.connect import ClusterOptions, require_dask
from polyrefuse_data.core.errors import ClusterError
from polyrefuse_data.core.languages import parse_languages
from polyrefuse_eval.cli.grid import grid_plans, refuse_given
from polyrefuse_eval.cli.options import (
    MODEL_OPTIONS,
    file_path,
    folder_path,
    load_chat,
    model_spec,
    need,
    place_path,
    with_options,
)

if TYPE_CHECKING:
    from polyrefuse_eval.results.data import DataFolder
    from polyrefuse_eval.results.settings import BenchSettings
    from polyrefuse_eval.runs.executors import Failures
    from polyrefuse_eval.runs.local_run import Bench
    from polyrefuse_eval.runs.plan import RunPlan
    from polyrefuse_eval.storage.places import Place, WorkingFolder

RUN_OPTIONS = (
    click.option(
        "--data", type=folder_path, default=Path("builds/sample"), show_default=True, help="A build."
    ),
    click.option(
        "--rule", default="robust", show_default=True, help="robust, mediating, arditi2024 or wang2025."
    ),
    click.option(
        "--train", "n_train", default=128, show_default=True, help="Training prompts of each label."
    ),
    click.option("--validation", "n_validation", default=32, show_default=True, help="Validation prompts."),
    click.option(
        "--no-filter",
        is_flag=True,
        help="Use training and validation prompts that the model does not refuse, too.",
    ),
    click.option("--refusal-tokens", help="First tokens of refusals: words or ids.  [default: found]"),
    click.option("--all-candidates", is_flag=True, help="Score also candidates that the rule rules out."),
    click.option("--seed", default=0, show_default=True, help="Seed of the controls."),
)
JUDGE_OPTIONS = (
    click.option(
        "--judge-model",
        "judge_models",
        multiple=True,
        metavar="NAME=PLACE",
        help="Where a judge's model lies: a folder, or REPOSITORY@COMMIT.  [default: as published, pinned]",
    ),
    click.option(
        "--judge-batch-size", type=click.IntRange(1), help="Answers that a judge's model reads together."
    ),
    click.option(
        "--phrases",
        type=file_path,
        multiple=True,
        help="The native judge's file of another language, called after its code: sw.yaml.",
    ),
)
EXIT_GAPS = 3
"""As of a build with gaps: everything else is there."""

NOT_IN_A_GRID = (
    "grid", "out", "executor", "scheduler", "slurm", "workers", "gpus_per_worker", "retries", "threads",
    "dry_run", "quiet", "tensor_parallel",
)  # fmt: skip
"""What says how a grid is computed, and not what is measured."""

IDENTITY_OPTIONS = ("dtype", "quantization", "attention", "system", "thinking", "structure")
"""Options of the model that change its numbers; where it runs does not."""


def settings_of(langs: str, directions: str, options: dict[str, Any]) -> tuple[DataFolder, BenchSettings]:
    """Return data and settings that options ask for, taking these from `options`; loads nothing big."""
    from polyrefuse_eval.directions.selection import rule_steps
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.settings import POOLED, BenchSettings

    wanted = parse_languages(langs)
    sources = [POOLED] if directions == POOLED else parse_languages(directions)
    data = open_data(options.pop("data"), [*wanted, *(name for name in sources if name != POOLED)])
    rule_steps(options["rule"])
    names = {field for field in BenchSettings.__dataclass_fields__ if field in options}
    settings = BenchSettings(
        langs=tuple(wanted),
        direction_langs=tuple(sources),
        filter_prompts=not options.pop("no_filter"),
        **{name: options.pop(name) for name in names},
    )
    return data, settings


def open_bench(out: Path, langs: str, options: dict[str, Any]) -> Bench:
    """Open the run folder of a single step; bad input is told before the model is loaded."""
    quiet = options.pop("quiet")
    data, settings = settings_of(langs, langs, options)
    need()

    from polyrefuse_eval.runs.local_run import Bench

    chat = load_chat(options, quiet=quiet)
    return Bench.open(chat, data, settings, out, progress=not quiet, say=_say)


@click.command("run")
@click.argument("grid", required=False, type=file_path)
@with_options(*MODEL_OPTIONS, *RUN_OPTIONS)
@click.option("--langs", default="all", show_default=True, help="Languages to measure in.")
@click.option(
    "--directions", default="en", show_default=True, help="Languages to take directions from, or 'pooled'."
)
@click.option(
    "--judges", default="native", show_default=True, help="Judges of the answers, separated by commas."
)
@click.option(
    "--out",
    type=place_path,
    required=True,
    help="Folder of the run, or its address (s3://, gs://, …); the same one resumes it.",
)
@click.option("--max-new-tokens", default=512, show_default=True, help="Longest answer.")
@click.option("--test", "n_test", type=int, help="Test prompts of each label and language.  [default: all]")
@click.option("--coefficient", default=1.0, show_default=True, help="Strength of activation addition.")
@click.option(
    "--strengths",
    default="0.25,0.5,0.75",
    show_default=True,
    help="Further strengths of ablating each language's own direction (else the first), or 'none'.",
)
@click.option(
    "--crossed",
    default="128",
    show_default=True,
    help="Prompts for ablation on harmless and addition on harmful prompts: a number, 0, or 'all'.",
)
@click.option(
    "--batch-size", type=int, help="Answers made together.  [default: up to 128 on a CPU, 256 on a GPU]"
)
@click.option("--controls/--no-controls", default=True, help="Random and shuffled-label directions, too.")
@click.option("--tensor-parallel", is_flag=True, help="Spread the model over processes, under torchrun.")
@with_options(*JUDGE_OPTIONS, *EXECUTOR_OPTIONS)
@click.option("--dry-run", is_flag=True, help="List the cells, what is there, and the time left; no model.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_context
def run_command(
    context: click.Context,
    /,
    grid: Path | None,
    out: Place,
    threads: int | None,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Go the whole way for one model, or for those of a GRID file: directions, answers, verdicts, rates.

    Every direction is ablated and added in every language: from several languages, a transfer matrix.
    Killed, the same command goes on where it was; done, it does nothing. GRID is a YAML file with models and
    the settings that they share; each model gets a folder of its name under --out.

    Exit status 3 if something failed as often as it may: it is named, and the rest is there.
    """
    cluster = take_cluster_options(options)
    parallel = bool(options["tensor_parallel"])
    if parallel and (cluster is not None or grid is not None):
        raise ClusterError(
            "--tensor-parallel takes one model and the processes of torchrun; for models that are larger "
            "than a GPU on a cluster give --device-map auto and --gpus-per-worker N"
        )
    if grid is None:
        plans = [plan_of(options, Path())]
    else:
        refuse_given(context, (*NOT_IN_A_GRID, "grid"))
        own = [str(option.name) for option in _parameters(*MODEL_OPTIONS)]
        plans = grid_plans(run_command, grid, own, NOT_IN_A_GRID, plan_of)
    if dry_run:
        _tell_plans(plans, out, cluster.workers if cluster is not None else None)
        return
    with _folder(out, parallel) as folder:
        plans = [replace(plan, out=folder.path / plan.out, on_finished=folder.push) for plan in plans]
        failures = _go(plans, cluster, threads, quiet)
        _tell(plans, failures, table=grid is None)
    if failures:
        context.exit(EXIT_GAPS)


@contextmanager
def _folder(out: Place, parallel: bool) -> Iterator[WorkingFolder]:
    """Yield the folder that this process works in."""
    from polyrefuse_eval.processes import folder_of_this_process
    from polyrefuse_eval.storage.places import working_folder

    with (
        working_folder(out, _say) as folder,
        folder_of_this_process(folder.path) if parallel else nullcontext(folder.path) as path,
    ):
        yield replace(folder, path=path)


def _tell_plans(plans: Sequence[RunPlan], out: Place, workers: int | None) -> None:
    """Print what runs would do; nothing is locked, and nothing written."""
    from polyrefuse_eval.runs.dry_run import dry_run_lines
    from polyrefuse_eval.storage.places import folders_to_read

    with folders_to_read([out], lambda _name: True) as (folder,):
        plans = [replace(plan, out=folder / plan.out) for plan in plans]
        for plan in plans:
            check_plan(plan, only_read=True)
        for line in dry_run_lines(plans, workers):
            click.echo(line)


def plan_of(options: dict[str, Any], out: Path) -> RunPlan:
    """Return the run that the command's options ask for; bad input is told before a model is loaded."""
    from polyrefuse_eval.judging.local_model import JudgeOptions
    from polyrefuse_eval.judging.registry import check_languages, judge_specs
    from polyrefuse_eval.processes import require_processes, world_size
    from polyrefuse_eval.results.settings import parse_crossed, parse_strengths
    from polyrefuse_eval.runs.plan import RunPlan, request_of

    options = dict(options)
    langs, directions, judges = (options.pop(name) for name in ("langs", "directions", "judges"))
    judge_options = JudgeOptions(options["device"], batch_size=options.pop("judge_batch_size"))
    specs = judge_specs(
        judges,
        models=options.pop("judge_models"),
        options=judge_options,
        phrases=options.pop("phrases", ()),
    )
    options["strengths"] = parse_strengths(options["strengths"])
    options["crossed"] = parse_crossed(options["crossed"])
    data, settings = settings_of(langs, directions, options)
    made = {spec: spec() for spec in specs}
    check_languages(list(made.values()), settings.langs)
    for judge in made.values():
        foreign = [
            lang for lang in settings.langs if judge.languages is not None and lang not in judge.languages
        ]
        if foreign:
            _say(f"{judge.name} was not made for {', '.join(foreign)}; read its verdicts there with care")
    identity = {name: options[name] for name in IDENTITY_OPTIONS}
    if options.get("tensor_parallel"):
        need()
        require_processes()
        identity["tensor_parallel"] = world_size()
    found = list(made.values())
    request = request_of(options["model"], identity, data, settings, [judge.name for judge in found])
    of_models = {judge.name: spec for spec, judge in made.items() if spec.is_model}
    return RunPlan(model_spec(options), data, settings, found, out, request, of_models)


def check_plan(plan: RunPlan, *, only_read: bool = False) -> None:
    """Raise `RunFolderError` where the folder of `plan` is another run's, or another process is at work."""
    from polyrefuse_eval.runs.plan import check_request

    if plan.request is not None:
        check_request(plan.out, plan.request, only_read=only_read)


def _go(
    plans: Sequence[RunPlan], cluster: ClusterOptions | None, threads: int | None, quiet: bool
) -> Failures:
    """Go the whole way for all of `plans`; return what failed."""
    from polyrefuse_eval.processes import rank
    from polyrefuse_eval.runs.plan import finished

    for plan in plans:
        check_plan(plan)
    if all(finished(plan.out, plan.request) for plan in plans):
        return {}
    need()
    _set_threads(threads)

    from polyrefuse_eval.runs.executors import Executor, LocalExecutor, run_all
    from polyrefuse_eval.runs.progress import GridProgress

    executor: Executor = LocalExecutor()
    if cluster is not None:
        require_dask()

        from polyrefuse_eval.runs.dask_executor import DaskExecutor

        executor = DaskExecutor(cluster, threads)
    silent = quiet or rank() > 0
    watch = GridProgress(silent) if rank() == 0 else GridProgress(silent, told=lambda _line: None)
    return run_all(plans, executor, watch)


def _tell(plans: Sequence[RunPlan], failures: Failures, *, table: bool) -> None:
    """Print the table of one run, or where each run of a grid is; and what failed."""
    from polyrefuse_eval.processes import rank

    if rank() > 0:
        return
    for plan in plans:
        if plan.name in failures:
            continue
        if table:
            click.echo((plan.out / "table.md").read_text(encoding="utf-8"), nl=False)
        else:
            click.echo(plan.out)
    for run, of_run in failures.items():
        for failure in of_run:
            _say(f"failed: {run}: {failure}")
    if failures:
        _say("what is there is kept; run the same command again to try what failed")


def _parameters(*options: Any) -> list[click.Parameter]:
    """Return the parameters that decorators make."""
    return click.command()(with_options(*options)(lambda: None)).params


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _say(line: str) -> None:
    click.echo(line, err=True)
