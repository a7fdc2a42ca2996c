"""The command `polyrefuse eval rescore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from polyrefuse_eval.cli_options import folder_path, with_options
from polyrefuse_eval.cli_run import JUDGE_OPTIONS

EXIT_GAPS = 3
"""As of a build with gaps: everything that can be read is rescored, and some files could not be."""


@click.command("rescore")
@click.argument("folder", type=folder_path)
@click.option("--judges", help="Judges that shall read the answers.  [default: stored verdicts alone]")
@click.option("--data", type=folder_path, help="The build of a run, for judges that need the prompts.")
@click.option("--out", type=folder_path, help="For published completions: folder of the runs and tables.")
@click.option(
    "--source", help="For published completions: language of the direction.  [default: as the folder says]"
)
@with_options(*JUDGE_OPTIONS)
@click.option("--device", help="Where judges' models run.  [default: a GPU if there is one]")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
@click.pass_context
def rescore_command(
    context: click.Context,
    folder: Path,
    judges: str | None,
    data: Path | None,
    out: Path | None,
    source: str | None,
    judge_models: Sequence[str],
    judge_batch_size: int | None,
    device: str | None,
    quiet: bool,
) -> None:
    """Judge the answers of FOLDER again, and make its tables anew from the stored verdicts.

    FOLDER is a run, a folder of runs, or output/EXPERIMENT of the published repository, whose
    completions and verdicts become runs in --out. The model that answered is not needed. Files that
    cannot be read are named on standard error, all others are rescored, and the exit status is 3.
    """
    from polyrefuse_eval.data import open_data
    from polyrefuse_eval.judges.local_model import JudgeOptions
    from polyrefuse_eval.judges.registry import judges_by_name
    from polyrefuse_eval.rescore import rescore

    options = JudgeOptions(device, batch_size=judge_batch_size)
    named = judges_by_name(judges, models=judge_models, options=options) if judges else []
    gaps: list[str] = []

    def say(line: str) -> None:
        gaps.append(line)
        click.echo(line, err=True)

    found = rescore(
        folder,
        named,
        out=out,
        data=None if data is None else open_data(data),
        source=source,
        progress=not quiet,
        say=say,
    )
    for run in found.runs:
        click.echo(run.path)
    for file in found.files:
        click.echo(file)
    if gaps:
        context.exit(EXIT_GAPS)
