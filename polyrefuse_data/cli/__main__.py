"""Run the command: `python -m polyrefuse_data.cli`."""

from polyrefuse_data.cli import main

main()
