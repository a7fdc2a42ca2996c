"""The command `polyrefuse eval compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polyrefuse_eval.cli_options import folder_path


@click.command("compare")
@click.argument("first", type=folder_path)
@click.argument("second", type=folder_path)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a Markdown table.")
def compare_command(first: Path, second: Path, as_json: bool) -> None:
    """Say, language by language, what changed from run FIRST to run SECOND, and if it is more than chance.

    Both must measure the same prompts, and a judge must have read both.
    """
    from polyrefuse_eval.compare import compare_runs, comparison_json, comparison_table
    from polyrefuse_eval.results import RunFolder

    found = compare_runs(RunFolder.existing(first), RunFolder.existing(second))
    if as_json:
        click.echo(json.dumps(comparison_json(found), ensure_ascii=False, indent=1))
    else:
        click.echo(comparison_table(found), nl=False)
