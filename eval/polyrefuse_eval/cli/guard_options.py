"""Options that the commands `polyrefuse eval guard …` share."""

from __future__ import annotations

from pathlib import Path

import click

from polyrefuse_eval.cli.options import file_path, folder_path

guard_file = click.option("--guard", type=file_path, required=True, help="A guard from `guard fit`.")
data_option = click.option(
    "--data", type=folder_path, default=Path("builds/sample"), show_default=True, help="A build."
)
