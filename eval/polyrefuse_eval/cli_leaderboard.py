"""The command `polyrefuse eval leaderboard`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("leaderboard")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the site: new, empty, or an older site, which is replaced.",
)
def leaderboard_command(runs: tuple[Path, ...], out: Path) -> None:
    """Write a page that compares RUNS, folders of `eval run` or `eval rescore`, into --out.

    Open index.html: it needs no network. The same numbers are beside it as JSON, Markdown and CSV;
    no answers are. What cannot be compared is shown apart, and what is no run is left out; both are
    said on standard error.
    """
    from polyrefuse_eval.leaderboard.boards import leaderboard
    from polyrefuse_eval.leaderboard.runs import read_runs
    from polyrefuse_eval.leaderboard.site import check_site_folder, write_site

    check_site_folder(out)
    read, left_out = read_runs(runs)
    for one in left_out:
        click.echo(f"left out: {one.reason}", err=True)
    found = leaderboard(read, left_out)
    for line in found.apart:
        click.echo(line, err=True)
    click.echo(write_site(found, out))
