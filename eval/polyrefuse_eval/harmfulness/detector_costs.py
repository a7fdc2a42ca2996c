"""Measure what a detector of harmful prompts costs: milliseconds a prompt, and memory.

No result depends on these numbers: they lie in `timings.jsonl`, apart from rates and signatures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from polyrefuse_eval.results.user_prompts import UserPrompt

TIMED_PROMPTS = 32
"""Prompts that each detector gets again, one at a time: enough for a median, few beside a test set."""

BATCH_SIZE = 1
"""A guard stands before a chat: a prompt waits for itself alone."""

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Written to `clear_refs`, sets the peak of the resident memory to its present size (Linux, proc(5))."""


@dataclass
class MemoryGrowth:
    """The largest growth of memory in a block, in bytes; None where the system does not tell.

    `memory` says which: resident memory of the process, or memory that torch allocated on the GPU.
    """

    memory: Literal["process", "cuda"]
    growth: int | None = None


@dataclass(frozen=True, kw_only=True)
class DetectorCost:
    """Milliseconds a prompt of `detector` (median, 95th percentile) over `n_prompts`, and growth of memory.

    `memory_bytes` of a Latent Guard is what scoring adds to its chat model, which is loaded anyway; of a
    published guard it holds the guard's own weights.
    """

    detector: str
    device: str
    batch_size: int
    n_prompts: int
    median_ms: float
    percentile95_ms: float
    memory: Literal["process", "cuda"]
    memory_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the record in `timings.jsonl`."""
        return asdict(self)

    def __str__(self) -> str:
        where = "of the process" if self.memory == "process" else "on the GPU"
        grown = "not known" if self.memory_bytes is None else f"{self.memory_bytes / 1e6:.0f} MB"
        return (
            f"{self.detector}: {self.median_ms:.1f} ms a prompt (median; 95th percentile "
            f"{self.percentile95_ms:.1f} ms) on {self.device}, batch size {self.batch_size}, "
            f"{self.n_prompts} prompts; growth of memory {where}: {grown}"
        )


@contextmanager
def memory_growth(device: torch.device) -> Iterator[MemoryGrowth]:
    """Measure the largest growth of memory inside the block, on `device` if it is a GPU."""
    if device.type == "cuda":
        measured = MemoryGrowth("cuda")
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield measured
        measured.growth = torch.cuda.max_memory_allocated(device) - before
        return
    measured = MemoryGrowth("process")
    start = _reset_peak()
    yield measured
    peak = _peak()
    if start is not None and peak is not None:
        measured.growth = max(0, peak - start)


def detector_cost(
    detector: str,
    device: torch.device,
    memory: MemoryGrowth,
    prompts: Sequence[UserPrompt],
    judge: Callable[[UserPrompt], object],
    *,
    timed: int = TIMED_PROMPTS,
) -> DetectorCost:
    """Return the cost of `judge`, timed on `timed` of `prompts` at even distances, one at a time.

    The first one is judged once before, untimed. `judge` must return what is computed, not a promise of it.
    """
    step = max(1, len(prompts) // timed)
    chosen = prompts[::step][:timed]
    judge(chosen[0])
    milliseconds = []
    for prompt in chosen:
        start = time.perf_counter()
        judge(prompt)
        milliseconds.append(1000 * (time.perf_counter() - start))
    median, percentile95 = np.percentile(milliseconds, [50, 95])
    return DetectorCost(
        detector=detector,
        device=str(device),
        batch_size=BATCH_SIZE,
        n_prompts=len(chosen),
        median_ms=round(float(median), 3),
        percentile95_ms=round(float(percentile95), 3),
        memory=memory.memory,
        memory_bytes=memory.growth,
    )


def _reset_peak() -> int | None:
    """Set the peak of the process's memory to its present size, and return that; None where it cannot."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return None
    return _peak()


def _peak() -> int | None:
    """Return the peak resident memory of this process in bytes; None where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
