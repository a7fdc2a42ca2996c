"""Run a command in a process that dies when it is about to name a file it has written, or just has."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_until(arguments: Sequence[str], at: int, moment: str, report: str) -> None:
    """Run the command; die `before` or `after` file number `at` gets its name (0: never).

    The number of files that were named stands in the file `report` at the end.
    """
    replace, count = Path.replace, itertools.count(1)
    named = 0

    def dying(self: Path, target: Any) -> Path:
        nonlocal named
        named = next(count)
        if named == at and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        path = replace(self, target)
        if named == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    Path.replace = dying  # type: ignore[method-assign]
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    from polyrefuse_data.cli import main

    with contextlib.suppress(SystemExit):
        main(list(arguments))
    Path(report).write_text(str(named))
