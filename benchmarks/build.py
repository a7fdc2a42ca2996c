"""Time the main job on the real material: build `paper`, build it again, audit the release.

Prints wall seconds, CPU seconds and peak memory of whole processes, the median of `--runs`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(arguments: list[str], status: tuple[int, ...] = (0,)) -> tuple[float, float, float]:
    """Run the command; return wall seconds, CPU seconds, and peak memory of any child so far in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "polyrefuse_data.cli", *arguments], capture_output=True, text=True
    )
    wall = time.perf_counter() - start
    if done.returncode not in status:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1000


def show(what: str, runs: list[tuple[float, float, float]]) -> None:
    """Print the medians of `runs`."""
    wall, cpu, peak = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"{what:42} {wall:7.2f} s wall {cpu:7.2f} s CPU {peak:7.0f} MB peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = f"{folder}/memory.sqlite"
        show(
            "import of the release",
            [run(["memory", "import", f"{options.material}/published", "--memory", memory])],
        )
        build = ["build", "--recipe", "paper", "--sources", f"{options.material}/sources", "--memory", memory]
        fresh = [
            run([*build, "--allow-gaps", "--out", f"{folder}/{number}"]) for number in range(options.runs)
        ]
        show("paper, 14 languages, all checks", fresh)
        again = [run([*build, "--allow-gaps", "--out", f"{folder}/0"]) for _ in range(options.runs)]
        show("paper again, nothing changed", again)
        audits = [run(["audit", f"{options.material}/published"], (1,)) for _ in range(options.runs)]
        show("audit of the whole release", audits)
        show("sample, 14 languages", [run(["build", "--recipe", "sample", "--out", f"{folder}/sample"])])


if __name__ == "__main__":
    main()
