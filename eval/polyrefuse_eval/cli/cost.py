"""The command `polyrefuse eval cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_eval.cli.options import (
    MODEL_OPTIONS,
    at_least_one,
    folder_path,
    load_chat,
    need,
    with_options,
)


@click.command("cost", cls=SectionedCommand)
@click.argument("run", type=folder_path)
@with_options(*MODEL_OPTIONS)
@click.option("--data", type=folder_path, required=True, help="The build that the run measured.")
@click.option("--langs", help="Languages to measure.  [default: all of the run]")
@click.option("--limit", type=at_least_one, default=128, show_default=True, help="Answers in each language.")
@click.option(
    "--tokens", type=at_least_one, default=64, show_default=True, help="Tokens of each answer to measure on."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def cost_command(
    run: Path, data: Path, langs: str | None, limit: int, tokens: int, quiet: bool, **options: Any
) -> None:
    """Measure the side effects of RUN's edits: KL and cross-entropy on the model's own answers.

    Reads the unedited answers to harmless prompts that RUN holds, under each of its conditions; nothing is
    generated. Writes costs/LANG.jsonl, costs.jsonl and costs.md into RUN. Run the same command again to
    resume; a language that is measured is left alone.
    """
    from polyrefuse_eval.report.costs import cost_table
    from polyrefuse_eval.results.cost_files import COSTS_FILE
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.folder import RunFolder

    folder, build = RunFolder.existing(run), open_data(data)
    need()
    from polyrefuse_eval.runs.costs import check_run, measure_costs

    wanted = check_run(folder, build, [lang.strip() for lang in langs.split(",")] if langs else None)
    costs = measure_costs(
        load_chat(options), folder, build, wanted, limit=limit, max_tokens=tokens, progress=not quiet
    )
    show_lines(cost_table(costs))
    show(f"Costs: {run / COSTS_FILE}")
