"""The overhead of the Dask executor on tasks of two seconds, and how it scales to two workers.

Each task carries the prompts of a real one (572 rows), comes back with as many answers, and is written to
a run folder as the executor does it. Three kinds: `sleep` (the machine does nothing: what is lost is ours),
`burn` (matrix products with one thread of torch, for about two seconds) and `organism` (a real grid: the same
command with the local executor, with one worker and with two).

    python benchmarks/executor.py [sleep] [burn] [organism] [--cells 12] [--seconds 2]

Prints, for each kind: seconds in this process, with one worker and with two, the overhead (one worker against
this process) and the speed-up (one worker against two); of the pretended ones also the speed-up of two bare
processes, each with half of the cells and without Dask: more than that this machine does not give.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.cluster.dispatch import DaskExecutor
from polyrefuse_data.cluster.tasks import ModelSlot, Outcome, Task
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.organisms import organism_path
from polyrefuse_eval.results.content_cache import ENVIRONMENT
from polyrefuse_eval.results.data import DataFolder, open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.timings import read_timings
from polyrefuse_eval.runs.executors import Executor, LocalExecutor
from polyrefuse_eval.runs.grid import run_grid
from polyrefuse_eval.runs.plan import RunPlan, request_of
from polyrefuse_eval.runs.progress import GridProgress

WIDTH = 384
"""Of the matrices that are multiplied."""

ANSWER = "word " * 60


@dataclass(frozen=True)
class PretendedCell:
    """A cell with real prompts and made-up answers: sleeps for `seconds`, or multiplies `products` times."""

    number: int
    rows: tuple[Row, ...]
    seconds: float
    products: int = 0

    def __call__(self, slot: ModelSlot | None) -> list[Completion]:
        torch.set_num_threads(1)
        if self.products:
            burn(self.products)
        else:
            time.sleep(self.seconds)
        condition = f"ablation:{chr(97 + self.number // 26)}{chr(97 + self.number % 26)}"
        return [
            Completion(
                key=f"{row.id}/{condition}",
                id=row.id,
                group=row.group,
                lang=row.lang,
                label=row.label,
                condition=condition,
                response="word " * 60,
                n_tokens=60,
                ended=True,
            )
            for row in self.rows
        ]


def burn(products: int) -> None:
    """Multiply matrices."""
    matrix = torch.eye(WIDTH) + 0.001
    made = matrix
    for _ in range(products):
        made = (made @ matrix) / WIDTH


def products_in(seconds: float) -> int:
    """Return how many products take so many seconds here, with one thread."""
    torch.set_num_threads(1)
    burn(50)
    begun = time.perf_counter()
    burn(200)
    return round(200 * seconds / (time.perf_counter() - begun))


def written(folder: Path, completions: list[Completion]) -> None:
    """Write the completions of a condition as a run does."""
    first = completions[0]
    RunFolder(folder).append(first.lang, completions)
    RunFolder(folder).finish_completions(first.lang, first.label, first.condition)


def alone(cells: list[PretendedCell], folder: Path) -> float:
    """Compute `cells` in this process; return the seconds."""
    begun = time.perf_counter()
    for cell in cells:
        written(folder, cell(None))
    return time.perf_counter() - begun


def on_workers(cells: list[PretendedCell], folder: Path, workers: int) -> tuple[float, float]:
    """Compute `cells` on workers that are there; return the seconds, and those that workers computed."""
    with DaskExecutor(ClusterOptions(workers=workers)) as executor:
        # Workers have imported what they need before the clock starts.
        warm = [PretendedCell(0, cells[0].rows, 0.01)] * (2 * workers)
        list(executor.run(deque(map(task, warm))))
        begun = time.perf_counter()
        computed = 0.0
        for outcome in executor.run(deque(map(task, cells))):
            if outcome.error is not None:
                raise SystemExit(outcome.error)
            written(folder, outcome.result)
            computed += outcome.seconds
        return time.perf_counter() - begun, computed


def task(cell: PretendedCell) -> Task:
    """Return the task that computes `cell`."""
    return Task(name=str(cell.number), model="none", compute=cell)


def bare(cells: list[PretendedCell]) -> float:
    """Compute `cells` in two processes that know nothing of Dask; return the seconds."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        warm = [PretendedCell(0, cells[0].rows, 0.5) for _ in range(4)]
        list(pool.map(computed_alone, warm))
        begun = time.perf_counter()
        list(pool.map(computed_alone, cells))
        return time.perf_counter() - begun


