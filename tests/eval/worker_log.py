"""Loaded by the workers of the tests' cluster: log each condition that begins and ends, and inject faults.

`POLYREFUSE_TEST_LOG` names the log. Beside it, the file `stumble` names what fails: a condition by
LANG/LABEL/CONDITION, the direction of a language by `direction LANG`, a control by `control LANG`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.runs.tasks import AnswerPrompts

answer, extract = AnswerPrompts.__call__, DirectionFinder.extract


def faults() -> list[str]:
    """Return what must fail."""
    file = Path(os.environ["POLYREFUSE_TEST_LOG"]).with_name("stumble")
    return file.read_text().splitlines() if file.is_file() else []


def logged_answer(self: AnswerPrompts, slot: Any) -> Iterator[Any]:
    """Answer under a condition, and log it."""
    name = str(self.measurement).replace(" ", "/")
    if name in faults():
        raise ValueError("stumbled")
    note(f"begun {name}")
    yield from answer(self, slot)
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
    AnswerPrompts.__call__ = logged_answer  # type: ignore[method-assign]
    DirectionFinder.extract = failing_extract  # type: ignore[method-assign]
