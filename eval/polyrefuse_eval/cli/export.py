"""The command `polyrefuse eval export`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polyrefuse_data.core.terminal import show
from polyrefuse_eval.cli.options import any_place, folder_path

if TYPE_CHECKING:
    from polyrefuse_eval.storage.places import Place

RELATIONSHIPS = ("third_party", "first_party", "collaborative", "other")


@click.command("export")
@click.argument("runs", nargs=-1, required=True, type=any_place)
@click.option(
    "--format",
    "form",
    type=click.Choice(["eval-results", "every-eval-ever"]),
    required=True,
    help="The Hub's evaluation results, or records of the Every Eval Ever database.",
)
@click.option("--out", type=folder_path, required=True, help="Folder for the files: new or empty.")
@click.option(
    "--dataset",
    metavar="NAME/DATASET[@COMMIT]",
    help="The data set on the Hub that was measured; eval-results need it.",
)
@click.option("--judge", help="Judge whose verdicts are exported.  [default: the first judge of each run]")
@click.option(
    "--model-name",
    "names",
    multiple=True,
    metavar="RUN=NAME/MODEL",
    help="Name of a run's model on the Hub, if the run used a folder or a service.",
)
@click.option("--source-url", metavar="URL", help="With eval-results: where the results come from.")
@click.option(
    "--organisation", metavar="WHO", help="With every-eval-ever: organisation that reports the results."
)
@click.option(
    "--relationship",
    type=click.Choice(RELATIONSHIPS),
    default="third_party",
    show_default=True,
    help="With every-eval-ever: relation of that organisation to the models' developers.",
)
def export_command(
    runs: tuple[Place, ...],
    form: str,
    out: Path,
    dataset: str | None,
    judge: str | None,
    names: tuple[str, ...],
    source_url: str | None,
    organisation: str | None,
    relationship: str,
) -> None:
    """Write the refusal rates of RUNS for the Hub (eval-results) or for Every Eval Ever.

    \b
    eval-results     MODEL/.eval_results/polyrefuse.yaml, for the model's repository on the Hub,
                     and eval.yaml, for the data set's
    every-eval-ever  data/polyrefuse/DEVELOPER/MODEL/UUID.json

    Rates without an edit and with a direction ablated, from 0 to 1, as in results.jsonl. They contain no
    answers, and nothing is sent.
    """
    from polyrefuse_eval.errors import RunFolderError
    from polyrefuse_eval.exports.eval_results import DatasetOnHub, hub_files
    from polyrefuse_eval.exports.every_eval_ever import Reporter, database_files
    from polyrefuse_eval.exports.folder import write_files
    from polyrefuse_eval.exports.scores import exported_runs
    from polyrefuse_eval.leaderboard.runs import is_shown, read_runs
    from polyrefuse_eval.storage.places import folders_to_read

    measured = None if dataset is None else DatasetOnHub.parse(dataset)
    if form == "eval-results" and measured is None:
        raise click.UsageError("--format eval-results needs --dataset NAME/DATASET, where the results belong")
    if form == "every-eval-ever" and not organisation:
        raise click.UsageError(
            "--format every-eval-ever needs --organisation WHO, the organisation that reports the results"
        )
    with folders_to_read(runs, is_shown) as folders:
        read, left_out = read_runs(folders)
    if left_out:
        raise RunFolderError(f"{left_out[0].reason}; nothing was exported")
    exported = exported_runs(read, judge, dict(map(_name, names)))
    if form == "eval-results" and measured is not None:
        files = hub_files(exported, measured, source_url)
    else:
        reporter = Reporter(str(organisation), relationship)
        files = database_files(exported, reporter, measured, int(time.time()))
    for path in write_files(files, out):
        show(path)


def _name(text: str) -> tuple[str, str]:
    from polyrefuse_data.core.display import visible

    run, sign, model = text.partition("=")
    if not (run and sign and model):
        raise click.UsageError(f"--model-name {visible(text)[:80]} is not RUN=NAME/MODEL")
    return run, model
