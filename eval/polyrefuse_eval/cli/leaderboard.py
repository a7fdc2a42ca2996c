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
    help="Who made a run that is not yours, by the name of its folder: it is checked first.",
)
@click.pass_context
def leaderboard_command(
    context: click.Context, runs: tuple[Place, ...], out: Path, origins: tuple[str, ...]
) -> None:
    """Write a page that compares RUNS, folders or addresses of `eval run` or `eval rescore`, into --out.

    Open index.html: it needs no network. It has maps of models by languages, a table with filters, a
    comparison of two models, and charts to save. The same numbers are beside it as JSON, Markdown and CSV;
    no answers are. An address may be a pattern: 's3://bucket/runs/*'. Models behind an endpoint stand beside
    local ones. What cannot be compared is shown apart; what is no run, or a run whose files contradict each
    other, is left out. Both are named on standard error; the exit status is 3 where a run with results was
    left out.
    """
    from polyrefuse_eval.leaderboard.boards import leaderboard
    from polyrefuse_eval.leaderboard.runs import is_shown, read_runs
    from polyrefuse_eval.leaderboard.site import check_site_folder, write_site
    from polyrefuse_eval.storage.places import folders_to_read

    check_site_folder(out)
    with folders_to_read(runs, is_shown) as folders:
        read, left_out = read_runs(folders, dict(map(_origin, origins)))
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
