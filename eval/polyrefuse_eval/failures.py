"""What a run could not compute: named in its folder, so that people can see why; the next go tries again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from polyrefuse_eval.jsonfiles import write_jsonl

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
