"""The command `polyrefuse eval rescore`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.core.terminal import show
from polyrefuse_eval.cli.options import READING_OPTIONS, folder_path, place_path, with_options

if TYPE_CHECKING:
    from polyrefuse_eval.storage.places import Place, WorkingFolder

EXIT_GAPS = 3
"""Some files could not be read; all others are rescored."""


@click.command("rescore", cls=SectionedCommand)
@click.argument("folder", type=place_path)
@click.option("--judges", help="Judges that read the answers.  [default: use the stored verdicts]")
@click.option("--data", type=folder_path, help="The build of a run, for judges that need the prompts.")
@click.option(
    "--out", type=place_path, help="For published completions: folder or address of the runs and tables."
)
@click.option(
    "--source",
    help="For published completions: language of the direction.  [default: from the folder's name]",
)
@with_options(*READING_OPTIONS)
@click.option("--device", help="Where judges' models run.  [default: a GPU if there is one]")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
@click.pass_context
def rescore_command(
    context: click.Context,
    folder: Place,
    judges: str | None,
    data: Path | None,
    out: Place | None,
    source: str | None,
    judge_model: Sequence[str],
    judge_batch_size: int | None,
    judge_request: str | None,
    phrases: Sequence[str],
    device: str | None,
    quiet: bool,
) -> None:
    """Judge the answers in FOLDER again, and rebuild its tables from the verdicts.

    FOLDER is a run, a folder of runs, or output/EXPERIMENT of the published repository, whose
    completions and verdicts become runs in --out. Runs may be at an address (s3://, gs://, …). The
    model is not needed. Files that cannot be read are named on standard error, all others are rescored, and
    the exit status is 3.
    """
    from polyrefuse_eval.endpoint.spec import read_fields
    from polyrefuse_eval.errors import RunFolderError
    from polyrefuse_eval.judging.local_model import JudgeOptions
    from polyrefuse_eval.judging.registry import judges_by_name
    from polyrefuse_eval.report.rescore import rescore
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.storage.places import runs_at, working_folder

    fields = read_fields(judge_request, "--judge-request")
    options = JudgeOptions(device, batch_size=judge_batch_size, request=fields)
    files = [Path(path) for path in phrases]
    judging = judges_by_name(judges, models=judge_model, options=options, phrases=files) if judges else []
    gaps: list[str] = []

    def say(line: str) -> None:
        gaps.append(line)
        show(line, err=True)

    def note(line: str) -> None:
        show(line, err=True)

    build = None if data is None else open_data(data)
    if out is not None and not isinstance(folder, Path):
        raise RunFolderError(f"'{folder}' is rescored in place; leave out --out")
    with ExitStack() as stack:

        def opened(place: Place) -> WorkingFolder:
            return stack.enter_context(working_folder(place, lambda line: show(line, err=True)))

        places = [folder] if isinstance(folder, Path) else runs_at(folder)
        here = {place: opened(place) for place in places}
        into = None if out is None else opened(out)
        written: list[tuple[Place, Path, Path]] = []
        for place, local in here.items():
            place_written, target = (place, local) if out is None or into is None else (out, into)
            rescored = rescore(
                local.path,
                judging,
                out=None if into is None else into.path,
                data=build,
                source=source,
                progress=not quiet,
                say=say,
                note=note,
                on_finished=target.push,
            )
            written += [
                (place_written, target.path, path)
                for path in (*(run.path for run in rescored.runs), *rescored.files)
            ]
    for place, base, path in written:
        show(str(path).replace(str(base), str(place), 1))
    if gaps:
        context.exit(EXIT_GAPS)
