"""The command `polyrefuse eval check`."""

from __future__ import annotations

from pathlib import Path

import click

from polyrefuse_data.core.terminal import show
from polyrefuse_eval.cli.options import folder_path

EXIT_PROBLEMS = 1
"""As of an audit with findings."""


@click.command("check")
@click.argument("folder", type=folder_path)
@click.option("--data", type=folder_path, help="The build that the run claims to have measured.")
@click.pass_context
def check_command(context: click.Context, folder: Path, data: Path | None) -> None:
    """Check a run that somebody else made: records, digests, prompts, and every number.

    Rates, intervals, comparisons and the summary are recomputed from the verdicts. If the run has its
    answers, and --data their prompts, the native judge reads them again, and what is recorded about a service
    must match the answers. Verdicts of other judges are not recomputed; each such judge is named. A run
    without answers, as `polyrefuse publish --results` sends it, can be checked too. Each problem is a line;
    the exit status is 1 if there is one.
    """
    from polyrefuse_data.core.paths import refuse_linked_folders
    from polyrefuse_eval.errors import RunFolderError
    from polyrefuse_eval.report.check import check_run
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.folder import RunFolder

    refuse_linked_folders(folder, error=RunFolderError)
    run = RunFolder.existing(folder)
    checked = check_run(run, None if data is None else open_data(data))
    for line in checked.problems:
        show(line)
    for line in checked.unchecked:
        show(f"not checked: {line}", err=True)
    if checked.problems:
        show(f"{len(checked.problems)} problems; '{folder}' must not be shown beside other runs")
        context.exit(EXIT_PROBLEMS)
    show(f"'{folder}' holds together")
