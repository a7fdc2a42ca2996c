"""What several commands share: kinds of arguments, the exit status of an error, a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from polyrefuse_data.core.display import visible
from polyrefuse_data.core.terminal import show

EXIT_ERROR = 2

folder_argument = click.Path(path_type=Path, file_okay=False)
file_argument = click.Path(path_type=Path, dir_okay=False)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print `rows` below `header`, each column as wide as its widest cell."""
    cells = [[visible(value) for value in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
