"""How long the parts of a run took: kept beside the results, which never depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import with_config

from polyrefuse_eval.results.fields import Count, Finite
from polyrefuse_eval.results.files import appending, cut_torn_line, json_line, write_jsonl
from polyrefuse_eval.results.validation import STRICT, read_records

TIMINGS_FILE = "timings.jsonl"


@with_config(STRICT)
@dataclass(frozen=True)
class Timing:
    """One part of a run: loading its model, finding a direction, or a cell with so many answers and tokens
    made. `seconds` are those of the process that computed it."""

    part: Literal["load", "direction", "cell"]
    seconds: Finite
    lang: str = ""
    label: str = ""
    condition: str = ""
    answers: Count = 0
    tokens: Count = 0


def add_timing(folder: Path, timing: Timing) -> None:
    """Add `timing` to those of the run in `folder`; for its one writer. What a kill cut off is dropped."""
    record = asdict(timing) | {"seconds": round(timing.seconds, 3)}
    cut_torn_line(folder / TIMINGS_FILE)
    with appending(folder / TIMINGS_FILE) as file:
        file.write(json_line(record).encode("utf-8"))


def read_timings(folder: Path) -> list[Timing]:
    """Return what was measured in the run in `folder`; nothing of what a kill cut off."""
    return read_records(Timing, folder / TIMINGS_FILE, torn_end=True)


def seconds_per_answer(timings: Sequence[Timing]) -> float | None:
    """Return the mean over all answers of cells; None where no answer was measured."""
    cells = [timing for timing in timings if timing.part == "cell" and timing.answers]
    answers = sum(timing.answers for timing in cells)
    return sum(timing.seconds for timing in cells) / answers if answers else None


FAILED_FILE = "failed.jsonl"


@dataclass(frozen=True)
class Failure:
    """Something that failed as often as it may: what, and the error of the last try."""

    what: str
    error: str
    tries: int

    def __str__(self) -> str:
        tries = f" (tried {self.tries} times)" if self.tries > 1 else ""
        return f"{self.what}: {self.error}{tries}"


def write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    """Write `failures` into a run's folder; no file where there are none."""
    file = folder / FAILED_FILE
    if failures:
        write_jsonl(file, [asdict(failure) for failure in failures])
    else:
        file.unlink(missing_ok=True)
