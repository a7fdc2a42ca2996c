"""The command `polyrefuse eval compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from polyrefuse_data.core.terminal import show_lines
from polyrefuse_eval.cli.options import place_path

if TYPE_CHECKING:
    from polyrefuse_eval.storage.places import Place


@click.command("compare")
@click.argument("first", type=place_path)
@click.argument("second", type=place_path)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a Markdown table.")
def compare_command(first: Place, second: Place, as_json: bool) -> None:
    """Compare two runs in each language: what changed, and whether it is more than chance.

    Both are folders or addresses. They must measure the same prompts and share a judge.
    """
    from polyrefuse_data.core.display import visible_json
    from polyrefuse_eval.report.compare import compare_runs, comparison_json, comparison_table, is_compared
    from polyrefuse_eval.results.folder import RunFolder
    from polyrefuse_eval.storage.places import folders_to_read

    with folders_to_read([first, second], is_compared) as (before, after):
        comparison = compare_runs(RunFolder.existing(before), RunFolder.existing(after))
    if as_json:
        show_lines(visible_json(comparison_json(comparison)))
    else:
        show_lines(comparison_table(comparison))
