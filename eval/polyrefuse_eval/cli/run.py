"""The command `polyrefuse eval run`, and what the commands for its single steps share with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.cli.cluster import EXECUTOR_OPTIONS, take_cluster_options
from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.cluster.connect import ClusterOptions, require_dask
from polyrefuse_data.core.errors import ClusterError
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_eval.cli.grid import read_grid
from polyrefuse_eval.cli.options import (
    DIRECTION_OPTIONS,
    MODEL_OPTIONS,
    click_options,
    file_path,
    need,
    place_path,
    take_options,
    with_options,
)
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.runs.direction_options import DirectionOptions, check_refusal_tokens
from polyrefuse_eval.runs.endpoint_options import EndpointOptions
from polyrefuse_eval.runs.option_fields import option_name
from polyrefuse_eval.runs.options import RunOptions

if TYPE_CHECKING:
    from polyrefuse_eval.directions.finder import DirectionFinder
    from polyrefuse_eval.runs.executors import Executor
    from polyrefuse_eval.runs.plan import RunPlan
    from polyrefuse_eval.runs.stage import Failures
    from polyrefuse_eval.storage.places import Place, WorkingFolder

EXIT_GAPS = 3
"""As for a build with gaps: the rest is there."""

BESIDE_A_GRID = ("trust_remote_code", "judges", *EndpointOptions.model_fields)
"""Options of a run that may stand beside a grid file and hold for all of its models."""


def direction_finder(out: Path, langs: str, options: dict[str, Any], *, selecting: bool) -> DirectionFinder:
    """Return what finds directions in `langs` and keeps them in `out`; check all input before loading."""
    quiet = options.pop("quiet")
    checked = take_options(DirectionOptions, options)
    data, settings = checked.settings(langs, langs)
    data.require_prompts(settings.langs, ("train", *(["validation"] if selecting else [])))
    if selecting or settings.filter_prompts:
        check_refusal_tokens(settings)
    need()

    from polyrefuse_eval.directions.finder import DirectionFinder
    from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
    from polyrefuse_eval.results.growth import open_run
    from polyrefuse_eval.runs.plan import signature_of
    from polyrefuse_eval.versions import versions

    RunFolder.check_place(out)
    if (out / RUN_FILE).is_file():  # directions depend on no test prompts, so a run's draw is not asked about
        begun = RunFolder(out).signature["settings"].get("test_seed")
        settings = replace(settings, test_seed=begun)
    chat = checked.spec()()
    open_run(out, signature_of(chat.signature(), data, settings, [], versions()))
    return DirectionFinder(chat, data, settings, out, progress=not quiet, say=_say)


@click.command("run", cls=SectionedCommand)
@click.argument("grid", required=False, type=file_path)
@with_options(*MODEL_OPTIONS, *DIRECTION_OPTIONS)
@click.option(
    "--out",
    type=place_path,
    required=True,
    help="Folder or address (s3://, gs://, …) of the run; give the same one to resume it.",
)
@with_options(*click_options(RunOptions, DirectionOptions), *EXECUTOR_OPTIONS)
@click.option(
    "--dry-run",
    is_flag=True,
    help="List conditions, which of them are done, and the time left, without loading a model.",
)
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
    """Measure one model, or those of a GRID file: directions, answers, verdicts, rates.

    Every direction is ablated and added in every language; with several languages, this gives a transfer
    matrix. Run the same command again to resume; a finished run is left alone. GRID is a YAML file with
    models and the settings that they share; each model gets a folder of its name under --out.

    Exit status 3 if a task still failed after all retries: it is named, and the rest is kept.
    """
    cluster = take_cluster_options(options)
    parallel = bool(options["tensor_parallel"])
    if parallel and (cluster is not None or grid is not None):
        raise ClusterError(
            "--tensor-parallel takes one model and the processes of torchrun; for models that are larger "
            "than a GPU on a cluster give --device-map auto and --gpus-per-worker N"
        )
    if grid is None:
        plans = [take_options(RunOptions, options).plan(Path(), _say)]
    else:
        given = _given(context)
        plans = [
            model.plan(Path(name), _say) for name, model in read_grid(grid, given, _command_line()).items()
        ]
    if dry_run:
        _print_plans(plans, out, cluster.workers if cluster is not None else None)
        return
    with _folder(out, parallel) as folder:
        plans = [replace(plan, out=folder.path / plan.out, on_finished=folder.push) for plan in plans]
        plans = [_grown(plan) for plan in plans]
        failures = _run(plans, cluster, threads, quiet)
        _print_results(plans, failures, out, table=grid is None)
    if failures:
        context.exit(EXIT_GAPS)


def _given(context: click.Context) -> dict[str, Any]:
    """Return the options of a run that stand on the command line beside a grid file; raises
    `RunFolderError` for those that belong into the file."""
    given = {
        name: context.params[name]
        for name in RunOptions.model_fields
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    misplaced = [f"--{option_name(name)}" for name in given if name not in BESIDE_A_GRID]
    if misplaced:
        raise RunFolderError(f"a grid file says what is measured: write {', '.join(misplaced)} into it")
    return given


def _command_line() -> list[str]:
    """Return the names of the options that are not those of a `RunOptions`."""
    return [
        option_name(str(parameter.name))
        for parameter in run_command.params
        if parameter.name not in RunOptions.model_fields
    ]


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


def _print_plans(plans: Sequence[RunPlan], out: Place, workers: int | None) -> None:
    """Print what runs would compute; lock and write nothing."""
    from polyrefuse_eval.runs.dry_run import dry_run_lines
    from polyrefuse_eval.storage.places import folders_to_read

    with folders_to_read([out], lambda _name: True) as (folder,):
        plans = [replace(plan, out=folder / plan.out) for plan in plans]
        plans = [part.grown(only_read=True) for plan in plans for part in plan.with_inner()]
        for line in dry_run_lines(plans, workers):
            show_lines(line)


def _grown(plan: RunPlan) -> RunPlan:
    """Return the plan of the whole run, with what is there already; say what it gets, and what it keeps."""
    from polyrefuse_eval.processes import rank
    from polyrefuse_eval.runs.plan import growth_lines

    grown = plan.grown()
    if rank() == 0:
        for line in growth_lines(plan, grown):
            _say(line)
    return grown


def _run(
    plans: Sequence[RunPlan], cluster: ClusterOptions | None, threads: int | None, quiet: bool
) -> Failures:
    """Run `plans` to completion or failure; return the failures."""
    from polyrefuse_eval.endpoint.spec import EndpointSpec
    from polyrefuse_eval.processes import rank
    from polyrefuse_eval.runs.dry_run import check_room
    from polyrefuse_eval.runs.plan import finished

    parts = [part.grown() for plan in plans for part in plan.with_inner()]
    if all(finished(part.out, part.request) for part in parts):
        return {}
    check_room(plans)
    if any(not isinstance(part.load, EndpointSpec) for part in parts):
        need()

    from polyrefuse_eval.runs.grid import opening_line, run_grid
    from polyrefuse_eval.runs.progress import GridProgress

    silent = quiet or rank() > 0
    if not silent:
        _say(opening_line(parts))
    progress = GridProgress(silent, show=_say if rank() == 0 else lambda _line: None)
    return run_grid(plans, _executor(cluster, silent), progress, threads)


def _executor(cluster: ClusterOptions | None, quiet: bool) -> Executor:
    """Return the executor that computes on `cluster`, or in this process."""
    if cluster is None:
        from polyrefuse_eval.runs.executors import LocalExecutor

        return LocalExecutor(progress=not quiet)
    require_dask()
    import torch

    from polyrefuse_data.cluster.dispatch import DaskExecutor

    return DaskExecutor(cluster, torch.cuda.device_count)


def _print_results(plans: Sequence[RunPlan], failures: Failures, out: Place, *, table: bool) -> None:
    """Print the numbers of one run that matter, or the folder of each run of a grid; and what failed.

    The folder, the address where it lies at one, and the next command go to standard error.
    """
    from polyrefuse_eval.processes import rank
    from polyrefuse_eval.report.brief import brief_table
    from polyrefuse_eval.report.over_refusal import kind_table
    from polyrefuse_eval.results.folder import RunFolder
    from polyrefuse_eval.results.subset_files import OVER_REFUSAL, USER_PROMPTS, inner_runs, read_subsets

    if rank() > 0:
        return
    for plan in plans:
        if plan.name in failures:
            continue
        if table:
            folder = RunFolder(plan.out)
            sources = plan.settings.direction_langs
            show_lines(brief_table(folder.results(), folder.summary(), sources))
            for inner in inner_runs(folder):
                name = inner.path.name
                if name not in plan.inner:
                    continue
                if name == OVER_REFUSAL:
                    show_lines("\nharmless prompts that look harmful, and harmful ones beside them:")
                    show_lines(brief_table(inner.results(), inner.summary(), sources))
                elif name == USER_PROMPTS:
                    show("")
                    show_lines(kind_table(read_subsets(inner)))
                _say(f"by {'type and pair' if name == OVER_REFUSAL else 'kind'}: {out}/{name}/table.md")
            _say(f"all rates: {out}/table.md; next: polyrefuse eval leaderboard {out} --out site")
        else:
            show(plan.out)
    for run, run_failures in failures.items():
        for failure in run_failures:
            _say(f"failed: {run}: {failure}")
    if failures:
        _say("completed work is kept; run the same command again to retry what failed")


def _say(line: str) -> None:
    show(line, err=True)
