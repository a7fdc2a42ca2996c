"""`polyrefuse review`: rows out to a spreadsheet, people's corrections back into the memory."""

from __future__ import annotations

from pathlib import Path

import click

from polyrefuse_data.cli.parts import file_argument, folder_argument
from polyrefuse_data.cli.translators import languages_option
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.terminal import show

RANKED = ["quality", "similarity", "nearest", "harm", "disagreement", "round_trip"]
"""Checks that tell a better translation from a worse one."""


@click.group()
def review() -> None:
    """Let people correct translations, in a spreadsheet or on a page in the browser."""


@review.command("export")
@click.argument("folder", type=folder_argument)
@click.option("--flagged", is_flag=True, help="Only rows that a check flags.")
@click.option(
    "--langs", default="all", show_default=True, help="'all', or codes separated by commas: de,yo,zh."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="CSV file to write; FILE.html for a page; a new folder with --format argilla.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "page", "argilla"]),
    help="A spreadsheet, a page, or a dataset of Argilla.  [default: by the name of --out]",
)
@click.option(
    "--memory",
    type=file_argument,
    help="Translation memory whose back-translations and candidates are shown.",
)
@click.option(
    "--worst",
    metavar="SHARE",
    help="Only this share of each language's rows, as 5%, the worst by --by first.",
)
@click.option(
    "--by",
    type=click.Choice(RANKED),
    default="quality",
    show_default=True,
    help="Check that says which rows are worst.",
)
@click.option("--scores", type=file_argument, help="Model scores, if the build has no score columns.")
@languages_option
def export(
    folder: Path,
    flagged: bool,
    langs: str,
    out: Path,
    kind: str | None,
    memory: Path | None,
    worst: str | None,
    by: str,
    scores: Path | None,
) -> None:
    """Write rows of the build in FOLDER to a CSV file, to be corrected in its column `correction`.

    With --out FILE.html, write one page for the browser instead: it needs no network, works with the
    keyboard, and exports such a CSV file. With --format argilla, write a folder that a team loads with
    argilla.Dataset.from_disk.
    """
    from polyrefuse_data.audit.review import export_review
    from polyrefuse_data.audit.worst_rows import WorstRows, parse_share
    from polyrefuse_data.build.package import read_manifest
    from polyrefuse_data.checks.languages_file import register_recorded
    from polyrefuse_data.core.languages import parse_languages

    ranking = WorstRows(share=parse_share(worst), check=by, scores=scores) if worst else None
    register_recorded(read_manifest(folder), folder)
    chosen = None if langs == "all" else parse_languages(langs)
    rows = counted(export_review(folder, out, flagged, chosen, memory, ranking, kind), "row")
    if kind == "argilla":
        show(f"{rows} in {out}; load it: argilla.Dataset.from_disk('{out}', workspace=...)")
        show("then: polyrefuse review import records.json, of dataset.records.to_list(flatten=True)")
    elif kind == "page" or (kind is None and out.suffix.lower() == ".html"):
        show(f"{rows} in {out}; open it, export, then: polyrefuse review import review.csv")
    else:
        show(f"{rows} in {out}; fill in 'correction', then: polyrefuse review import {out}")


@review.command("import")
@click.argument("file", type=file_argument)
@click.option("--memory", type=file_argument, help="Translation memory.  [default: in your data folder]")
@click.option(
    "--who", help="Name of the reviewer where the column `who` is empty.  [default: your login name]"
)
@click.option("--reviewer", metavar="ID", help="Of Argilla records, use only this user's answers.")
@languages_option
def import_(file: Path, memory: Path | None, who: str | None, reviewer: str | None) -> None:
    """Import the corrections in FILE into the memory: all of them, or none if a line is wrong.

    FILE is an export that people filled in, or the output of Argilla's records.to_list(flatten=True) or
    to_json.
    """
    from polyrefuse_data.audit.review import import_review
    from polyrefuse_data.build.translations import default_memory

    path = memory or default_memory()
    done = import_review(file, path, who, reviewer)
    show(
        f"{done.added} corrections imported into {path}, {done.same} already there, "
        f"{counted(done.untouched, 'row')} without a correction; build again to use them"
    )


@review.command("withdraw")
@click.argument("file", type=file_argument)
@click.option("--memory", type=file_argument, help="Translation memory.  [default: in your data folder]")
@click.option("--reviewer", metavar="ID", help="Of Argilla records, use only this user's answers.")
@languages_option
def withdraw(file: Path, memory: Path | None, reviewer: str | None) -> None:
    """Remove the corrections in FILE from the memory; later corrections of the same rows stay."""
    from polyrefuse_data.audit.review import withdraw_review
    from polyrefuse_data.build.translations import default_memory

    path = memory or default_memory()
    count = withdraw_review(file, path, reviewer)
    show(f"{counted(count, 'correction')} withdrawn from {path}; build again without them")


@review.command("agree")
@click.argument("first", type=file_argument)
@click.argument("second", type=file_argument, required=False)
def agree(first: Path, second: Path | None) -> None:
    """Compare two reviewers' files of the same export: Cohen's kappa, and the rows on which they differ.

    A row without a correction counts as left as it is. With one file of Argilla records, compare every two
    users who answered the same rows.
    """
    from polyrefuse_data.audit.agreement import reviewer_agreement, user_agreements

    if second is not None:
        for line in reviewer_agreement(first, second).lines():
            show(line)
        return
    for one, other, agreement in user_agreements(first):
        show(f"{one} and {other}")
        for line in agreement.lines():
            show(line)
