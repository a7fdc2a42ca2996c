"""The command `polyrefuse eval leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polyrefuse_data.core.terminal import show
from polyrefuse_eval.cli.options import any_place, folder_path

if TYPE_CHECKING:
    from polyrefuse_eval.storage.places import Place

EXIT_GAPS = 3
"""As of a build with gaps: the page is there, and some runs are not on it."""


@click.command("leaderboard")
@click.argument("runs", nargs=-1, required=True, type=any_place)
@click.option(
    "--out",
    type=folder_path,
    required=True,
    help="Folder of the site: new, empty, or an older site, which is replaced.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="RUN=WHO",
    help="Name who made a run that is not yours, by its folder: the run is checked first.",
)
@click.option(
    "--data",
    "builds",
    type=folder_path,
    multiple=True,
    help="Build that runs of --origin claim to have measured: their prompts are checked against it.",
)
@click.pass_context
def leaderboard_command(
    context: click.Context,
    runs: tuple[Place, ...],
    out: Path,
    origins: tuple[str, ...],
    builds: tuple[Path, ...],
) -> None:
    """Write a page that compares RUNS, folders or addresses of `eval run` or `eval rescore`, into --out.

    Open index.html: it needs no network. It has maps of models by languages, a table with filters, a
    comparison of two models, and charts to save. The same numbers are written beside it as JSON, Markdown and
    CSV, without answers. An address may be a pattern: 's3://bucket/runs/*'. Models behind an endpoint are
    listed with local ones. For a run of --origin, the page says what could not be checked. Runs that cannot
    be compared are shown in separate groups; folders that are not runs, and runs whose files contradict each
    other, are left out. Both are named on standard error; the exit status is 3 if a run with results was left
    out.
    """
    from polyrefuse_eval.leaderboard.boards import leaderboard
    from polyrefuse_eval.leaderboard.runs import is_shown, read_runs
    from polyrefuse_eval.leaderboard.site import check_site_folder, write_site
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.storage.places import folders_to_read

    if builds and not origins:
        raise click.UsageError("--data is used to check other people's runs; name them with --origin RUN=WHO")
    check_site_folder(out)
    with folders_to_read(runs, is_shown) as folders:
        read, left_out = read_runs(
            folders, dict(map(_origin, origins)), [open_data(build) for build in builds]
        )
    for folder in left_out:
        show(f"left out: {folder.reason}", err=True)
    compared = leaderboard(read, left_out)
    for line in compared.apart:
        show(line, err=True)
    show(write_site(compared, out))
    if any(folder.has_results for folder in left_out):
        context.exit(EXIT_GAPS)


def _origin(text: str) -> tuple[str, str]:
    from polyrefuse_data.core.display import visible

    run, sign, who = text.partition("=")
    if not (run and sign and who.strip()) or len(who) > 200:
        raise click.UsageError(f"--origin {visible(text)[:80]} is not RUN=WHO, with at most 200 characters")
    return run, visible(who.strip())