def computed_alone(cell: PretendedCell) -> int:
    """Compute a cell where no model is kept; return how many answers it has."""
    return len(cell(None))


def pretended(kind: str, data: DataFolder, n_cells: int, seconds: float) -> str:
    """Measure `sleep` or `burn`; return the line to print."""
    rows = tuple(data.prompts("en", "test", "harmful"))
    products = products_in(seconds) if kind == "burn" else 0
    cells = [PretendedCell(number, rows, seconds, products) for number in range(n_cells)]
    with tempfile.TemporaryDirectory() as place:
        here = alone(cells, Path(place) / "here")
        one, of_one = on_workers(cells, Path(place) / "one", 1)
        two, of_two = on_workers(cells, Path(place) / "two", 2)
    apart = bare(cells)
    return (
        f"{kind}: {n_cells} cells; here {here:.2f} s, one worker {one:.2f} s ({of_one:.2f} s computing), two "
        f"{two:.2f} s ({of_two:.2f} s computing); overhead {one / here - 1:+.1%} of here, "
        f"{one / of_one - 1:+.1%} of computing; speed-up {one / two:.2f} "
        f"(two bare processes {here / apart:.2f})"
    )


def organism(data: DataFolder) -> str:
    """Measure a grid of the organism with both executors; return the line to print."""
    settings = RunSettings(langs=("en",), direction_langs=("en",), rule="mediating", batch_size=32)
    judges = [NativeJudge()]
    seconds: dict[str, float] = {}
    cells = 0.0
    executors: dict[str, Callable[[], Executor]] = {
        "here": LocalExecutor,
        "one": lambda: DaskExecutor(ClusterOptions(workers=1)),
        "two": lambda: DaskExecutor(ClusterOptions(workers=2)),
    }
    torch.set_num_threads(1)
    model = str(organism_path())
    with tempfile.TemporaryDirectory() as place:
        for name, made in executors.items():
            # A run of its own knows no baselines of the one before.
            os.environ[ENVIRONMENT] = str(Path(place) / f"cache-{name}")
            request = request_of(model, {}, data, settings, [judges[0].name])
            plan = RunPlan(
                load=ModelSpec(model),
                data=data,
                settings=settings,
                judges=judges,
                out=Path(place) / name,
                request=request,
            )
            stopwatch = Stopwatch(quiet=True)
            failures = run_grid([plan], made(), stopwatch, threads=1)
            if failures:
                raise SystemExit(str(failures))
            seconds[name] = stopwatch.seconds
            if name == "here":
                timings = [one for one in read_timings(plan.out) if one.part == "cell"]
                cells = sum(one.seconds for one in timings) / len(timings)
    here, one, two = seconds.values()
    return (
        f"organism: cells of {cells:.2f} s; first to last here {here:.2f} s, one worker {one:.2f} s, "
        f"two {two:.2f} s; overhead {one / here - 1:+.1%}; speed-up {one / two:.2f}"
    )


@dataclass
class Stopwatch(GridProgress):
    """Measure from the first task that begins to the last that ends."""

    first: float = 0.0
    seconds: float = 0.0

    def started(self, task: Task) -> None:
        """Start the clock."""
        if task.size is not None:
            self.first = self.first or time.perf_counter()
        super().started(task)

    def took(self, outcome: Outcome) -> None:
        """Read the clock."""
        if outcome.task.size is not None:
            self.seconds = time.perf_counter() - self.first
        super().took(outcome)


def main() -> None:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", default=["sleep", "burn"])
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = build(BuildRequest("sample", langs=["en", "de"], out=Path(place) / "sample")).folder
        data = open_data(folder)
        for kind in given.kinds:
            print(
                organism(data) if kind == "organism" else pretended(kind, data, given.cells, given.seconds),
                flush=True,
            )


if __name__ == "__main__":
    main()
