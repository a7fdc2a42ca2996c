"""Loaded by the workers of the tests' cluster: log each condition that begins and ends, and inject faults.

`POLYREFUSE_TEST_LOG` names the log. Beside it, the file `stumble` names what fails: a condition by
LANG/LABEL/CONDITION, the direction of a language by `direction LANG`, a control by `control LANG`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polyrefuse_eval.runs.tasks as tasks
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.errors import DirectionError

compute_cell, extract = tasks.compute_cell, DirectionFinder.extract


def faults() -> list[str]:
    """Return what must fail."""
    file = Path(os.environ["POLYREFUSE_TEST_LOG"]).with_name("stumble")
    return file.read_text().splitlines() if file.is_file() else []


def logged_cell(chat: Any, task: Any, *more: Any) -> Iterator[Any]:
    """Compute a condition, and log it."""
    name = f"{task.cell.lang}/{task.cell.label}/{task.cell.condition.name}"
    if name in faults():
        raise ValueError("stumbled")
    note(f"begun {name}")
    yield from compute_cell(chat, task, *more)
    note(f"done {name}")


def failing_extract(finder: DirectionFinder, lang: str, **more: Any) -> Any:
    """Fit directions, unless they must fail."""
    if f"{'control' if more else 'direction'} {lang}" in faults():
        raise DirectionError("too few prompts are left")
    return extract(finder, lang, **more)


def note(line: str) -> None:
    """Add a line to the log with one write."""
    with Path(os.environ["POLYREFUSE_TEST_LOG"]).open("a") as file:
        file.write(line + "\n")


def dask_setup(_worker: object) -> None:
    """Replace what computes in this worker; Dask calls it when a worker starts."""
    tasks.compute_cell = logged_cell
    DirectionFinder.extract = failing_extract  # type: ignore[method-assign]
