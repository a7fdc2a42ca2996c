"""How long the parts of a run took, and what failed; kept beside the results, which never depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, with_config

from polyrefuse_eval.results.fields import Count, Finite
from polyrefuse_eval.results.files import appending, cut_torn_line, json_line, write_jsonl
from polyrefuse_eval.results.validation import STRICT, read_records

TIMINGS_FILE = "timings.jsonl"


@with_config(STRICT)
@dataclass(frozen=True)
class Timing:
    """The time of one part of a run: to load its model, find a direction, or answer under a condition.

    `part` is `cell` for the last. `seconds` are those of the process that computed it, `answers` and
    `tokens` what it generated. `date` is the UTC date on which it was recorded, empty where older versions
    recorded it.
    """

    part: Literal["load", "direction", "cell"]
    seconds: Finite
    lang: str = ""
    label: str = ""
    condition: str = ""
    answers: Count = 0
    tokens: Count = 0
    date: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""


def add_timing(folder: Path, timing: Timing) -> None:
    """Append `timing` to those of the run in `folder`, for its one writer; cut off a torn line before."""
    today = datetime.now(timezone.utc).date().isoformat()
    record = asdict(timing) | {"seconds": round(timing.seconds, 3), "date": timing.date or today}
    cut_torn_line(folder / TIMINGS_FILE)
    with appending(folder / TIMINGS_FILE) as file:
        file.write(json_line(record).encode("utf-8"))


def read_timings(folder: Path) -> list[Timing]:
    """Return the timings of the run in `folder`, without a torn last line."""
    return read_records(Timing, folder / TIMINGS_FILE, torn_end=True)


def seconds_per_answer(timings: Sequence[Timing]) -> float | None:
    """Return the mean over all answers; None without any."""
    answering = [timing for timing in timings if timing.part == "cell" and timing.answers]
    answers = sum(timing.answers for timing in answering)
    return sum(timing.seconds for timing in answering) / answers if answers else None


FAILED_FILE = "failed.jsonl"


@dataclass(frozen=True)
class Failure:
    """A task that failed as often as it may, and the error of the last try."""

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
