"""Print, the one way of all commands: what others wrote neither acts on a terminal nor fakes a line."""

from __future__ import annotations

import click

from polyrefuse_data.core.display import visible, visible_lines


def show(line: object = "", *, err: bool = False) -> None:
    """Print `line` on one line; characters that act, line ends too, are shown as escapes."""
    click.echo(visible(line), err=err)


def show_lines(text: str, *, err: bool = False) -> None:
    """Print a text of several lines as `show` does each; its last line ends with a line end or gets one."""
    click.echo(visible_lines(text.removesuffix("\n")), err=err)
