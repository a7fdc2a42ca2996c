"""The `polyrefuse` command: parse options, call the library, format errors."""

from polyrefuse_data.cli.command import cli, main

__all__ = ["cli", "main"]
